"""Targets that tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import sgmcmc


class Problem(NamedTuple):
    """A posterior, its data, where chains begin, and its Gaussian law in tree order."""

    posterior: Any
    data: Any
    start: Any
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def size(self) -> int:
        """d, the number of parameters."""
        return self.mean.size


SIZE = 24
ROWS = np.random.default_rng(0).normal(size=(SIZE, 2)).astype(np.float32)
START = {"b": jnp.zeros(()), "w": jnp.ones(2)}


def log_likelihood(params: Any, batch: Any) -> Any:
    """log N(1; xᵀw + b, 1) of each row x, without its constant."""
    return -0.5 * (batch @ params["w"] + params["b"] - 1.0) ** 2


def log_prior(params: Any) -> Any:
    """A standard normal in every coordinate, without its constant."""
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


def regression(note: Callable[[], None] | None = None) -> Problem:
    """24 examples of a line in two variables, whose target is 1: curvatures from 8 to 30.

    Args:
        note: called whenever the likelihood is traced.
    """

    def noted(params: Any, batch: Any) -> Any:
        note()
        return log_likelihood(params, batch)

    design = np.concatenate([np.ones((SIZE, 1)), ROWS], axis=1).astype(float)
    precision = design.T @ design + np.eye(3)
    return Problem(
        sgmcmc.Posterior(log_likelihood if note is None else noted, log_prior, data_size=SIZE),
        ROWS,
        START,
        np.linalg.solve(precision, design.sum(axis=0)),
        np.linalg.inv(precision),
    )
