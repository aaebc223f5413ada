"""Deep linear networks: λ̂ by BAOAB beside λ in closed form, and by HMC at the same n and ρ."""

from __future__ import annotations

import functools
import itertools
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import diagnostics

EXAMPLES, CHAINS, FRICTION = 10_000, 16, 2.0
NBETA = EXAMPLES / np.log(EXAMPLES)


class Network(NamedTuple):
    """Widths from input to output and rank of the truth, and how it is sampled.

    `step` and `steps` are BAOAB's; `leap`, `leaps` and `draws` HMC's step, the steps of a
    trajectory (about one unit of time) and the trajectories; `asked` of it: within 5% of λ.
    """

    widths: tuple[int, ...]
    rank: int
    step: float = 0.008
    steps: int = 40_000
    leap: float = 0.008
    leaps: int = 150
    draws: int = 1_000
    asked: bool = True

    @property
    def name(self) -> str:
        return "-".join(map(str, self.widths)) + f" r{self.rank}"


def deep(widths: tuple[int, ...], rank: int, asked: bool = True, steps: int = 100_000) -> Network:
    """Three layers: their curvature grows with the fourth power of where a chain goes."""
    return Network(widths, rank, 0.001, steps, 0.002, 500, 400, asked)


NAMED = (
    Network((2, 2, 2), 0, leap=0.015, leaps=80),
    Network((5, 3, 5), 1, leap=0.012, leaps=100),
    Network((5, 5, 5), 2),
    Network((5, 5, 5), 5, 0.006),
    deep((5, 5, 5, 5), 2),
    deep((10, 5, 5, 10), 3, steps=50_000),
    Network((10, 10, 10), 3, 0.006, leap=0.006, leaps=170, draws=500),
    Network((20, 10, 20), 4, 0.006, leap=0.005, leaps=200, draws=500),
)


def others(seed: int = 6) -> list[Network]:
    """Four networks of two layers and two of three, widths 2 to 8 and any rank, at random.

    Without those that have a name already.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for layers in (2, 2, 2, 2, 3, 3):
        widths = tuple(int(x) for x in rng.integers(2, 9, size=layers + 1))
        rank = int(rng.integers(0, min(widths) + 1))
        made = Network(widths, rank, 0.006, asked=False)
        drawn.append(made if layers == 2 else deep(widths, rank, asked=False))
    named = {network.name for network in NAMED}
    return [network for network in drawn if network.name not in named]


def minimum(network: Network) -> tuple[Any, Any]:
    """(the true matrix diag(1, …, 1, 0, …), its balanced factorisation)."""
    layers = [np.zeros((b, a), np.float32) for a, b in itertools.pairwise(network.widths)]
    truth = np.zeros((network.widths[-1], network.widths[0]), np.float32)
    for matrix in [*layers, truth]:
        matrix[range(network.rank), range(network.rank)] = 1
    return jnp.asarray(truth), [jnp.asarray(x) for x in layers]


def excess(truth: Any, weights: Any) -> Any:
    """The population loss, ½ ‖W_L … W_1 − A‖²."""
    product = functools.reduce(lambda left, right: right @ left, weights)
    return 0.5 * jnp.sum((product - truth) ** 2)


def log_likelihood(truth: Any, weights: Any, rows: Any) -> Any:
    """The same for each of n examples: none of them differs, and one stands for all."""
    return -excess(truth, weights) * jnp.ones(rows.shape[0])


def problem(network: Network) -> tuple[Any, Any, Any, dict[str, Any]]:
    """(posterior, minimum, data, options) for `learning_coefficient` and `learning_sweep`."""
    truth, weights = minimum(network)
    data = np.zeros(EXAMPLES, np.float32)
    posterior = sgmcmc.Posterior(Partial(log_likelihood, truth), flat, data_size=EXAMPLES)
    options = {
        "evaluation_data": data[:1],
        "num_chains": CHAINS,
        "kernel": functools.partial(sgmcmc.baoab, friction=FRICTION),
    }
    return posterior, weights, data, options


def flat(weights: Any) -> Any:
    return jnp.zeros(())


def estimate(network: Network, seed: int, shorter: int = 1) -> dict[str, Any]:
    """λ̂ at ρ = 1, with what it took."""
    posterior, weights, data, options = problem(network)
    began, worked = time.perf_counter(), time.process_time()
    found = quietly(
        lambda: diagnostics.learning_coefficient(
            jax.random.key(seed), posterior, weights, data, batch_size=1, precision=1.0,
            step_size=network.step, num_steps=network.steps // shorter, **options,
        )
    )  # fmt: skip
    limit = diagnostics.deep_linear_coefficient(network.widths, network.rank)
    return {
        "limit": limit.coefficient,
        "multiplicity": limit.multiplicity,
        "parameters": sum(a * b for a, b in itertools.pairwise(network.widths)),
        "estimate": found.estimate,
        "error": found.standard_error,
        "rhat": found.r_hat,
        "warnings": list(found.warnings),
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
    }


def by_hmc(network: Network, seed: int, shorter: int = 1) -> dict[str, Any]:
    """The same mean by a sampler with a Metropolis test and no bias of its step."""
    truth, weights = minimum(network)
    rise = Partial(_rise, truth)
    target = sgmcmc.Posterior.from_log_density(Partial(_falling, truth)).localized(weights, 1.0)
    draws = network.draws // shorter
    began = time.perf_counter()
    run = sgmcmc.sample(
        jax.random.key(seed), sgmcmc.hmc(target, network.leap, network.leaps), weights,
        num_chains=CHAINS, num_burnin=draws // 5, num_samples=draws, collect=rise,
        progress=False,
    )  # fmt: skip
    means = np.asarray(run.draws, np.float64).mean(axis=1)
    return {
        "hmc": float(means.mean()),
        "hmc_error": float(means.std(ddof=1) / np.sqrt(CHAINS)),
        "hmc_acceptance": float(np.mean(np.asarray(run.info.acceptance))),
        "hmc_seconds": round(time.perf_counter() - began, 1),
    }


def _rise(truth: Any, weights: Any) -> Any:
    return NBETA * excess(truth, weights)


def _falling(truth: Any, weights: Any) -> Any:
    return -_rise(truth, weights)


def quietly(action: Callable[[], Any]) -> Any:
    """Without the warnings, which are in the record and in the table."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="learning_coefficient:")
        return action()
