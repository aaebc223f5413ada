"""Bayesian linear and logistic regression: x · w + b under two likelihoods.

The linear posterior is known in closed form,

    y_i = x_i · w + b + σ ε_i,   ε_i ~ N(0, 1),   every entry of (w, b) ~ N(0, s²),

N(m, C) with C⁻¹ = XᵀX/σ² + I/s² and m = C Xᵀy/σ², X with a last column of ones for the
intercept. Logistic regression is binary or multinomial.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from sgmcmc import _checks as checks
from sgmcmc.models import _likelihoods as likelihoods
from sgmcmc.models import priors
from sgmcmc.models._model import Model
from sgmcmc.types import Array, Key


class Affine(eqx.Module):
    """x · w + b, with (w, b) stacked in one array whose last row is b."""

    intercept: bool = eqx.field(static=True)

    def __call__(self, params: Array, x: ArrayLike) -> Array:
        """(n, d) inputs and (d + 1,) or (d + 1, k) parameters give (n,) or (n, k)."""
        params = jnp.asarray(params)
        x = likelihoods.inputs(x, params.shape[0] - self.intercept, params.dtype)
        return x @ params[:-1] + params[-1:] if self.intercept else x @ params


class PriorDraw(eqx.Module):
    """`(scale, key) -> params`: a draw from N(0, scale²) for every entry."""

    num_features: int | None = eqx.field(static=True)
    intercept: bool = eqx.field(static=True)
    num_outputs: int | None = eqx.field(static=True, default=None)

    def __call__(self, scale: Array, key: Key) -> Array:
        if self.num_features is None:
            raise ValueError(
                "num_features: got None; init needs it, give it to the model's constructor"
            )
        shape: tuple[int, ...] = (self.num_features + self.intercept,)
        if self.num_outputs is not None:
            shape = (*shape, self.num_outputs)
        return scale * jax.random.normal(key, shape, scale.dtype)


def prior_draw(
    scale: Array, num_features: int | None, intercept: bool, num_outputs: int | None = None
) -> Partial:
    """`key -> params`, a `PriorDraw` from N(0, scale²).

    Raises:
        TypeError: `num_features` is not an integer or None, or `intercept` no bool.
        ValueError: `num_features` < 1.
    """
    if num_features is not None:
        num_features = checks.count(num_features, "num_features")
    if not isinstance(intercept, bool):
        raise TypeError(f"intercept: got {intercept!r}; expected True or False")
    return Partial(PriorDraw(num_features, intercept, num_outputs), scale)


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
    noise_scale = checks.positive_scalar(noise_scale, "noise_scale")
    prior_scale = checks.positive_scalar(prior_scale, "prior_scale")
    init = prior_draw(prior_scale, num_features, intercept)
    predict = Partial(_mean_and_scale, Affine(intercept), noise_scale)
    return Model(
        init=init,
        predict=predict,
        log_likelihood=Partial(likelihoods.normal, predict),
        log_prior=priors.normal(prior_scale),
        exact_posterior=Partial(_exact, noise_scale, prior_scale, intercept),
    )


def _mean_and_scale(
    mean: Callable[..., Array], noise_scale: Array, params: Array, x: ArrayLike
) -> tuple[Array, Array]:
    if jnp.ndim(params) != 1:
        raise ValueError(f"params: got shape {jnp.shape(params)}; expected a vector")
    values = mean(params, x)
    return values, jnp.broadcast_to(noise_scale.astype(values.dtype), values.shape)


def _exact(
    noise_scale: Array, prior_scale: Array, intercept: bool, x: ArrayLike, y: ArrayLike
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


def logistic_regression(
    prior_scale: float | Array = 1.0,
    *,
    num_classes: int = 2,
    num_features: int | None = None,
    intercept: bool = True,
) -> Model:
    """Labels y_i ∈ {0 … k−1} with logits x_i · w + b, every entry of (w, b) ~ N(0, s²).

    Args:
        prior_scale: s > 0; default 1.
        num_classes: k ≥ 2. With 2 (the default) the parameters are one vector (d + 1,), and
            the logits are (0, x · w + b): class 1 has probability sigmoid(x · w + b). With
            more they are (d + 1, k), one column a class.
        num_features: d, needed by `init` alone; default None.
        intercept: whether the last row of the parameters is an intercept; default True.

    Returns:
        A `Model` with data (x (n, d), y (n,) integers) and `predict -> logits (n, k)`.
        `init` draws from the prior.

    Raises:
        ValueError: `prior_scale` not a finite number > 0, `num_classes` < 2,
            `num_features` < 1; from `init` where `num_features` was not given.

    Examples:
        >>> model = logistic_regression(prior_scale=2.0)
        >>> model.predict(jnp.array([1.0, 0.0]), jnp.array([[3.0]])).tolist()
        [[0.0, 3.0]]
    """
    prior_scale = checks.positive_scalar(prior_scale, "prior_scale")
    num_classes = checks.count(num_classes, "num_classes", least=2)
    outputs = None if num_classes == 2 else num_classes
    init = prior_draw(prior_scale, num_features, intercept, outputs)
    predict = Partial(_binary if outputs is None else _multinomial, Affine(intercept))
    return Model(
        init=init,
        predict=predict,
        log_likelihood=Partial(likelihoods.categorical, predict),
        log_prior=priors.normal(prior_scale),
        check_data=likelihoods.Labels(num_classes),
    )


def _binary(affine: Affine, params: Array, x: ArrayLike) -> Array:
    if jnp.ndim(params) != 1:
        raise ValueError(f"params: got shape {jnp.shape(params)}; expected a vector")
    logits = affine(params, x)
    return jnp.stack([jnp.zeros_like(logits), logits], axis=-1)


def _multinomial(affine: Affine, params: Array, x: ArrayLike) -> Array:
    if jnp.ndim(params) != 2:
        raise ValueError(f"params: got shape {jnp.shape(params)}; expected a matrix, (d, k)")
    return affine(params, x)
