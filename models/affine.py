"""What linear and logistic regression share: x · w + b and its starting points."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc.models import checks
from sgmcmc.types import Array, Key


class Affine(eqx.Module):
    """x · w + b, with (w, b) stacked in one array whose last row is b."""

    intercept: bool = eqx.field(static=True)

    def __call__(self, params: Array, x: Any) -> Array:
        """(n, d) inputs and (d + 1,) or (d + 1, k) parameters give (n,) or (n, k)."""
        params = jnp.asarray(params)
        x = checks.inputs(x, params.shape[0] - self.intercept, params.dtype)
        return x @ params[:-1] + params[-1] if self.intercept else x @ params


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
