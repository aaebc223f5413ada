"""Rates: numbers that may change with the step index, checked where they are made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _tree as trees
from sgmcmc._checks import check_range
from sgmcmc.types import Array, PyTree


class Constant(trees.ByIdentity):
    """A number that does not change: an array leaf."""

    value: Array

    def __call__(self, count: Array) -> Array:
        return self.value

    @property
    def period(self) -> int:
        """1: its value comes again at every step."""
        return 1


class AbstractRepeating(eqx.Module):
    """A function of the step index that says when it repeats itself."""

    @property
    @abstractmethod
    def period(self) -> int | None:
        """Steps after which its values come again; None: they need not."""

    @abstractmethod
    def __call__(self, count: Array) -> Array:
        """The number () at step `count` ()."""


class Periodic(AbstractRepeating):
    """function(k mod length): it repeats itself whatever the function is."""

    function: Callable[..., PyTree]
    length: Array

    @property
    def period(self) -> int:
        return int(self.length)

    def __call__(self, count: Array) -> Array:
        return jnp.asarray(self.function(count % self.length), dtype=float)


class Schedule(trees.ByIdentity):
    """A number as a function of the step index; optax's schedules fit."""

    function: Callable[..., PyTree]

    def __call__(self, count: Array) -> Array:
        # Optax's own schedules divide integers by numbers, which "strict" forbids.
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(self.function(count), dtype=float)

    @property
    def period(self) -> int | None:
        """Steps after which its values come again; None: the function does not say."""
        return self.function.period if isinstance(self.function, AbstractRepeating) else None


class Unchosen(trees.ByIdentity):
    """A number that `sample` or `tune` is to choose: of `step_size=None` and `friction="auto"`."""

    @property
    def period(self) -> int | None:
        """None: it has no values yet."""
        return None

    def __call__(self, count: Array) -> Array:
        raise ValueError(
            'step_size, friction: None and "auto" are chosen by sgmcmc.sample or sgmcmc.tune; '
            "to make steps yourself give numbers"
        )


Rate: TypeAlias = Constant | Schedule | Unchosen
"""A number or schedule as kernels and clocks hold it: called with () int32, it gives ()."""

# What users hand in for a number that may change with the step: it, a function of the step, or
# what one of these was made into.
ScalarOrSchedule: TypeAlias = float | Array | Callable[..., PyTree] | Rate
Friction: TypeAlias = ScalarOrSchedule | Literal["auto"]


def as_rate(value: ScalarOrSchedule | None, name: str, *, above_zero: bool = False) -> Rate:
    """A non-negative (or positive) number or schedule, checked where it is concrete.

    Raises:
        TypeError: neither a number nor callable.
        ValueError: NaN, infinite, or out of range; for a schedule, at its first step.
    """
    if isinstance(value, Constant | Schedule | Unchosen):
        return value
    if callable(value):
        schedule = Schedule(trees.as_callable(value, name))
        check_range(schedule(jnp.zeros((), jnp.int32)), f"{name}(0)", above_zero)
        return schedule
    if value is None or isinstance(value, bool | str):
        raise TypeError(f"{name}: got {trees.told(value)}; expected a number or a schedule")
    try:
        number = jnp.asarray(value, dtype=float)
    except (TypeError, ValueError):
        clock = " (a clock of your own is a subclass of sgmcmc.clocks.AbstractClock, with tick)"
        raise TypeError(
            f"{name}: got {trees.told(value)}; expected a number or a schedule"
            f"{clock if name == 'step_size' else ''}"
        ) from None
    check_range(number, name, above_zero)
    return Constant(number)


def check_steps(schedule: Schedule, steps: int) -> None:
    """Raise a ValueError that names the first step of a schedule that is not a step."""
    block = min(steps, 2**16)
    for start in range(0, steps, block):
        # The last block begins earlier, so that all are of one size and one trace.
        first = min(start, steps - block)
        sizes = _over(schedule, first + jnp.arange(block, dtype=jnp.int32))
        if isinstance(sizes, jax.core.Tracer):
            return
        good = np.isfinite(sizes) & (np.asarray(sizes) > 0)
        if not good.all():
            worst = int(np.argmin(good))
            raise ValueError(
                f"step_size({first + worst}): got {float(sizes[worst])}; expected a finite "
                f"number > 0 at each of the run's {steps:,} steps"
            )


@eqx.filter_jit
def _over(schedule: Schedule, counts: Array) -> Array:
    return jax.vmap(schedule)(counts)
