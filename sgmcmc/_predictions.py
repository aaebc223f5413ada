"""What `predict` has returned: one rule for the reducer and for the diagnostics.

    (mean, scale)      of Gaussian responses: the values are the means
    (m,)               values, one for each of m points
    (m, k), k ≥ 2      logits of k classes
    (m, 1)             a value or a logit? Refused

`kind="values"` reads any array as values, `kind="logits"` (m,) and (m, 1) too as logits: one for
each point, by which class 1 has the probability σ(logit).
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc.types import Array, PyTree

KINDS = ("logits", "values")


class Expected(eqx.Module):
    """`(params, x, y=None) -> array`: class probabilities, that of y alone if given, or values."""

    predict: Callable[..., PyTree]
    kind: str | None = eqx.field(static=True)

    def __call__(self, params: PyTree, x: PyTree, y: Array | None = None) -> Array:
        out = self.predict(params, x)
        if not are_logits(out, self.kind):
            values: Array = out[0] if isinstance(out, tuple | list) else out
            return values
        if is_one_logit(out):
            logits = out if y is None else jnp.where(y == 1, 1, -1) * out.reshape(y.shape)
            return jax.nn.sigmoid(logits)
        probabilities = jax.nn.softmax(out, axis=-1)
        if y is None:
            return probabilities
        return jnp.take_along_axis(probabilities, y[:, None], axis=-1)[:, 0]


class ExpectedAt(eqx.Module):
    """`params -> array`: `Expected` at some points."""

    expected: Expected
    x: PyTree

    def __call__(self, params: PyTree) -> Array:
        return self.expected(params, self.x)


def expected(predict: Callable[..., PyTree], kind: str | None) -> Expected:
    """An `Expected`, its arguments checked.

    Raises:
        TypeError: `predict` is not callable.
        ValueError: `kind` is none of `KINDS`, nor None.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}; allowed: None, {', '.join(map(repr, KINDS))}")
    return Expected(trees.as_callable(predict, "predict"), kind)


def are_logits(out: PyTree, kind: str | None) -> bool:
    """Whether what `predict` returned (or its shape) holds logits.

    Raises:
        ValueError: one column, and no `kind`; a pair beside `kind="logits"`; other than a pair.
    """
    if isinstance(out, tuple | list):
        if len(out) != 2 or kind == "logits":
            raise ValueError(
                f"predict: got {len(out)} arrays{'' if kind is None else f' with kind={kind!r}'}; "
                "expected logits (m, k), (mean, scale), or values (m,)"
            )
        return False
    if kind is not None:
        return kind == "logits"
    if out.ndim > 1 and out.shape[-1] == 1:
        raise ValueError(
            f"predict: got shape {tuple(out.shape)}, one number a point: a value, or a logit? For "
            'values return (mean, scale) or (m,), or give kind="values"; for one logit of two '
            'classes give kind="logits", or return the two logits (0, logit)'
        )
    return len(out.shape) > 1


def is_one_logit(out: Array) -> bool:
    """Whether logits are one a point, (m,) or (m, 1)."""
    return out.ndim < 2 or out.shape[-1] == 1


def two_logits(out: Array) -> Array:
    """(m, k) logits, of (m,) or (m, 1) the two (0, logit)."""
    if not is_one_logit(out):
        return out
    column = out.reshape(-1, 1)
    return jnp.concatenate([jnp.zeros_like(column), column], axis=-1)
