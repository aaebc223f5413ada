"""The contracts of metrics: constant ones, and those that change with the position."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from sgmcmc import _tree as trees
from sgmcmc.types import PyTree


class AbstractMetric(trees.ByIdentity):
    """A constant G = M⁻¹ = L Lᵀ, by its two maps L and Lᵀ: `to_position`, `to_momentum`.

    Kernels keep the whitened momentum r = M^{-1/2} p ~ N(0, T I), and need nothing else of a
    metric. To write one, subclass and give the two maps, whose numbers are array fields; the
    page "The house" has one in ten lines.
    """

    @property
    def name(self) -> str:
        """As `repr(kernel)` and a run's `config` have it; the class's name by default."""
        return type(self).__name__.lower()

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless it fits `position`; the leaf is named. Default: any does."""

    @abstractmethod
    def to_position(self, momentum: PyTree) -> PyTree:
        """L r: a pytree like r, whose structure, shapes and dtypes are those of θ."""

    @abstractmethod
    def to_momentum(self, gradient: PyTree) -> PyTree:
        """Lᵀ g: a pytree like g, whose structure, shapes and dtypes are those of θ."""


class AbstractPreconditioner(trees.ByIdentity):
    """A diagonal G(θ) that changes with the position, and Γ_i = ∂G_i/∂θ_i; for `psgld`.

    To write one, subclass and give `evaluate`, and `init` where it remembers. Where G is a
    plain function of θ, `metrics.position_dependent(function)` is shorter.
    """

    @property
    def name(self) -> str:
        """As `repr(kernel)` and a run's `config` have it; the class's name by default."""
        return type(self).__name__.lower()

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless it fits `position`; the leaf is named. Default: any does."""

    def init(self, position: PyTree) -> PyTree:
        """The first memory, kept in `State.metric`; () (default) without one."""
        return ()

    def begin(self, position: PyTree, square: Callable[[], PyTree]) -> PyTree:
        """The first memory of a chain that begins at `position`; default `init(position)`.

        Args:
            position: θ.
            square: () -> about what E[g²] is in each coordinate once the chain is stationary, by
                U's curvature at `position`: a pytree like it. Some Hessian-vector products.
        """
        return self.init(position)

    def scale(self, position: PyTree, memory: PyTree) -> PyTree | None:
        """The G with which a step left `position`, `memory` what `evaluate` returned there.

        For `Info.metric_min` and `Info.metric_max`; None (default): not reported.
        """
        return None

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

        Returns:
            G and Γ, pytrees like `position`, G > 0 throughout; and a memory of the shapes and
            dtypes of `memory`. A Γ of zeros leaves it out, and draws from another law.
        """
