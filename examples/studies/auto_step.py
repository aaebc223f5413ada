"""`step_size=None` against a grid of steps: effective draws per gradient, and bias.

    make study NAME=auto_step [ARGS=--small]

The sampler is `baoab(posterior, None, friction="auto")`. Its step and friction are chosen once a
target; then the chosen step, and those that are 1/8, 1/4, 1/2, 2 and 4 times as long, are run at
the chosen friction, with the same number of gradients. Targets (parts/auto_step_targets.py):
Gaussians of condition number 1, 10² and 10⁴, logistic regression with all data and with
minibatches, the five of posteriordb under the inverse Hessian at their mode as metric, and
networks on digits and on MNIST (parts/auto_step_networks.py).

A step counts as unbiased where no mean is off by more than .1 standard deviations and no
standard deviation by more than 10%, three Monte Carlo standard errors aside: of the parameters,
and of the principal directions of the reference's correlation. A second share has the
parameters alone. For the networks, against full batches at an eighth of the word's limit, from
whose last places all chains begin: where mean |θ|²/d is within 2% and a draw's loss, on the
training and on the test data, within .02 on average, three standard errors aside, and the mean
probabilities of the test labels within .2 standard deviations, both in root mean square. Asked:
the chosen step is unbiased and has at least half the ESS per gradient of the best unbiased step
of the grid (ESS: bulk, the worst parameter's; a network's: the median over the probabilities of
the test labels that vary by .01 in the reference). What fails is listed: failures are the
result, and no error.

Writes results/auto_step.json, from which an interrupted study goes on, and results/auto_step.png.
Posteriordb's targets and MNIST need SGMCMC_DATA, and are left out without it.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
from _study import FRESH, Given, Outcome, Rows, Study
from parts.auto_step_targets import DIRECTIONS, SEED, Target, names, target

import sgmcmc

STUDY = Study(
    __file__, __doc__, small="one Gaussian, short chains", estimate=("20 seconds", "10 minutes"),
    options={**FRESH, "--only": {"help": "targets whose name has this in it"}},
)  # fmt: skip

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
LIMITS = {"mean": 0.1, "sd": 0.1, "standard_errors": 3.0, "norm": 0.02, "loss": 0.02,
          "labels": 0.2, "share": 0.5, "reference_rhat": 1.1,
          "network_rhat": 1.5}  # fmt: skip
SMALL_TARGETS = ("gaussian, condition 100",)


def kernel_of(made: Target, step_size: float | None, friction: float | str) -> sgmcmc.Kernel:
    return sgmcmc.baoab(made.posterior, step_size, friction=friction, metric=made.metric)


def run(made: Target, kernel: sgmcmc.Kernel, key: jax.Array, num_samples: int, burnin: int):
    return sgmcmc.sample(
        key, kernel, made.start, made.data, batch_size=made.batch_size, stream=made.stream,
        num_chains=4, num_burnin=burnin, num_samples=num_samples, thinning=made.thinning,
        progress=False,
    )  # fmt: skip


def choose(made: Target) -> dict:
    """What `step_size=None` chose, or the error that it raised."""
    try:
        first = run(made, kernel_of(made, None, "auto"), jax.random.key(SEED), 2, 1)
    except FloatingPointError as error:
        return {"error": str(error)}
    return {**first.tuning._asdict(), "text": repr(first.tuning)}


def cell(made: Target, step_size: float, friction: float) -> dict:
    """One step of the grid: ESS per gradient and what is judged."""
    began = time.perf_counter()
    kernel = kernel_of(made, step_size, friction)
    steps = made.num_samples * made.thinning
    try:
        done = run(made, kernel, jax.random.key(SEED + 1), made.num_samples, steps // 5)
    except sgmcmc.NonFiniteError:
        return {"step_size": step_size, "diverged": True}
    gradients = done.gradient_evaluations * steps / (steps + steps // 5)
    found = made.judge(done)
    return {
        "step_size": step_size,
        "gradients": gradients,
        "ess_per_1000": 1000 * found["ess"] / gradients,
        **found,
        "seconds": round(time.perf_counter() - began, 1),
    }


def unbiased(row: dict, directions: bool = True) -> bool:
    """Whether a cell is within the tolerances, Monte Carlo errors aside."""
    if row.get("diverged") or not np.isfinite(row["ess"]):
        return False
    aside = LIMITS["standard_errors"]
    if "norm_ratio" in row:
        return (
            abs(row["norm_ratio"] - 1) - aside * row["norm_ratio_mcse"] <= LIMITS["norm"]
            and abs(row["train_error"]) - aside * row["train_error_mcse"] <= LIMITS["loss"]
            and abs(row["test_error"]) - aside * row["test_error_mcse"] <= LIMITS["loss"]
            and row["label_error"] <= LIMITS["labels"]
        )
    judged = [directions or not name.startswith(DIRECTIONS) for name in row["names"]]
    mean = np.abs(row["mean_error"]) - aside * np.array(row["mean_error_mcse"])
    sd = np.abs(np.array(row["sd_ratio"]) - 1) - aside * np.array(row["sd_ratio_mcse"])
    return bool(np.all(mean[judged] <= LIMITS["mean"]) and np.all(sd[judged] <= LIMITS["sd"]))


def share_of_best(rows: list[dict], directions: bool = True) -> float | None:
    """The chosen step's ESS per gradient over that of the best unbiased one."""
    fits = [row["ess_per_1000"] for row in rows if unbiased(row, directions)]
    return rows[FACTORS.index(1.0)]["ess_per_1000"] / max(fits) if fits else None


def verdict(result: dict) -> dict:
    """Share of the best unbiased ESS per gradient, and what fails, in words."""
    if "error" in result["tuning"]:
        return {"share": None, "failure": "no step: " + result["tuning"]["error"][:120]}
    rows = result["grid"]
    chosen = rows[FACTORS.index(1.0)]
    if chosen.get("diverged"):
        return {"share": None, "failure": "the chosen step diverges"}
    if chosen.get("reference_rhat", 1.0) > LIMITS["reference_rhat"]:
        rhat = chosen["reference_rhat"]
        return {"share": None, "failure": f"no verdict: the reference's R̂ is {rhat:.2f}"}
    if "norm_ratio" in chosen and chosen["rhat"] > LIMITS["network_rhat"]:
        return {"share": None, "failure": f"no verdict: its own R̂ is {chosen['rhat']:.2f}"}
    share = share_of_best(rows)
    found = {"share": share, "share_by_parameters": share_of_best(rows, directions=False)}
    if not unbiased(chosen):
        return {**found, "failure": "the chosen step is biased"}
    if share is not None and share < LIMITS["share"]:
        return {**found, "failure": f"{share:.2f} of the best ESS per gradient"}
    return {**found, "failure": None}


def worst(row: dict) -> str:
    """The largest bias of a cell, in words."""
    if row.get("diverged"):
        return "diverged"
    if "norm_ratio" in row:
        return (
            f"|θ|² {row['norm_ratio']:.3f} ± {row['norm_ratio_mcse']:.3f}, loss "
            f"{row['train_loss']:.4f} ({row['train_error']:+.4f} ± {row['train_error_mcse']:.4f}), "
            f"test {row['test_loss']:.3f} ({row['test_error']:+.3f} ± "
            f"{row['test_error_mcse']:.3f}), labels {row['label_error']:.2f}"
        )
    ratio = np.array(row["sd_ratio"])
    at = int(np.argmax(np.abs(ratio - 1)))
    return f"sd {ratio[at]:.3f} ± {row['sd_ratio_mcse'][at]:.3f} of {row['names'][at]}"


def table(results: dict[str, dict]) -> str:
    lines = ["ESS per 1,000 gradients (× where biased, – where it diverged) at h × "
             + ", ".join(f"{f:g}" for f in FACTORS)]  # fmt: skip
    for name, result in results.items():
        tuning, judged = result["tuning"], result["verdict"]
        if "error" in tuning:
            lines.append(f"{name:28} {judged['failure']}")
            continue
        cells = [
            "–" if r.get("diverged") else f"{r['ess_per_1000']:.3g}{'' if unbiased(r) else '×'}"
            for r in result["grid"]
        ]
        shares = [judged.get("share"), judged.get("share_by_parameters")]
        share = " ".join("none" if s is None else f"{s:.2f}" for s in shares)
        lines.append(
            f"{name:28}{tuning['step_size']:>10.3g}{tuning['friction']:>9.3g} "
            f"{tuning['reason'][:14]:14}" + "".join(f"{c:>9}" for c in cells)
            + f"{share:>11}  {worst(result['grid'][FACTORS.index(1.0)])}"
            + (f"  FAILS: {judged['failure']}" if judged["failure"] else "")
        )  # fmt: skip
    return "\n".join(lines)


def draw(results: dict[str, dict], path: Path) -> None:
    """ESS per gradient, as a share of the best unbiased, against the step; biased ones hollow."""
    from matplotlib.figure import Figure

    shown = {name: r for name, r in results.items() if "grid" in r}
    columns = min(4, max(len(shown), 1))
    lines = -(-max(len(shown), 1) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (name, result) in zip(axes.flat, shown.items(), strict=False):
        rows = [(f, r) for f, r in zip(FACTORS, result["grid"], strict=True) if "ess" in r]
        axis.plot([f for f, _ in rows], [r["ess_per_1000"] for _, r in rows], "C0:", linewidth=1)
        for factor, row in rows:
            axis.plot(
                factor, row["ess_per_1000"], "oC0", fillstyle=("full" if unbiased(row) else "none")
            )
        axis.axvline(1, color="0.8", zorder=0)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_title(name, fontsize=9)
    figure.supxlabel("step / the chosen step (filled: unbiased; lacking: diverged)")
    figure.supylabel("ESS per 1,000 gradients")
    figure.savefig(path, dpi=110)


def measure(given: Given) -> Outcome:
    data = os.environ.get("SGMCMC_DATA")
    folder = None if data is None else Path(data)
    only = given.options.only or ""
    chosen = [name for name in (SMALL_TARGETS if given.small else names(folder)) if only in name]
    head = {"seed": SEED, "factors": FACTORS, "limits": LIMITS, "versions": STUDY.versions(),
            "small": given.small}  # fmt: skip
    rows = Rows(given.json, head, "targets", given.options.fresh)
    for name in chosen:
        extend(rows, name, folder, given.small)
    for result in rows.rows.values():
        if len(result.get("grid", ())) == len(FACTORS):
            result["verdict"] = verdict(result)
    whole = {name: result for name, result in rows.rows.items() if "verdict" in result}
    print(table(whole))
    failures = [
        f"{n}: {r['verdict']['failure']}" for n, r in whole.items() if r["verdict"]["failure"]
    ]
    for line in failures:
        print("FAILS", line, file=sys.stderr)
    print(f"{len(whole)} targets, {len(failures)} failures")
    # Failures are the result. Of short chains they are errors, but for ESS too noisy to judge by.
    wrong = [line for line in failures if "of the best" not in line] if given.small else []
    return Outcome(rows.record(), wrong, functools.partial(draw, whole))


def extend(rows: Rows, name: str, data: Path | None, small: bool) -> None:
    """What is lacking of a target's row: its choice, steps of its grid, its verdict."""
    result = rows.rows.setdefault(name, {})
    if len(result.get("grid", ())) == len(FACTORS) or "error" in result.get("tuning", {}):
        return
    made = target(name, data, small=small)
    if "tuning" not in result:
        result["tuning"] = choose(made)
    print(f"{name}: {result['tuning'].get('text', result['tuning'])}", file=sys.stderr)
    if "error" not in result["tuning"]:
        made = made.prepare(made, result["tuning"])
        result.setdefault("grid", [])
        for factor in FACTORS[len(result["grid"]) :]:
            step = factor * result["tuning"]["step_size"]
            row = cell(made, step, result["tuning"]["friction"])
            result["grid"].append(row)
            print(f"  h {step:.3g}: {worst(row)}", file=sys.stderr)
            rows.write()
    result["verdict"] = verdict(result)
    rows.write()


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
