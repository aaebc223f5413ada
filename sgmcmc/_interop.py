"""Kernels for others' loops, and others' kernels for ours (BlackJAX's interface).

`bind` gives `init(position, rng_key)` and `step(rng_key, state)`, the two functions of a
`blackjax.SamplingAlgorithm`; `from_blackjax` turns such an algorithm into a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.loop._chunk import refreshed
from sgmcmc.streams import _source as batches
from sgmcmc.types import Array, ClockState, Info, Key, PyTree, State


class BoundState(NamedTuple):
    """A kernel's state with its place in the batch stream."""

    position: PyTree
    state: State
    counter: Array
    stream_key: Key
    order: Array


class SamplingAlgorithm(NamedTuple):
    """`init(position, rng_key) -> state`; `step(rng_key, state) -> (state, info)`."""

    init: Callable[..., Any]
    step: Callable[..., Any]


def bind(kernel: Any, data: PyTree, batch_size: int | None, stream: Any) -> Any:
    """A kernel with its data, as a `blackjax.SamplingAlgorithm` where BlackJAX is installed.

    Args:
        kernel: any kernel of this library.
        data, batch_size, stream: as in `sgmcmc.sample`.

    Returns:
        A pair of functions; the state's `position` is the recorded one. Batches come from a
        stream of the state's own, keyed by `init`'s key; the loop passes none.
    """
    data, chosen, batch_size = batches.data_and_stream(kernel, data, stream, batch_size)
    source = batches.source(chosen, batch_size, data, kernel)

    def init(position: PyTree, rng_key: Key) -> BoundState:
        state_key, stream_key = jax.random.split(rng_key)
        state = kernel.init(position, state_key, data)
        counter = jnp.zeros((), jnp.int32)
        return BoundState(
            state.position, state, counter, stream_key, batches.empty_order(source, stream_key)
        )

    def step(rng_key: Key, bound: BoundState) -> tuple[BoundState, Info]:
        counter, key = bound.counter, bound.stream_key
        order, batch, _ = batches.next_batch(source, key, counter, bound.order, batches.no_vmap)
        state = refreshed(kernel, counter, bound.state, data, batches.no_vmap)
        state, info = kernel.step(rng_key, state, batch)
        return BoundState(info.position, state, counter + 1, key, order), info

    try:
        from blackjax import SamplingAlgorithm as TheirAlgorithm
    except ImportError:
        return SamplingAlgorithm(init, step)
    return TheirAlgorithm(init, step)


class BlackjaxKernel(eqx.Module):
    """A kernel of this library's contract around a BlackJAX algorithm."""

    begin: Callable[..., Any]
    advance: Callable[..., Any]
    name: str = eqx.field(static=True)
    gradient_evaluations: float = eqx.field(static=True)
    order: int = eqx.field(static=True, default=0)
    batches_per_step: int = eqx.field(static=True, default=1)
    refresh_every: int | None = eqx.field(static=True, default=None)

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        checks.require_floating(position, "params")
        clock = ClockState(jnp.zeros((), jnp.int32))
        state = _array_state(self.begin(position, rng_key))
        return State(state.position, (), (), (), clock, state)

    def draw(self, rng_key: Key, state: State) -> Key:
        return rng_key

    def drive(self, noise: Key, state: State, batch: PyTree) -> tuple[State, Info]:
        theirs, info = self.advance(noise, state.extra)
        theirs = _array_state(theirs)
        energy = -jnp.asarray(getattr(theirs, "logdensity", 0.0))
        one, zero = jnp.ones(()), jnp.zeros(())
        finite = jnp.isfinite(energy) & trees.all_finite(theirs.position)
        clock = state.clock._replace(count=state.clock.count + 1)
        acceptance = getattr(info, "acceptance_rate", None)
        report = Info(theirs.position, one, one, energy, zero, zero, finite, acceptance)
        return State(theirs.position, (), (), (), clock, theirs), report

    def step(self, rng_key: Key, state: State, batch: PyTree = None) -> tuple[State, Info]:
        return self.drive(self.draw(rng_key, state), state, batch)

    def refresh(self, state: State, data: PyTree) -> State:
        return state


def from_blackjax(
    algorithm: Any, *, name: str = "blackjax", gradient_evaluations: float = 1.0
) -> BlackjaxKernel:
    """A BlackJAX algorithm as a kernel for `sgmcmc.sample(key, kernel, params)`.

    Args:
        algorithm: a `blackjax.SamplingAlgorithm`, its target bound in, for example
            `blackjax.hmc(log_density, …)`. Its states must have a `position`.
        name: what the run calls it.
        gradient_evaluations: gradients a step, for the count of costs.
    """
    for part in ("init", "step"):
        if not callable(getattr(algorithm, part, None)):
            raise TypeError(f"algorithm: got {type(algorithm).__name__} without {part}")
    begin, advance = (jax.tree_util.Partial(f) for f in (algorithm.init, algorithm.step))
    return BlackjaxKernel(begin, advance, name, float(gradient_evaluations))


def _array_state(state: Any) -> Any:
    return jax.tree.map(jnp.asarray, state)
