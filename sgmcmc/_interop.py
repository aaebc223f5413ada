"""Kernels for others' loops, and others' kernels for ours (BlackJAX's interface)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.kernels._base import AbstractKernel, Traits, require_kernel
from sgmcmc.loop._chain import refreshed
from sgmcmc.streams import _source as batches
from sgmcmc.streams._streams import Stream
from sgmcmc.types import Array, ClockState, Info, Key, PyTree, State


class BoundState(NamedTuple):
    """A kernel's state with its place in the batch stream.

    Attributes:
        position: the recorded position, which `state` may have left behind.
        state: the kernel's.
        counter: () int32, steps made.
        stream_key: of the batch stream.
        order: the epoch's order that the stream prepared.
    """

    position: PyTree
    state: State
    counter: Array
    stream_key: Key
    order: Array


class SamplingAlgorithm(NamedTuple):
    """`init(position, rng_key) -> state`; `step(rng_key, state) -> (state, info)`."""

    init: Callable[..., PyTree]
    step: Callable[..., PyTree]


def to_blackjax(
    kernel: AbstractKernel,
    data: PyTree = None,
    *,
    batch_size: int | None = None,
    stream: str | Stream | None = None,
) -> Any:
    """A kernel with its data as a `blackjax.SamplingAlgorithm`, for loops that pass no batch.

    Args:
        kernel: any kernel of this library.
        data, batch_size, stream: as in `sgmcmc.sample`.

    Returns:
        `init(position, rng_key)` and `step(rng_key, state)`, a pair of the same two functions
        where BlackJAX is not installed. The state's `position` is the recorded one. Batches come
        from a stream of the state's own, keyed by `init`'s key.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    require_kernel(kernel)
    traits = kernel.traits
    data, chosen, batch_size = batches.data_and_stream(
        kernel.posterior, data, stream, batch_size, traits.batches, traits.stream_batches,
        traits.name,
    )  # fmt: skip
    source = kernel.source(chosen, batch_size, data)

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


class BlackjaxKernel(AbstractKernel):
    """A BlackJAX algorithm by this library's contract; `State.extra` is BlackJAX's own state."""

    begin: Callable[..., PyTree]
    advance: Callable[..., PyTree]
    name: str = eqx.field(static=True)
    gradient_evaluations: float = eqx.field(static=True)

    posterior: ClassVar[None] = None
    clock: ClassVar[None] = None

    @property
    def traits(self) -> Traits:
        return Traits(self.name, order=0, gradient_evaluations=self.gradient_evaluations)

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


def from_blackjax(
    algorithm: Any, *, name: str = "blackjax", gradient_evaluations: float = 1.0
) -> BlackjaxKernel:
    """A BlackJAX algorithm as a kernel for `sgmcmc.sample(key, kernel, params)`.

    Args:
        algorithm: a `blackjax.SamplingAlgorithm`, its target bound in, for example
            `blackjax.hmc(log_density, …)`. Its states must have a `position`.
        name: what `repr(kernel)` and a run's `config` call it.
        gradient_evaluations: gradients a step, for the count of costs; default 1.

    Raises:
        TypeError: `algorithm` has no `init` or no `step`.
    """
    for part in ("init", "step"):
        if not callable(getattr(algorithm, part, None)):
            raise TypeError(f"algorithm: got {type(algorithm).__name__} without {part}")
    begin, advance = (jax.tree_util.Partial(f) for f in (algorithm.init, algorithm.step))
    return BlackjaxKernel(begin, advance, name, float(gradient_evaluations))


def _array_state(state: PyTree) -> PyTree:
    return jax.tree.map(jnp.asarray, state)
