"""Statistics of batch normalisation at given weights: exact means and variances, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._tree import leading_axis
from sgmcmc.types import Array, Batch, PyTree


def refresh_batch_statistics(
    apply: Callable[[PyTree, PyTree, PyTree], PyTree],
    params: PyTree,
    batch_stats: PyTree,
    batches: Iterable[PyTree],
) -> PyTree:
    """The batch statistics of `params` over `batches`, whatever the layers' momentum.

    Averaged or sampled weights have never been run, and the statistics beside them are those
    of other weights. One pass gives, for each normalised feature, the mean and the variance over
    all examples of all batches: those of single batches are merged exactly, the spread of
    their means included. In a layer above another the inputs are normalised by their own batch,
    as in training and in the authors' programs: take large batches where that matters. Of
    layers that share positions (convolutions) every example counts alike.

    Args:
        apply: `(params, batch_stats, batch) -> new batch_stats`, the network's forward pass in
            training mode. For flax.linen, whose `variables` are params and batch_stats:

                lambda p, s, x: net.apply({"params": p, "batch_stats": s}, x, train=True,
                                          mutable=["batch_stats"])[1]["batch_stats"]

            The momentum is found out: the update is taken to be m·old + (1 − m)·batch's.
        params: the weights.
        batch_stats: the collection as it is, leaves "mean" and "var" side by side.
        batches: pytrees of arrays with a leading axis of examples, or `Batch`es without masks,
            of any sizes; read once.

    Returns:
        A pytree like `batch_stats`. Nothing is changed in place.

    Raises:
        ValueError: no batches; leaves other than pairs of "mean" and "var"; an `apply` that
            leaves the statistics as they are (no training mode), or that does not move them
            as said; a batch with a mask.
    """
    pairs = _pairs(batch_stats)
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    ones = jax.tree.map(jnp.ones_like, batch_stats)
    run = jax.jit(lambda p, s, x: apply(p, s, x))
    kept: list[float] | None = None
    total, merged = 0, list[tuple[Array, Array]]()
    for batch in batches:
        data = checks.as_arrays(_plain(batch), "batches")
        seen = _leaves(run(params, zeros, data), batch_stats)
        if kept is None:
            moved = _leaves(run(params, ones, data), batch_stats)
            kept = [_momentum(a, b) for a, b in zip(seen, moved, strict=True)]
        own = [x / (1 - m) for x, m in zip(seen, kept, strict=True)]
        n = leading_axis(data)
        values = [(own[mean], own[variance]) for mean, variance in pairs]
        merged = values if not total else [
            _merge(old, new, total, n) for old, new in zip(merged, values, strict=True)
        ]  # fmt: skip
        total += n
    if not total:
        raise ValueError("batches: got none; expected one pass over the data")
    leaves, structure = jax.tree.flatten(batch_stats)
    for places, found in zip(pairs, merged, strict=True):
        for place, value in zip(places, found, strict=True):
            leaves[place] = value.astype(jnp.asarray(leaves[place]).dtype)
    return jax.tree.unflatten(structure, leaves)


def _merge(
    old: tuple[Array, Array], new: tuple[Array, Array], many: int, more: int
) -> tuple[Array, Array]:
    """Mean and variance of two groups together (Chan, Golub and LeVeque, 1983)."""
    share = more / (many + more)
    away = new[0] - old[0]
    mean = old[0] + share * away
    return mean, old[1] + share * (new[1] - old[1]) + share * (1 - share) * away**2


def _momentum(at_zero: Array, at_one: Array) -> float:
    """m of m·old + (1 − m)·batch's, from old = 0 and old = 1."""
    found = np.asarray(at_one, np.float64) - np.asarray(at_zero, np.float64)
    m = float(np.median(found))
    # Rounded as the statistics are, which may be large.
    slack = 1e-2 + 1e-5 * np.abs(np.asarray(at_zero, np.float64))
    if not np.all(np.abs(found - m) <= slack) or not -1e-3 < m < 1 - 1e-6:
        raise ValueError(
            f"apply: from statistics of 0 and of 1 the next differ by {m:g}; expected one "
            "momentum below 1: run the network in training mode, and return the new statistics"
        )
    return max(m, 0.0)


def _plain(batch: PyTree) -> PyTree:
    if not isinstance(batch, Batch):
        return batch
    if batch.mask is not None:
        raise ValueError("batches: got one with a mask, whose padding would be counted")
    return batch.data


def _leaves(tree: PyTree, like: PyTree) -> list[Array]:
    checks.require_same_structure(tree, like, "apply: what it returns", "batch_stats")
    wide = lambda x: x.astype(trees.common_dtype(x.dtype, jnp.float32))  # noqa: E731
    return [wide(jnp.asarray(x)) for x in jax.tree.leaves(tree)]


def _pairs(batch_stats: PyTree) -> list[tuple[int, int]]:
    """Places of "mean" and "var" among the leaves, layer by layer."""
    places = {name: i for i, (name, _) in enumerate(trees.named_leaves(batch_stats))}
    pairs = []
    for name, place in places.items():
        parts = name.split("/")
        if "mean" in parts:
            last = len(parts) - 1 - parts[::-1].index("mean")
            partner = "/".join([*parts[:last], "var", *parts[last + 1 :]])
            if partner in places:
                pairs.append((place, places[partner]))
    if not pairs or 2 * len(pairs) != len(places):
        raise ValueError(
            f'batch_stats: got leaves {list(places)}; expected pairs of "mean" and "var"'
        )
    return pairs
