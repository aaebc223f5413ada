"""A small logistic regression, and the mean and variance of an estimator over every batch."""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sgmcmc import Batch, Posterior

HERE = {"b": jnp.array(0.3), "w": jnp.array([0.4, -0.7])}
THERE = {"b": jnp.array(-0.2), "w": jnp.array([1.1, 0.5])}
POWER = 0.7


def log_likelihood(theta: Any, batch: Any) -> Any:
    x, sign = batch
    return -jnp.logaddexp(0.0, -sign * (x @ theta["w"] + theta["b"]))


def log_prior(theta: Any) -> Any:
    return -0.5 * jnp.sum(theta["w"] ** 2) - 2.0 * theta["b"] ** 2


def examples(data_size: int) -> Any:
    x = np.sin(1.0 + np.arange(2.0 * data_size)).reshape(data_size, 2)
    return jnp.asarray(2 * x), jnp.asarray(np.where(np.arange(data_size) % 3 == 0, 1.0, -1.0))


def posterior(data_size: int) -> Posterior:
    return Posterior(log_likelihood, log_prior, data_size=data_size, likelihood_power=POWER)


def double(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), tree)


def example_gradients(theta: Any, data: Any) -> np.ndarray:
    """v_i = −λ ∇ log p(y_i | x_i, θ), (N, d), by hand: −λ s σ(−s f) (1, x)."""
    x, sign = (np.asarray(part, np.float64) for part in data)
    theta = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), theta)
    slope = -POWER * sign / (1 + np.exp(sign * (x @ theta["w"] + theta["b"])))
    return slope[:, None] * np.column_stack([np.ones(len(x)), x])


def prior_gradient(theta: Any) -> np.ndarray:
    return np.concatenate([[4.0 * float(theta["b"])], np.asarray(theta["w"], np.float64)])


def full_gradient(theta: Any, data: Any) -> np.ndarray:
    return prior_gradient(theta) + example_gradients(theta, data).sum(axis=0)


def batches(data: Any, size: int, *, replaced: bool = False, padded: int = 0) -> Batch:
    """Every batch of `size` rows, stacked; `padded` rows more that do not count."""
    rows = range(len(data[1]))
    choices = (
        itertools.product(rows, repeat=size) if replaced else itertools.combinations(rows, size)
    )
    index = np.array(list(choices))
    mask = None
    if padded:
        padding = (index[:, :1] + 1 + np.arange(padded)) % len(data[1])
        mask = jnp.asarray(np.tile(np.arange(size + padded) < size, (len(index), 1)))
        index = np.hstack([index, padding])
    index = jnp.asarray(index, jnp.int32)
    return Batch(jax.tree.map(lambda x: x[index], data), index, mask)


def gradients(estimator: Any, state: Any, data: Any, drawn: Batch, theta: Any = HERE) -> Any:
    """(energies, gradients) of all these batches from one state: (m,) and (m, d)."""
    target = posterior(len(data[1]))

    energies, estimates = _each(estimator, target, double(theta), drawn, state)
    return np.asarray(energies), np.asarray(estimates)


@eqx.filter_jit
def _each(estimator: Any, target: Any, theta: Any, drawn: Batch, state: Any) -> Any:
    def one(batch: Batch) -> Any:
        energy, gradient, _ = estimator(target, theta, batch, state)
        return energy, ravel_pytree(gradient)[0]

    return jax.vmap(one)(drawn)


def check_unbiased(estimator: Any, state: Any, data_size: int, drawn: dict[str, Any]) -> None:
    """The mean over every batch is ∇U, whatever the state."""
    data = examples(data_size)
    energies, estimates = gradients(estimator, state, data, batches(data, **drawn))
    np.testing.assert_allclose(estimates.mean(axis=0), full_gradient(HERE, data), atol=1e-12)
    exact = posterior(data_size).potential(double(HERE), data)
    np.testing.assert_allclose(energies.mean(), exact, rtol=1e-12)
