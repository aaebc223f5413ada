from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sgmcmc.types import PyTree


class Metric(Protocol):
    """What a metric offers."""

    def check(self, position: PyTree) -> None: ...
    def to_position(self, momentum: PyTree) -> PyTree: ...
    def to_momentum(self, gradient: PyTree) -> PyTree: ...


class Preconditioner(Protocol):
    """What a metric that changes with the position offers."""

    def check(self, position: PyTree) -> None: ...
    def init(self, position: PyTree) -> PyTree: ...
    def evaluate(
        self,
        gradient_at: Callable[[PyTree], PyTree],
        position: PyTree,
        gradient: PyTree,
        memory: PyTree,
    ) -> tuple[PyTree, PyTree, PyTree]: ...
