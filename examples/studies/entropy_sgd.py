"""Entropy-SGD against SGD, Adam and SWA at equal minibatch gradients: errors, spectra, time.

    make study NAME=entropy_sgd [ARGS=--small]

Digits (MLP 64-64-64-10), a small convolutional net on 6,000 MNIST images at 14 × 14, and the
paper's mnistfc, 784-1024-1024-10 with batch norm and dropout. Learning rates are chosen on
held-out data with a seed of their own, of six for each method on digits, of three for the
convolutional net; on mnistfc they are the published ones. Five seeds; a cell that is there is
not run again. Writes results/entropy_sgd/*.json,
results/entropy_sgd.json and results/entropy_sgd.png.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _study import Given, Outcome, Study, kept
from parts import entropy_methods as methods
from parts import entropy_problems as problems

PUBLISHED = {"SGD": 0.1, "Adam": 1e-3, "SWA": 0.1, "Entropy-SGD": 0.1, methods.CONSTANT: 0.1}
CHOOSING = 1_000  # the seed of the choice; those of the results are 0 to 4
# Gradients; examples, Lanczos steps and probes of the spectrum.
BUDGETS = {"digits": 4_000, "conv": 1_500, "mnistfc": 1_400}
# The share of the gradients that a choice takes, and among which rates.
CHOICES = {"digits": (1.0, slice(None)), "conv": (1.0, slice(3, 6))}
SPECTRA = {"digits": (1_000, 60, 4), "conv": (500, 40, 2), "mnistfc": (250, 20, 2)}
COLUMNS = ("error", "nll", "train_nll", "top", "trace")

STUDY = Study(
    __file__, __doc__, small="digits, two seeds, a short run",
    estimate=("half a minute", "half an hour"),
    options={
        "--problems": {"nargs": "+", "choices": tuple(BUDGETS), "default": tuple(BUDGETS)},
        "--seeds": {"type": int, "default": 5},
    },
    packages=("optax",),
)  # fmt: skip


def make(name: str, small: bool) -> problems.Problem:
    gradients = 400 if small else BUDGETS[name]
    made = {"digits": problems.digits, "conv": problems.convolutional, "mnistfc": problems.mnistfc}
    return made[name](gradients)


def cell(
    folder: Path, problem: problems.Problem, method: str, rate: float, seed: int, spectrum: Any
) -> dict[str, Any]:
    """One training run with its scores, or what is kept of it."""
    name = f"{problem.name}-{method}-{rate:g}-{seed}-{problem.gradients}"

    def run() -> dict[str, Any]:
        params, record = methods.train(problem, method, rate, seed)
        record |= methods.judged(problem, params, seed, *spectrum)
        print(f"{name}: error {record['error']:.2f}%, {record['seconds']:.0f} s", file=sys.stderr)
        return record

    return kept(folder / f"{name}.json", {"spectrum": spectrum}, run)


def chosen(folder: Path, problem: problems.Problem, method: str) -> float:
    """The learning rate of the method."""
    if problem.name == "mnistfc":
        return PUBLISHED[method]
    short, part = CHOICES[problem.name]
    budget = problem._replace(gradients=int(short * problem.gradients))

    def choose() -> dict[str, Any]:
        rate, found = methods.choose(budget, method, CHOOSING, part)
        return {"rate": rate, "nll": found}

    name = f"{problem.name}-{method}-choice-{problem.gradients}.json"
    plan = {"gradients": budget.gradients, "rates": repr(part)}
    return kept(folder / name, plan, choose)["rate"]


def paired(cells: dict[str, list[dict[str, Any]]], method: str, other: str) -> tuple[float, float]:
    """Mean difference of the test errors over seeds, and its standard error."""
    errors = {m: {c["seed"]: c["error"] for c in cells[m]} for m in (method, other)}
    both = sorted(set(errors[method]) & set(errors[other]))
    gaps = np.array([errors[method][s] - errors[other][s] for s in both])
    return float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


def table(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    lines = []
    for name, cells in results.items():
        lines += ["", f"{name}: mean ± standard error over seeds",
                  f"{'':18}{'rate':>7}{'gradients':>10}{'seconds':>9}{'error %':>13}{'NLL':>15}"
                  f"{'train NLL':>17}{'top':>16}{'trace':>18}"
                  f"{'|λ|<1e-4':>10}{'<1e-2':>7}"]  # fmt: skip
        for method, runs in cells.items():
            values = {
                c: (np.mean([r[c] for r in runs]),
                    np.std([r[c] for r in runs], ddof=1) / np.sqrt(len(runs)))
                for c in COLUMNS
            }  # fmt: skip
            near = [np.mean([r["near_zero"][t] for r in runs]) for t in ("0.0001", "0.01")]
            seconds = np.mean([r["seconds"] for r in runs])
            lines.append(
                f"{method:18}{runs[0]['rate']:>7g}{runs[0]['gradients']:>10,}{seconds:>9.1f}"
                + f"{values['error'][0]:>7.2f} ±{values['error'][1]:>4.2f}"
                + f"{values['nll'][0]:>8.4f} ±{values['nll'][1]:>5.4f}"
                + f"{values['train_nll'][0]:>10.5f} ±{values['train_nll'][1]:>5.4f}"
                + f"{values['top'][0]:>9.2f} ±{values['top'][1]:>5.2f}"
                + f"{values['trace'][0]:>11.1f} ±{values['trace'][1]:>5.1f}"
                + f"{near[0]:>10.3f}{near[1]:>7.3f}"
            )
        for ours in ("Entropy-SGD", methods.CONSTANT):
            for other in ("SGD", "Adam", "SWA"):
                gap, error = paired(cells, ours, other)
                word = "better" if gap < 0 else "worse"
                word = "no difference" if abs(gap) <= 2 * error else word
                lines.append(f"  {ours} − {other}: {gap:+.2f} ± {error:.2f} %: {word}")
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Test error against gradients, and the spectra's tails."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(results), 7), layout="constrained")
    axes = figure.subplots(2, len(results), squeeze=False)
    for column, (name, cells) in enumerate(results.items()):
        for method, runs in cells.items():
            points = np.array([r["points"] for r in runs])
            axes[0, column].semilogy(points[0, :, 0], points[:, :, 2].mean(0), label=method)
            nodes, weights = np.array(runs[0]["nodes"]), np.array(runs[0]["weights"])
            order = np.argsort(nodes, axis=None)
            above = 1 - np.cumsum(weights.ravel()[order]) / len(nodes)
            keep = nodes.ravel()[order] > 1e-6
            axes[1, column].loglog(
                nodes.ravel()[order][keep], np.maximum(above[keep], 1e-9), drawstyle="steps-post"
            )
        axes[0, column].set(title=name, xlabel="minibatch gradients", ylabel="test error, %")
        axes[1, column].set(xlabel="eigenvalue λ of the Hessian", ylabel="share above λ, seed 0",
                            ylim=(1e-7, 1), xlim=(1e-5, None))  # fmt: skip
    axes[0, 0].legend()
    figure.savefig(path, dpi=130)


def measure(given: Given) -> Outcome:
    names = ("digits",) if given.small else given.options.problems
    seeds = 2 if given.small else given.options.seeds
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in names:
        problem = make(name, given.small)
        rates = {m: PUBLISHED[m] if given.small else chosen(given.stem, problem, m)
                 for m in methods.METHODS}  # fmt: skip
        spectrum = (200, 10, 2) if given.small else SPECTRA[name]
        results[name] = {method: [] for method in methods.METHODS}
        for seed in range(seeds):
            for method, rate in rates.items():
                made = cell(given.stem, problem, method, rate, seed, spectrum)
                results[name][method].append(made)
    print(table(results))
    record = {
        "results": {
            n: {m: [{k: v for k, v in r.items() if k not in ("nodes", "weights")} for r in runs]
                for m, runs in cells.items()}
            for n, cells in results.items()
        },
    }  # fmt: skip
    return Outcome(record, [], functools.partial(draw, results))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
