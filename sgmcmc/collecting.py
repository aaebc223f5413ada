"""What to keep of a draw: all of it, some leaves by name, or a function of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
from jax.tree_util import Partial

from sgmcmc import trees
from sgmcmc.types import Array, PyTree


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
