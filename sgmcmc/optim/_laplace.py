"""The Gaussian at a posterior's mode: where to begin, and the metric to sample with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sgmcmc import _checks as checks
from sgmcmc._posterior import Posterior
from sgmcmc.optim._find_mode import find_mode
from sgmcmc.types import Array, Batch, Key, PyTree


class Laplace(NamedTuple):
    """N(mode, covariance).

    Attributes:
        mode: pytree like the parameters; for `gradients.control_variate(mode)`.
        covariance: (d, d) float64, the inverse Hessian of U over the parameters raveled in
            tree order; for `metrics.dense(covariance)`.
    """

    mode: PyTree
    covariance: np.ndarray


def laplace(
    key: Key,
    posterior: Posterior,
    params: PyTree,
    data: PyTree = None,
    *,
    num_steps: int = 4_000,
    learning_rate: float | Callable[[Array], Array] = 0.02,
) -> Laplace:
    """The mode and the inverse Hessian there, for posteriors of few parameters.

    `sgmcmc.optim.find_mode` on all data, in the coordinates in which the Hessian at `params` is the
    identity, so that units and correlations do not matter; learning rates are in standard
    deviations, and the default search reaches some 40 of them. Takes d × d numbers, and all
    data at once. Where predictors are on very different scales call it in double precision
    (`with jax.enable_x64(True)`).

    Args:
        key, posterior, params, data, num_steps, learning_rate: see `sgmcmc.optim.find_mode`.

    Raises:
        ValueError: the Hessian is singular at `params`; where the search ends it is not positive
            definite, or the mode is still over 0.1 standard deviations away.
        TypeError, FloatingPointError: as in `find_mode`.
    """
    data, params = checks.as_arrays(data, "data"), checks.as_arrays(params, "params")
    start, unravel = ravel_pytree(params)
    at_start = np.asarray(hessian(posterior, params, data), np.float64)
    values, vectors = np.linalg.eigh(at_start)
    # Far from the mode some may be negative; a saddle is left faster by its size.
    values = np.abs(values)
    if not values.min() > 1e-14 * values.max():
        raise ValueError(
            f"params: the Hessian there is singular (eigenvalues {values.min():.3g} to "
            f"{values.max():.3g}); a flat prior needs more data than parameters"
        )
    whitened = _Whitened(posterior, start, jnp.asarray(vectors / np.sqrt(values), start.dtype),
                         unravel)  # fmt: skip
    if not posterior.has_data:
        target = Posterior.from_log_density(whitened.log_prior)
    else:
        assert posterior.data_size is not None
        target = Posterior(whitened.log_likelihood, whitened.log_prior,
                           data_size=posterior.data_size)  # fmt: skip
    found = find_mode(
        key, target, jnp.zeros_like(start), data, num_steps=num_steps, learning_rate=learning_rate
    )
    mode = whitened.place(found)
    at_mode = np.asarray(hessian(posterior, mode, data), np.float64)
    try:
        np.linalg.cholesky(at_mode)
    except np.linalg.LinAlgError:
        raise ValueError(
            "params: where the search ended the Hessian is not positive definite; there is no "
            "mode there, or more steps (num_steps=) or double precision are needed"
        ) from None
    covariance = np.linalg.inv(at_mode)
    covariance = (covariance + covariance.T) / 2
    slope = np.asarray(ravel_pytree(_gradient(posterior, mode, data))[0], np.float64)
    away = float(np.sqrt(slope @ covariance @ slope))
    if not away < 0.1:
        raise ValueError(
            f"num_steps, learning_rate: after {num_steps} steps of {learning_rate} the mode is "
            f"still about {away:.2g} standard deviations away; begin nearer (params=), or take "
            "more steps"
        )
    return Laplace(mode, covariance)


def hessian(posterior: Posterior, params: PyTree, data: PyTree = None) -> Array:
    """The Hessian of the potential U, (d, d), over the parameters raveled in tree order.

    Takes d × d numbers and all data at once; `diagnostics.curvature_of` has its products with
    vectors instead, block by block.

    Args:
        posterior: its potential U = −log density, prior and scaled likelihood together.
        params: where, a pytree of floating arrays with d numbers.
        data: all the examples; None for a target without any.
    """
    return _hessian(posterior, params, checks.as_arrays(data, "data"))


@eqx.filter_jit
def _hessian(posterior: Posterior, params: PyTree, data: PyTree) -> Array:
    flat, unravel = ravel_pytree(params)
    batch = None if data is None else Batch(data)
    return jax.hessian(lambda x: posterior.potential(unravel(x), batch))(flat)


@eqx.filter_jit
def _gradient(posterior: Posterior, params: PyTree, data: PyTree) -> PyTree:
    batch = None if data is None else Batch(data)
    return posterior.potential_and_gradient(params, batch)[1]


class _Whitened(eqx.Module):
    """A posterior in the coordinates z of θ = start + L z."""

    posterior: Posterior
    start: Array
    factor: Array
    unravel: Callable[[Array], PyTree] = eqx.field(static=True)

    def place(self, z: Array) -> PyTree:
        return self.unravel(self.start + self.factor @ z)

    def log_likelihood(self, z: Array, batch: PyTree) -> Array:
        assert self.posterior.log_likelihood is not None
        power = self.posterior.likelihood_power
        values = self.posterior.log_likelihood(self.place(z), batch)
        return power.astype(values.dtype) * values

    def log_prior(self, z: Array) -> Array:
        return -self.posterior.prior_potential(self.place(z))
