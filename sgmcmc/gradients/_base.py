from __future__ import annotations

from typing import Protocol

from sgmcmc._posterior import Posterior
from sgmcmc.types import Array, Batch, PyTree


class Estimator(Protocol):
    """What a gradient estimator offers."""

    needs_full_batch: bool

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree: ...

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]: ...
