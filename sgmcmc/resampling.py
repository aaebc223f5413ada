"""Draws of equal weight from weighted ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from sgmcmc.types import Key, PyTree


class Resampled(NamedTuple):
    """Draws that all weigh 1; diagnostics take it for a run of one chain.

    Attributes:
        draws: pytree of arrays [1, draw, …].
        weights: ones, [1, draw].
        index: [draw, 2], the chain and the draw that each was.
    """

    draws: PyTree
    weights: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index


def resample(draws: PyTree, weights: np.ndarray, key: Key, num_draws: int | None) -> Resampled:
    """See `Run.resampled`."""
    weights = np.asarray(weights, np.float64)
    if num_draws is None:
        num_draws = weights.size
    if isinstance(num_draws, bool) or int(num_draws) != num_draws or num_draws < 1:
        raise ValueError(f"num_draws: got {num_draws!r}; expected an integer ≥ 1")
    total = np.cumsum(weights.reshape(-1))
    if not total.size or not total[-1] > 0:
        raise ValueError("weights: all draws weigh 0; expected some that do not")
    # Systematic: one uniform for all, so that a draw of weight w appears n w / Σ w times,
    # rounded up or down.
    first = float(jax.random.uniform(key))
    places = (np.arange(num_draws) + first) / num_draws * total[-1]
    chosen = np.searchsorted(total, places, side="right")
    # Rounding must not carry the last place past the last draw that weighs anything.
    chosen = np.minimum(chosen, np.flatnonzero(weights.reshape(-1))[-1])

    def pick(leaf: Any) -> np.ndarray:
        flat = np.asarray(leaf).reshape(-1, *np.shape(leaf)[2:])
        return flat[chosen][None]

    index = np.stack(np.unravel_index(chosen, weights.shape), axis=1)
    return Resampled(jax.tree.map(pick, draws), np.ones((1, int(num_draws))), index)
