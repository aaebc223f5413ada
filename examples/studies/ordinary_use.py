"""Every kernel under every stream of batches from the starts that users make, after 1,000 steps.

    make study NAME=ordinary_use [ARGS=--small]

A linear regression with a closed posterior, N = 240, d = 3, batches of 60 (or all data, stream
"full"). One call of `sample` for each kernel and stream: the default burn-in of 1,000 steps, 2,000
draws of 64 chains, sixteen from each of four starts: 0, a draw of the prior, 5 in every
coordinate, the mode. Each entry is the variance of the draws over the exact one, of the coordinate
that is farthest off, and z, that error in standard errors, which are those of 16 independent
chain means. Asked: no entry is off by more than its kernel's stated bias and five standard errors.
The stated bias is the word's own at this step, and under minibatches the heat of independent
batches, h s²/(2γT) (overdamped h s²/(2T)) with the gradient noise's largest variance s² in units
of the curvature; sweeps leave less of it. Where a kernel does not bear a stream the call is a
ValueError, and the entry "refused". Writes results/ordinary_use.json, from which an interrupted
study goes on, and results/ordinary_use.png.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _study import FRESH, Given, Outcome, Rows, Study

import sgmcmc
from sgmcmc import metrics

STUDY = Study(
    __file__, __doc__, small="three kernels, two streams", estimate=("30 seconds", "5 minutes"),
    options=FRESH,
)  # fmt: skip

N, BATCH, SIZE = 240, 60, 3
STREAMS = ("with_replacement", "reshuffled", "symmetric", "cyclic", "full")
STARTS = ("0", "prior", "5", "mode")
EACH, DRAWS, SEED = 16, 2_000, 5
# Steps: h and γ of underdamped kernels, h of overdamped ones, and psgld's, under G.
H, FRICTION, SHORT, SCALED = 0.01, 40.0, 2e-4, 0.01
STANDARD_ERRORS = 5


class Problem(NamedTuple):
    """The posterior with its data, its closed law, and the noise of a batch's gradient.

    `curvature` is the largest of U, `noise` the largest variance in a coordinate, `uneven` the
    largest share by which a direction's differs from the mean.
    """

    posterior: sgmcmc.Posterior
    data: Any
    mean: np.ndarray
    covariance: np.ndarray
    curvature: float
    noise: float
    uneven: float


class Row(NamedTuple):
    """A kernel, and what it says of its law at its step.

    `own`: the error of a variance under gradients of all data; `heat`: what independent batches
    add to it. `batched`: whether it takes minibatches.
    """

    build: Callable[[Problem], Any]
    own: float
    heat: Callable[[Problem], float]
    batched: bool = True


def log_likelihood(theta: Any, batch: Any) -> Any:
    x, y = batch
    return -0.5 * (y - x @ theta) ** 2


def log_prior(theta: Any) -> Any:
    return -0.5 * jnp.sum(theta**2)


def problem() -> Problem:
    rng = np.random.default_rng(SEED)
    x = np.concatenate([np.ones((N, 1)), rng.normal(size=(N, SIZE - 1))], axis=1)
    y = x @ [1.0, -2.0, 0.5] + rng.normal(size=N)
    precision = x.T @ x + np.eye(SIZE)
    mean = np.linalg.solve(precision, x.T @ y)
    each = N * (x @ mean - y)[:, None] * x
    noise = np.cov(each.T) / BATCH
    directions = np.linalg.eigvalsh(noise)
    data = (x.astype(np.float32), y.astype(np.float32))
    return Problem(
        sgmcmc.Posterior(log_likelihood, log_prior, data_size=N), data, mean,
        np.linalg.inv(precision), float(np.linalg.eigvalsh(precision)[-1]),
        float(directions[-1]), float(np.max(np.abs(directions / directions.mean() - 1))),
    )  # fmt: skip


def under(name: str, **options: Any) -> Callable[[Problem], Any]:
    return lambda p: getattr(sgmcmc, name)(p.posterior, H, friction=FRICTION, **options)


def over(name: str, step: float = SHORT, **options: Any) -> Callable[[Problem], Any]:
    return lambda p: getattr(sgmcmc, name)(p.posterior, step, **options)


def replicas(p: Problem) -> Any:
    return sgmcmc.replica_exchange(under("baoab")(p), [1.0, 1.5], swap_every=2)


def compensated(p: Problem) -> Any:
    # In each coordinate; what is left of the noise is its correlation.
    return under("sghmc", noise_estimate=p.noise)(p)


def momentum_heat(p: Problem) -> float:
    return H * p.noise / (2 * FRICTION)


def step_heat(p: Problem) -> float:
    return SHORT * p.noise / 2


def uneven_heat(p: Problem) -> float:
    """Of a kernel that takes the mean of the noise out."""
    return momentum_heat(p) * p.uneven


def scaled_heat(p: Problem) -> float:
    """Under G = 1/√V with V about λ + s²."""
    return SCALED * p.noise / (2 * np.sqrt(p.noise))


def none(p: Problem) -> float:
    return 0.0


FROZEN = metrics.rmsprop(gamma=False, freeze_after=900)
KERNELS = {
    "sgld": Row(over("sgld"), 0.05, step_heat),
    "leimkuhler_matthews": Row(over("leimkuhler_matthews"), 0.0, step_heat),
    "psgld, G frozen": Row(over("psgld", SCALED, metric=FROZEN), 0.15, scaled_heat),
    "sa_sgld": Row(over("sa_sgld"), 0.05, lambda p: 4 * step_heat(p)),
    "euler_maruyama": Row(under("euler_maruyama"), 0.1, momentum_heat),
    "sghmc": Row(under("sghmc"), 0.1, momentum_heat),
    "sghmc, V̂ given": Row(compensated, 0.1, uneven_heat),
    "baoab": Row(under("baoab"), 0.0, momentum_heat),
    "obabo": Row(under("obabo"), 0.02, momentum_heat),
    "ubu": Row(under("ubu"), 0.02, momentum_heat),
    "sort": Row(under("sort"), 0.02, momentum_heat),
    "sgnht": Row(under("sgnht"), 0.02, uneven_heat),
    "samadams": Row(under("samadams"), 0.05, lambda p: 4 * momentum_heat(p)),
    "replica_exchange": Row(replicas, 0.0, lambda p: momentum_heat(p) + 0.05),
    "amagold": Row(under("amagold", num_steps=3), 0.0, none),
    "sggmc": Row(under("sggmc", num_steps=3), 0.0, none),
    "mala": Row(over("mala", 2e-3), 0.0, none, batched=False),
    "hmc": Row(over("hmc", 0.04, num_steps=4), 0.0, none, batched=False),
}
SMALL = (("baoab", "sgnht", "psgld, G frozen"), ("with_replacement", "full"))


def starts(p: Problem) -> Any:
    """Chains × d: `EACH` of every start."""
    prior = np.random.default_rng(SEED + 1).normal(size=(EACH, SIZE))
    places = [np.zeros(SIZE), prior, np.full(SIZE, 5.0), p.mean]
    stacked = np.concatenate([np.broadcast_to(place, prior.shape) for place in places])
    return jnp.asarray(stacked, jnp.float32)


def entry(p: Problem, name: str, stream: str) -> dict[str, Any]:
    """One run: the worst coordinate of each start, or that the kernel refused the stream."""
    row, began = KERNELS[name], time.perf_counter()
    try:
        if stream != "full" and not row.batched:
            raise ValueError(f"batch_size: {name} takes all data")
        run = sgmcmc.sample(
            jax.random.key(SEED), row.build(p), starts(p), p.data, stream=stream,
            batch_size=None if stream == "full" else BATCH, num_chains=EACH * len(STARTS),
            num_samples=DRAWS, chain_method="vmap", progress=False,
        )  # fmt: skip
    except ValueError as error:
        return {"refused": str(error)}
    variance = np.diag(p.covariance)
    weights = run.weights[..., None]
    away = (np.asarray(run.draws, float) - p.mean) ** 2 / variance - 1
    by_chain = (weights * away).mean(axis=1) / weights.mean()
    stated = row.own + (0.0 if stream == "full" else row.heat(p))
    found: dict[str, Any] = {"stated": round(stated, 3), "starts": {}}
    for start, chains in zip(STARTS, np.split(by_chain, len(STARTS)), strict=True):
        error, mcse = chains.mean(axis=0), chains.std(axis=0, ddof=1) / np.sqrt(EACH)
        worst = int(np.argmax(np.abs(error)))
        beyond = np.max(np.abs(error) - stated - STANDARD_ERRORS * mcse)
        found["starts"][start] = {
            "ratio": round(1 + float(error[worst]), 3),
            "z": round(float(error[worst] / mcse[worst]), 1),
            "missed": bool(not beyond <= 0),
        }
    found["seconds"] = round(time.perf_counter() - began, 1)
    return found


def table(rows: dict[str, Any]) -> str:
    lines = [
        f"| kernel | stream | stated bias | {' | '.join(f'from {s}' for s in STARTS)} |",
        "|---|---|---|" + "---|" * len(STARTS),
    ]
    for label, made in rows.items():
        name, stream = label.split(" / ")
        if "refused" in made:
            entries = ["", *("refused" for _ in STARTS)]
        else:
            parts = made["starts"].values()
            entries = [
                f"{made['stated']:.2f}",
                *(f"{x['ratio']:.2f} ({x['z']:+.1f})" for x in parts),
            ]
        lines.append(f"| {name} | {stream} | {' | '.join(entries)} |")
    return "\n".join(lines)


def missed(rows: dict[str, Any]) -> list[str]:
    return [
        f"{label} from {start}: variance {x['ratio']} of the exact one, z {x['z']:+.1f}; "
        f"stated bias {made['stated']}"
        for label, made in rows.items()
        for start, x in made.get("starts", {}).items()
        if x["missed"]
    ]


def measure(given: Given) -> Outcome:
    names, streams = SMALL if given.small else (tuple(KERNELS), STREAMS)
    p = problem()
    head = {"size": [N, BATCH, SIZE], "chains": EACH, "draws": DRAWS, "seed": SEED,
            "steps": [H, FRICTION, SHORT, SCALED], "versions": STUDY.versions()}  # fmt: skip
    rows = Rows(given.json, head, "rows", given.options.fresh)
    labels = [(name, stream) for name in names for stream in streams]
    made = {f"{n} / {s}": rows.get(f"{n} / {s}", entry, p, n, s) for n, s in labels}
    print(table(made))
    refused = sum("refused" in x for x in made.values())
    print(f"{len(made)} runs, {refused} of them refused", file=sys.stderr)
    return Outcome(rows.record(), missed(made), functools.partial(draw, made))


def draw(rows: dict[str, Any], path: Path) -> None:
    """Every entry: the variance over the exact one, one column a kernel."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(label.split(" / ")[0] for label in rows))
    figure = Figure(figsize=(2 + 0.6 * len(names), 4), layout="constrained")
    panel = figure.subplots()
    for i, start in enumerate(STARTS):
        points = [
            (names.index(label.split(" / ")[0]) + 0.15 * (i - 1.5), made["starts"][start]["ratio"])
            for label, made in rows.items()
            if "starts" in made
        ]
        panel.plot(*zip(*points, strict=True), "osd^"[i], markersize=4, label=f"from {start}")
    panel.axhline(1.0, color="grey", linewidth=0.8)
    panel.set_xticks(range(len(names)), names, rotation=60, ha="right")
    panel.set_ylabel("variance over the exact one")
    panel.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
