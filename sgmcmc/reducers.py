"""Reducers: statistics folded draw by draw, so that draws need not be kept.

A reducer is a pytree with three functions:

    init(position) -> state,   update(state, position, weight) -> state,   result(states) -> any

`update` sees one draw of one chain and its weight; `result` sees the states of all chains
with a leading axis, and pools numerators and denominators before it divides.

Sums and running means are held in two numbers, of which the second is what rounding has taken from
the first: in float32 a mean that is 10⁵ standard deviations from 0 stands still after a hundred
draws, and a sum of ones after 2²⁴.
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


class _Sum(NamedTuple):
    """A running sum or mean of arrays: `value` + `rest`, the latter lost to rounding in `value`."""

    value: Array
    rest: Array

    def plus(self, x: Array) -> _Sum:
        """The sum with x, at most of the order of `value`, added to it."""
        rest = self.rest + x
        value = self.value + rest
        return _Sum(value, rest - (value - self.value))

    def minus_from(self, x: Array) -> Array:
        """x − (value + rest)."""
        return (x - self.value) - self.rest


class _Moments(NamedTuple):
    """Sum of weights, weighted mean, and weighted sum of squared deviations, each as a `_Sum`."""

    weight: _Sum
    mean: PyTree
    deviations: _Sum | tuple[()]


class Mean(trees.ByIdentity):
    """Σ w f(θ) / Σ w over all chains; see `mean` and `predictive_mean`."""

    function: Callable[..., PyTree] | None = None

    def init(self, position: PyTree) -> _Moments:
        """Moments of no draw: zeros of the shape of f(position)."""
        value = self._value(position)
        return _Moments(
            _zero(jnp.zeros((), trees.accumulator_dtype(value))), jax.tree.map(_zero, value), ()
        )

    def update(self, state: _Moments, position: PyTree, weight: Array) -> _Moments:
        """Moments with one more draw, of weight () ≥ 0."""
        weight = weight.astype(state.weight.value.dtype)
        total = state.weight.plus(weight)
        share = _share(weight, total.value)
        move = lambda v, m: m.plus(share.astype(v.dtype) * m.minus_from(v))  # noqa: E731
        return _Moments(total, jax.tree.map(move, self._value(position), state.mean), ())

    def result(self, states: _Moments) -> PyTree:
        """The mean of f(θ) over the draws of all chains."""
        pool = lambda m: _pooled(m, states.weight)[0]  # noqa: E731
        return jax.tree.map(pool, states.mean, is_leaf=lambda m: isinstance(m, _Sum))

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
        return _Moments(_zero(jnp.zeros((), value.dtype)), _zero(value), _zero(deviations))

    def update(self, state: _Moments, position: PyTree, weight: Array) -> _Moments:
        """Moments with one more draw, of weight () ≥ 0."""
        # West (1979): stable, and independent of where chunks end.
        value, weight = self._value(position), weight.astype(state.weight.value.dtype)
        total = state.weight.plus(weight)
        before = state.mean.minus_from(value)
        mean = state.mean.plus(_share(weight, total.value) * before)
        after = mean.minus_from(value)
        product = before * after if self.diagonal else jnp.outer(before, after)
        assert isinstance(state.deviations, _Sum)
        return _Moments(total, mean, state.deviations.plus(weight * product))

    def result(self, states: _Moments) -> tuple[Array, Array]:
        """The mean (d,), and the covariance (d, d) or, if `diagonal`, the variances (d,)."""
        mean, offset, share = _pooled(states.mean, states.weight)
        between = offset**2 if self.diagonal else jnp.einsum("ci,cj->cij", offset, offset)
        wide = lambda x: x.reshape(-1, *(1,) * (between.ndim - 1))  # noqa: E731
        assert isinstance(states.deviations, _Sum)
        deviations = states.deviations.value + states.deviations.rest
        total = wide(states.weight.value + states.weight.rest)
        within = deviations / jnp.where(total > 0, total, 1)
        return mean, jnp.sum(wide(share) * (within + between), axis=0)

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


def _zero(value: Array) -> _Sum:
    return _Sum(jnp.zeros_like(value), jnp.zeros_like(value))


def _pooled(means: _Sum, weights: _Sum) -> tuple[Array, Array, Array]:
    """Of chains' means and sums of weights: the mean, each chain's distance from it, each's share.

    What is summed are distances from the first chain's mean, which keep their digits.
    """
    total = (weights.value + weights.rest).astype(means.value.dtype)
    share = total / jnp.sum(total)
    apart = (means.value - means.value[:1]) + means.rest
    move = jnp.sum(share.reshape(-1, *(1,) * (apart.ndim - 1)) * apart, axis=0)
    return means.value[0] + move, apart - move[None], share


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
