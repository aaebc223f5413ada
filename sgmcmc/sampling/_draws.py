"""What is kept of a draw, and the host arrays that chunks' draws are copied into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.tree_util import Partial

from sgmcmc import _tree as trees
from sgmcmc.loop._chunk import Recorded
from sgmcmc.sampling._run import Run
from sgmcmc.types import Array, Info, PyTree


def draws_fit(kept: PyTree, num_chains: int, num_samples: int) -> int:
    """Bytes of one draw of all chains; a MemoryError if all take over half the free memory.

    `kept` has the shapes of what is kept of one chain's draw.
    """
    # Beside what is kept, the weight and the info: at most eight numbers a draw.
    one = (trees.num_bytes(kept) + 64) * num_chains
    free, needed = free_memory(), one * num_samples
    if free is not None and needed > free / 2:
        raise MemoryError(
            f"num_samples: {num_chains} chains of {num_samples:,} draws take {needed:,} bytes, "
            f"over half of the {free:,} free. Keep less of a draw (collect=), fold draws into "
            "reducers (reducers=, collect=False), thin them (thinning=), or run in parts and "
            "save each (a disk store, store=, is not in this version)"
        )
    return one


def free_memory() -> int | None:
    """Bytes of main memory that are free to use; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


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
        draws_fit(kept, num_chains, 2 * room)
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


def collector(collect: Any, template: PyTree) -> Callable[[PyTree], PyTree] | None:
    """What `collect` stands for, as a pytree of code and arrays; None keeps nothing.

    Raises:
        ValueError: a name fits no leaf.
        TypeError: neither a bool, nor names, nor a function.
    """
    if collect is False:
        return None
    if collect is True or collect is None:
        return Partial(unchanged)
    if callable(collect):
        return trees.as_callable(collect, "collect")
    if isinstance(collect, str) or not isinstance(collect, Sequence):
        raise TypeError(f"collect: got {collect!r}; expected True, False, names or a function")
    known = [name for name, _ in trees.named_leaves(template)]
    for name in collect:
        if not any(_is_part(name, other) for other in known):
            raise ValueError(f"collect: no leaf is called {name!r}; there are {', '.join(known)}")
    return _Subset(tuple(collect))


class _Subset(eqx.Module):
    """Keeps the leaves of these names, as a dict of them."""

    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, position: PyTree) -> dict[str, Array]:
        return {
            path: leaf
            for path, leaf in trees.named_leaves(position)
            if any(_is_part(name, path) for name in self.names)
        }


def _is_part(name: str, path: str) -> bool:
    return path == name or path.startswith(f"{name}/")


def unchanged(position: PyTree) -> PyTree:
    return position
