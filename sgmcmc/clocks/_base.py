"""The contract of a clock, and the plain one: a step size, constant or a schedule."""

from abc import abstractmethod
from typing import TYPE_CHECKING, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractVar

from sgmcmc import _tree as trees
from sgmcmc._schedule import Constant, Rate, ScalarOrSchedule, Schedule, check_steps
from sgmcmc.types import Array, ClockState, PyTree


class AbstractClock(trees.ByIdentity):
    """The pace of time: each step's dt, and each draw's weight. `tick` alone must be given.

    `sgmcmc/clocks/README.md` adds one in ten lines. A clock whose dt follows the gradient is
    `adaptive`, and gives `init`, `pace`, `flow` and `account` too.

    Attributes:
        step_size: the nominal step, which `repr(kernel)` shows and `check_run` checks.
    """

    if TYPE_CHECKING:  # declared fields or properties, which mypy takes for fields alone

        @property
        def step_size(self) -> Rate: ...

    else:
        step_size: AbstractVar[Rate]

    @abstractmethod
    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        """(dt, weight, next state) of the step that begins now.

        dt () > 0, in units of `step_size`; weight () ≥ 0 of the draw that the step records,
        physical time over the nominal step; the next state with `count` one higher.
        """

    @property
    def adaptive(self) -> bool:
        """Whether its pace follows the gradient, so that a word needs its letter Z."""
        return False

    @property
    def splits_leaves(self) -> bool:
        """Whether `pace` gives each leaf of the parameters a dt of its own."""
        return False

    @property
    def untuned(self) -> bool:
        """Whether it was made with `step_size=None`, and no step is chosen yet."""
        return False

    @property
    def period(self) -> int | None:
        """Steps after which what `tick` gives comes again: P ≥ 1, 1 for a step that stands still.

        None (default): it need not, or nobody has said so; `diagnostics.stationary_law` then
        refuses it. A clock of your own that repeats itself says here after how many steps.
        """
        return None

    def init(self, position: PyTree = ()) -> ClockState:
        """The first state: no step made, and what an adaptive clock remembers."""
        return ClockState(jnp.zeros((), jnp.int32))

    def pace(self, memory: PyTree, dt: Array) -> PyTree:
        """The dt of the sub-steps that begin with `memory`, out of the nominal `dt`: ().

        Where the clock `splits_leaves`, a pytree of these, like the parameters.
        """
        return dt

    def flow(self, memory: PyTree, gradient: PyTree, t: Array) -> PyTree:
        """The memory of an adaptive clock after t, () in its own time, at a fixed `gradient`."""
        return memory

    def account(self, before: ClockState, memory: PyTree, overdamped: bool) -> tuple[Array, Array]:
        """(the step's physical time (), the draw's weight ()).

        Args:
            before: the state in which the step began.
            memory: that at the record, after the step's letters.
            overdamped: the draw is the position that the step is about to leave.
        """
        dt, weight, _ = self.tick(before)
        return dt, weight

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless it fits `position`; called outside of jit."""

    def check_run(self, num_burnin: int, num_samples: int, thinning: int) -> None:
        """Raise a ValueError unless the step stays finite and above 0 over a whole run."""
        if isinstance(self.step_size, Schedule):
            check_steps(self.step_size, num_burnin + num_samples * thinning)


# What users hand in for a step size; None: it is to be chosen.
StepSize: TypeAlias = ScalarOrSchedule | AbstractClock | None


class Clock(AbstractClock):
    """The pace set by a step size: constant, or a schedule of the step index.

    `weights`: "time", a draw weighs h_k/h_0; "equal", all weigh 1.
    """

    step_size: Rate
    weights: str = eqx.field(static=True, default="time")

    @property
    def period(self) -> int | None:
        return self.step_size.period

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        """(dt, weight, next state) of the step that begins now."""
        dt, weight, following = ticked(self.step_size, state)
        return dt, jnp.ones_like(weight) if self.weights == "equal" else weight, following


def ticked(step_size: Rate, state: ClockState) -> tuple[Array, Array, ClockState]:
    """(h_k, h_k/h_0, next state) at step k of a step size."""
    following = state._replace(count=state.count + 1)
    dt, weight = nominal(step_size, state.count)
    return dt, weight, following


def nominal(step_size: Rate, count: Array) -> tuple[Array, Array]:
    """h_k and its share h_k/h_0; exactly 1 for a constant."""
    dt = step_size(count)
    if isinstance(step_size, Constant):
        return dt, jnp.ones_like(dt)
    return dt, dt / step_size(jnp.zeros_like(count))
