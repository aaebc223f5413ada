"""The two observation models, categorical labels and Gaussian responses, and checks of batches.

`log_likelihood = Partial(categorical, predict)` makes the `(params, batch) -> (n,)` that a
`Posterior` takes out of any `predict`.

Batches are pairs (x, y), checked here: each error names what was wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from sgmcmc.types import Array, PyTree


def categorical(predict: Callable[..., PyTree], params: PyTree, batch: PyTree) -> Array:
    """log softmax(predict(params, x))[y], in nats: (n,).

    Args:
        predict: `(params, x) -> logits (n, k)`.
        params: what `predict` takes.
        batch: (x, y) with integer labels y (n,) in 0 … k−1. A label outside gives NaN; the
            models refuse such labels where a run begins (`Labels`).

    Raises:
        TypeError: the labels are not integers.
        ValueError: the logits are not (n, k ≥ 2), or the labels not (n,).
    """
    x, y = split_batch(batch)
    logits = predict(params, x)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"predict: got logits of shape {logits.shape}; expected (n, k) of k ≥ 2 classes: one "
            'logit l is the two (0, l); for responses likelihood="gaussian"'
        )
    n, k = logits.shape
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"y: got {y.dtype}; expected integer labels in 0 … {k - 1}")
    if y.shape != (n,):
        raise ValueError(f"y: got shape {y.shape}; expected (n,) = ({n},)")
    # A masked sum and no gather: its gradient is no scatter, which is slow on every backend.
    chosen = jnp.arange(k, dtype=y.dtype)[None] == y[:, None]
    values = jnp.sum(jnp.where(chosen, logits, 0), axis=-1) - jax.nn.logsumexp(logits, axis=-1)
    return jnp.where((y >= 0) & (y < k), values, jnp.nan)


class Labels(eqx.Module):
    """`data -> None`: raises unless the integer labels of (x, y) are in 0 … `num_classes` − 1."""

    num_classes: int = eqx.field(static=True)

    def __call__(self, data: PyTree) -> None:
        """Look at all labels, on the host.

        Raises:
            ValueError: a label is outside; the first one is named, and what may be done.
        """
        y, k = np.asarray(data[1]) if _is_pair(data) else np.zeros(0), self.num_classes
        bad = (y < 0) | (y >= k)
        if not np.issubdtype(y.dtype, np.integer) or not bad.any():
            return  # other types and shapes are refused by the likelihood
        least, most = int(y.min()), int(y.max())
        if (least, most) == (1, k):
            hint = "subtract 1"
        elif k == 2 and set(np.unique(y)) == {-1, 1}:
            hint = "(y + 1) // 2"
        else:
            hint = "leave out examples that are to be ignored, or mask them in your own likelihood"
        raise ValueError(
            f"y: label {int(y[bad][0])} at index {int(np.argmax(bad))}, and {int(bad.sum()):,} of "
            f"{y.size:,} outside; they run from {least} to {most}, allowed: 0 … {k - 1} ({hint})"
        )


def normal(predict: Callable[..., PyTree], params: PyTree, batch: PyTree) -> Array:
    """log N(y; mean, scale²) with (mean, scale) = predict(params, x), in nats: (n,).

    Args:
        predict: `(params, x) -> (mean, scale)`, each (n,), scale > 0 in units of y.
        params: what `predict` takes.
        batch: (x, y) with responses y (n,).

    Raises:
        ValueError: y or the mean is not (n,); (n, 1) would broadcast to (n, n) in silence.
    """
    x, y = split_batch(batch)
    mean, scale = predict(params, x)
    if mean.ndim != 1 or y.shape != mean.shape:
        raise ValueError(
            f"y: got shape {y.shape} for a predicted mean of shape {mean.shape}; expected both (n,)"
        )
    z = (y.astype(mean.dtype) - mean) / scale
    return -0.5 * z**2 - jnp.log(scale) - 0.5 * math.log(2 * math.pi)


def _is_pair(batch: PyTree) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) == 2


def split_batch(batch: PyTree) -> tuple[PyTree, Array]:
    """The pair (x, y) that a batch is.

    Raises:
        ValueError: it is anything else.
    """
    if not _is_pair(batch):
        size = f" of length {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(f"data: got a {type(batch).__name__}{size}; expected the pair (x, y)")
    return batch[0], jnp.asarray(batch[1])


def inputs(x: ArrayLike, num_features: int, dtype: DTypeLike) -> Array:
    """`x` as (n, num_features) in `dtype`; trailing axes (images) are flattened.

    Raises:
        ValueError: another number of features.
    """
    x = jnp.asarray(x)
    shape = x.shape
    if x.ndim > 2:
        x = x.reshape(shape[0], -1)
    if x.ndim != 2 or x.shape[1] != num_features:
        raise ValueError(f"x: got shape {shape}; expected (n, {num_features})")
    return x.astype(dtype)
