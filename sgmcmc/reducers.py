"""Reducers: statistics folded draw by draw, so that draws need not be kept.

A reducer is a pytree with three functions:

    init(position) -> state,   update(state, position, weight) -> state,   result(states) -> any

`update` sees one draw of one chain and its weight; `result` sees the states of all chains
with a leading axis, and pools numerators and denominators before it divides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._predictions import ExpectedAt, expected
from sgmcmc.types import Array, PyTree

__all__ = [
    "Covariance",
    "Mean",
    "Reducer",
    "covariance",
    "mean",
    "predictive_mean",
]


class Reducer(Protocol):
    """What a reducer offers."""

    def init(self, position: PyTree) -> PyTree:
        """The state before the first draw; of `position` only shapes and dtypes matter."""
        ...

    def update(self, state: PyTree, position: PyTree, weight: Array) -> PyTree:
        """The state after one more draw of one chain, of weight () ≥ 0."""
        ...

    def result(self, states: PyTree) -> PyTree:
        """The statistic; each leaf of `states` has a leading axis of chains."""
        ...


class _Moments(NamedTuple):
    """Sum of weights, weighted mean, and weighted sum of squared deviations."""

    weight: Array
    mean: PyTree
    deviations: PyTree


class Mean(trees.ByIdentity):
    """Σ w f(θ) / Σ w over all chains; see `mean` and `predictive_mean`."""

    function: Callable[..., PyTree] | None = None

    def init(self, position: PyTree) -> _Moments:
        """Moments of no draw: zeros of the shape of f(position)."""
        value = self._value(position)
        return _Moments(jnp.zeros((), trees.accumulator_dtype(value)), trees.zeros_like(value), ())

    def update(self, state: _Moments, position: PyTree, weight: Array) -> _Moments:
        """Moments with one more draw, of weight () ≥ 0."""
        total = state.weight + weight.astype(state.weight.dtype)
        share = _share(weight, total)
        move = lambda m, v: m + share.astype(m.dtype) * (v - m)  # noqa: E731
        return _Moments(total, jax.tree.map(move, state.mean, self._value(position)), ())

    def result(self, states: _Moments) -> PyTree:
        """The mean of f(θ) over the draws of all chains."""
        return _pooled_mean(states)

    def _value(self, position: PyTree) -> PyTree:
        value = position if self.function is None else self.function(position)
        return jax.tree.map(lambda x: x.astype(trees.accumulator_dtype(x)), value)


class Covariance(trees.ByIdentity):
    """Weighted mean and covariance of f(θ); see `covariance`."""

    function: Callable[..., PyTree] | None = None
    diagonal: bool = eqx.field(static=True, default=False)

    def init(self, position: PyTree) -> _Moments:
        """Moments of no draw: zeros of the shape of f(position)."""
        value = self._value(position)
        d = value.shape[0]
        deviations = jnp.zeros((d,) if self.diagonal else (d, d), value.dtype)
        return _Moments(jnp.zeros((), value.dtype), jnp.zeros_like(value), deviations)

    def update(self, state: _Moments, position: PyTree, weight: Array) -> _Moments:
        """Moments with one more draw, of weight () ≥ 0."""
        # West (1979): stable, and independent of where chunks end.
        value, weight = self._value(position), weight.astype(state.weight.dtype)
        total = state.weight + weight
        before = value - state.mean
        mean = state.mean + _share(weight, total) * before
        after = value - mean
        product = before * after if self.diagonal else jnp.outer(before, after)
        return _Moments(total, mean, state.deviations + weight * product)

    def result(self, states: _Moments) -> tuple[Array, Array]:
        """The mean (d,), and the covariance (d, d) or, if `diagonal`, the variances (d,)."""
        mean, total = _pooled_mean(states), jnp.sum(states.weight)
        offset = states.mean - mean[None]
        between = offset**2 if self.diagonal else jnp.einsum("ci,cj->cij", offset, offset)
        weight = states.weight.reshape(-1, *(1,) * (between.ndim - 1))
        return mean, jnp.sum(states.deviations + weight * between, axis=0) / total

    def _value(self, position: PyTree) -> Array:
        value = ravel_pytree(position if self.function is None else self.function(position))[0]
        return value.astype(trees.accumulator_dtype(value))


def mean(function: Callable[[PyTree], PyTree] | None = None) -> Mean:
    """The weighted mean Σ w f(θ) / Σ w over the draws of all chains.

    Args:
        function: f, position -> a pytree of arrays, in pure JAX; None (default): θ itself.

    Returns:
        A reducer whose result is a pytree of the shape of f(θ), in float32 at least.

    Raises:
        TypeError: `function` is not callable.
    """
    return Mean(None if function is None else trees.as_callable(function, "function"))


def covariance(
    function: Callable[[PyTree], PyTree] | None = None, *, diagonal: bool = False
) -> Covariance:
    """The weighted mean (d,) and covariance (d, d) of θ, or of `function(θ)`.

    Args:
        function: position -> a pytree of arrays, in pure JAX, raveled in tree order to (d,);
            None (default): θ itself.
        diagonal: (d,) variances in the place of the covariance; default False.

    Returns:
        A reducer whose result is (mean, covariance), in float32 at least; divided by Σw, not
        by one less.

    Raises:
        TypeError: `function` is not callable.
    """
    return Covariance(
        None if function is None else trees.as_callable(function, "function"), diagonal
    )


def predictive_mean(
    predict: Callable[[PyTree, PyTree], PyTree], x: PyTree, *, kind: str | None = None
) -> Mean:
    """The posterior mean of predictions at m inputs `x`: of class probabilities, or of values.

    Args:
        predict: `(params, x) -> logits (m, k)`, `(mean, scale)` or values (m,): a model's
            `predict`. A two-axis array is taken for logits.
        x: a pytree of arrays with a leading axis m.
        kind: None (default); "values": what `predict` returns is averaged as it is, of any
            shape; "logits": (m,) or (m, 1) too is a logit, of class 1 with probability σ(logit).

    Returns:
        A reducer whose result is class probabilities (m, k), those of class 1 in the shape of a
        single logit, or the mean of the values; in float32 at least.

    Raises:
        TypeError: `predict` is not callable.
        ValueError: an unknown `kind`; `x` has integers beyond 32 bits; from `sample`, one column
            (m, 1) without a `kind`, which would be a value or a logit.
    """
    return Mean(ExpectedAt(expected(predict, kind), checks.as_arrays(x, "x")))


def _share(weight: Array, total: Array) -> Array:
    """weight/total, 0 as long as nothing has weight."""
    return jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), 0).astype(total.dtype)


def _pooled_mean(states: _Moments) -> PyTree:
    total = jnp.sum(states.weight)

    def pool(means: Array) -> Array:
        weight = states.weight.reshape(-1, *(1,) * (means.ndim - 1)).astype(means.dtype)
        return jnp.sum(weight * means, axis=0) / total.astype(means.dtype)

    return jax.tree.map(pool, states.mean)


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
