"""What is kept of a draw, and the host arrays that chunks' draws are copied into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import _tree as trees
from sgmcmc.loop._chunk import Recorded
from sgmcmc.loop._start import draw_bytes, whole
from sgmcmc.sampling._plan import Settings
from sgmcmc.types import Array, PyTree


def require_room(kept: PyTree, num_chains: int, num_samples: int) -> None:
    """Raise a MemoryError if all draws take over half the free memory.

    `kept` has the shapes of what is kept of one chain's draw.
    """
    free, needed = free_memory(), draw_bytes(kept, num_chains) * num_samples
    if free is not None and needed > free / 2:
        raise MemoryError(
            f"num_samples: {num_chains} chains of {num_samples:,} draws take {needed:,} bytes, "
            f"over half of the {free:,} free. Keep less of a draw (collect=), fold draws into "
            "reducers (reducers=, collect=False), thin them (thinning=), or run in parts and "
            "save each (a disk store, store=, is not in this version)"
        )


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

    How many draws were made is not counted here but said each time: what was written beyond
    that, by a chunk that broke off, does no harm.

    Args:
        room: draws of each chain to make room for at first; more room is made when needed.
        before: draws that exist, to go on after; they are copied, never changed.
    """

    def __init__(self, room: int, before: Recorded | None) -> None:
        self._room, self._before = room, before
        self._arrays: Recorded | None = None

    def write(self, recorded: Recorded, made: int, num_draws: int) -> None:
        """Copy the first draws of a chunk behind the `made` ones."""
        if self._arrays is None:
            self._arrays = self._allocate(recorded, made)
        while made + num_draws > self._arrays.info.weight.shape[1]:
            self._arrays = _grown(self._arrays, made)
        place = slice(made, made + num_draws)

        def copy(array: np.ndarray, chunk: Any) -> None:
            array[:, place] = np.asarray(chunk)[:, :num_draws]

        jax.tree.map(copy, self._arrays, recorded)

    def first(self, made: int) -> Recorded | None:
        """The draws made; None when there is none."""
        if self._arrays is None:
            return self._before
        return jax.tree.map(lambda x: x[:, :made], self._arrays)

    def _allocate(self, recorded: Recorded, made: int) -> Recorded:
        def room(x: Array) -> np.ndarray:
            return np.empty((x.shape[0], self._room, *x.shape[2:]), x.dtype)

        arrays: Recorded = jax.tree.map(room, recorded)
        if self._before is not None and made:
            # Leaf by leaf: a loaded run's draws may have other containers.
            pairs = zip(jax.tree.leaves(arrays), jax.tree.leaves(self._before), strict=True)
            for array, old in pairs:
                array[:, :made] = old
        return arrays


def _grown(arrays: Recorded, made: int) -> Recorded:
    """The same with twice the room; a MemoryError where that would take too much."""
    num_chains, room = arrays.info.weight.shape
    kept = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), arrays.values)
    require_room(kept, num_chains, 2 * room)

    def grow(array: np.ndarray) -> np.ndarray:
        larger = np.empty((num_chains, 2 * room, *array.shape[2:]), array.dtype)
        larger[:, :made] = array[:, :made]
        return larger

    larger: Recorded = jax.tree.map(grow, arrays)
    return larger


def blank(recorded: Recorded, settings: Settings, stopped: dict[int, int]) -> None:
    """NaN and weight 0, in place, for what a chain did from its first step that was not finite."""
    info: Any = recorded.info
    for chain, step in stopped.items():
        valid = max(0, (step - settings.num_burnin) // settings.thinning)
        for x in jax.tree.leaves(recorded):
            if jnp.issubdtype(x.dtype, jnp.floating):
                x[chain, valid:] = np.nan
        info.weight[chain, valid:] = 0
        info.finite[chain, valid:] = False


def collector(collect: Any, template: PyTree) -> Callable[[PyTree], PyTree] | None:
    """What `collect` stands for, as a pytree of code and arrays; None keeps nothing.

    Raises:
        ValueError: a name fits no leaf.
        TypeError: neither a bool, nor names, nor a function.
    """
    if collect is False:
        return None
    if collect is True or collect is None:
        return Partial(whole)
    if callable(collect):
        return trees.as_callable(collect, "collect")
    if isinstance(collect, str) or not isinstance(collect, Sequence):
        raise TypeError(
            f"collect: got {trees.told(collect)}; expected True, False, names or a function"
        )
    known = [name for name, _ in trees.named_leaves(template)]
    for name in collect:
        if not any(_is_part(name, other) for other in known):
            raise ValueError(
                f"collect: no leaf is called {trees.told(name)}; there are {trees.listed(known)}"
            )
    return _Subset(tuple(collect))


class _Subset(eqx.Module):
    """Keeps the leaves of these names, as a dict of them."""

    names: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, position: PyTree) -> dict[str, Array]:
        paths = [path for path, _ in trees.named_leaves(position)]
        return {
            unique: leaf
            for path, (unique, leaf) in zip(paths, trees.distinct_leaves(position), strict=True)
            if any(_is_part(name, path) for name in self.names)
        }


def _is_part(name: str, path: str) -> bool:
    return path == name or path.startswith(f"{name}/")
