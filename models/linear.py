"""Bayesian linear regression, whose posterior is known in closed form.

    y_i = x_i · w + b + σ ε_i,   ε_i ~ N(0, 1),   every entry of (w, b) ~ N(0, s²)

Posterior: N(m, C) with C⁻¹ = XᵀX/σ² + I/s² and m = C Xᵀy/σ², X with a last column of ones
for the intercept.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc.models import checks, likelihoods, priors
from sgmcmc.models.affine import Affine, prior_draw
from sgmcmc.models.model import Model
from sgmcmc.types import Array


def linear_regression(
    noise_scale: float | Array = 1.0,
    prior_scale: float | Array = 1.0,
    *,
    num_features: int | None = None,
    intercept: bool = True,
) -> Model:
    """Linear regression with known noise; parameters are one vector (d + 1,).

    Args:
        noise_scale: σ > 0, in units of y; default 1.
        prior_scale: s > 0, the prior standard deviation of every weight and of the
            intercept; default 1.
        num_features: d, needed by `init` alone; default None.
        intercept: whether the last entry of the parameters is an intercept; without one
            they are (d,). Default True.

    Returns:
        A `Model` with data (x (n, d), y (n,)), `predict -> (mean (n,), scale (n,))`, and
        `.exact(x, y) -> (mean, covariance)`, float64 NumPy arrays of the posterior given
        all data. `init` draws from the prior.

    Raises:
        ValueError: a scale that is not a finite number > 0; `num_features` < 1; from `init`
            where `num_features` was not given.

    Examples:
        >>> model = linear_regression(noise_scale=1.0, prior_scale=1.0, intercept=False)
        >>> mean, covariance = model.exact([[1.0]], [2.0])
        >>> mean.tolist(), covariance.tolist()
        ([1.0], [[0.5]])
    """
    noise_scale = checks.positive(noise_scale, "noise_scale")
    prior_scale = checks.positive(prior_scale, "prior_scale")
    init = prior_draw(prior_scale, num_features, intercept)
    predict = Partial(_mean_and_scale, Affine(intercept), noise_scale)
    return Model(
        init=init,
        predict=predict,
        log_likelihood=Partial(likelihoods.normal, predict),
        log_prior=priors.normal(prior_scale),
        exact_posterior=Partial(_exact, noise_scale, prior_scale, intercept),
    )


def _mean_and_scale(mean: Any, noise_scale: Array, params: Array, x: Any) -> tuple[Array, Array]:
    if jnp.ndim(params) != 1:
        raise ValueError(f"params: got shape {jnp.shape(params)}; expected a vector")
    values = mean(params, x)
    return values, jnp.broadcast_to(noise_scale.astype(values.dtype), values.shape)


def _exact(
    noise_scale: Array, prior_scale: Array, intercept: bool, x: Any, y: Any
) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"x, y: got shapes {x.shape} and {y.shape}; expected (n, d) and (n,)")
    if intercept:
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    variance, prior_variance = float(noise_scale) ** 2, float(prior_scale) ** 2
    precision = x.T @ x / variance + np.eye(x.shape[1]) / prior_variance
    covariance = np.linalg.inv(precision)
    return np.linalg.solve(precision, x.T @ y / variance), (covariance + covariance.T) / 2
