"""A chain inside jit: one step of the library's loop, and the fold of one chain's steps.

Step t draws its numbers from fold_in(steps key, t), and its batch from the stream key and t:
a chain is a function of its keys alone, wherever it is cut up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from sgmcmc.kernels._base import AbstractKernel
from sgmcmc.streams._source import Source, empty_order, next_batch, no_vmap
from sgmcmc.types import Array, Info, Key, PyTree, State


class ChainKeys(NamedTuple):
    """What one chain draws from: its first momentum, its steps, its batches (None without data)."""

    state: Key
    steps: Key
    stream: Key | None = None


def fold(
    kernel: AbstractKernel,
    source: Source,
    keys: ChainKeys,
    start: PyTree,
    num_steps: int,
    init: Callable[[State], PyTree],
    update: Callable[[Array, State, Info, PyTree], PyTree],
) -> tuple[State, PyTree]:
    """One chain of `num_steps` steps, and what `update` makes of them in turn; for use under jit.

    `jax.vmap` over the keys makes several chains.

    Args:
        kernel: any.
        source: its batches, from `kernel.source(…)`.
        keys: see `ChainKeys`.
        start: the first position.
        num_steps: static.
        init: of the first state, the total to begin with.
        update: `(t, state, info, total) -> total`, t the step counted from 0, `state` and `info`
            what the step returned. The total keeps its structure, shapes and dtypes.

    Returns:
        The last state, and the total.
    """
    state = kernel.init(start, keys.state, source.data)
    stream_key = keys.steps if keys.stream is None else keys.stream  # not read without data

    def body(t: Array, carry: tuple[State, Array, PyTree]) -> tuple[State, Array, PyTree]:
        state, order, total = carry
        state, order, info = take_step(
            kernel, source, keys.steps, stream_key, t, state, order, no_vmap
        )
        return state, order, update(t, state, info, total)

    begin = (state, empty_order(source, stream_key), init(state))
    state, _, total = jax.lax.fori_loop(0, num_steps, body, begin)
    return state, total


def take_step(
    kernel: AbstractKernel,
    source: Source,
    steps_keys: Key,
    stream_keys: Key,
    t: Array,
    state: State,
    order: Array,
    over_chains: Callable[..., Any],
) -> tuple[State, Array, Info]:
    """Step t: what is due of a refresh, the batch, and the kernel's step.

    Args:
        kernel, source: as in `fold`.
        steps_keys, stream_keys: of one chain, or with a leading chain axis.
        t: the step, counted from 0; one for all chains.
        state, order: what the step before left.
        over_chains: `jax.vmap`, or `no_vmap` for a chain by itself.
    """
    state = refreshed(kernel, t, state, source.data, over_chains)
    order, batch, axes = next_batch(source, stream_keys, t, order, over_chains)

    def one(key: Key, state: State, batch: Any) -> tuple[State, Info]:
        return kernel.step(jax.random.fold_in(key, t), state, batch)

    state, info = over_chains(one, in_axes=(0, 0, axes))(steps_keys, state, batch)
    return state, order, info


def refreshed(
    kernel: AbstractKernel, t: Array, state: State, data: PyTree, over_chains: Callable[..., Any]
) -> State:
    """`state` before step t, with what the kernel recomputes from all data every so often.

    The first state has it from `init`.
    """
    every = kernel.traits.refresh_every
    if every is None:
        return state
    refresh = over_chains(lambda state: kernel.refresh(state, data))
    return jax.lax.cond((t > 0) & (t % every == 0), refresh, lambda state: state, state)
