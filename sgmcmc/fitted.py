"""What `fit` returns, and which parameters an optimiser wants evaluated."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from sgmcmc import trees
from sgmcmc.types import PyTree


class Snapshot(NamedTuple):
    """Where a fit stands; what `evaluate` is called with. Its arrays stay valid afterwards.

    Attributes:
        params: the parameters to evaluate: what a state in the optimiser's own says
            (`evaluated`), else those that it moves.
        last: the parameters that the optimiser moves.
        optimiser_state: its state.
        num_steps: steps made.
        gradient_evaluations: minibatch gradients used, over replicas.
        wall_time: seconds of training, without compiling and without evaluations.
    """

    params: PyTree
    last: PyTree
    optimiser_state: PyTree
    num_steps: int
    gradient_evaluations: int
    wall_time: float


class Evaluation(NamedTuple):
    """What `evaluate` said, and what had been spent by then; see `Snapshot`."""

    num_steps: int
    gradient_evaluations: int
    wall_time: float
    value: Any


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """What `sgmcmc.fit` returns.

    Attributes:
        params: the parameters to evaluate and to keep, like the ones that were given.
        last: the parameters that the optimiser moved: the same for most, the inner iterate of
            `entropy_sgd`, the replicas of `parle`.
        optimiser_state: its state.
        losses: [step] or [step, replica], NumPy: each step's minibatch loss, at `last`.
        evaluations: what `evaluate` returned, in turn.
        num_steps: steps made.
        gradient_evaluations: minibatch gradients used: steps times replicas.
        compile_time, wall_time: seconds; `wall_time` without compiling and evaluations.
        interrupted: whether Ctrl-C ended it early.
    """

    params: PyTree
    last: PyTree
    optimiser_state: PyTree
    losses: np.ndarray
    evaluations: list[Evaluation]
    num_steps: int
    gradient_evaluations: int
    compile_time: float
    wall_time: float
    interrupted: bool

    def __repr__(self) -> str:
        end = self.losses[-max(1, len(self.losses) // 10) :]
        mean = float(np.mean(end)) if end.size else float("nan")
        size = trees.size([x for x in jax.tree.leaves(self.params) if hasattr(x, "shape")])
        early = ", interrupted" if self.interrupted else ""
        return (
            f"Fitted: {size:,} parameters, {self.num_steps:,} steps{early}, "
            f"{self.gradient_evaluations:,} gradients, {self.wall_time:.2f} s "
            f"({self.compile_time:.2f} s compiling); loss {mean:.4g} over the last tenth"
        )


class NonFiniteLossError(FloatingPointError):
    """A loss or the parameters left the finite numbers. `fitted` has what was made until then."""

    def __init__(self, message: str, fitted: Fitted) -> None:
        super().__init__(message)
        self.fitted = fitted


def evaluated(state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate: those of the states in `state` that have `to_evaluate`.

    Such states are found wherever they are, in chains, schedules and wrappers; in a chain the
    last has its say, and leaves that `optax.masked` keeps from one stay those of `params`.

    Args:
        state: an optax state.
        params: the parameters that optax moves, returned where no state knows better.
    """
    import optax  # not at the top: `import sgmcmc` is quick without it

    masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    for part in jax.tree.leaves(state, is_leaf=_knows):
        if _knows(part):
            fill = lambda new, old: old if masked(new) else new  # noqa: E731
            params = jax.tree.map(fill, part.to_evaluate, params, is_leaf=masked)
    return params


def _knows(part: Any) -> bool:
    return hasattr(part, "to_evaluate")
