"""Checks of values: each error names the argument, what was given and what is allowed."""

from __future__ import annotations

import contextlib
import inspect
import math
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import _leaves as foreign
from sgmcmc import _tree as trees
from sgmcmc._tree import leading_axis, named_leaves
from sgmcmc.types import Array, Key, PyTree


def on_host(name: str, *given: object) -> None:
    """Raise a TypeError where `name`, which runs on the host, is called under jit or vmap.

    Args:
        name: of the function.
        given: its arguments: traced leaves say that they are, and so do values that the
            functions among them close over.
    """
    # Iterators are leaves, of which JAX would warn; others refuse them by name.
    functions = jax.tree.leaves(given, is_leaf=lambda x: isinstance(x, Partial | Iterator))
    leaves = jax.tree.leaves(given, is_leaf=lambda x: isinstance(x, Iterator)) + functions
    cells = [value for leaf in leaves for value in _closed_over(leaf)]
    # Under jit, unlike vmap, constants are traced too.
    leaves += [*cells, jnp.zeros(())]
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise TypeError(
            f"{name}: it runs on the host, and cannot be traced by jit, vmap, grad or scan; call "
            "it outside of them, one call each, or vmap kernel.step in a loop of your own"
        )


def _closed_over(leaf: object) -> list[object]:
    """What a function, or the function of a `Partial`, has in its closure."""
    function = leaf.func if isinstance(leaf, Partial) else leaf
    if not inspect.isfunction(function):
        return []
    found: list[object] = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a name that is not bound yet
            found.append(cell.cell_contents)
    return found


def require_floating(tree: PyTree, name: str) -> None:
    """Raise unless `tree` has leaves, all of them floating arrays.

    Raises:
        ValueError: there is no leaf.
        TypeError: a leaf is not a floating array; the message names its path.
    """
    foreign.refuse_foreign(tree, name)
    leaves = named_leaves(tree)
    if not leaves:
        raise ValueError(f"{name}: got a pytree without leaves; expected floating arrays")
    for path, leaf in leaves:
        path = trees.shortened(path, 40)
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
            raise ValueError(
                f"{name}: leaf {path} is empty, shape {tuple(leaf.shape)}; put None in its place "
                "(a pytree without a leaf), or leave it out"
            )


def require_same_structure(tree: PyTree, like: PyTree, name: str, like_name: str) -> None:
    """Raise a ValueError that names the first leaf of `tree` whose shape is not that of `like`."""
    given, wanted = named_leaves(tree), named_leaves(like)
    structures: list[PyTree] = [jax.tree.structure(tree), jax.tree.structure(like)]
    if structures[0] != structures[1]:
        odd = sorted({p for p, _ in given} ^ {p for p, _ in wanted})
        where = f"[{trees.listed([repr(path) for path in odd])}]" if odd else "its containers"
        raise ValueError(f"{name}: its tree differs from that of {like_name} at {where}")
    for (path, leaf), (_, other) in zip(given, wanted, strict=True):
        if jnp.shape(leaf) != jnp.shape(other):
            raise ValueError(
                f"{name}: leaf {trees.shortened(path, 40)} has shape {jnp.shape(leaf)}; "
                f"{like_name} has {jnp.shape(other)} there"
            )


def as_arrays(tree: PyTree, name: str) -> PyTree:
    """`tree` with JAX's arrays as leaves, none of whose numbers is another one for it.

    Without x64 JAX keeps integers in 32 bits and floats in float32: fractions are rounded, but
    larger integers would wrap in silence, and larger floats be infinite.

    Raises:
        ValueError: an integer is beyond 32 bits, or a finite float beyond float32; the leaf is
            named.
    """
    require_in_range(tree, name)
    return jax.tree.map(jnp.asarray, tree)


def require_in_range(tree: PyTree, name: str) -> None:
    """Raise a ValueError, as `as_arrays`, where JAX would make other numbers of a leaf's."""
    for path, leaf in named_leaves(tree):
        if isinstance(leaf, jax.Array):
            continue
        given = np.asarray(leaf)
        kept = jax.dtypes.canonicalize_dtype(given.dtype) if given.dtype.kind in "iuf" else None
        if kept is None or kept == given.dtype or not given.size:
            continue
        if given.dtype.kind == "f":
            largest = np.max(np.abs(given), initial=0.0, where=np.isfinite(given))
            if largest > np.finfo(kept).max:
                raise ValueError(
                    f"{name}: leaf {path} has a number of {largest:.3g}, which in {kept} is "
                    f"infinite; rescale it, or {X64}"
                )
            continue
        low, high = given.min(), given.max()
        if low < np.iinfo(kept).min or high > np.iinfo(kept).max:
            raise ValueError(
                f"{name}: leaf {path} is {given.dtype} from {low} to {high}, which would wrap in "
                f"{kept}; number them from 0 (np.unique(ids, return_inverse=True)[1]), subtract an "
                f"offset, or {X64}"
            )


# How to get JAX's 64 bits.
X64 = 'call jax.config.update("jax_enable_x64", True) first'


def check_data(data: PyTree, data_size: int | None) -> None:
    """Raise a ValueError unless `data` has `data_size` examples."""
    length = leading_axis(data)
    if data_size is not None and length != data_size:
        names = [path for path, _ in trees.named_leaves(data)]
        rows = isinstance(data, list) and len(data) == data_size
        hint = "; a list counts as so many leaves: np.stack it" if rows else ""
        raise ValueError(
            f"data: leaves {trees.listed(names)} have {length} examples, but the posterior was "
            f"built with data_size={data_size}{hint}"
        )


def at_least_one(value: PyTree, name: str) -> None:
    """Raise a TypeError unless `value` is an integer, a ValueError unless it is ≥ 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: got {trees.told(value)}; expected an integer ≥ 1")
    if value < 1:
        raise ValueError(f"{name}: got {value}; allowed: an integer ≥ 1")


def positive(value: PyTree, name: str, most: float = math.inf) -> Array:
    """`value` > 0 and ≤ `most` as a floating array, checked where it is not traced."""
    number = jnp.asarray(value, dtype=float)
    check_range(number, name, above_zero=True, most=most)
    return number


def check_range(
    value: PyTree, name: str, above_zero: bool, below: float = math.inf, most: float = math.inf
) -> None:
    """Raise a ValueError unless every number of `value` is finite, ≥ 0 (> 0) and in its bounds.

    A traced value has no numbers yet, and passes.
    """
    if isinstance(value, jax.core.Tracer):
        return
    # An array is a grid to be vmapped: each of its entries must do.
    for number in np.ravel(value).tolist():
        fits = math.isfinite(number) and number < below and number <= most
        if not fits or number < 0 or (above_zero and number == 0):
            allowed = "a finite number > 0" if above_zero else "a finite number ≥ 0"
            if below < math.inf:
                allowed += f" and < {below:g}"
            if most < math.inf:
                allowed += f" and ≤ {most:g}"
            raise ValueError(f"{name}: got {number}; expected {allowed}")


def typed_key(key: object) -> Key:
    """A typed key; legacy uint32 keys become the typed key with the same draws."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return jnp.asarray(key)
        if key.dtype == jnp.uint32 and key.ndim == 1:
            with contextlib.suppress(TypeError):  # words of another number than a key has
                return jax.random.wrap_key_data(jnp.asarray(key))
    shape = getattr(key, "shape", None)
    raise TypeError(
        f"key: got {type(key).__name__}{'' if shape is None else f' of shape {shape}'}; "
        "expected one jax.random.key(seed)"
    )


def count(value: PyTree, name: str, *, least: int = 1) -> int:
    """An integer ≥ `least`, as Python's own.

    Raises:
        TypeError: not an integer.
        ValueError: below `least`.
    """
    if isinstance(value, bool) or not _is_index(value):
        raise TypeError(f"{name}: got {trees.told(value)}; expected an integer ≥ {least}")
    if value < least:
        raise ValueError(f"{name}: got {value}; allowed: at least {least}")
    return int(value)


def _is_index(value: PyTree) -> bool:
    # NumPy's float arrays have an __index__ too, and refuse only when asked.
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def lacking(value: object, contract: type, where: str) -> str:
    """What an object lacks that should be one of `contract`, for the end of a message.

    Args:
        value: what was given in its place.
        contract: the abstract class.
        where: the public module that has it.
    """
    if isinstance(value, type) or inspect.isfunction(value):
        return f", called: {trees.shortened(value.__name__, 30)}(…)"
    wanted = sorted(contract.__abstractmethods__)  # type: ignore[attr-defined]
    absent = [name for name in wanted if name not in dir(type(value))]
    has_no = f"; it has no {', '.join(absent)}" if absent else ""
    return f", or a subclass of {where}.{contract.__name__}{has_no}"


def choice(value: PyTree, name: str, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name}: got {trees.told(value)}; allowed: {', '.join(allowed)}")


def positive_scalar(value: PyTree, name: str) -> Array:
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
            raise ValueError(f"{name}: got {trees.told(value)}; expected a finite number > 0")
    return jnp.asarray(value, float)
