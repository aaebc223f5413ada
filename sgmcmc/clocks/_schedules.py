"""Clocks that go by the step's index k alone, and a clock from whatever stands for a step size."""

from __future__ import annotations

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._checks import check_range, count, positive
from sgmcmc._schedule import (
    AbstractRepeating,
    Periodic,
    Rate,
    ScalarOrSchedule,
    Schedule,
    as_rate,
)
from sgmcmc.clocks._adaptive import Untuned
from sgmcmc.clocks._base import AbstractClock, Clock, StepSize, ticked
from sgmcmc.types import Array, ClockState


class CyclicalClock(AbstractClock):
    """Cosine cycles of `length` steps; draws of a cycle's first part weigh 0. See `cyclical`."""

    step_size: Rate
    length: Array
    exploration: Array
    weights: str = eqx.field(static=True)

    @property
    def period(self) -> int:
        return int(self.length)

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        """(dt, weight, next state) of the step that begins now."""
        dt, weight, following = ticked(self.step_size, state)
        weight = jnp.ones_like(weight) if self.weights == "equal" else weight
        return dt, jnp.where(self.explores(state.count), 0, weight), following

    def explores(self, count: Array) -> Array:
        """Whether step `count` belongs to the exploration of its cycle."""
        return _phase(count, self.length) < self.exploration

    def temperature(self, temperature: ScalarOrSchedule = 1.0) -> Rate:
        """`temperature` while sampling and 0 while exploring: a schedule for any kernel.

        `temperature` is T ≥ 0, a number or a schedule of the step index; default 1. A kernel
        that is not given this schedule explores with noise; weights are 0 there all the same.
        """
        return Schedule(_Switched(as_rate(temperature, "temperature"), self))

    def check_run(self, num_burnin: int, num_samples: int, thinning: int) -> None:
        """Raise a ValueError unless a cycle fits into the run, and some draw is sampling."""
        steps = num_burnin + num_samples * thinning
        if isinstance(self.length, jax.core.Tracer):
            return
        if int(self.length) > steps:
            raise ValueError(
                f"total_steps: one cycle of the clock takes {int(self.length):,} steps, the run "
                f"makes {steps:,} with its burn-in; allowed: cycles within the run"
            )
        # Draws repeat their places in the cycle after `length` of them at the latest.
        draws = jnp.arange(min(num_samples, int(self.length))) * thinning + num_burnin + thinning
        if bool(jnp.all(self.explores(draws - 1))):
            raise ValueError(
                f"exploration: every draw falls into an exploration phase (cycles of "
                f"{int(self.length):,} steps, a draw every {thinning}); allowed: a thinning or "
                "burn-in that leaves draws in the sampling phases"
            )


class _Decreasing(eqx.Module):
    """h (1 + k/b)^{−γ}."""

    initial: Array
    offset: Array
    power: Array

    def __call__(self, count: Array) -> Array:
        return self.initial * (1 + count.astype(float) / self.offset) ** -self.power


class _Cosine(AbstractRepeating):
    """(h/2) (cos(π r) + 1), r = (k mod L)/L."""

    initial: Array
    length: Array

    @property
    def period(self) -> int:
        return int(self.length)

    def __call__(self, count: Array) -> Array:
        # (cos πr + 1)/2 = sin²(π (1 − r)/2), which in float32 does not cancel to 0 as r → 1.
        left = (self.length - count % self.length).astype(float) / self.length.astype(float)
        return self.initial * jnp.sin(jnp.pi / 2 * left) ** 2


class _Switched(AbstractRepeating):
    """A temperature that is 0 while a clock explores."""

    sampling: Rate
    clock: CyclicalClock

    @property
    def period(self) -> int | None:
        inner = self.sampling.period
        return None if inner is None else math.lcm(inner, self.clock.period)

    def __call__(self, count: Array) -> Array:
        return jnp.where(self.clock.explores(count), 0.0, self.sampling(count))


def _phase(count: Array, length: Array) -> Array:
    """r_k: how far in its cycle step `count` is, in [0, 1)."""
    return (count % length).astype(float) / length.astype(float)


def fixed(step_size: float | Array) -> Clock:
    """A constant step h > 0; every draw weighs 1. The clock of `step_size=h`.

    Raises:
        TypeError, ValueError: `step_size` is not one finite number > 0.
    """
    return Clock(as_rate(step_size, "step_size", above_zero=True))


def scheduled(schedule: Callable[[Array], Array]) -> Clock:
    """A step h_k = schedule(k) > 0, k the step index from 0; a draw weighs h_k/h_0.

    Args:
        schedule: () int32 -> () step, in pure JAX, as optax's schedules are; `periodic` makes
            one that repeats itself.

    Raises:
        TypeError: `schedule` is not callable.
        ValueError: h_0 is not a finite number > 0; from `sample`, any step of the run.
    """
    return Clock(as_rate(schedule, "step_size", above_zero=True))


def periodic(schedule: Callable[[Array], Array], period: int) -> Periodic:
    """The schedule k -> schedule(k mod period), for a step size, a friction or a temperature.

    That it repeats itself is known then, and need not be guessed: `diagnostics.stationary_law`
    has the law over a period. Steps of h and h/3 in turn:

        clock = clocks.scheduled(clocks.periodic(lambda k: jnp.where(k == 0, h, h / 3), 2))

    Args:
        schedule: () int32 in 0 … period − 1 -> () number, in pure JAX.
        period: P ≥ 1, in steps.

    Raises:
        TypeError: `schedule` is not callable, or `period` is not an integer.
        ValueError: `period` < 1.
    """
    function = trees.as_callable(schedule, "schedule")
    return Periodic(function, jnp.asarray(count(period, "period"), jnp.int32))


def decreasing(
    initial_step: float | Array,
    *,
    offset: float | Array = 1.0,
    power: float | Array = 0.55,
    weights: str = "time",
) -> Clock:
    """h_k = initial_step · (1 + k/offset)^{−power} (Welling and Teh 2011: a (b + k)^{−γ}).

    The bias of a step vanishes with it, at the price of ever slower mixing.

    Args:
        initial_step: h_0 > 0, their a b^{−γ}.
        offset: b > 0, the steps after which the decay sets in.
        power: γ in (0, 1]: above 1 the steps sum to a finite time. Theirs is in (.5, 1].
        weights: "time" (default): a draw weighs h_k/h_0, as averages over physical time ask;
            "equal": all weigh 1.

    Raises:
        ValueError: an argument out of range.
    """
    _require_choice(weights)
    initial = positive(initial_step, "initial_step")
    offset = positive(offset, "offset")
    power = positive(power, "power", most=1.0)
    return Clock(Schedule(_Decreasing(initial, offset, power)), weights)


def cyclical(
    initial_step: float | Array,
    *,
    num_cycles: int,
    total_steps: int,
    exploration: float | Array = 0.0,
    weights: str = "time",
) -> CyclicalClock:
    """Cosine cycles (Zhang et al. 2020, arXiv 1902.03932), each begun with a large step.

        h_k = (h/2) (cos(π r_k) + 1),   r_k = (k mod L)/L,   L = ⌈total_steps/num_cycles⌉

    A cycle begins with an exploration, r_k < `exploration`, whose draws weigh 0, so that
    averages and reducers see the sampling phases only. Give the kernel the temperature
    that goes with it, 0 while exploring:

        clock = clocks.cyclical(0.1, num_cycles=4, total_steps=8_000, exploration=0.5)
        kernel = sgmcmc.sgld(posterior, clock, temperature=clock.temperature(1.0))

    With one cycle and no exploration it is a cosine schedule.

    Args:
        initial_step: h > 0, the step at the start of each cycle.
        num_cycles: C ≥ 1.
        total_steps: all steps of the run, burn-in included: num_burnin + num_samples ·
            thinning. Cycles go on beyond it.
        exploration: β in [0, 1), the share of a cycle that explores.
        weights: "time" (default): a draw of a sampling phase weighs h_k/h; "equal": 1, as
            in the paper.

    Raises:
        ValueError: an argument out of range. `sample` raises one where a cycle is longer
            than the run, or where all draws fall into explorations.
    """
    _require_choice(weights)
    for name, value in (("num_cycles", num_cycles), ("total_steps", total_steps)):
        if isinstance(value, bool) or int(value) != value or value < 1:
            raise ValueError(f"{name}: got {value!r}; expected an integer ≥ 1")
    if num_cycles > total_steps:
        raise ValueError(
            f"num_cycles: got {num_cycles}; allowed: at most total_steps, {total_steps}"
        )
    initial = positive(initial_step, "initial_step")
    share = jnp.asarray(exploration, dtype=float)
    check_range(share, "exploration", above_zero=False, below=1.0)
    length = jnp.asarray(-(-int(total_steps) // int(num_cycles)), jnp.int32)
    return CyclicalClock(Schedule(_Cosine(initial, length)), length, share, weights)


def as_clock(step_size: StepSize, *, adaptive: bool = False) -> AbstractClock:
    """A clock from a float, a schedule, a clock or None (to be tuned); `adaptive`: for Z.

    Raises:
        ValueError: an adaptive clock without Z, or Z without one.
    """
    if step_size is None and not adaptive:
        return Untuned()
    clock: AbstractClock
    if isinstance(step_size, AbstractClock):
        clock = step_size
    else:
        clock = Clock(as_rate(step_size, "step_size", above_zero=True))
    require_whole(clock)
    if clock.adaptive != adaptive:
        raise ValueError(
            "step_size: an adaptive clock and the letter Z need each other; allowed: "
            'sgmcmc.samadams, sgmcmc.sa_sgld, or langevin(word="ZBAOABZ") with '
            "clocks.adaptive(…), all others with a number, a schedule or another clock"
        )
    return clock


def require_whole(clock: AbstractClock) -> None:
    """Raise a TypeError where an adaptive clock leaves out what only adaptive ones need."""
    kind = type(clock)
    pairs = {
        "init": kind.init is AbstractClock.init,
        "pace": kind.pace is AbstractClock.pace,
        "flow": kind.flow is AbstractClock.flow,
        "account": kind.account is AbstractClock.account,
    }
    absent = [name for name, inherited in pairs.items() if inherited]
    if clock.adaptive and absent and not clock.untuned:
        raise TypeError(
            f"step_size: the adaptive clock {trees.shortened(kind.__name__, 40)} has no "
            f"{', '.join(absent)} of its own; see sgmcmc.clocks.AbstractClock"
        )


def _require_choice(weights: str) -> None:
    if weights not in ("time", "equal"):
        raise ValueError(f"weights: got {weights!r}; allowed: time, equal")
