"""The contracts of metrics: constant ones, and those that change with the position."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx

from sgmcmc.types import PyTree


class AbstractMetric(eqx.Module):
    """A constant G = M⁻¹ = L Lᵀ, by its two maps L and Lᵀ.

    Kernels keep the whitened momentum r = M^{-1/2} p ~ N(0, T I), so that these are all they
    need.
    """

    @property
    def name(self) -> str:
        """As it is told to the user."""
        return type(self).__name__.lower()

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless it fits `position`; the leaf is named."""

    @abstractmethod
    def to_position(self, momentum: PyTree) -> PyTree:
        """L r."""

    @abstractmethod
    def to_momentum(self, gradient: PyTree) -> PyTree:
        """Lᵀ g."""


class AbstractPreconditioner(eqx.Module):
    """A diagonal G(θ) that changes with the position, and Γ_i = ∂G_i/∂θ_i; for `psgld`."""

    @property
    def name(self) -> str:
        """As it is told to the user."""
        return type(self).__name__.lower()

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless it fits `position`; the leaf is named."""

    def init(self, position: PyTree) -> PyTree:
        """The first memory; () without one."""
        return ()

    @abstractmethod
    def evaluate(
        self,
        gradient_at: Callable[[PyTree], PyTree],
        position: PyTree,
        gradient: PyTree,
        memory: PyTree,
    ) -> tuple[PyTree, PyTree, PyTree]:
        """(G, Γ, next memory) at `position`.

        Args:
            gradient_at: position -> ∇U on the step's own batch.
            position: θ.
            gradient: ∇U there, on that batch.
            memory: what `init` or the call before returned.
        """
