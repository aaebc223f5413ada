"""Step sizes and lengths for the study `posteriordb`, from formulas and never from its target.

All in coordinates in which the posterior is about N(0, I), so that U ≈ |x|²/2 and T = 1. With
B the relative bias of a variance that is allowed, k the largest curvature of U, s² the variance
of the gradient's noise in its worst direction at one draw of a batch, and K batches an epoch:

    sgld       (h/2)(k + s²) = B, s² that of the differences to the mode
    baoab      h⁴ s² K³/12 = B: the variance by which K kicks that sum to 0 in random order have
               moved x by the turn of a sweep, about twice the mean over it (tests/laws)
    ubu, obabo h s²/(2γ) = B/2, s² = min(2, 2 K² h²) times that of the differences to the mode:
               SAGA and SVRG compare x with its place some K steps ago (SAGA: mean square 2 K²),
               since when it has moved by |p| ~ 1 a unit of time; own bias at most h²k/4 = B/2
    sgnht      h a/(2γ) = B, a the anisotropy of s², which one thermostat cannot take out

and h²k ≤ 2B for all kernels with momentum. x forgets in time γ with momentum and 1 without
(integrated autocorrelation of x under U = x²/2), twice of which make a draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sgmcmc.models import Problem
from sgmcmc.optim import hessian, laplace

BIAS = 0.04  # of a variance: 2% of a standard deviation
EFFECTIVE_DRAWS = 4_000


class Geometry(NamedTuple):
    """Where chains begin, the metric, and what makes bias in its coordinates.

    Attributes:
        centre: pytree of float32 NumPy arrays: the mode, if there is a Gaussian about it.
        covariance: (d, d), of the metric and of the dispersed starts.
        stiffness: k.
        noise: the variance of a minibatch's gradient at the mode, drawn with replacement, in
            the worst direction.
        anisotropy: the largest difference of that variance from its mean over directions.
        difference_noise: as `noise`, of v_i(x) − v_i(mode), x drawn from the Gaussian.
        slowness: by how much longer than for a Gaussian to run.
    """

    centre: Any
    covariance: np.ndarray
    stiffness: float
    noise: float = 0.0
    anisotropy: float = 0.0
    difference_noise: float = 0.0
    slowness: float = 1.0


class Plan(NamedTuple):
    """A sampler's numbers for one posterior; friction is None for kernels without momentum."""

    step_size: float
    friction: float | None
    num_steps: int
    stream: str
    batch_size: int | None


def batch_size(problem: Problem) -> int | None:
    """A tenth of the data, or None, all of them, where there are fewer than 100.

    Rounded up, so that a sweep has ten batches.
    """
    size = problem.posterior.data_size
    assert size is not None
    return None if size < 100 else -(-size // 10)


def at_the_mode(key: Any, problem: Problem) -> Geometry:
    """The Gaussian at the mode, in float64, and the noise of minibatches about it."""
    with jax.enable_x64(True):
        posterior, data = problem.posterior, jax.tree.map(jnp.asarray, problem.data)
        params = jax.tree.map(lambda x: jnp.asarray(x, float), problem.params)
        search, draws = jax.random.split(key)
        found = laplace(search, posterior, params, data)
        mode, unravel = ravel_pytree(found.mode)
        factor = np.linalg.cholesky(found.covariance)
        around = mode + jax.random.normal(draws, (16, len(mode))) @ factor.T
        hessians = [hessian(posterior, unravel(x), data) for x in around]
        stiffness = max(np.linalg.eigvalsh(factor.T @ h @ factor)[-1] for h in hessians)

        def one(flat: Any, example: Any) -> Any:
            alone = jax.tree.map(lambda x: x[None], example)
            potential = lambda f: posterior.example_potentials(unravel(f), alone)[0]  # noqa: E731
            return jax.grad(potential)(flat) @ factor

        noises = minibatch_noises(jax.jit(jax.vmap(one, (None, 0))), problem, mode, around, data)
        centre = jax.tree.map(lambda x: np.asarray(x, np.float32), found.mode)
    return Geometry(centre, found.covariance, float(stiffness), **noises)


def minibatch_noises(
    each: Callable, problem: Problem, mode: Any, around: Any, data: Any
) -> dict[str, float]:
    """`noise`, `anisotropy` and `difference_noise`; `each` gives examples' gradients, (n, d)."""
    size, n = problem.posterior.data_size, batch_size(problem)
    if n is None:
        return {}
    here = np.asarray(each(mode, data))
    spread = lambda values: size**2 / n * np.cov(values.T, bias=True)  # noqa: E731
    noises = np.linalg.eigvalsh(spread(here))
    differences = np.mean([spread(np.asarray(each(x, data)) - here) for x in around], axis=0)
    return {
        "noise": float(noises[-1]),
        "anisotropy": float(np.max(np.abs(noises - noises.mean()))),
        "difference_noise": float(np.linalg.eigvalsh(differences)[-1]),
    }


def eight_schools(problem: Problem) -> Geometry:
    """Scales of the prior, since the mode (tau = 29) is far from where the posterior's mass is.

    Curvature at tau = 20, four times its prior's scale. Small tau makes log_tau slow.
    """
    scales = {"z": np.ones(8), "mu": 5.0, "log_tau": 1.0}
    stiff = {**problem.params, "log_tau": jnp.log(20.0)}
    scale = np.asarray(ravel_pytree(scales)[0], np.float64)
    data = jax.tree.map(jnp.asarray, problem.data)
    there = np.asarray(hessian(problem.posterior, stiff, data), np.float64)
    centre = jax.tree.map(np.asarray, problem.params)
    stiffness = float(np.linalg.eigvalsh(scale[:, None] * there * scale)[-1])
    return Geometry(centre, np.diag(scale**2), stiffness, slowness=8.0)


def plan(sampler: str, problem: Problem, at: Geometry, chains: int, draws: int) -> Plan:
    """The sampler's step by its formula, and as many steps as `EFFECTIVE_DRAWS` take."""
    size, n = problem.posterior.data_size, batch_size(problem)
    assert size is not None
    least = 1e-9  # of a noise: there is none with all data
    batches = -(-size // n) if n else 1
    largest = (2 * BIAS / at.stiffness) ** 0.5
    friction: float | None = 1.0
    stream = "with_replacement"
    if sampler.startswith("sgld"):
        h, friction = 2 * BIAS / (at.stiffness + at.difference_noise), None
    elif sampler.startswith("baoab"):
        h = (12 * BIAS / (max(at.noise, least) * batches**3)) ** 0.25
        stream = "symmetric"
    elif sampler.startswith("sgnht"):
        friction = 2.0
        h = 2 * friction * BIAS / max(at.anisotropy, least)
    else:
        noise = max(at.difference_noise, least)
        h = max(0.5 * BIAS / noise, (0.5 * BIAS / (noise * batches**2)) ** (1 / 3))
    h = h if friction is None else min(h, largest)
    h = float(f"{h:.2g}")
    steps = at.slowness * EFFECTIVE_DRAWS * 2 * (friction or 1.0) / h / chains
    thinning = int(np.ceil(steps / draws))
    return Plan(h, friction, thinning * draws, stream if n else "full", n)
