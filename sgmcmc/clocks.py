"""Clocks: the pace of time. A clock gives each step its dt and each draw its weight.

The weight is dt over the nominal step: exactly 1 for a fixed step, h_k/h_0 for a schedule,
so that weighted averages are averages over physical time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import trees
from sgmcmc.types import Array, ClockState


class Constant(eqx.Module):
    """A number that does not change: an array leaf."""

    value: Array

    def __call__(self, count: Array) -> Array:
        return self.value


class Schedule(eqx.Module):
    """A number as a function of the step index; optax's schedules fit."""

    function: Callable[..., Any]

    def __call__(self, count: Array) -> Array:
        return jnp.asarray(self.function(count), dtype=float)


Rate = Constant | Schedule


class Clock(eqx.Module):
    """The pace set by a step size: constant, or a schedule of the step index."""

    step_size: Rate

    def init(self) -> ClockState:
        return ClockState(jnp.zeros((), jnp.int32))

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        """(dt, weight, next state) of the step that begins now."""
        following = state._replace(count=state.count + 1)
        dt = self.step_size(state.count)
        if isinstance(self.step_size, Constant):
            return dt, jnp.ones_like(dt), following
        return dt, dt / self.step_size(jnp.zeros_like(state.count)), following


def fixed(step_size: float | Array) -> Clock:
    """A constant step h > 0; every draw weighs 1."""
    return Clock(as_rate(step_size, "step_size", above_zero=True))


def scheduled(schedule: Callable[[Array], Array]) -> Clock:
    """A step h_k = schedule(k) > 0, k the step index from 0; a draw weighs h_k/h_0."""
    return Clock(as_rate(schedule, "step_size", above_zero=True))


def as_clock(step_size: Any) -> Clock:
    """A clock from a float, a schedule or a clock."""
    if isinstance(step_size, Clock):
        return step_size
    return Clock(as_rate(step_size, "step_size", above_zero=True))


def as_rate(value: Any, name: str, *, above_zero: bool = False) -> Rate:
    """A non-negative (or positive) number or schedule, checked where it is concrete.

    Raises:
        TypeError: neither a number nor callable.
        ValueError: NaN, infinite, or out of range; for a schedule, at its first step.
    """
    if isinstance(value, Constant | Schedule):
        return value
    if callable(value):
        schedule = Schedule(trees.as_callable(value, name))
        _check_range(schedule(jnp.zeros((), jnp.int32)), f"{name}(0)", above_zero)
        return schedule
    if value is None or isinstance(value, bool | str):
        raise TypeError(f"{name}: got {value!r}; expected a number or a schedule")
    number = jnp.asarray(value, dtype=float)
    _check_range(number, name, above_zero)
    return Constant(number)


def _check_range(value: Any, name: str, above_zero: bool) -> None:
    if isinstance(value, jax.core.Tracer):
        return
    # An array is a grid to be vmapped: each of its entries must do.
    for number in jnp.ravel(value).tolist():
        if not math.isfinite(number) or number < 0 or (above_zero and number == 0):
            allowed = "a finite number > 0" if above_zero else "a finite number ≥ 0"
            raise ValueError(f"{name}: got {number}; expected {allowed}")
