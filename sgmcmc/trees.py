"""Small helpers over pytrees of floating arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc.types import Array, PyTree


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as users write it: `layers/0/weight`; "the only leaf" for a bare array."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the only leaf)"


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """All leaves with the names of their paths, in flattening order."""
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def size(tree: PyTree) -> int:
    """The number of scalars in a pytree."""
    return sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def num_bytes(tree: PyTree) -> int:
    """Bytes of a pytree of arrays or `jax.ShapeDtypeStruct`s."""
    return sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def zeros_like(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, tree)


def scale(a: Array | float, x: PyTree) -> PyTree:
    """a x, in the dtype of x."""
    return jax.tree.map(lambda u: jnp.asarray(a).astype(u.dtype) * u, x)


def add(x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, x, y)


def axpy(a: Array | float, x: PyTree, y: PyTree) -> PyTree:
    """y + a x leaf by leaf, in the dtype of y."""
    return jax.tree.map(lambda u, v: v + jnp.asarray(a).astype(v.dtype) * u.astype(v.dtype), x, y)


def dot(x: PyTree, y: PyTree) -> Array:
    """The inner product of two trees, summed in float32 at least."""
    total = jnp.zeros((), accumulator_dtype(x))
    for u, v in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        total = total + jnp.sum(u.astype(total.dtype) * v.astype(total.dtype))
    return total


def accumulator_dtype(tree: PyTree) -> Any:
    """The widest dtype of the leaves, float32 at least."""
    return jnp.result_type(jnp.float32, *(jnp.asarray(x).dtype for x in jax.tree.leaves(tree)))


def all_finite(tree: PyTree) -> Array:
    """() bool: whether every number of every leaf is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def copy(tree: PyTree) -> PyTree:
    """New buffers with the same values: what is donated must not be the user's own."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def require_floating(tree: PyTree, name: str) -> None:
    """Raise unless `tree` has leaves, all of them floating arrays.

    Raises:
        ValueError: there is no leaf.
        TypeError: a leaf is not a floating array; the message names its path.
    """
    leaves = named_leaves(tree)
    if not leaves:
        raise ValueError(f"{name}: got a pytree without leaves; expected floating arrays")
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and isinstance(leaf, float):
            continue
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            kind = dtype if dtype is not None else type(leaf).__name__
            raise TypeError(
                f"{name}: leaf {path} is {kind}; parameters hold floating arrays only "
                "(keep counts, keys and batch-norm statistics elsewhere)"
            )
        if math.prod(leaf.shape) == 0:
            raise ValueError(f"{name}: leaf {path} is empty, shape {tuple(leaf.shape)}")


def require_same_structure(tree: PyTree, like: PyTree, name: str, like_name: str) -> None:
    """Raise a ValueError that names the first leaf of `tree` whose shape is not that of `like`."""
    given, wanted = named_leaves(tree), named_leaves(like)
    structures: list[Any] = [jax.tree.structure(tree), jax.tree.structure(like)]
    if structures[0] != structures[1]:
        odd = sorted({p for p, _ in given} ^ {p for p, _ in wanted})
        raise ValueError(
            f"{name}: its tree differs from that of {like_name} at {odd or 'its containers'}"
        )
    for (path, leaf), (_, other) in zip(given, wanted, strict=True):
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name}: leaf {path} has shape {jnp.shape(leaf)}; "
                f"{like_name} has {jnp.shape(other)} there"
            )


def as_callable(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A callable as a pytree: its arrays are leaves, its code is static.

    Plain functions compare by identity, so one function gives one trace. The arrays bound
    in a `functools.partial` or an equinox module become arguments, not constants.
    """
    if isinstance(function, eqx.Module | Partial):
        return function
    if isinstance(function, functools.partial):
        return Partial(function.func, *function.args, **function.keywords)
    if not callable(function):
        raise TypeError(f"{name}: got {type(function).__name__}; expected a function")
    return Partial(function)
