"""Why a run was not finite from its start on: looked into once it has failed, never before.

Good runs pay nothing. A failed one pays a pass over the data at its start, in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.types import Array, PyTree

# Examples evaluated at a time.
BLOCK = 1024

GRADIENT = (
    "its value is finite and its gradient is not (√0, or NaN masked by `where` after the fact: "
    "mask what goes into the function)"
)


def why_not_finite(posterior: Posterior, position: PyTree, data: PyTree) -> str | None:
    """Which of parameters, prior, likelihood and their gradients is not finite at a start.

    Args:
        posterior: the target.
        position: the start of one chain.
        data: all data; None for targets without.

    Returns:
        A sentence of at most 200 characters, which names the first example where it is the
        likelihood; None: all of them are finite, or they could not be looked into.
    """
    prior = posterior.prior_potential
    terms: list[tuple[str, Callable[..., Array], PyTree]] = [("log_prior", prior, None)]
    if posterior.has_data:
        terms.append(("log_likelihood", posterior.example_potentials, data))
    return _first_of(terms, position)


def why_loss_not_finite(
    loss: Callable[..., Array], position: PyTree, data: PyTree = None
) -> str | None:
    """The same of a loss, `(params, data) -> ()` or `(n,)`, or `(params) -> ()` without data."""
    return _first_of([("loss", loss, data)], position)


def _first_of(
    terms: list[tuple[str, Callable[..., Array], PyTree]], position: PyTree
) -> str | None:
    try:
        with jax.debug_nans(False):
            for path, leaf in trees.named_leaves(position):
                if not np.isfinite(np.asarray(leaf, np.float64)).all():
                    return f"params: leaf {trees.shortened(path, 40)} is not finite at the start"
            said = (_of_term(name, term, position, data) for name, term, data in terms)
            return next((words for words in said if words), None)
    except Exception:  # the error that is being explained must come through
        return None


def _of_term(name: str, term: Callable[..., Array], position: PyTree, data: PyTree) -> str | None:
    """What is wrong with one term of U, in words."""
    if data is None:
        value = float(eqx.filter_jit(lambda p: term(p))(position))
        if not np.isfinite(value):
            shown = value if name == "loss" else -value
            return f"{name}: it is {shown} at the start; begin inside its support"
        gradient = eqx.filter_jit(lambda p: jax.grad(term)(p))(position)
        paths = [p for p, g in trees.named_leaves(gradient) if not bool(jnp.isfinite(g).all())]
        where = f" in leaf {trees.shortened(paths[0], 40)}" if paths else ""
        return f"{name}: at the start {GRADIENT}{where}" if paths else None
    n = leading_axis(data)
    bad = np.concatenate(list(_flags(term, position, data)))
    if bad.any():
        first = int(np.argmax(bad))
        return (
            f"{name}: at the start it is not finite for {int(bad.sum()):,} of {n:,} examples, "
            f"first at index {first}{_looks(data, first)}"
        )
    return _of_gradients(name, term, position, data)


def _of_gradients(
    name: str, term: Callable[..., Array], position: PyTree, data: PyTree
) -> str | None:
    """The first example whose gradient is not finite."""
    summed = lambda p, block: jnp.sum(term(p, block))  # noqa: E731
    finite = eqx.filter_jit(lambda p, block: trees.all_finite(jax.grad(summed)(p, block)))
    for first, block in _blocks(data):
        if bool(finite(position, block)):
            continue
        flags = eqx.filter_jit(
            lambda p, rows: jax.lax.map(
                lambda row: trees.all_finite(jax.grad(summed)(p, _one(row))), rows
            )
        )(position, block)
        bad = ~np.asarray(flags)
        index = f", first at index {first + int(np.argmax(bad))}" if bad.any() else ""
        return f"{name}: at the start {GRADIENT}{index}"
    return None


def _flags(term: Callable[..., Array], position: PyTree, data: PyTree) -> Iterator[np.ndarray]:
    """Which examples of each block are not finite."""
    evaluate = eqx.filter_jit(lambda p, rows: term(p, rows))
    singly = eqx.filter_jit(
        lambda p, rows: jax.lax.map(lambda row: jnp.mean(term(p, _one(row))), rows)
    )
    for _, block in _blocks(data):
        values = np.asarray(evaluate(position, block), np.float64)
        if values.ndim == 0:  # the mean of a block: its examples one by one where it is bad
            size = leading_axis(block)
            values = np.zeros(size) if np.isfinite(values) else singly(position, block)
        yield ~np.isfinite(np.asarray(values, np.float64))


def _blocks(data: PyTree) -> Iterator[tuple[int, PyTree]]:
    for first in range(0, leading_axis(data), BLOCK):
        yield first, jax.tree.map(lambda x: x[first : first + BLOCK], data)  # noqa: B023


def _one(row: PyTree) -> PyTree:
    """A batch of one example."""
    return jax.tree.map(lambda x: x[None], row)


def _looks(data: PyTree, index: int) -> str:
    """NaN in the data at an example, or its integers, which may be labels."""
    rows = [(path, np.asarray(leaf[index])) for path, leaf in trees.named_leaves(data)]
    for path, row in rows:
        if np.issubdtype(row.dtype, np.integer) or row.dtype == bool:
            continue
        if not np.isfinite(np.asarray(row, np.float64)).all():
            return f": NaN in the data, leaf {trees.shortened(path, 30)}"
    for path, row in rows:
        if row.ndim == 0 and np.issubdtype(row.dtype, np.integer):
            return f", where leaf {trees.shortened(path, 30)} is {int(row)} (a label out of range?)"
    return ""
