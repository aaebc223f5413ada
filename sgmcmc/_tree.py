"""Small helpers over pytrees of floating arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc.types import Array, PyTree


def path_name(path: tuple[object, ...]) -> str:
    """A key path as users write it: `layers/0/weight`; "the only leaf" for a bare array."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the only leaf)"


def named_leaves(tree: PyTree) -> list[tuple[str, PyTree]]:
    """All leaves with the names of their paths, in flattening order."""
    return [(path_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def shortened(text: str, most: int) -> str:
    """`text`, or its beginning and its end where it has more than `most` characters."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def told(value: object) -> str:
    """The repr of what a user gave, on one line of at most 60 characters."""
    return shortened(" ".join(repr(value).split()), 60)


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in a row: the first few, each at most 40 characters, and how many more there are."""
    names = list(names)
    shown = ", ".join(shortened(name, 40) for name in names[:most])
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


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


def accumulator_dtype(tree: PyTree) -> jnp.dtype:
    """The widest dtype of the leaves, float32 at least."""
    return jnp.result_type(jnp.float32, *(jnp.asarray(x).dtype for x in jax.tree.leaves(tree)))


def all_finite(tree: PyTree) -> Array:
    """() bool: whether every number of every leaf is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def copy(tree: PyTree) -> PyTree:
    """New buffers with the same values, so that donating them leaves the user's arrays alive."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def as_callable(function: Callable[..., PyTree] | None, name: str) -> Callable[..., PyTree]:
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


def leading_axis(data: PyTree) -> int:
    """The common leading axis of the leaves of `data`.

    Raises:
        ValueError: there is no leaf, a leaf is a scalar, or lengths differ; leaves are named.
    """
    lengths = {path: jnp.shape(leaf)[:1] for path, leaf in named_leaves(data)}
    if not lengths:
        raise ValueError("data: got a pytree without arrays")
    if len(set(lengths.values())) > 1 or () in lengths.values():
        found = listed(
            f"{shortened(path, 24)}: {length[0] if length else 'a scalar'}"
            for path, length in lengths.items()
        )
        hint = "; each entry of a list is a leaf: np.stack, or pad, those that are examples"
        raise ValueError(
            f"data: leaves must share one leading axis, got lengths {found}"
            f"{hint if isinstance(data, list) else ''}"
        )
    return next(iter(lengths.values()))[0]


def sum_over_blocks(
    function: Callable[[PyTree, PyTree], Array], params: PyTree, data: PyTree, block_size: int
) -> Array:
    """Σ_i function(params, data)_i, at most `block_size` examples at a time.

    Each block is checkpointed, so that the gradient needs the memory of one block too.
    """
    n = leading_axis(data)
    if n <= block_size:
        return jnp.sum(widened(function(params, data)))
    blocks = math.floor(n / block_size)
    whole = jax.tree.map(
        lambda x: jnp.reshape(x[: blocks * block_size], (blocks, block_size, *x.shape[1:])), data
    )
    block_sum = jax.checkpoint(lambda theta, block: jnp.sum(widened(function(theta, block))))
    total = jnp.sum(jax.lax.map(lambda block: block_sum(params, block), whole))
    if blocks * block_size < n:
        rest = jax.tree.map(lambda x: x[blocks * block_size :], data)
        total = total + jnp.sum(widened(function(params, rest)))
    return total


def widened(values: Array) -> Array:
    """In float32 at least: a sum of N bfloat16 terms, or N/n itself, would lose its digits."""
    return values.astype(accumulator_dtype(values))
