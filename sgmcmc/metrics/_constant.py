"""Constant metrics G = L Lᵀ: identity, diagonal, dense. With G = I in the coordinates L⁻¹θ."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.types import Array, PyTree


class Identity(AbstractMetric):
    """G = I."""

    def to_position(self, momentum: PyTree) -> PyTree:
        return momentum

    def to_momentum(self, gradient: PyTree) -> PyTree:
        return gradient


class Diagonal(AbstractMetric):
    """G = diag(scale²)."""

    scale: PyTree

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless `scale` is a scalar or fits `position`, leaf by leaf."""
        if not self._is_scalar():
            checks.require_same_structure(self.scale, position, "metric", "the parameters")

    def to_position(self, momentum: PyTree) -> PyTree:
        if self._is_scalar():
            return trees.scale(self.scale, momentum)
        return jax.tree.map(lambda s, r: s.astype(r.dtype) * r, self.scale, momentum)

    def to_momentum(self, gradient: PyTree) -> PyTree:
        return self.to_position(gradient)

    def _is_scalar(self) -> bool:
        # A vmapped or stacked scale keeps its tree, so ask for the tree and not the rank.
        return isinstance(self.scale, jax.Array) and self.scale.ndim == 0


class Dense(AbstractMetric):
    """G = covariance = L Lᵀ, over the parameters raveled in tree order."""

    factor: Array

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless the covariance is d × d, d the number of parameters."""
        size, d = self.factor.shape[-1], trees.size(position)
        if size != d:
            named = trees.listed(f"{p} {jnp.shape(x)}" for p, x in trees.named_leaves(position))
            raise ValueError(
                f"metric: dense covariance is {size} × {size}, but the parameters "
                f"({named}) have {d} entries"
            )

    def to_position(self, momentum: PyTree) -> PyTree:
        flat, unravel = ravel_pytree(momentum)
        return unravel((self.factor @ flat).astype(flat.dtype))

    def to_momentum(self, gradient: PyTree) -> PyTree:
        flat, unravel = ravel_pytree(gradient)
        return unravel((self.factor.T @ flat).astype(flat.dtype))


def identity() -> Identity:
    """G = I, the default."""
    return Identity()


def diagonal(scale: PyTree) -> Diagonal:
    """G = diag(scale²), mass M = diag(1/scale²).

    Args:
        scale: positive scales in the parameters' units (best the posterior's standard
            deviations): a number for all, or a pytree of the parameters' structure.

    Raises:
        ValueError: a scale is not positive and finite; the message names its leaf.
    """
    scale = jax.tree.map(lambda s: jnp.asarray(s, dtype=jnp.result_type(float, s)), scale)
    for path, leaf in trees.named_leaves(scale):
        if isinstance(leaf, jax.core.Tracer):
            continue
        values = np.asarray(leaf, dtype=np.float64)
        if not np.all((values > 0) & np.isfinite(values)):
            raise ValueError(
                f"metric: scale at {trees.shortened(path, 40)} must be positive and finite, got "
                f"{trees.told(values.tolist())}"
            )
    return Diagonal(scale)


def dense(covariance: Array | np.ndarray) -> Dense:
    """G = covariance, mass M = covariance⁻¹.

    Args:
        covariance: (d, d), symmetric positive definite, over the parameters raveled in
            tree order (`jax.flatten_util.ravel_pytree`).

    Raises:
        ValueError: not square, not symmetric, or not positive definite.
    """
    shape = jnp.shape(covariance)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"metric: covariance must be (d, d), got shape {shape}")
    # Factored once, on the host in float64.
    matrix = np.asarray(covariance, dtype=np.float64)
    tolerance = 1e-5 * np.max(np.abs(matrix))
    if not np.all(np.abs(matrix - matrix.T) <= tolerance):
        raise ValueError("metric: covariance is not symmetric")
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise ValueError("metric: covariance is not positive definite") from None
    return Dense(jnp.asarray(factor, dtype=float))
