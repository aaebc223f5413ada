"""Networks under sharp priors: SGLD, pSGLD and SA-SGLD over step sizes, at equal gradients.

    make study NAME=sharp_priors [ARGS=--small]        SGMCMC_DATA names the data folder

MNIST under Laplace, Student-t and horseshoe-like priors at T = 1: an MLP 784-32-32-10 on all
60,000 images with three seeds, and a small convolutional network on the first 6,000 at 14 × 14
pixels (Laplace, one seed). Chains begin after one epoch of SGD over the first 6,000 images and
make the same number of steps at each step size; draws are those of the second half. SA-SGLD has
the papers' ψ (m = .1, M = 10, r = .25), and one with r = 1, m = 1e-3, M = 1e3; both clocks
remember ten steps, and their Ω is such that ζ = 1, and so dt = Δτ, at the start.

Asked of SA-SGLD with r = 1, for each prior, by medians over the seeds: that it is finite at a
step ≥ 5 × the least at which SGLD is not; a usable range, in which the NLL is within .02 of its
best, ≥ 1.5 × that of SGLD; and a best NLL within .01 of SGLD's. Cells are written as they end,
and an interrupted study goes on with the next. Writes results/sharp_priors.json and .png; the
exit code is 1 where something that was asked is missed.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

from _study import Given, Outcome, Study, kept
from parts.mnist_runs import load
from parts.sharp_report import criteria, draw, table
from parts.sharp_runs import PRIORS, SAMPLERS, Problem, Setting, cell, problem

STUDY = Study(
    __file__, __doc__, small="scikit-learn's digits, nothing asked",
    estimate=("half a minute", "an hour"),
    options={
        "--part": {"choices": ("mlp", "cnn", "all"), "default": "all"},
        "--kept": {"action": "store_true", "help": "tables of the cells on disk only"},
    },
)  # fmt: skip

MLP, CNN = "784-32-32-10", "convolutional"
SETTINGS = {
    MLP: Setting((784, 32, 32, 10), None, (6_000, 0.1), 100, 1_000, 20, 4),
    CNN: Setting((), 6_000, (6_000, 0.1), 50, 400, 10, 4),
}
STEPS = {
    MLP: [1e-6, 3.2e-6, 5.6e-6, 7.5e-6, 1e-5, 1.3e-5, 1.8e-5, 3.2e-5,
          1e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1],
    CNN: [1e-6, 1e-5, 3.2e-5, 4.2e-5, 5.6e-5, 7.5e-5, 1e-4, 1.3e-4, 1.8e-4, 2.4e-4, 3.2e-4,
          1e-3, 1e-2, 1e-1, 1.0, 10.0],
}  # fmt: skip
# pSGLD's are of a preconditioned gradient, whose entries are of order 1.
PSGLD = [1e-4, 1e-3, 3.2e-3, 5.6e-3, 1e-2, 1.8e-2, 3.2e-2, 1e-1]
SEEDS = (0, 1, 2)
DIGITS = Setting((64, 16, 10), None, (400, 0.1), 50, 200, 4, 4)

# What a study is made of: network, prior, seed.
Group = tuple[str, str, int]


def groups(part: str) -> list[Group]:
    """The order of the full run: each seed of all priors in turn."""
    if part == "small":
        return [("64-16-10", "horseshoe", 0)]
    mlp = [(MLP, prior, seed) for seed in SEEDS for prior in PRIORS]
    cnn = [(CNN, "Laplace", 0)]
    return {"mlp": mlp, "cnn": cnn, "all": mlp + cnn}[part]


def grid(network: str, sampler: str) -> list[float]:
    if network not in STEPS:
        return [1e-4, 1e-3]
    return PSGLD if sampler == "pSGLD" else STEPS[network]


def make(group: Group, setting: Setting, problems: list[Problem], data: Any, *what: Any) -> Any:
    """One cell, with its problem made for the first that needs it."""
    if not problems:
        problems.append(problem(setting, group[1], data, group[2]))
    return {"level": problems[0].level, **cell(problems[0], *what)}


def cells_of(group: Group, data: Any, folder: Path, only_kept: bool) -> dict[str, Any]:
    """Cells of a network, prior and seed by sampler and step; those on disk are not made again."""
    setting, found, problems = SETTINGS.get(group[0], DIGITS), {}, []
    name = " ".join(map(str, group))
    for sampler in SAMPLERS:
        found[sampler] = {}
        for h in grid(group[0], sampler):
            plan = {"group": group, "setting": setting, "sampler": sampler, "h": h}
            path = folder / name.replace(" ", "_") / f"{sampler} {h:g}.json"
            if only_kept and not path.exists():
                continue
            compute = functools.partial(make, group, setting, problems, data, sampler, h)
            row = found[sampler][h] = kept(path, plan, compute)
            said = f"NLL {row['nll']:.4f}" if "nll" in row else f"lost at step {row['first']}"
            print(f"{name} {sampler} {h:g}: {said}, {row['seconds']:.1f} s",
                  file=sys.stderr, flush=True)  # fmt: skip
    return found


def measure(given: Given) -> Outcome:
    data = load(given.small)
    plan = groups("small" if given.small else given.options.part)
    found = {group: cells_of(group, data, given.stem, given.options.kept) for group in plan}
    found = {group: cells for group, cells in found.items() if all(cells.values())}
    said, missed = criteria(found)
    print("\n".join([table(found), "", *said]))
    record = {
        "cells": [{"group": group, "samplers": cells} for group, cells in found.items()],
        "said": said, "missed": missed,
    }  # fmt: skip
    return Outcome(record, [] if given.small else missed, functools.partial(draw, found))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
