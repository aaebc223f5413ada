"""Small helpers over pytrees of floating arrays."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc.types import Array, Key, PyTree


class ByIdentity(eqx.Module):
    """A module that is equal to itself alone, so that `jax.jit` takes its bound methods.

    What is jitted is looked up by its hash, and arrays, which are fields here, have none. Under
    `jax.jit(module.method)` the module's arrays are constants of that program.
    """

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


ARRAYS = (jax.Array, np.ndarray, np.generic)


def path_name(path: tuple[object, ...]) -> str:
    """A key path as users write it: `layers/0/weight`; "the only leaf" for a bare array."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the only leaf)"


def named_leaves(tree: PyTree) -> list[tuple[str, PyTree]]:
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
    """a x, computed in float32 at least and rounded once to the dtype of x."""

    def scaled(u: Array) -> Array:
        wide = widened(u)
        return (jnp.asarray(a, wide.dtype) * wide).astype(u.dtype)

    return jax.tree.map(scaled, x)


def add(x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, x, y)


def axpy(a: Array | float, x: PyTree, y: PyTree) -> PyTree:
    """y + a x leaf by leaf, computed in float32 at least and rounded once to the dtype of y."""

    def moved(u: Array, v: Array) -> Array:
        wide = widened(v)
        return (wide + jnp.asarray(a, wide.dtype) * u.astype(wide.dtype)).astype(v.dtype)

    return jax.tree.map(moved, x, y)


def dot(x: PyTree, y: PyTree) -> Array:
    """The inner product of two trees, summed in float32 at least."""
    total = jnp.zeros((), accumulator_dtype(x))
    for u, v in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        total = total + jnp.sum(u.astype(total.dtype) * v.astype(total.dtype))
    return total


def accumulator_dtype(tree: PyTree) -> jnp.dtype:
    """The widest dtype of the leaves, float32 at least."""
    return common_dtype(jnp.float32, *(jnp.asarray(x).dtype for x in jax.tree.leaves(tree)))


def normal_like(key: Key, x: Array) -> Array:
    """Standard normals like `x`, drawn in float32 at least: JAX's own in half are not centred."""
    wide = common_dtype(x, jnp.float32)
    return jax.random.normal(key, jnp.shape(x), wide).astype(x.dtype)


def common_dtype(*values: PyTree) -> jnp.dtype:
    """`jnp.result_type`, under `jax_numpy_dtype_promotion="strict"` too: this one is meant."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


def all_finite(tree: PyTree) -> Array:
    """() bool: whether every number of every leaf is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def copy(tree: PyTree) -> PyTree:
    """New buffers with the same values, so that donating them leaves the user's arrays alive."""
    return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def portable(tree: PyTree) -> PyTree:
    """A pytree that can be pickled: itself, or {path: array} where its containers cannot.

    Containers that hold functions, as modules do, are such; so are classes that another process
    does not find.
    """
    try:
        without = jax.tree.map(lambda x: 0 if isinstance(x, ARRAYS) else x, tree)
        pickle.loads(pickle.dumps(without))
    except Exception:  # what a class of a user's raises there is a long list
        return {path: leaf for path, leaf in named_leaves(tree) if isinstance(leaf, ARRAYS)}
    return tree


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
        listed = ", ".join(
            f"{path}: {length[0] if length else 'a scalar'}" for path, length in lengths.items()
        )
        raise ValueError(f"data: leaves must share one leading axis, got lengths {listed}")
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


def wide(tree: PyTree) -> PyTree:
    """Each leaf in float32 at least: what steps are computed in, to be rounded once at their end.

    In half precision a step size of 4e-8 is 6e-8, and what a kick adds is often below the spacing
    of the numbers.
    """
    return jax.tree.map(lambda x: widened(jnp.asarray(x)), tree)


def rounded(tree: PyTree, like: PyTree) -> PyTree:
    """Each leaf in the dtype of its place in `like`."""
    return jax.tree.map(lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype), tree, like)


def widened(values: Array) -> Array:
    """In float32 at least: a sum of N bfloat16 terms, or N/n itself, would lose its digits."""
    return values.astype(accumulator_dtype(values))
