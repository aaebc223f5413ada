"""The local learning coefficient against what is known: networks, a sweep, and training.

    make study NAME=learning_coefficient [ARGS=--small]

- Deep linear networks of known λ (`diagnostics.deep_linear_coefficient`), n = 10⁴ examples of
  population loss, ρ = 1, BAOAB from the balanced factorisation; and the same mean at this n and
  ρ by HMC, whose Metropolis test leaves no bias of the step. Named networks, and six drawn at
  random, of which one is among those named. Asked: named ones within 5% of λ at an error of 1%
  at most, a minute of processor time each; all within 4 errors of HMC. Where the multiplicity is
  above 1, λ is approached with the logarithm of n: random ones are held to HMC alone.
- SGLD on 5-5-5 of rank 2, by length of the chains and step: how far it is from HMC. No bar.
- A sweep of 5-3-5 of rank 1 over h, ρ and β. Asked: some cell is stable, the best within 5% of λ.
- A ReLU network of 6-12-1 on teachers of 1, 2, 4 and 8 units, brought to a minimum. Expected,
  and asked: λ̂ rises with every doubling of the teacher, by more than 3 errors.
- The same over training by gradient descent from small weights, teacher of 4 units. Expected,
  and asked: λ̂ nowhere falls by more than 3 errors from a checkpoint to the next, and rises by
  more than 3 from the first that is warned of nothing to the last; the start is warned of.

Writes results/learning_coefficient.json, row by row, and goes on from it; --fresh begins anew.
Draws results/learning_coefficient.png.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _study import FRESH, Given, Outcome, Rows, Study
from parts import learning_networks as networks
from parts import learning_training as training

import sgmcmc
from sgmcmc import diagnostics

STUDY = Study(
    __file__, __doc__, small="does it run at all?",
    estimate=("1 minute", "15 minutes; half of it is HMC;"), options=FRESH,
)  # fmt: skip

SEED, CLOSE, ERRORS, MINUTE = 20, 0.05, 4.0, 60.0
TRAININGS = (11, 12, 13)
SWEEP = {
    "step_sizes": (0.002, 0.004, 0.008, 0.016),
    "precisions": (0.3, 1.0, 3.0, 30.0),
    "inverse_temperatures": (1 / math.log(networks.EXAMPLES), 2 / math.log(networks.EXAMPLES)),
}
# SGLD: steps, and h as a share of .02/(2nβ), which is 1% of what the stiffest direction of the
# minimum allows.
SGLD = ((100_000, 1.0), (400_000, 1.0), (1_600_000, 0.25))
SMALL = 10


def run_networks(record: Callable[..., Any], small: bool) -> list[str]:
    shorter = SMALL if small else 1
    chosen = [networks.NAMED[1]] if small else [*networks.NAMED, *networks.others()]
    head = ("network", "parameters", "λ", "m", "λ̂", "ratio", "R̂", "s", "HMC", "difference")
    rows, missed = [head], []
    for network in chosen:
        row = record(
            f"network {network.name}",
            lambda network=network: networks.estimate(network, SEED, shorter),
        )
        row = row | record(
            f"HMC {network.name}",
            lambda network=network: networks.by_hmc(network, SEED + 1, shorter),
        )
        ratio = row["estimate"] / row["limit"]
        apart = (row["estimate"] - row["hmc"]) / math.hypot(row["error"], row["hmc_error"])
        rows.append((
            network.name, row["parameters"], f"{row['limit']:g}", row["multiplicity"],
            pair(row["estimate"], row["error"]), f"{ratio:.3f}", f"{row['rhat']:.3f}",
            row["processor_seconds"], pair(row["hmc"], row["hmc_error"]), f"{apart:+.1f} errors",
        ))  # fmt: skip
        if abs(apart) > ERRORS:
            missed.append(f"{network.name}: {apart:+.1f} errors from HMC")
        if network.asked and not small:
            if abs(ratio - 1) > CLOSE or row["error"] > 0.01 * row["limit"]:
                missed.append(f"{network.name}: {ratio:.3f} of λ, error {row['error']:.2g}")
            if row["processor_seconds"] > MINUTE:
                missed.append(f"{network.name}: {row['processor_seconds']} s")
    print(table(rows))
    return missed


def run_sgld(record: Callable[..., Any], small: bool) -> list[str]:
    """No criterion: what short chains and small steps give."""
    posterior, weights, data, options = networks.problem(networks.NAMED[2])
    options |= {"kernel": sgmcmc.sgld, "num_chains": 8}

    def make(steps: int, share: float) -> dict[str, Any]:
        began = time.perf_counter()
        found = diagnostics.learning_coefficient(
            jax.random.key(SEED), posterior, weights, data, batch_size=1, precision=1.0,
            step_size=share * 0.01 / float(networks.NBETA), num_steps=steps, **options,
        )  # fmt: skip
        seconds = round(time.perf_counter() - began, 1)
        return {
            "estimate": found.estimate, "error": found.standard_error, "rhat": found.r_hat,
            "time": found.step_size * steps, "seconds": seconds,
        }  # fmt: skip

    rows = [("SGLD on 5-5-5 r2, steps", "h nβ", "time", "λ̂", "R̂", "s")]
    for steps, share in ((1_000, 1.0),) if small else SGLD:
        row = record(f"sgld {steps} {share}", lambda n=steps, share=share: make(n, share))
        rows.append((
            f"{steps:,}", f"{share * 0.01:g}", f"{row['time']:.2f}",
            pair(row["estimate"], row["error"]), f"{row['rhat']:.3f}", row["seconds"],
        ))  # fmt: skip
    print(table(rows))
    return []


def run_sweep(record: Callable[..., Any], small: bool) -> list[str]:
    posterior, weights, data, options = networks.problem(networks.NAMED[1])
    steps = 1_000 if small else 20_000
    axes = {name: values[:2] for name, values in SWEEP.items()} if small else SWEEP

    def make() -> dict[str, Any]:
        began = time.perf_counter()
        found = diagnostics.learning_sweep(
            jax.random.key(SEED + 2), posterior, weights, data, batch_sizes=(1,), num_steps=steps,
            **axes, **options,
        )  # fmt: skip
        best = found.best
        kept = {
            name: np.where(np.isfinite(x := found.grid(column)), x, None).tolist()
            for name, column in (
                ("estimate", "estimate"),
                ("standard_error", "standard_error"),
                ("rhat", "r_hat"),
            )
        }
        return {
            "axes": {name: list(values) for name, values in found.axes.items()},
            "verdict": found.grid("verdict").tolist(),
            "best": None if best is None else [best.estimate, best.standard_error],
            "table": f"{repr(found).splitlines()[0]}\n{found.table.iloc[:, :6].to_string()}",
            "seconds": round(time.perf_counter() - began, 1),
        } | kept

    row = record("sweep 5-3-5 r1", make)
    print(row["table"] + "\n")
    if small:
        return []
    if row["best"] is None:
        return ["sweep: no stable cell"]
    limit = diagnostics.deep_linear_coefficient((5, 3, 5), 1).coefficient
    off = abs(row["best"][0] / limit - 1)
    return [f"sweep: the best cell is off λ by {off:.1%}"] if off > CLOSE else []


def run_teachers(record: Callable[..., Any], small: bool) -> list[str]:
    shorter = SMALL if small else 1
    sizes = (1, 8) if small else training.TEACHERS
    rows, missed = [("units of the teacher", *sizes)], []
    for seed in TRAININGS[:1] if small else TRAININGS:
        found = [
            record(
                f"teacher {units} seed {seed}",
                lambda units=units, seed=seed: training.trained(units, seed, shorter),
            )
            for units in sizes
        ]
        rows.append((f"λ̂, seed {seed}", *(pair(x["estimate"], x["error"]) for x in found)))
        warned = sum(bool(x["warnings"]) for x in found)
        if warned:
            missed.append(f"teachers, seed {seed}: {warned} minima were warned of")
        rises = [rise(a, b) for a, b in itertools.pairwise(found)]
        if min(rises) <= 3:
            missed.append(f"teachers, seed {seed}: rises by {rises} errors")
    print(table(rows))
    return [] if small else missed


def run_training(record: Callable[..., Any], small: bool) -> list[str]:
    rows: list[tuple[Any, ...]] = []
    missed = []
    for seed in TRAININGS[:1] if small else TRAININGS:
        found = record(
            f"training seed {seed}",
            lambda seed=seed: training.over_training(seed, SMALL if small else 1),
        )
        rows = rows or [("steps of descent", *found)]
        rows += [
            (f"loss, seed {seed}", *(f"{x['loss']:.3f}" for x in found.values())),
            ("λ̂", *(pair(x["estimate"], x["error"]) for x in found.values())),
            ("warned of", *(len(x["warnings"]) for x in found.values())),
        ]
        all_of_them = list(found.values())
        rises = [rise(a, b) for a, b in itertools.pairwise(all_of_them)]
        if min(rises) < -3:
            missed.append(f"training, seed {seed}: λ̂ falls by {-min(rises):.1f} errors")
        sound = [x for x in all_of_them if not x["warnings"]]
        if not sound or sound[-1] is not all_of_them[-1] or rise(sound[0], sound[-1]) <= 3:
            missed.append(f"training, seed {seed}: no rise among the checkpoints without warnings")
        if not all_of_them[0]["warnings"]:
            missed.append(f"training, seed {seed}: the start was not warned of")
    print(table(rows))
    return [] if small else missed


def rise(before: dict[str, Any], after: dict[str, Any]) -> float:
    """In standard errors of the difference."""
    return (after["estimate"] - before["estimate"]) / math.hypot(after["error"], before["error"])


def pair(value: float, error: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def table(rows: list[tuple[Any, ...]]) -> str:
    wide = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(str(x).rjust(w) for x, w in zip(row, wide, strict=True)) for row in rows]
    return "\n".join(lines) + "\n"


def draw(rows: dict[str, Any], path: Path) -> None:
    """λ̂ over λ; λ̂ over the sweep; over teachers; over training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4), layout="constrained")
    axes = figure.subplots(1, 4)
    found = {k.split(" ", 1)[1]: v for k, v in rows.items() if k.startswith("network")}
    for name, x in found.items():
        ratio, error = x["estimate"] / x["limit"], 2 * x["error"] / x["limit"]
        axes[0].errorbar(ratio, name, xerr=error, fmt="o", color="C0")
        axes[0].plot(rows[f"HMC {name}"]["hmc"] / x["limit"], name, "kx")
    axes[0].axvspan(0.95, 1.05, alpha=0.15, color="C2")
    axes[0].set(xlabel="λ̂/λ (2 errors); × HMC; band: 5%")
    swept = rows["sweep 5-3-5 r1"]
    for i, h in enumerate(swept["axes"]["step_size"]):
        values = [math.nan if x[0][0] is None else x[0][0] for x in swept["estimate"][i]]
        axes[1].plot(swept["axes"]["precision"], values, "o-", label=f"h = {h:g}")
    axes[1].axhline(8, color="k", lw=0.8, label="λ")
    axes[1].set(xscale="log", xlabel="precision ρ", ylabel="λ̂ of 5-3-5 r1, β = 1/log n")
    axes[1].legend()
    for seed in TRAININGS:
        sizes = [n for n in training.TEACHERS if f"teacher {n} seed {seed}" in rows]
        trained = [rows[f"teacher {n} seed {seed}"] for n in sizes]
        values, errors = ([x[name] for x in trained] for name in ("estimate", "error"))
        axes[2].errorbar(sizes, values, 2 * np.array(errors), fmt="o-", label=f"seed {seed}")
        over = rows.get(f"training seed {seed}", {})
        steps = [max(int(k), 30) for k in over]
        values = [v["estimate"] for v in over.values()]
        (line,) = axes[3].plot(steps, values, "-", lw=0.8)
        for step, x in zip(steps, over.values(), strict=True):
            axes[3].errorbar(step, x["estimate"], 2 * x["error"], fmt="o", color=line.get_color(),
                             mfc="w" if x["warnings"] else line.get_color())  # fmt: skip
    axes[2].set(xscale="log", xlabel="units of the teacher", ylabel="λ̂ at the minimum, ρ = 10")
    axes[2].set_xticks(training.TEACHERS, map(str, training.TEACHERS))
    axes[2].set_xticks([], minor=True)
    axes[2].legend()
    axes[3].set(xscale="log", yscale="symlog", xlabel="steps of descent (0 at 30)",
                ylabel="λ̂, ρ = 300; open: warned of")  # fmt: skip
    figure.savefig(path, dpi=150)


def measure(given: Given) -> Outcome:
    head = {"versions": STUDY.versions(), "seed": SEED, "small": given.small}
    rows = Rows(given.json, head, fresh=given.options.fresh)
    missed: list[str] = []
    for part in (run_networks, run_sgld, run_sweep, run_teachers, run_training):
        missed += part(rows.get, given.small)
    return Outcome(rows.record(), missed, functools.partial(draw, rows.rows))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
