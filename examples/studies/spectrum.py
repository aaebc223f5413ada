"""Spectra by Lanczos quadrature, against dense eigenvalues and beside published facts.

    make study NAME=spectrum [ARGS=--small]        SGMCMC_DATA names the data folder

(A) An MLP 64-8-10 (610 parameters) at its mode on scikit-learn's digits: Hessian and Gauss-Newton
matrix of the mean loss by `diagnostics.spectrum` from ten keys, against all eigenvalues of the
dense matrix. Asked of every key: trace within 1%, largest eigenvalue within .1%, density within
2% of its range in Wasserstein distance. (B) The MLP 784-64-10 of Entropy-SGD's paper (50,890
parameters) at its mode on MNIST, on 10,000 training images: how much of the spectrum is near
zero, nothing asked. Small: three keys, and for (B) the digits with 64-64-10.

Writes results/spectrum.json and .png; (B) is kept in results/spectrum/ until its plan changes.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _study import Given, Outcome, Study, kept
from jax.flatten_util import ravel_pytree
from parts.mnist_runs import load

import sgmcmc
from sgmcmc import models
from sgmcmc.diagnostics import Spectrum, curvature_of, spectrum

STUDY = Study(
    __file__, __doc__, small="three keys, digits alone", estimate=("1 minute", "5 minutes"),
    packages=("matfree",),
)  # fmt: skip

KINDS = ("hessian", "gauss_newton")
# Bars of part A, on each key: relative error of the trace and of the largest eigenvalue, and
# distance over range.
BARS = {"trace": 0.01, "largest": 0.001, "distance": 0.02}
STEPS, PROBES = 100, 10
# Sizes, training steps, images of the spectrum, (k, m) of part B.
LARGE = {
    False: ((784, 64, 10), 9_400, 10_000, ((50, 4), (100, 4))),
    True: ((64, 64, 10), 2_000, 1_258, ((30, 2),)),
}
THRESHOLDS = (1e-5, 1e-4, 1e-3, 1e-2)


def trained(sizes: tuple[int, ...], train: Any, steps: int) -> tuple[Any, Any, Any]:
    """(posterior, parameters at its mode, data), N(0, 1) on every weight."""
    data = tuple(map(jnp.asarray, train))
    model = models.mlp(sizes)
    posterior = model.posterior(len(data[1]))
    start = model.init(jax.random.key(0))
    found = sgmcmc.optim.find_mode(
        jax.random.key(1), posterior, start, data, batch_size=128, num_steps=steps,
        learning_rate=0.003,
    )  # fmt: skip
    return posterior, found, data


def dense(posterior: Any, params: Any, data: Any, kind: str) -> np.ndarray:
    """All eigenvalues, ascending, from the matrix column by column."""
    operator = curvature_of(posterior, params, data, curvature=kind)
    flat, unravel = ravel_pytree(operator.params)
    column = lambda v: ravel_pytree(operator(unravel(v)))[0]  # noqa: E731
    matrix = jax.jit(lambda vs: jax.lax.map(column, vs, batch_size=61))(jnp.eye(len(flat)))
    matrix = np.asarray(matrix, np.float64)
    return np.linalg.eigvalsh((matrix + matrix.T) / 2)


def errors(found: Spectrum, exact: np.ndarray) -> dict[str, float]:
    """What part A asks of one key, and what it reports beside."""
    return {
        "trace": abs(found.trace / exact.sum() - 1),
        "largest": abs(found.top[0] / exact[-1] - 1),
        "distance": found.distance(exact) / (exact[-1] - exact[0]),
        "plain": abs(found.trace_of(np.asarray)[0] / exact.sum() - 1),
        "said": found.trace_error / exact.sum(),
        "lowest": abs(found.lowest - exact[0]) / (exact[-1] - exact[0]),
        "near": abs(found.near_zero - np.mean(np.abs(exact) < found.threshold)),
    }


def compare(small: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part A: the errors of every key, and what the picture needs."""
    posterior, params, data = trained((64, 8, 10), load(small=True)[0], 1_500)
    accuracy = jnp.mean(models.mlp((64, 8, 10)).predict(params, data[0]).argmax(1) == data[1])
    rows, pictures = {}, {}
    for kind in KINDS:
        exact = dense(posterior, params, data, kind)
        each = []
        for seed in range(3 if small else 10):
            print(f"{kind}, key {seed}", file=sys.stderr, flush=True)
            started = time.perf_counter()
            found = spectrum(
                jax.random.key(seed), posterior, params, data, curvature=kind,
                num_steps=STEPS, num_probes=PROBES,
            )  # fmt: skip
            each.append(errors(found, exact) | {"seconds": time.perf_counter() - started})
        rows[kind] = {
            "errors": each,
            "accuracy": float(accuracy),
            "exact": {"trace": exact.sum(), "largest": exact[-1], "lowest": exact[0],
                      "near": float(np.mean(np.abs(exact) < 1e-4))},
        }  # fmt: skip
        pictures[kind] = (found, exact)
    return rows, pictures


def large(small: bool) -> dict[str, Any]:
    """Part B: one trained network, its spectrum at each (k, m)."""
    sizes, steps, images, settings = LARGE[small]
    train, test = load(small)
    posterior, params, data = trained(sizes, train, steps)
    logits = models.mlp(sizes).predict(params, jnp.asarray(test[0]))
    out: dict[str, Any] = {"accuracy": float(np.mean(np.asarray(logits).argmax(1) == test[1]))}
    rows = jax.tree.map(lambda x: x[:images], data)
    out["loss"] = float(-jnp.mean(posterior.log_likelihood(params, rows)))
    for kind in KINDS:
        for k, m in settings:
            started = time.perf_counter()
            found = spectrum(
                jax.random.key(2), posterior, params, rows, curvature=kind, num_steps=k,
                num_probes=m, num_trace_probes=50,
            )  # fmt: skip
            out[f"{kind} k = {k}"] = {
                "parameters": found.num_parameters, "k": k, "m": m,
                "trace": (found.trace, found.trace_error),
                "top": found.top.tolist(), "lowest": found.lowest,
                "lowest_bound": found.lowest_bound,
                "within": {str(t): found.share_within(t) for t in THRESHOLDS},
                "nodes": found.nodes.tolist(), "weights": found.weights.tolist(),
                "seconds": time.perf_counter() - started,
            }  # fmt: skip
            print(f"{sizes} {kind} k={k}: {out[f'{kind} k = {k}']['seconds']:.0f} s",
                  file=sys.stderr, flush=True)  # fmt: skip
    return out


def misses(rows: dict[str, Any]) -> list[str]:
    """Keys and figures of part A beyond their bars."""
    return [
        f"{kind}, key {seed}: {name} {row[name]:.2e}, asked {bar:g}"
        for kind, part in rows.items()
        for seed, row in enumerate(part["errors"])
        for name, bar in BARS.items()
        if not row[name] <= bar
    ]


def compare_table(rows: dict[str, Any]) -> str:
    """Part A: median and worst key."""
    lines = ["| error | asked | Hessian: median | worst | Gauss-Newton: median | worst |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    names = {"trace": "trace, relative", "largest": "largest eigenvalue, relative",
             "distance": "density, Wasserstein / range", "plain": "trace by the probes alone",
             "said": "(error that the trace states)", "lowest": "lowest eigenvalue / range",
             "near": "share within 1e-4 of 0, absolute"}  # fmt: skip
    for name, label in names.items():
        cells = []
        for kind in KINDS:
            values = [row[name] for row in rows[kind]["errors"]]
            cells += [f"{np.median(values):.1e}", f"{max(values):.1e}"]
        asked = f"{BARS[name]:g}" if name in BARS else ""
        lines.append(f"| {label} | {asked} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def large_table(found: dict[str, Any]) -> str:
    """Part B, a row a spectrum."""
    heads = " | ".join(f"within {t:g}" for t in THRESHOLDS)
    lines = [f"| | k, m | trace | largest | lowest | {heads} | seconds |",
             "|---|---|---|---|---|" + "---|" * (len(THRESHOLDS) + 1)]  # fmt: skip
    for name, row in found.items():
        if not isinstance(row, dict):
            continue
        shares = " | ".join(f"{100 * s:.1f} ± {100 * e:.1f}%" for s, e in row["within"].values())
        lines.append(
            f"| {name.split()[0]} | {row['k']}, {row['m']} | {row['trace'][0]:.4g} ± "
            f"{row['trace'][1]:.1g} | {row['top'][0]:.4g} | {row['lowest']:.2g} | {shares} | "
            f"{row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def draw(pictures: dict[str, Any], path: Path) -> None:
    """Both densities of part A over those of the dense eigenvalues."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, len(pictures), sharey=True)
    for axis, (found, exact) in zip(axes, pictures.values(), strict=True):
        found.plot(axis)
        grid = np.linspace(exact[0] - 6 * found.width, exact[-1] + 6 * found.width, 2_000)
        bumps = np.exp(-0.5 * ((grid[:, None] - exact) / found.width) ** 2).mean(axis=1)
        axis.plot(grid, bumps / found.width / np.sqrt(2 * np.pi), "k--", lw=0.9, label="dense")
        axis.legend()
    figure.savefig(path, dpi=150)


def measure(given: Given) -> Outcome:
    rows, pictures = compare(given.small)
    plan = {"large": LARGE[given.small], "thresholds": THRESHOLDS}
    second = kept(given.stem / "large.json", plan, functools.partial(large, given.small))
    for kind in KINDS:
        exact = rows[kind]["exact"]
        print(f"{kind}: dense trace {exact['trace']:.4f}, largest {exact['largest']:.4f}, lowest "
              f"{exact['lowest']:.2g}, {exact['near']:.1%} within 1e-4; "
              f"{np.median([r['seconds'] for r in rows[kind]['errors']]):.1f} s a key")  # fmt: skip
    print(compare_table(rows))
    print(f"\n{'-'.join(map(str, LARGE[given.small][0]))}: accuracy {second['accuracy']:.4f}, "
          f"loss {second['loss']:.2g}")  # fmt: skip
    print(large_table(second))
    record = {"errors": rows, "large": second, "bars": BARS}
    return Outcome(record, misses(rows), functools.partial(draw, pictures))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
