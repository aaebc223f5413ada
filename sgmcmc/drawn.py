"""Draws on the host: arrays that chunks are copied into."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from sgmcmc import checks
from sgmcmc.loop import Recorded
from sgmcmc.run import Run
from sgmcmc.types import Info


class DrawnArrays:
    """Host arrays [chain, draw, …] that chunks are copied into.

    Args:
        num_chains: their first axis.
        room: draws of each chain to make room for at first; more room is made when needed.
        previous: a run to go on with.
    """

    def __init__(self, num_chains: int, room: int, previous: Run | None) -> None:
        self._shape = (num_chains, room)
        self._arrays: Recorded | None = None
        self.made = 0 if previous is None else previous.num_draws
        self._previous = previous

    def add(self, recorded: Recorded, num_draws: int) -> None:
        if self._arrays is None:
            self._arrays = self._allocate(recorded)
        while self.made + num_draws > self._shape[1]:
            self._arrays = self._grown(self._arrays)
        place = slice(self.made, self.made + num_draws)

        def copy(array: np.ndarray, chunk: Any) -> None:
            array[:, place] = np.asarray(chunk)[:, :num_draws]

        jax.tree.map(copy, self._arrays, recorded)
        self.made += num_draws

    def finished(self) -> Recorded | None:
        """The draws made; None when there is none."""
        if self._arrays is None:
            if self._previous is None:
                return None
            return Recorded(self._previous.draws, weighted_info(self._previous))
        return jax.tree.map(lambda x: x[:, : self.made], self._arrays)

    def _allocate(self, recorded: Recorded) -> Recorded:
        arrays = jax.tree.map(lambda x: np.empty((*self._shape, *x.shape[2:]), x.dtype), recorded)
        if self._previous is not None and self.made:
            before = Recorded(self._previous.draws, weighted_info(self._previous))
            # Leaf by leaf: a loaded run's draws may have other containers.
            for array, old in zip(jax.tree.leaves(arrays), jax.tree.leaves(before), strict=True):
                array[:, : self.made] = old
        return arrays

    def _grown(self, arrays: Recorded) -> Recorded:
        """The same with twice the room; a MemoryError where that would take too much."""
        num_chains, room = self._shape
        kept = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), arrays.values)
        checks.draws_fit(kept, num_chains, 2 * room)
        self._shape = (num_chains, 2 * room)

        def grow(array: np.ndarray) -> np.ndarray:
            larger = np.empty((*self._shape, *array.shape[2:]), array.dtype)
            larger[:, : self.made] = array[:, : self.made]
            return larger

        made: Recorded = jax.tree.map(grow, arrays)
        return made


def weighted_info(run: Run) -> Info:
    info: Any = run.info
    return info._replace(position=(), weight=run.weights)
