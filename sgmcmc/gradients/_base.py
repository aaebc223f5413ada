"""The contract of a gradient estimator."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from jaxtyping import Float

from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc.types import Array, Batch, Batches, PyTree, as_batch


class EstimatorTraits(NamedTuple):
    """What an estimator says of itself; kernels, the loop and the count of costs go by it.

    Attributes:
        name: as `repr(kernel)` and a run's `config` have it.
        evaluations: minibatch gradients that one call costs; default 1.
        batches: "any" (default); "all data": the loop hands it all data every step;
            "independent": every call must see a batch that is independent of all before it,
            so no sweeps, and no second use within a step.
        remembers: its estimate depends on where the chain has been, so that a block of steps
            cannot be reversed: `amagold` and `sggmc` refuse it. Default False.
        refresh_every: m, the loop calls `refresh` before each step > 0 that is a multiple of
            it; None (default): never.
        block_size: examples evaluated at a time under "all data"; None: all at once.
    """

    name: str
    evaluations: float = 1
    batches: Batches = "any"
    remembers: bool = False
    refresh_every: int | None = None
    block_size: int | None = None


class AbstractEstimator(trees.ByIdentity):
    """An estimator of ∇U: `traits` and `estimate`; `init` and `refresh` where it has a state.

    It knows nothing of integrators. `sgmcmc/gradients/README.md` adds one in ten lines. Numbers
    are array fields, so that estimators which differ in them alone share a trace; choices are
    static fields; `traits` is a `ClassVar` or a property.
    """

    @property
    @abstractmethod
    def traits(self) -> EstimatorTraits:
        """Its name, its cost, the batches that it bears, and whether it remembers."""

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Float[Array, ""], PyTree, PyTree]:
        """`estimate`, with a pytree of arrays taken for a `Batch` of all its rows."""
        return self.estimate(posterior, position, as_batch(batch), state)

    @abstractmethod
    def estimate(
        self, posterior: Posterior, position: PyTree, batch: Batch | None, state: PyTree
    ) -> tuple[Float[Array, ""], PyTree, PyTree]:
        """(estimate of U, its gradient, the estimator's next state).

        Args:
            posterior: the target.
            position: θ, pytree of floating arrays.
            batch: of n examples; None for targets without data.
            state: what `init` or the call before returned.

        Returns:
            U in nats, (); ∇U, a pytree like `position`, times `batch.share` where that is not
            None; and a state of the shapes and dtypes of `state`.
        """

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree:
        """The first state; () for estimators without one.

        Args:
            posterior: the target.
            position: θ of one chain.
            data: all N examples; None for targets without data.
        """
        return ()

    def refresh(
        self, posterior: Posterior, position: PyTree, state: PyTree, data: PyTree
    ) -> PyTree:
        """The state after a look at all data; see `EstimatorTraits.refresh_every`."""
        return state


def shared(gradient: PyTree, batch: Batch | None) -> PyTree:
    """A batch's gradient times the batch's share of a step, 1 where `Batch.share` is None."""
    if batch is None or batch.share is None:
        return gradient
    return trees.scale(batch.share, gradient)
