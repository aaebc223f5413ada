"""What chains see on their way from the mode: means of functions of the gradient, and places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import batches
from sgmcmc.trial import TRIAL_STEPS, unseen
from sgmcmc.types import Array, Key, PyTree

WALKERS = 8


@eqx.filter_jit
def walk(
    kernel: Any,
    observe: Callable[[PyTree], PyTree],
    start: PyTree,
    source: batches.Source,
    key: Key,
) -> tuple[PyTree, PyTree]:
    """`WALKERS` chains of `TRIAL_STEPS` steps from `start`, all at one place.

    Returns:
        The mean over the chains and the second half of their steps of `observe` of the
        gradient's estimate, on a batch of its own; and where they end, with a chain axis.
    """

    def one(key: Key) -> tuple[PyTree, PyTree]:
        state_key, steps_key, stream_key, other_key = jax.random.split(key, 4)
        state = kernel.init(start, state_key, source.data)

        def seen(state: Any, t: Array) -> PyTree:
            batch = unseen(source, other_key, t)
            estimate = kernel.gradient(kernel.posterior, state.position, batch, state.estimator)
            return observe(estimate[1])

        def step(t: Array, carry: tuple[Any, Array, PyTree]) -> tuple[Any, Array, PyTree]:
            state, order, total = carry
            order, given, _ = batches.following(source, stream_key, t, order, batches.plain)
            state, _ = kernel.step(jax.random.fold_in(steps_key, t), state, given)
            late = t >= TRIAL_STEPS // 2
            add = lambda a, b: a + jnp.where(late, b, 0)  # noqa: E731
            return state, order, jax.tree.map(add, total, seen(state, t))

        shapes = jax.eval_shape(seen, state, jnp.zeros((), jnp.int32))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        begin = (state, batches.room(source, stream_key), zeros)
        state, _, total = jax.lax.fori_loop(0, TRIAL_STEPS, step, begin)
        share = 1 / (TRIAL_STEPS - TRIAL_STEPS // 2)
        return jax.tree.map(lambda x: share * x, total), state.position

    means, places = jax.vmap(one)(jax.random.split(key, WALKERS))
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), means), places
