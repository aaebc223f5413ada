"""Checks of the arguments and batches of models: each error names what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import trees
from sgmcmc.types import Array

ACTIVATIONS = ("relu", "tanh", "gelu", "silu", "elu", "softplus", "sigmoid", "leaky_relu")


def positive(value: Any, name: str) -> Array:
    """`value` as a floating scalar () array; a traced value is taken on trust.

    Raises:
        ValueError: it is not one finite number > 0.
    """
    if not isinstance(value, jax.core.Tracer):
        try:
            fine = np.shape(value) == () and np.isfinite(value) and float(value) > 0
        except TypeError:
            fine = False
        if not fine:
            raise ValueError(f"{name}: got {value!r}; expected a finite number > 0")
    return jnp.asarray(value, float)


def count(value: Any, name: str, least: int = 1) -> int:
    """`value` as an int.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is below `least`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: got {value!r}; expected an integer ≥ {least}")
    if int(value) < least:
        raise ValueError(f"{name}: got {value}; expected an integer ≥ {least}")
    return int(value)


def activation_function(activation: str | Callable[[Array], Array]) -> Any:
    """The activation called `activation`, or the callable itself, as a pytree.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a callable.
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation: got {activation!r}; expected one of {', '.join(ACTIVATIONS)}, "
                "or a function"
            )
        return Partial(getattr(jax.nn, activation))
    return trees.as_callable(activation, "activation")


def split_batch(batch: Any) -> tuple[Any, Array]:
    """The pair (x, y) that a batch is.

    Raises:
        ValueError: it is anything else.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        size = f" of length {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(f"data: got a {type(batch).__name__}{size}; expected the pair (x, y)")
    return batch[0], jnp.asarray(batch[1])


def inputs(x: Any, num_features: int, dtype: Any) -> Array:
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
