"""What users hand in where arrays are wanted: what it is, and how to make arrays of it.

Nothing is imported to know others' classes: they are known by the package that their class, or a
class it comes from, was defined in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from sgmcmc._tree import path_name, shortened
from sgmcmc.types import PyTree

# How to make a NumPy array of a package's arrays, tables and tensors.
CONVERSIONS = {
    "torch": "{}.detach().cpu().numpy()",
    "tensorflow": "{}.numpy()",
    "polars": "{}.to_numpy()",
    "pandas": "{}.to_numpy()",
    "pyarrow": "{}.to_numpy()",
    "xarray": "{}.to_numpy()",
    "scipy": "{}.toarray()",
    "sparse": "{}.todense()",
    "jax": "{}.todense()",  # jax.experimental.sparse
    "cupy": "{}.get()",
    "datasets": '{}.with_format("numpy")[:]',
    "mlx": "np.asarray({})",
}

# What has arrays in it and is none: the classes of these names, wherever they come from.
LOADERS = ("DataLoader", "Dataset", "IterableDataset")

ALL_EXAMPLES = "it takes arrays of all examples and draws its own batches (batch_size=)"


def require_arrays(data: PyTree) -> None:
    """Raise unless each leaf of `data` is an array of numbers, NumPy's or JAX's, or a number.

    Raises:
        TypeError: a leaf is something else; the message says what it is and how to convert it.
        ValueError: lists that JAX takes for containers, a masked array, or no examples at all.
    """
    _refuse_lists(data)
    for path, leaf in _named(data):
        said = _foreign(leaf, path)
        if said is None and not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            if isinstance(leaf, bool | int | float | complex):
                continue  # a scalar, of which others complain
            said = f"{_called(leaf)}; expected an array: np.asarray of it"
        if said is not None:
            raise TypeError(f"data: leaf {shortened(path, 40)} is {said}")
        if isinstance(leaf, jax.Array):
            continue
        dtype = np.asarray(leaf).dtype
        if dtype.kind in "OSUMmT" or dtype.names is not None:
            hint = "; codes of categories, or numbers, e.g. .astype(float)"
            raise TypeError(
                f"data: leaf {shortened(path, 40)} is {shortened(str(dtype), 60)}; expected "
                f"numbers{hint}"
            )
        if isinstance(leaf, np.ma.MaskedArray):
            raise ValueError(
                f"data: leaf {shortened(path, 40)} is a masked array, which JAX does not take; "
                "pass x.filled(…) and the mask as a leaf of its own, or leave those rows out"
            )
        if np.ndim(leaf) and not len(leaf):
            raise ValueError(
                f"data: leaf {shortened(path, 40)} has no examples, shape {np.shape(leaf)}"
            )


def refuse_foreign(tree: PyTree, name: str, *, others: bool = True) -> None:
    """Raise a TypeError that says what a leaf is which is another package's array, or no array.

    Args:
        tree: parameters; numbers and functions among its leaves are left to other checks.
        name: of the argument.
        others: whether objects that hold no arrays are refused too, or another package's alone.
    """
    for path, leaf in _named(tree):
        said = _foreign(leaf, path, others=others)
        if said is not None:
            raise TypeError(f"{name}: leaf {shortened(path, 40)} is {said}")


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_whole)
    return [(path_name(path), leaf) for path, leaf in leaves]


def _is_whole(x: Any) -> bool:
    """Whether it counts as one leaf here: JAX warns of iterators, and takes sparse ones apart."""
    return isinstance(x, Iterator) or _is_sparse(x)


def _is_sparse(x: Any) -> bool:
    return type(x).__module__.startswith("jax.experimental.sparse")


def _foreign(leaf: Any, path: str, *, others: bool = True) -> str | None:
    """What a leaf is that is no array of NumPy or JAX, in words; None: there is nothing to say."""
    if isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex):
        return None
    if isinstance(leaf, jax.Array) and not _is_sparse(leaf):
        return None
    name = "x" if path.startswith("(") else shortened(path.rpartition("/")[2], 20)
    ancestors = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(leaf).__mro__]
    if any(ancestor in LOADERS for package, ancestor in ancestors if package != "datasets"):
        return f"{_called(leaf)}; {ALL_EXAMPLES}: np.concatenate its batches once"
    if ("torch", "Module") in ancestors:
        return (
            f"{_called(leaf)}; expected arrays, as {{n: p.detach().cpu().numpy() for n, p in "
            "x.named_parameters()}, and a likelihood in JAX"
        )
    for package, _ in ancestors:
        if package in CONVERSIONS and (package != "jax" or _is_sparse(leaf)):
            how = CONVERSIONS[package].format(name)
            return f"{_called(leaf)}; expected a NumPy or JAX array: pass {how}"
    if not others or isinstance(leaf, jax.ShapeDtypeStruct):
        return None
    return _no_array(leaf)


def _no_array(leaf: Any) -> str | None:
    """What an object is that holds no numbers; None where it says its dtype and shape."""
    if isinstance(leaf, Iterator):
        return f"{_called(leaf)}; {ALL_EXAMPLES}: np.stack(list(…)) once"
    if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
        return (
            f"{_called(leaf)}, a dataclass that JAX does not know; call jax.tree_util."
            f"register_dataclass({shortened(type(leaf).__name__, 30)}), or pass a dict"
        )
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return None
    return (
        f"{_called(leaf)}; expected NumPy or JAX arrays in dicts, lists or tuples (a class of "
        "one's own: jax.tree_util.register_pytree_node_class)"
    )


def _called(leaf: Any) -> str:
    """Package and class of an object."""
    kind = type(leaf)
    package = kind.__module__.partition(".")[0]
    prefix = "" if package in ("builtins", "__main__") else f"{package}."
    return "a " + shortened(f"{prefix}{kind.__name__}", 60)


def _refuse_lists(tree: PyTree, path: str = "") -> None:
    """Raise a ValueError at the outermost list of numbers, which JAX takes for as many leaves."""
    if isinstance(tree, list) and tree and _numbers_only(tree):
        where = f"leaf {shortened(path, 40)}" if path else "it"
        try:
            np.asarray(tree, float)
            how = "pass np.asarray of it"
        except ValueError:
            how = (
                "its rows differ in length: pad them to one, pass np.asarray of that, and leave "
                "the padding out in the likelihood"
            )
        raise ValueError(
            f"data: {where} is a list of {len(tree)} {type(tree[0]).__name__}s, which JAX takes "
            f"for {len(tree)} leaves or more; {how}"
        )
    if isinstance(tree, dict):
        for key, child in tree.items():
            _refuse_lists(child, f"{path}/{key}" if path else str(key))
    elif isinstance(tree, list | tuple):
        for place, child in enumerate(tree):
            _refuse_lists(child, f"{path}/{place}" if path else str(place))


def _numbers_only(tree: Any) -> bool:
    if isinstance(tree, list | tuple):
        return all(_numbers_only(child) for child in tree)
    return isinstance(tree, bool | int | float | complex | np.generic)
