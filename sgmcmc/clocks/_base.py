"""The clock that all clocks are made from: a step size, constant or a schedule."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from sgmcmc._schedule import Constant, Rate, Schedule, check_steps
from sgmcmc.types import Array, ClockState


class Clock(eqx.Module):
    """The pace set by a step size: constant, or a schedule of the step index."""

    step_size: Rate

    @property
    def adaptive(self) -> bool:
        """Whether its pace follows the gradient, so that a word needs its letter Z."""
        return False

    def init(self) -> ClockState:
        return ClockState(jnp.zeros((), jnp.int32))

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        """(dt, weight, next state) of the step that begins now."""
        following = state._replace(count=state.count + 1)
        dt = self.step_size(state.count)
        if isinstance(self.step_size, Constant):
            return dt, jnp.ones_like(dt), following
        return dt, dt / self.step_size(jnp.zeros_like(state.count)), following

    def check_run(self, num_burnin: int, num_samples: int, thinning: int) -> None:
        """Raise a ValueError unless the step stays finite and above 0 over a whole run."""
        if isinstance(self.step_size, Schedule):
            check_steps(self.step_size, num_burnin + num_samples * thinning)


class Untuned(Clock):
    """The clock of a kernel made with `step_size=None`, until `sample` has chosen one."""

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        raise ValueError(
            "step_size: None is chosen by sgmcmc.sample, from the data; to make steps yourself "
            "give a number, a schedule or a clock"
        )

    def check_run(self, num_burnin: int, num_samples: int, thinning: int) -> None:
        pass

    def at(self, step_size: float) -> Clock:
        """The clock with the step that was chosen."""
        return Clock(Constant(jnp.asarray(step_size, dtype=float)))
