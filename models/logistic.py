"""Bayesian logistic regression, binary and multinomial."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc.models import checks, likelihoods, priors
from sgmcmc.models.affine import Affine, prior_draw
from sgmcmc.models.model import Model
from sgmcmc.types import Array


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
    prior_scale = checks.positive(prior_scale, "prior_scale")
    num_classes = checks.count(num_classes, "num_classes", least=2)
    outputs = None if num_classes == 2 else num_classes
    init = prior_draw(prior_scale, num_features, intercept, outputs)
    predict = Partial(_binary if outputs is None else _multinomial, Affine(intercept))
    return Model(
        init=init,
        predict=predict,
        log_likelihood=Partial(likelihoods.categorical, predict),
        log_prior=priors.normal(prior_scale),
    )


def _binary(affine: Affine, params: Array, x: Any) -> Array:
    if jnp.ndim(params) != 1:
        raise ValueError(f"params: got shape {jnp.shape(params)}; expected a vector")
    logits = affine(params, x)
    return jnp.stack([jnp.zeros_like(logits), logits], axis=-1)


def _multinomial(affine: Affine, params: Array, x: Any) -> Array:
    if jnp.ndim(params) != 2:
        raise ValueError(f"params: got shape {jnp.shape(params)}; expected a matrix, (d, k)")
    return affine(params, x)
