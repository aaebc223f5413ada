"""The runs behind `sharp_priors`: problems, warm starts, one cell, and what a step size gives."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import sgmcmc
from parts.mnist_runs import descend
from sgmcmc import clocks, diagnostics, metrics, models

PRIORS = {
    "Laplace": models.priors.laplace(0.1),
    "Student-t": models.priors.student_t(3.0, 0.1),
    "horseshoe": models.priors.horseshoe_like(0.1, 1e-3),
}
# m, M and r of the clock; the paper's code for networks has the first.
CLOCKS = {"SA-SGLD r=.25": (0.1, 10.0, 0.25), "SA-SGLD r=1": (1e-3, 1e3, 1.0)}
SAMPLERS = ("SGLD", "pSGLD", *CLOCKS)
FORGETS = 0.1  # α Δτ: the clock remembers ten steps, at any step size
MONITORED = 64  # minibatches a chain, from which E‖∇U‖² at the start is taken
CNN_TEST = 2_000  # test images of the convolutional network, the first
TOLERANCE = 0.02  # usable: an NLL within this of the sampler's own best


class Setting(NamedTuple):
    """A network, its data and its budget. Draws are kept from the second half of the steps."""

    sizes: tuple[int, ...]  # of an MLP; () for the small convolutional network
    examples: int | None  # of the training set, the first; None: all
    warm: tuple[int, float]  # examples and rate of the epoch of SGD that chains begin with
    batch_size: int
    steps: int
    draws: int
    chains: int

    @property
    def thinning(self) -> int:
        return self.steps // 2 // self.draws


class Problem(NamedTuple):
    """A posterior, its data, its chains' starts and E‖∇U‖² there."""

    setting: Setting
    model: Any
    train: Any
    test: Any
    starts: Any
    level: float
    seed: int


def network(setting: Setting, prior: Any) -> Any:
    if setting.sizes:
        return models.mlp(setting.sizes, prior=prior)
    return models.cnn((14, 14), 10, channels=(4, 8), prior=prior)


def problem(setting: Setting, prior: str, data: Any, seed: int) -> Problem:
    """Chains begin at networks of their own, the same ones for all priors and samplers."""
    train, test = (tuple(map(jnp.asarray, part)) for part in data)
    if not setting.sizes:
        # Means of 2 × 2 pixels: a quarter of the cost.
        train, test = ((x.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)), y) for x, y in (train, test))
        test = tuple(a[:CNN_TEST] for a in test)
    train = tuple(a[: setting.examples] for a in train)
    model = network(setting, PRIORS[prior])
    keys = jax.random.split(jax.random.key(seed), setting.chains)
    some, rate = setting.warm
    starts = descend(
        model, keys, tuple(a[:some] for a in train), jnp.asarray(rate), jnp.zeros(()),
        setting.batch_size, 1,
    )  # fmt: skip
    size = len(train[0])
    posterior = model.posterior(size)
    rows = jax.random.randint(
        jax.random.key(seed + 500), (setting.chains, MONITORED, setting.batch_size), 0, size
    )
    level = float(jnp.mean(square_norms(posterior, starts, train, rows)))
    return Problem(setting, model, train, test, starts, level, seed)


@eqx.filter_jit
def square_norms(posterior: Any, starts: Any, data: Any, rows: Any) -> Any:
    """‖∇U‖² of minibatches, [chain, batch]."""

    def one(pair: Any) -> Any:
        start, indices = pair

        def square(index: Any) -> Any:
            batch = jax.tree.map(lambda a: a[index], data)
            gradient = jax.grad(lambda p: posterior.potential(p, batch))(start)
            return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(gradient))

        return jax.lax.map(square, indices)

    return jax.lax.map(one, (starts, rows))


def kernel(sampler: str, posterior: Any, h: float, level: float) -> Any:
    """The sampler at the step h, or Δτ = h; the clocks' ζ has mean 1 at the start, and so ψ."""
    if sampler == "SGLD":
        return sgmcmc.sgld(posterior, h)
    if sampler == "pSGLD":
        return sgmcmc.psgld(posterior, h, metric=metrics.rmsprop(gamma=False))
    m, most, r = CLOCKS[sampler]
    alpha = FORGETS / h
    clock = clocks.adaptive(
        h, alpha=alpha, shortest=m, longest=most, power=r, scale=level / alpha, start=1.0
    )
    return sgmcmc.sa_sgld(posterior, clock)


def cell(given: Problem, sampler: str, h: float) -> dict[str, Any]:
    """A sampler at one step size: scores and realised dt, or when and how many chains were lost.

    All cells of a seed have their batches and normals in common.
    """
    setting = given.setting
    posterior = given.model.posterior(len(given.train[0]))
    began = time.perf_counter()
    try:
        run = sgmcmc.sample(
            jax.random.key(1_000 + given.seed), kernel(sampler, posterior, h, given.level),
            given.starts, given.train, batch_size=setting.batch_size,
            num_chains=setting.chains, num_burnin=setting.steps - setting.draws * setting.thinning,
            num_samples=setting.draws, thinning=setting.thinning, chain_method="map",
            progress=False,
        )  # fmt: skip
    except sgmcmc.NonFiniteError as error:
        stopped = error.run.stopped
        return {"lost": len(stopped), "first": min(stopped.values()),
                "seconds": time.perf_counter() - began}  # fmt: skip
    sampled = time.perf_counter() - began
    try:
        found = judged(given, run)
    except ValueError:  # predictions that are not finite
        return {"lost": setting.chains, "first": run.num_steps, "seconds": sampled}
    dt = float(np.mean(run.info.elapsed[:, -1])) / (setting.draws * setting.thinning)
    if sampler == "pSGLD":
        memory, epsilon = run.continuation.carry.state.metric.square, metrics.rmsprop().epsilon
        scale = [np.asarray(1 / (epsilon + jnp.sqrt(v))).ravel() for v in jax.tree.leaves(memory)]
        dt *= float(
            np.concatenate(scale).mean(dtype=np.float64)
        )  # h times the mean of G's diagonal
    return {**found, "dt": dt, "sampled": sampled, "seconds": time.perf_counter() - began}


def judged(given: Problem, run: Any) -> dict[str, Any]:
    """Pooled accuracy and NLL, and each chain's NLL, all by the draws' weights."""
    x, y = given.test
    # Network by network: convolutions of many networks at once are slow on CPUs.
    sums = np.array([
        sum(
            w * probabilities(given.model, jax.tree.map(lambda a, c=c, i=i: a[c, i], run.draws), x)
            for i, w in enumerate(weights)
        )
        for c, weights in enumerate(run.weights.astype(np.float64))
    ])  # fmt: skip
    if not np.isfinite(sums).all():
        raise ValueError("predictions: not finite")
    # Numerators and denominators are summed over chains before they are divided.
    total = run.weights.sum(axis=1, dtype=np.float64)
    pooled = diagnostics.classification_scores(sums.sum(axis=0) / total.sum(), y)
    singles = [
        diagnostics.classification_scores(s / w, y).nll for s, w in zip(sums, total, strict=True)
    ]
    return {"accuracy": pooled.accuracy, "nll": pooled.nll, "chains": singles}


def probabilities(model: Any, params: Any, x: Any) -> np.ndarray:
    """p(class | x), (m, k); e^−700 at least, so that no NLL is infinite."""
    logs = np.asarray(log_probabilities(model, params, x), np.float64)
    return np.exp(np.maximum(logs, -700))


@eqx.filter_jit
def log_probabilities(model: Any, params: Any, x: Any) -> Any:
    return jax.nn.log_softmax(model.predict(params, x))


class Usable(NamedTuple):
    """Where the NLL is within `TOLERANCE` of its best: edges, and whether the grid cut them."""

    low: float
    high: float
    low_open: bool  # usable to the end of the grid
    high_open: bool  # usable to the end of the grid, or to the last finite step
    best: float
    at: float

    @property
    def ratio(self) -> float:
        return self.high / self.low


def usable(steps: Any, nlls: Any, dts: Any = None) -> Usable:
    """The usable range around the best step, between grid points interpolated in the log step.

    Args:
        steps: increasing; nlls: inf where a chain was lost; dts: in whose place the range is
            wanted, realised at each step; default the steps themselves.
    """
    x = np.log(steps if dts is None else dts)
    nlls = np.asarray(nlls, float)
    best = int(np.argmin(nlls))
    bar = nlls[best] + TOLERANCE

    def edge(way: int) -> tuple[float, bool]:
        i = best
        while 0 <= i + way < len(nlls) and nlls[i + way] <= bar:
            i += way
        beyond = i + way
        if not 0 <= beyond < len(nlls) or not np.isfinite(nlls[beyond]):
            return math.exp(x[i]), True
        share = (bar - nlls[i]) / (nlls[beyond] - nlls[i])
        return math.exp(x[i] + share * (x[beyond] - x[i])), False

    (low, low_open), (high, high_open) = edge(-1), edge(+1)
    return Usable(low, high, low_open, high_open, nlls[best], math.exp(x[best]))
