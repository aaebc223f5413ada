"""A trial of a step: whether a chain from the mode stays finite and cool, and where it is steep."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import batches, streams, trees
from sgmcmc.types import Array, Batch, Key, PyTree

TRIAL_STEPS, TOO_HOT, BLOCKS = 200, 1.25, 10


def stays(
    kernel: Any, start: PyTree, source: batches.Source, key: Key, temperature: float
) -> tuple[bool, PyTree]:
    """Whether a trial stays finite and not clearly a quarter too hot; and its steepest place."""
    finite, blocks, steepest = _trial(kernel, start, source, jax.random.clone(key))
    heat = jnp.mean(blocks) - 2 * jnp.std(blocks, ddof=1) / math.sqrt(BLOCKS)
    # Slow directions are still cold after so few steps; that is no fault of the step.
    return bool(finite) and float(heat) <= TOO_HOT * max(temperature, 1e-6), steepest


@eqx.filter_jit
def _trial(
    kernel: Any, start: PyTree, source: batches.Source, key: Key
) -> tuple[Array, Array, PyTree]:
    """Finite; configurational temperature ⟨(θ − θ₀)·∇U⟩/d over blocks of the second half; and

    the position there at which the gradient, in the metric's coordinates, was largest.
    """
    state_key, steps_key, stream_key, other_key = jax.random.split(key, 4)
    state = kernel.init(start, state_key, source.data)

    def unseen(t: Array) -> PyTree:
        """A batch that the chain has not seen: the temperature is biased otherwise."""
        if source.data is None:
            return None
        if source.stream.name == "full":
            return Batch(source.data)
        drawn = streams.with_replacement()
        rows = streams.rows_at(drawn, other_key, t, *source.sizes)
        return streams.gather(drawn, rows, source.data)

    def step(t: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, order, finite, heat, largest, steepest = carry
        order, given, _ = batches.following(source, stream_key, t, order, batches.plain)
        state, info = kernel.step(jax.random.fold_in(steps_key, t), state, given)
        gradient = kernel.posterior.potential_and_gradient(info.position, unseen(t))[1]
        away = jax.tree.map(jnp.subtract, info.position, start)
        now = trees.dot(away, gradient) / trees.size(start)
        late = t - TRIAL_STEPS // 2
        heat = heat.at[jnp.maximum(late, 0) // length].add(jnp.where(late >= 0, now / length, 0.0))
        whitened = kernel.metric.to_momentum(gradient)
        norm = jnp.where(late >= 0, trees.dot(whitened, whitened), -1.0)
        steeper = norm > largest
        steepest = jax.tree.map(
            lambda new, old: jnp.where(steeper, new, old), info.position, steepest
        )
        largest = jnp.where(steeper, norm, largest)
        return state, order, finite & info.finite, heat, largest, steepest

    length = (TRIAL_STEPS - TRIAL_STEPS // 2) // BLOCKS
    zero = jnp.zeros(BLOCKS, trees.accumulator_dtype(start))
    order = batches.room(source, stream_key)
    begin = (state, order, jnp.asarray(True), zero, zero[0], jax.tree.map(jnp.asarray, start))
    _, _, finite, heat, _, steepest = jax.lax.fori_loop(0, TRIAL_STEPS, step, begin)
    return finite & jnp.all(jnp.isfinite(heat)), heat, steepest
