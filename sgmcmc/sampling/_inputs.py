"""What users hand to `sample`, as one record, checked; and the step that is chosen for them."""

from __future__ import annotations

import dataclasses
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import _is_index, check_range, choice, count
from sgmcmc.kernels._base import AbstractKernel, Traits, require_kernel
from sgmcmc.sampling._plan import Settings
from sgmcmc.streams._streams import Stream
from sgmcmc.tuning._record import Tuning, is_untuned, with_tuning
from sgmcmc.tuning._tune import choose_for_run
from sgmcmc.types import Key, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """What was asked of `sample`; see there."""

    key: Any
    kernel: Any
    params: PyTree | Callable[[Key], PyTree]
    data: PyTree
    batch_size: int | None
    stream: str | Stream | None
    settings: Settings
    collect: Callable[[PyTree], PyTree] | Sequence[str] | bool
    reducers: Mapping[str, Any] | None

    def checked(self) -> Request:
        """The same with a typed key, integers of Python's own, and reducers by name.

        Raises:
            TypeError, ValueError: bad input, by name.
        """
        key = checks.typed_key(self.key)
        require_kernel(self.kernel)
        settings = check_settings(self.settings)
        total_steps(settings, settings.num_samples, self.kernel)
        reducers = check_reducers(self.reducers)
        return dataclasses.replace(self, key=key, settings=settings, reducers=reducers)

    def again(self) -> Request:
        """The same with a key that JAX's check of reuse takes for another: the same draws."""
        key = self.key
        typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        return dataclasses.replace(self, key=jax.random.clone(key) if typed else key)


def choice_of_step(request: Request) -> Tuning | None:
    """What `sgmcmc.tuning` chooses from the first chain's start; None: nothing is to be chosen.

    Raises:
        TypeError, ValueError: bad input, by name.
        FloatingPointError: no step was found that stays finite.
    """
    settings = request.settings
    if not is_untuned(request.kernel):
        return None
    return choose_for_run(
        request.again().key, request.kernel, request.params, request.data, request.batch_size,
        request.stream, settings.num_chains, settings.num_burnin,
    )  # fmt: skip


def with_step(kernel: Any, tuning: Tuning | None) -> Any:
    """A kernel made with `step_size=None` with the step that was chosen; others as they are."""
    return with_tuning(kernel, tuning) if tuning is not None and is_untuned(kernel) else kernel


def check_settings(asked: Settings) -> Settings:
    """The settings with their numbers checked, as Python's own integers."""
    for name in ("num_chains", "num_samples", "thinning"):
        count(getattr(asked, name), name, least=1)
    count(asked.num_burnin, "num_burnin", least=0)
    if asked.chunk_steps is not None:
        count(asked.chunk_steps, "chunk_steps", least=1)
    if asked.total_time is not None:
        check_range(asked.total_time, "total_time", above_zero=True)
        asked = asked._replace(total_time=float(asked.total_time))
    choice(asked.on_nonfinite, "on_nonfinite", ("raise", "stop_chain", "ignore"))
    plain: dict[str, Any] = {
        name: operator.index(x) for name, x in asked._asdict().items() if _is_index(x)
    }
    return asked._replace(**plain)


def total_steps(settings: Settings, num_draws: int, kernel: AbstractKernel) -> None:
    """Raise a ValueError unless the steps, and their batches, can be counted in an int32."""
    steps = settings.steps_until(num_draws)
    if (steps + 1) * kernel.traits.batches_per_step >= 2**31:
        raise ValueError(f"num_samples: burn-in and draws make {steps:,} steps; allowed: < 2³¹")
    if kernel.clock is not None:
        # Until a time is covered: how many steps that takes is not known yet.
        most = num_draws if settings.total_time is None else 2**20 // settings.thinning
        kernel.clock.check_run(settings.num_burnin, min(num_draws, most), settings.thinning)


def warn_of_places(stream: Stream, traits: Traits, sizes: tuple[int, int], thinning: int) -> None:
    """Warn where each draw falls on the same places of a sweep in a fixed order.

    A position's mean depends on the batch that it has just seen, by O(h), and only the average
    over the sweep is right. In sweeps in random order the mean is right at every place, and in
    exact kernels the law is.

    Args:
        stream: the batches.
        traits: the kernel's.
        sizes: (N, n); both 0 without data.
        thinning: steps a draw.
    """
    if stream.law != "fixed" or traits.exact or not all(sizes):
        return
    period, apart = stream.period(*sizes), thinning * traits.stream_batches
    places = period // math.gcd(apart, period)
    if places == period:
        return
    coprime = next(
        t for t in range(thinning + 1, thinning + period + 1) if math.gcd(t, period) == 1
    )
    warnings.warn(
        f'thinning: got {thinning} with stream="{stream.name}", {period} batches in turn: draws '
        f"fall on {places} of its {period} places alone, whose mean is not the sweep's. Take one "
        f'without a common factor with {period}, such as {coprime}, or "reshuffled"',
        UserWarning,
        stacklevel=4,  # of `sample`'s caller
    )


def most_draws(kernel: AbstractKernel, num_burnin: int, thinning: int) -> int:
    """The most draws a run can make; see `total_steps`."""
    count(num_burnin, "num_burnin", least=0)
    count(thinning, "thinning", least=1)
    steps = (2**31 - 1) // kernel.traits.batches_per_step - 2
    return max(1, (steps - num_burnin) // thinning)


def check_reducers(reducers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Reducers by name, as a dict.

    Raises:
        TypeError: no mapping, or one of them lacks a part.
    """
    if not isinstance(reducers, Mapping | None):
        raise TypeError(f"reducers: got {type(reducers).__name__}; expected {{name: reducer}}")
    for name, reducer in (reducers or {}).items():
        called = trees.told(name)
        absent = [part for part in ("init", "update", "result") if not hasattr(reducer, part)]
        if absent:
            hint = "call it, or see" if callable(reducer) else "see"
            raise TypeError(
                f"reducers: {called} has no {', '.join(absent)}; {hint} sgmcmc.reducers"
            )
        if isinstance(reducer, type):
            raise TypeError(f"reducers: {called} is a class; pass one of it, {called}(…)")
    return dict(reducers or {})
