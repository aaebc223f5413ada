"""A Gaussian target without data: the law every sampler is first compared with."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from sgmcmc.models._model import Model
from sgmcmc.types import Array, Key


def gaussian(mean: ArrayLike, covariance: ArrayLike) -> Model:
    """N(mean, covariance), with parameters of shape (d,).

    Args:
        mean: (d,).
        covariance: () for a multiple of the identity, (d,) for a diagonal, or (d, d).

    Returns:
        A `Model` whose `.posterior()` takes no data, whose `.exact()` gives the mean (d,)
        and covariance (d, d) as float64 NumPy arrays, and whose `init(key)` draws from
        N(mean, 4 covariance): starts more dispersed than the target.

    Raises:
        ValueError: a mean that is not (d,), or a covariance of another shape, not finite,
            not symmetric or not positive definite.

    Examples:
        >>> model = gaussian([0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]])
        >>> model.exact()[0].tolist()
        [0.0, 1.0]
    """
    mean = np.asarray(mean, np.float64)
    if mean.ndim != 1 or mean.size == 0 or not np.all(np.isfinite(mean)):
        raise ValueError(f"mean: got shape {mean.shape}; expected finite values of shape (d,)")
    covariance = _checked_covariance(np.asarray(covariance, np.float64), mean.size)
    if covariance.ndim == 1:
        factor, precision = np.sqrt(covariance), 1 / covariance
        log_determinant = np.sum(np.log(covariance))
    else:
        factor, precision = np.linalg.cholesky(covariance), np.linalg.inv(covariance)
        precision = (precision + precision.T) / 2
        log_determinant = 2 * np.sum(np.log(np.diag(factor)))
    log_normaliser = -0.5 * (log_determinant + mean.size * math.log(2 * math.pi))
    center = jnp.asarray(mean, float)
    return Model(
        init=Partial(_draw, center, jnp.asarray(factor, float)),
        predict=None,
        log_likelihood=None,
        log_prior=Partial(
            _log_density,
            center,
            jnp.asarray(precision, float),
            jnp.asarray(log_normaliser, float),
        ),
        # In NumPy, where float64 stays float64.
        exact_posterior=Partial(_exact, mean, covariance),
    )


def _draw(mean: Array, factor: Array, key: Key) -> Array:
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    return mean + 2 * (factor * noise if factor.ndim == 1 else factor @ noise)


def _log_density(mean: Array, precision: Array, log_normaliser: Array, params: Array) -> Array:
    if jnp.shape(params) != mean.shape:
        raise ValueError(f"params: got shape {jnp.shape(params)}; expected {mean.shape}")
    z = params - mean.astype(params.dtype)
    precision = precision.astype(params.dtype)
    pull = precision * z if precision.ndim == 1 else precision @ z
    return -0.5 * jnp.dot(z, pull) + log_normaliser.astype(params.dtype)


def _exact(mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mean.copy(), np.diag(covariance) if covariance.ndim == 1 else covariance.copy()


def _checked_covariance(covariance: np.ndarray, d: int) -> np.ndarray:
    """The covariance as (d,) or (d, d), checked."""
    if covariance.ndim == 0:
        covariance = np.full(d, covariance)
    if covariance.shape not in ((d,), (d, d)):
        raise ValueError(
            f"covariance: got shape {covariance.shape}; expected (), ({d},) or ({d}, {d})"
        )
    if not np.all(np.isfinite(covariance)):
        raise ValueError("covariance: got values that are not finite")
    if covariance.ndim == 1:
        if not np.all(covariance > 0):
            raise ValueError(f"covariance: got the variance {covariance.min()}; expected all > 0")
        return covariance
    gap = np.max(np.abs(covariance - covariance.T))
    if gap > 1e-6 * np.max(np.abs(covariance)):
        raise ValueError(f"covariance: not symmetric, |C − Cᵀ| is up to {gap:.3g}")
    covariance = (covariance + covariance.T) / 2
    smallest = np.linalg.eigvalsh(covariance)[0]
    if smallest <= np.finfo(np.float64).eps * d * np.max(np.abs(covariance)):
        raise ValueError(
            f"covariance: not positive definite, its smallest eigenvalue is {smallest:.3g}"
        )
    return covariance
