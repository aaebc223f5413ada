"""Priors: one zero-centred, normalised density for every scalar of a pytree.

A prior is `params -> ()`, the log density in nats summed over all leaves. Any function of
that shape may stand in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jax.tree_util import Partial

from sgmcmc import _tree as trees
from sgmcmc._checks import positive_scalar
from sgmcmc.types import Array, PyTree

__all__ = [
    "as_prior",
    "horseshoe_like",
    "laplace",
    "normal",
    "student_t",
]


def normal(scale: float | Array = 1.0) -> Partial:
    """N(0, scale²) on every scalar.

    Args:
        scale: standard deviation > 0, in the parameters' units; default 1.

    Raises:
        ValueError: `scale` is not a finite number > 0.

    Examples:
        >>> round(float(normal(1.0)({"w": jax.numpy.zeros(2)})), 4)
        -1.8379
    """
    return Partial(_normal, positive_scalar(scale, "scale"))


def laplace(scale: float | Array = 1.0) -> Partial:
    """Laplace(0, scale), density exp(−|θ|/scale)/(2 scale), on every scalar; sd √2 scale.

    Args:
        scale: > 0, in the parameters' units; default 1.

    Raises:
        ValueError: `scale` is not a finite number > 0.
    """
    return Partial(_laplace, positive_scalar(scale, "scale"))


def student_t(df: float | Array = 3.0, scale: float | Array = 1.0) -> Partial:
    """Student's t with `df` degrees of freedom, times `scale`, on every scalar.

    Args:
        df: > 0; default 3. Moments of order `df` and above are infinite.
        scale: > 0, in the parameters' units; default 1.

    Raises:
        ValueError: `df` or `scale` is not a finite number > 0.
    """
    return Partial(_student_t, positive_scalar(df, "df"), positive_scalar(scale, "scale"))


def horseshoe_like(scale: float | Array = 1.0, floor: float | Array | None = None) -> Partial:
    """The horseshoe-like prior with its pole rounded off, on every scalar.

        p(θ) = log(1 + scale²/(θ² + floor²)) / (2π (√(scale² + floor²) − floor))

    The horseshoe N(0, λ²τ²), λ half-Cauchy, has no density in closed form; it lies between
    K/2 log(1 + 4τ²/θ²) and K log(1 + 2τ²/θ²), K = (2π³)^{−1/2} τ^{−1} (Carvalho, Polson and
    Scott 2010). The upper bound, normalised, is the horseshoe-like law (Bhadra, Datta, Polson
    and Willard, arXiv 1702.07400), here with scale² = 2τ². Its gradient grows without bound at
    the pole; `floor` keeps it below about 1/(floor log(scale²/(2 floor²))), 0 at θ = 0, and the
    curvature at about 2/(floor² log(scale²/floor²)). Tails fall as 1/θ².

    Args:
        scale: > 0, in the parameters' units; with a low floor half of the mass lies
            within .42 of it.
        floor: > 0; default a hundredth of `scale`.

    Raises:
        ValueError: `scale` or `floor` is not a finite number > 0.
    """
    width = positive_scalar(scale, "scale")
    least = width / 100 if floor is None else positive_scalar(floor, "floor")
    return Partial(_horseshoe, width, least)


def as_prior(prior: float | Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A number s means N(0, s²); a callable `params -> ()` is taken as it is.

    Raises:
        ValueError: a number that is not finite and > 0.
        TypeError: neither a number nor a callable.
    """
    if callable(prior):
        return trees.as_callable(prior, "prior")
    if isinstance(prior, (int, float)) or hasattr(prior, "dtype"):
        return Partial(_normal, positive_scalar(prior, "prior"))
    raise TypeError(
        f"prior: got {type(prior).__name__}; expected a standard deviation > 0 or "
        "a function params -> () such as sgmcmc.models.priors.laplace(0.3)"
    )


def _normal(scale: Array, params: PyTree) -> Array:
    squares = trees.dot(params, params)
    scale = scale.astype(squares.dtype)
    constant = trees.size(params) * (jnp.log(scale) + 0.5 * math.log(2 * math.pi))
    return -0.5 * squares / scale**2 - constant


def _laplace(scale: Array, params: PyTree) -> Array:
    total = _sum(jnp.abs, params)
    scale = scale.astype(total.dtype)
    return -total / scale - trees.size(params) * jnp.log(2 * scale)


def _student_t(df: Array, scale: Array, params: PyTree) -> Array:
    dtype = trees.accumulator_dtype(params)
    df, scale = df.astype(dtype), scale.astype(dtype)
    # log1p keeps small parameters exact: 1 + θ²/(df s²) rounds to 1 in float32.
    total = _sum(lambda x: jnp.log1p((x / scale) ** 2 / df), params)
    constant = (
        gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * jnp.log(df * math.pi) - jnp.log(scale)
    )
    return trees.size(params) * constant - (df + 1) / 2 * total


def _horseshoe(scale: Array, floor: Array, params: PyTree) -> Array:
    dtype = trees.accumulator_dtype(params)
    scale, floor = scale.astype(dtype), floor.astype(dtype)
    total = _sum(lambda x: jnp.log(jnp.log1p(scale**2 / (x**2 + floor**2))), params)
    # √(s² + f²) − f, without the difference of near numbers where the floor is high.
    area = 2 * math.pi * scale**2 / (jnp.sqrt(scale**2 + floor**2) + floor)
    return total - trees.size(params) * jnp.log(area)


def _sum(function: Callable[[Array], Array], params: PyTree) -> Array:
    dtype = trees.accumulator_dtype(params)
    return sum(
        (jnp.sum(function(leaf.astype(dtype))) for leaf in jax.tree.leaves(params)),
        start=jnp.zeros((), dtype),
    )


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
