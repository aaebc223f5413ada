"""What was chosen for a kernel made with `step_size=None`, and that kernel with it."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp

from sgmcmc._schedule import Constant
from sgmcmc.clocks._adaptive import Untuned
from sgmcmc.kernels._base import AbstractKernel
from sgmcmc.kernels._replica_exchange import ReplicaExchange
from sgmcmc.tuning._rules import RULES

Kernel = TypeVar("Kernel", bound=AbstractKernel)


class Tuning(NamedTuple):
    """What was chosen, and why; `run.tuning`, and the second thing that `sgmcmc.tune` returns.

    Attributes:
        step_size, friction: chosen; `friction` is None where it was given or there is none.
        curvature: λ with its residual, in the metric's coordinates: at the mode, or where the
            step was shortened at the last trial's steepest place.
        gradient_noise: s², the larger of the two, at the same place.
        limits: the step that each rule allows.
        reason: the rule that decided, with how often the step was halved after it.
        halvings: of the trial, and of chains that diverged in the burn-in.
        gradient_evaluations: minibatch gradients spent.
        measured: what else was measured, by name, where a kernel's rule needs more.
    """

    step_size: float
    friction: float | None
    curvature: float
    gradient_noise: float
    limits: dict[str, float]
    reason: str
    halvings: int
    gradient_evaluations: float
    measured: dict[str, float] | None = None

    def halved(self) -> Tuning:
        """The same at half the step."""
        return self._replace(step_size=self.step_size / 2, halvings=self.halvings + 1)

    def at(self, step_size: float) -> Tuning:
        """The same at another step, and the friction that goes with it."""
        if self.friction is None:
            return self._replace(step_size=step_size)
        others, longest = lasting(self.limits), step_size
        if self.limits.get(SHIFT, others) < others:
            longest = max(step_size, others)
        return self._replace(step_size=step_size, friction=auto_friction(longest))

    def costing(self, gradient_evaluations: float) -> Tuning:
        """The same with that many more minibatch gradients spent."""
        spent = float(self.gradient_evaluations + gradient_evaluations)
        return self._replace(gradient_evaluations=spent)

    def __repr__(self) -> str:
        limits = ", ".join(f"{name} {limit:.3g}" for name, limit in self.limits.items())
        friction = "" if self.friction is None else f", friction {self.friction:.3g}"
        measured = "".join(f", {name} {x:.3g}" for name, x in (self.measured or {}).items())
        return (
            f"step_size {self.step_size:.3g}{friction}: {self.reason}"
            f"{f', halved {self.halvings} times' if self.halvings else ''} "
            f"(limits: {limits}; curvature {self.curvature:.3g}, gradient noise "
            f"{self.gradient_noise:.3g}{measured}; {self.gradient_evaluations:,.0f} gradients)"
        )


SHIFT = "shift by sweeps"
"""The limit that no friction moves."""


def lasting(limits: dict[str, float]) -> float:
    """The step by which `friction="auto"` goes: that of all limits but `SHIFT`.

    A shorter step for its sake needs no more friction, which would only make chains slower.
    """
    return min(limit for name, limit in limits.items() if name != SHIFT)


def auto_friction(step_size: float) -> float:
    """The friction of `friction="auto"`: γ = 1/(10 h)."""
    return 1 / (RULES.friction_steps * step_size)


def is_untuned(kernel: object) -> bool:
    """Whether a kernel was made with `step_size=None`."""
    return isinstance(kernel, AbstractKernel) and kernel.clock is not None and kernel.clock.untuned


def with_tuning(kernel: Kernel, tuning: Tuning) -> Kernel:
    """The kernel with the step size and the friction of `tuning`; of replicas, the one they run."""
    if isinstance(kernel, ReplicaExchange):
        return eqx.tree_at(lambda k: k.inner, kernel, with_tuning(kernel.inner, tuning))
    assert isinstance(kernel.clock, Untuned)
    kernel = eqx.tree_at(lambda k: k.clock, kernel, kernel.clock.at(tuning.step_size))
    if tuning.friction is not None:
        friction = Constant(jnp.asarray(tuning.friction, dtype=float))
        kernel = eqx.tree_at(lambda k: k.friction, kernel, friction)
    return kernel
