"""MNIST: six samplers at equal gradients, beside SGD and deep ensembles.

    make study NAME=mnist_samplers [ARGS=--small]        SGMCMC_DATA names the data folder

MLPs 784-100-10 and 784-256-256-10 with N(0, .1²) priors at T = 1, batches of 128. Everyone
has 20 epochs of gradients a chain: SGD all of them; a sampler's chain 10 of SGD on its own
potential (T = 0) from a fresh start, and 10 of sampling. Steps, frictions and SGD's rates are
those with the least NLL on 5,000 held-out training images, found by `--choose` with another
seed. Asked of the best single chain: accuracy ≥ SGD − .005, NLL ≤ SGD's and ECE ≤ .6 × SGD's,
SGD without weight decay (mean of four seeds). Cells are written as they finish, and an
interrupted study goes on with the next. Writes results/mnist_samplers.json and .png.
"""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _study import Given, Outcome, Rows, Study
from parts.mnist_runs import (
    DECAYS,
    LONG,
    SCORES,
    Bench,
    Setting,
    hold_out,
    judge_modes,
    load,
    run_sampler,
    run_sgd,
)

import sgmcmc
from sgmcmc import models

CHAINS = 4
SEED, CHOOSING_SEED = 0, 1
SAMPLERS = ("sgld", "psgld", "baoab", "ubu", "sgnht", "cyclical")
HALF = "SGD, half"  # where the samplers' chains begin

NETS = {
    "784-100-10": Setting((784, 100, 10), 0.1, 128, 20, 50, 80),
    "784-256-256-10": Setting((784, 256, 256, 10), 0.1, 128, 20, 50, 80),
}
SMALL = {"64-32-10": Setting((64, 32, 10), 0.5, 64, 30, 50, 5)}

STUDY = Study(
    __file__, __doc__, small="scikit-learn's digits, a small net",
    estimate=("half a minute", "20 minutes (--choose: 1 hour)"),
    options={
        "--choose": {"action": "store_true", "help": "search the grids instead"},
        "--net": {"action": "append", "choices": tuple(NETS), "help": "of these networks only"},
    },
    packages=("optax",),
)  # fmt: skip

# What `--choose` tries: SGD's largest rate; h; (h, γ), h/γ being much like a step of SGLD's;
# (h₀, share of a cycle that explores at T = 0).
PAIRS = [(1e-4, 1_000.0), (1e-4, 333.0), (1e-4, 100.0), (3e-4, 1_000.0)]
GRIDS: dict[str, list[tuple[float, ...]]] = {
    **{name: [(0.03,), (0.1,), (0.3,)] for name in DECAYS},
    "sgld": [(1e-7,), (3e-7,), (1e-6,)],
    "psgld": [(3e-6,), (1e-5,), (3e-5,)],
    "baoab": PAIRS,
    "ubu": PAIRS,
    "sgnht": PAIRS,
    "cyclical": [(h, share) for h in (6e-7, 2e-6) for share in (0.0, 0.5)],
}
# What it found on 784-100-10: least NLL on the held-out images, mean of two chains, key 1. The
# larger net takes the same numbers. At SGD's rate .03 the NLL was .0864, at .1 .0859.
FOUND: dict[str, tuple[float, ...]] = {
    "SGD": (0.1,), "SGD wd 1e-4": (0.3,), "SGD wd 5e-4": (0.3,), "SGD wd prior": (0.1,),
    "sgld": (3e-7,), "psgld": (1e-5,), "baoab": (1e-4, 333.0), "ubu": (1e-4, 1_000.0),
    "sgnht": (1e-4, 333.0), "cyclical": (6e-7, 0.5),
}  # fmt: skip
CHOSEN: dict[str, dict[str, tuple[float, ...]]] = {
    "784-100-10": {**FOUND, LONG: (1e-6,)},
    "784-256-256-10": FOUND,
    "64-32-10": {
        **dict.fromkeys(DECAYS, (0.1,)),
        "sgld": (1e-4,), "psgld": (1e-3,), "sgnht": (3e-3, 30.0), "cyclical": (2e-4, 0.5),
    },
}  # fmt: skip
# Of the samplers that are at T = 1 all the time, the one with the least NLL there: a tie, .07801
# as sgnht, and .07803 of sgld.
VALIDATED = "baoab"


def bench_of(setting: Setting, train: Any, test: Any, seed: int, chains: int) -> Bench:
    model = models.mlp(setting.sizes, prior=setting.prior_scale)
    return Bench(setting, model, train, test, jax.random.split(jax.random.key(seed), chains))


def choose(book: Rows, net: str, train: Any) -> dict[str, Any]:
    """The numbers of least NLL on held-out training images: mean of two single chains."""
    bench = bench_of(NETS[net], *hold_out(train, CHOOSING_SEED), CHOOSING_SEED, 2)
    best: dict[str, Any] = {}
    start = None
    for name, grid in GRIDS.items():
        nll = {}
        if name in SAMPLERS and start is None:
            start = bench.modes(best["SGD"][0], 0.0, bench.setting.epochs // 2)
        for numbers in grid:
            label = f"{net} {name} {numbers}"
            row = book.get(label, attempt, bench, name, numbers, start)
            nll[numbers] = mean(row, "nll") if row else math.inf
            print(f"{label}: NLL {nll[numbers]:.4f}", flush=True)
        best[name] = min(nll, key=nll.__getitem__)
    print(f'"{net}": {best},', flush=True)
    return best


def attempt(bench: Bench, name: str, numbers: tuple[float, ...], start: Any) -> Any:
    """A row, or None where a chain diverged."""
    if name in DECAYS:
        return run_sgd(bench, name, numbers)
    try:
        return run_sampler(bench, name, numbers, start, CHOOSING_SEED)
    except sgmcmc.NonFiniteError:
        return None


def mean(row: dict[str, Any], score: str) -> float:
    return float(np.mean([chain[score] for chain in row["chains"]]))


def rows(book: Rows, net: str, setting: Setting, chosen: Any, data: Any) -> dict[str, Any]:
    """The table's rows of one network."""
    bench, half = bench_of(setting, *data, SEED, CHAINS), setting.epochs // 2
    names = [name for name in (*SAMPLERS, LONG) if name in chosen]
    out, start = {}, None
    for name in DECAYS:
        out[name] = book.get(f"{net} {name}", run_sgd, bench, name, chosen[name])
    if any(f"{net} {name}" not in book.rows for name in (HALF, *names)):
        start = bench.modes(chosen["SGD"][0], 0.0, half)
    out[HALF] = book.get(f"{net} {HALF}", judge_modes, bench, start, half)
    for name in names:
        label = f"{net} {name}"
        out[name] = book.get(label, run_sampler, bench, name, chosen[name], start, SEED)
    return out


def table(net: str, found: dict[str, Any], chosen: Any) -> str:
    """Singles as mean [least, greatest]; pooled: the ensemble, or the four chains together."""
    lines = [
        f"{net}; single chains: mean [range]; pooled: accuracy NLL ECE; R̂: 95% and greatest",
        f"{'':14}{'numbers':>14}{'accuracy':>23}{'NLL':>23}{'ECE':>23}{'pooled':>22}"
        f"{'R̂':>13}{'|θ|²/ds²':>9}{'grads':>7}{'time':>7}",
    ]
    for name, row in found.items():
        singles = ""
        for score in SCORES:
            values = [chain[score] for chain in row["chains"]]
            text = f"{mean(row, score):.4f} [{min(values):.4f} {max(values):.4f}]"
            singles += f"{text:>23}"
        numbers = " ".join(f"{v:g}" for v in chosen[name if name in chosen else "SGD"])
        together = " ".join(f"{row['pooled'][score]:.4f}" for score in SCORES)
        rhat = "{1:.2f} {2:.2f}".format(*row["rhat"]) if "rhat" in row else "–"
        lines.append(
            f"{name:14}{numbers:>14}{singles}{together:>22}{rhat:>13}{row['norm']:>9.2f}"
            f"{row['gradients']:>7}{row['seconds']:>6.0f}s"
        )
    return "\n".join(lines)


def verdict(net: str, found: dict[str, Any], small: bool) -> tuple[list[str], list[str]]:
    """What to say of the asked figures, and those that the best single chain misses."""
    # `cyclical` explores at T = 0, and is not among those asked.
    names = [name for name in SAMPLERS if name in found and name != "cyclical"]
    sgd = {score: mean(found["SGD"], score) for score in SCORES}
    bars = {"accuracy": sgd["accuracy"] - 0.005, "nll": sgd["nll"], "ece": 0.6 * sgd["ece"]}
    if small:  # 539 test images say nothing of calibration
        bars = {"accuracy": sgd["accuracy"] - 0.02}
    singles = [(chain["nll"], name, chain) for name in names for chain in found[name]["chains"]]
    _, name, best = min(singles, key=lambda single: single[0])
    missed = []
    for score, bar in bars.items():
        if not (best[score] >= bar if score == "accuracy" else best[score] <= bar):
            missed.append(f"{net}: best single chain's {score} {best[score]:.4f}, asked {bar:.4f}")
    said = [
        f"{net}",
        f"  asked                                  {listed(bars)}",
        f"  best single chain by test NLL, {name:8}{listed(best)}; {len(missed)} missed",
    ]
    if not small:
        fair = {score: mean(found[VALIDATED], score) for score in SCORES}
        half = {score: mean(found[HALF], score) for score in SCORES}
        said += [
            f"  not chosen on the test set: {VALIDATED:11}{listed(fair)} (mean of four chains)",
            f"  where the chains begin: SGD, 10 epochs {listed(half)} (mean of four)",
        ]
    median, most = found[name]["rhat"][:2]
    said.append(
        f"  R̂ of {name}'s predictions: median {median:.2f}, 95% {most:.2f}"
        + (": its chains stay near their modes, and are no draws of one posterior" * (most > 1.2))
    )
    return said, missed


def listed(values: dict[str, float]) -> str:
    return ", ".join(f"{score} {value:.4f}" for score, value in values.items())


def draw(tables: dict[str, Any], path: Path) -> None:
    """NLL and ECE: single chains small, ensembles and pooled chains large."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(tables) + 1.5, 4.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(tables)))
    for axis, (net, found) in zip(axes, tables.items(), strict=True):
        for i, (name, row) in enumerate(found.items()):
            marker = "s" if "rhat" not in row else "o" if i < 10 else "^"
            style = {"color": f"C{i % 10}", "marker": marker}
            points = np.array([[one["nll"], one["ece"]] for one in (*row["chains"], row["pooled"])])
            axis.plot(*points[:-1].T, linestyle="", markersize=4, alpha=0.6, **style)
            axis.plot(*points[-1], linestyle="", markersize=10, label=name, **style)
        nll, ece = mean(found["SGD"], "nll"), mean(found["SGD"], "ece")
        axis.plot([0, nll, nll], [0.6 * ece, 0.6 * ece, 0], "k:", linewidth=0.8)
        least = min(one["nll"] for row in found.values() for one in (*row["chains"], row["pooled"]))
        # Around SGD's; rows far worse are in the table alone.
        axis.set(xlim=(0.95 * least, 1.1 * nll), ylim=(0, 1.7 * ece), title=net)
        axis.set(xlabel="test NLL", ylabel="test ECE (dotted: asked)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=130)


def measure(given: Given) -> Outcome | None:
    options = given.options
    nets = SMALL if given.small else {n: NETS[n] for n in options.net or NETS}
    train, test = load(given.small)
    identity = {
        "nets": {n: s._asdict() for n, s in nets.items()},
        "chosen": GRIDS if options.choose else {n: CHOSEN[n] for n in nets},
        "seed": CHOOSING_SEED if options.choose else SEED,
        "versions": STUDY.versions(),
        "cores": os.cpu_count(),
    }
    # A record that is complete is begun anew.
    head = {"complete": False, "identity": identity}
    if options.choose:
        book = Rows(given.folder / "mnist_samplers_choice.json", head, "cells")
        best = {net: choose(book, net, train) for net in nets}
        book.write(complete=True, best=best)
        return None
    book = Rows(given.json, head, "cells")
    tables = {n: rows(book, n, s, CHOSEN[n], (train, test)) for n, s in nets.items()}
    said, missed = [], []
    for net, found in tables.items():
        print("\n" + table(net, found, CHOSEN[net]))
        one, other = verdict(net, found, given.small)
        said, missed = said + one, [*missed, other]
    print("\n" + "\n".join(said))
    # Asked of one network, the larger or the smaller.
    record = book.record(complete=True, said=said)
    return Outcome(record, min(missed, key=len), functools.partial(draw, tables))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
