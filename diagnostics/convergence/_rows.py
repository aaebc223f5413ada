"""The scalar quantities that a summary lists: parameters, functions, predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from sgmcmc import _tree as trees
from sgmcmc._predictions import are_logits, expected
from sgmcmc._tree import leading_axis
from sgmcmc.diagnostics._draws import Draws, evaluate
from sgmcmc.types import Array, PyTree


class Rows(NamedTuple):
    """Named scalars [chain, draw, row], and notes on what was left out."""

    names: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...] = ()


def join(parts: list[Rows]) -> Rows:
    """All rows of `parts`, in their order, as float64 (booleans as 0 and 1), and all notes."""
    return Rows(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.values.astype(np.float64) for part in parts], axis=2),
        tuple(note for part in parts for note in part.notes),
    )


def parameters(draws: Draws, var_names: Iterable[str] | None, max_rows: int | None) -> Rows:
    """The leaves called `var_names`, or below one of these names; None: all."""
    leaves = named(draws.values, "theta")
    notes = _alike(draws.values, leaves)
    if var_names is not None:
        wanted = [var_names] if isinstance(var_names, str) else list(var_names)
        for name in wanted:
            if not any(_matches(leaf, name) for leaf in leaves):
                raise ValueError(f"var_names: got {name!r}; expected some of {', '.join(leaves)}")
        leaves = {n: v for n, v in leaves.items() if any(_matches(n, name) for name in wanted)}
    listed = _select(leaves, "parameters", max_rows)
    return listed._replace(notes=(*notes, *listed.notes))


def functions(
    draws: Draws, chosen: Mapping[str, Callable[[PyTree], Array]], max_rows: int | None
) -> Rows:
    """The values of the functions `chosen` at every draw, scalar by scalar, ≤ `max_rows`."""
    each = Partial(_each, {n: trees.as_callable(f, f"functions[{n!r}]") for n, f in chosen.items()})
    outputs = all_draws(draws, each)
    paths: list[tuple[tuple[object, ...], np.ndarray]] = []
    for name in chosen:  # the mapping's own order, which a pytree would sort
        paths += jax.tree_util.tree_leaves_with_path({name: outputs[name]})
    return _select(dict(trees.distinct(paths)), "function values", max_rows)


def predictions(
    draws: Draws,
    predict: Callable[..., Array],
    x: PyTree,
    y: ArrayLike | None,
    max_rows: int | None,
    kind: str | None = None,
) -> Rows:
    """Predictions at x, ≤ `max_rows`: probabilities of classes (of y alone if given), or means."""
    x = jax.tree.map(np.asarray, x)
    m = leading_axis(x)
    if y is not None:
        y = np.asarray(y)
        if y.shape != (m,) or not np.issubdtype(y.dtype, np.integer):
            raise ValueError(f"y: got {y.dtype} {y.shape}; expected integer labels ({m},)")
    function = expected(predict, kind)
    one = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[2:], v.dtype), draws.values)
    out = eqx.filter_eval_shape(function.predict, one, x)
    shape = eqx.filter_eval_shape(function, one, x, y).shape
    if shape[:1] != (m,):
        raise ValueError(f"predict: got shape {shape}; expected the leading axis of x, {m}")
    per_point = int(np.prod(shape[1:]))
    points = np.arange(m)
    notes: tuple[str, ...] = ()
    if kind is None and y is None and are_logits(out, kind):
        notes = (f'predictions {out.shape} are read as logits (else kind="values"), here softmax',)
    if max_rows is not None and m * per_point > max_rows:
        # Chosen before they are evaluated: predictions at every point may not fit in memory.
        points = _evenly(m, max(1, max_rows // per_point))
        notes += (f"predictions at {len(points)} of {m} points, evenly spaced (max_rows)",)
        x = jax.tree.map(lambda v: v[points], x)
        y = None if y is None else y[points]
    values = all_draws(draws, function, x, y)
    values = values.reshape(*values.shape[:2], -1)
    if per_point == 1:
        names = tuple(f"prediction[{i}]" for i in points)
    else:
        names = tuple(f"prediction[{i},{k}]" for i in points for k in range(per_point))
    return Rows(names, values, notes)


def _each(chosen: Mapping[str, Callable[[PyTree], Array]], params: PyTree) -> dict[str, Array]:
    return {name: function(params) for name, function in chosen.items()}


def all_draws(draws: Draws, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """`function` of every draw: [chain, draw, …]."""
    shape = draws.weights.shape
    flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), draws.values)
    out = evaluate(function, flat, *args)
    return jax.tree.map(lambda v: v.reshape(*shape, *v.shape[1:]), out)


def named(tree: PyTree, bare: str) -> dict[str, np.ndarray]:
    """Leaves by names that differ; a tree that is one array is called `bare`."""
    if isinstance(tree, np.ndarray):
        return {bare: tree}
    return dict(trees.distinct_leaves(tree))


def _alike(tree: PyTree, leaves: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """A note on leaves whose paths read alike, and how they are listed."""
    paths = () if isinstance(tree, np.ndarray) else trees.named_leaves(tree)
    changed = [new for new, (old, _) in zip(leaves, paths, strict=False) if new != old]
    return (f"paths that read alike are listed as {', '.join(changed)}",) if changed else ()


def _matches(leaf: str, name: str) -> bool:
    return leaf == name or leaf.startswith((f"{name}/", f"{name}."))


def entries(leaves: Mapping[str, np.ndarray]) -> Rows:
    """Every scalar of arrays [chain, draw, …]."""
    return _select(leaves, "entries", None)


def _select(leaves: Mapping[str, np.ndarray], what: str, max_rows: int | None) -> Rows:
    """Scalars of arrays [chain, draw, …], ≤ `max_rows` of them; a note names them as `what`."""
    sizes = {name: int(np.prod(v.shape[2:])) for name, v in leaves.items()}
    total = sum(sizes.values())
    chosen = np.arange(total)
    notes: tuple[str, ...] = ()
    if max_rows is not None and total > max_rows:
        chosen = _evenly(total, max_rows)
        notes = (f"{max_rows} of {total} {what}, evenly spaced (max_rows)",)
    names, columns, start = [], [], 0
    for name, v in leaves.items():
        inside = chosen[(chosen >= start) & (chosen < start + sizes[name])] - start
        columns.append(v.reshape(*v.shape[:2], -1)[..., inside])
        names += [_entry(name, i, v.shape[2:]) for i in inside]
        start += sizes[name]
    return Rows(tuple(names), np.concatenate(columns, axis=2), notes)


def _entry(name: str, flat_index: int, shape: tuple[int, ...]) -> str:
    if not shape:
        return name
    return f"{name}[{','.join(str(i) for i in np.unravel_index(flat_index, shape))}]"


def _evenly(total: int, count: int) -> np.ndarray:
    """`count` of `total` indices, evenly spaced: the same for every run."""
    return (np.arange(count) * total) // count
