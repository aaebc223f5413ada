"""Two wells in one dimension, all in closed form, and who ends in which.

    exp(−f(y)) = exp(−100 (y + 1)²) + exp(−1/2) exp(−2 (y − 1)²)

A sharp deep well at −1 and a wide shallow one at +1. exp F(·; γ) is exp(−f) convolved with
N(0, 1/γ), hence a mixture of two Gaussians again.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from scipy.optimize import brentq

import sgmcmc

# Weight, place and stiffness of each well.
WELLS = ((1.0, -1.0, 200.0), (float(np.exp(-0.5)), 1.0, 4.0))
GRID = np.linspace(-1.6, 1.6, 32_001)
# Where −f has its minimum between the wells: gradient descent from below ends in the sharp one.
SGD_BORDER = -0.708707
STARTS = np.linspace(-1.25, -0.75, 21)


def log_density(y):
    y = jnp.squeeze(y)
    return jnp.logaddexp(-100 * (y + 1) ** 2, -0.5 - 2 * (y - 1) ** 2)


POSTERIOR = sgmcmc.Posterior.from_log_density(log_density)


def entropy(x: Any, gamma: float) -> Any:
    """F(x; γ)."""
    terms = [
        w * np.sqrt(2 * np.pi / (gamma + k)) * np.exp(-gamma * k / (gamma + k) * (x - m) ** 2 / 2)
        for w, m, k in WELLS
    ]
    return np.log(sum(terms))


def slope(x: Any, gamma: float) -> Any:
    """∂F/∂x."""
    total, weighted = 0.0, 0.0
    for w, m, k in WELLS:
        pull = gamma * k / (gamma + k)
        term = w * np.sqrt(2 * np.pi / (gamma + k)) * np.exp(-pull * (x - m) ** 2 / 2)
        total, weighted = total + term, weighted - pull * (x - m) * term
    return weighted / total


def turning_points(gamma: float) -> list[float]:
    """Where ∂F/∂x = 0, from left to right: one maximum, or two with a minimum between."""
    values = slope(GRID, gamma)
    (changes,) = np.nonzero(np.sign(values[1:]) * np.sign(values[:-1]) < 0)
    return [brentq(slope, GRID[i], GRID[i + 1], args=(gamma,), xtol=1e-12) for i in changes]


def argmax(gamma: float) -> float:
    """The highest point of F."""
    return max(turning_points(gamma), key=lambda x: entropy(x, gamma))


def crossing() -> float:
    """γ*: below, F is higher at +1 than at −1."""
    return brentq(lambda g: entropy(1.0, g) - entropy(-1.0, g), 50, 200, xtol=1e-10)


def single_until() -> float:
    """The γ up to which F has one maximum, in the wide well."""
    low, high = 1.0, 10.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        low, high = (middle, high) if len(turning_points(middle)) == 1 else (low, middle)
    return low


def descend(starts: np.ndarray, steps: int, step_size: float = 0.002) -> np.ndarray:
    """Ends of gradient descent on f."""
    force = jax.vmap(jax.grad(log_density))
    move = lambda _, y: y + step_size * force(y)  # noqa: E731
    return np.asarray(jax.lax.fori_loop(0, steps, move, jnp.asarray(starts)))


def climb(starts: np.ndarray, gammas: np.ndarray) -> np.ndarray:
    """Ends of x ← ⟨y⟩, with F's own gradient, under one γ after another."""
    x = np.array(starts)
    for gamma in gammas:
        x = x + slope(x, gamma) / gamma
    return x


def inner_step(gamma: Any) -> Any:
    """h of the inner loop: half an inverse of the largest curvature, of the sharp well."""
    return 0.5 / (200.0 + gamma)


def _one(num_steps: int, key: Any, x: Any, gammas: Any) -> Any:
    """The end of Entropy-SGD from x, with x ← μ, the plain mean of L inner points."""

    def outer(x: Any, given: tuple[Any, Any]) -> Any:
        gamma, key = given
        kernel = sgmcmc.sgld(POSTERIOR, inner_step(gamma))
        local = sgmcmc.local.local_entropy(kernel, gamma, num_steps=num_steps, averaging=None)
        return local.gradient(key, x).mean, None

    return jax.lax.scan(outer, x, (gammas, jax.random.split(key, len(gammas))))[0]


def entropy_sgd(seed: int, starts: np.ndarray, gammas: np.ndarray, num_steps: int) -> np.ndarray:
    """Ends of Entropy-SGD, (rows, starts): `gammas` is (rows, outer steps)."""
    rows, count = len(gammas), len(starts)
    keys = jax.random.split(jax.random.key(seed), (rows, count))
    one = Partial(_one, num_steps)
    every = jax.jit(jax.vmap(jax.vmap(one, (0, 0, None)), (0, None, 0)))
    return np.asarray(every(keys, jnp.asarray(starts)[:, None], jnp.asarray(gammas))[..., 0])


def share_wide(ends: np.ndarray) -> Any:
    """Of the ends, those from which gradient descent reaches the wide well."""
    return np.mean(ends > SGD_BORDER, axis=-1)
