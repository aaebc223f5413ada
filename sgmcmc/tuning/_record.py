from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp

from sgmcmc._schedule import Constant
from sgmcmc.kernels._base import AbstractKernel

HALVINGS = 6


class Tuning(NamedTuple):
    """What was chosen, and why; `run.tuning`.

    Attributes:
        step_size, friction: chosen; `friction` is None where it was given or there is none.
        curvature: λ with its residual, in the metric's coordinates: at the mode, or where the
            step was shortened at the last trial's steepest place.
        gradient_noise: s², the larger of the two, at the same place.
        limits: the step that each rule allows.
        reason: the rule that decided, with how often the step was halved after it.
        halvings: of the trial, and of chains that diverged in the burn-in.
        gradient_evaluations: minibatch gradients spent.
        found: what else was measured, by name, where a kernel's rule needs more.
    """

    step_size: float
    friction: float | None
    curvature: float
    gradient_noise: float
    limits: dict[str, float]
    reason: str
    halvings: int
    gradient_evaluations: float
    found: dict[str, float] | None = None

    def halved(self) -> Tuning:
        """The same at half the step."""
        return self._replace(step_size=self.step_size / 2, halvings=self.halvings + 1)

    def at(self, step_size: float) -> Tuning:
        """The same at another step, and the friction that goes with it."""
        friction = None if self.friction is None else 1 / (10 * step_size)
        return self._replace(step_size=step_size, friction=friction)

    def __repr__(self) -> str:
        limits = ", ".join(f"{name} {limit:.3g}" for name, limit in self.limits.items())
        friction = "" if self.friction is None else f", friction {self.friction:.3g}"
        found = "".join(f", {name} {value:.3g}" for name, value in (self.found or {}).items())
        return (
            f"step_size {self.step_size:.3g}{friction}: {self.reason}"
            f"{f', halved {self.halvings} times' if self.halvings else ''} "
            f"(limits: {limits}; curvature {self.curvature:.3g}, gradient noise "
            f"{self.gradient_noise:.3g}{found}; {self.gradient_evaluations:,.0f} gradients)"
        )


def is_untuned(kernel: Any) -> bool:
    """Whether a kernel was made with `step_size=None`."""
    return isinstance(kernel, AbstractKernel) and kernel.clock is not None and kernel.clock.untuned


def tuned(kernel: Any, tuning: Tuning) -> Any:
    """The kernel with the numbers of `tuning`."""
    kernel = eqx.tree_at(lambda k: k.clock, kernel, kernel.clock.at(tuning.step_size))
    if tuning.friction is not None:
        friction = Constant(jnp.asarray(tuning.friction, dtype=float))
        kernel = eqx.tree_at(lambda k: k.friction, kernel, friction)
    return kernel
