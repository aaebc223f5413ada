"""A trial of a step: whether chains from the mode stay finite and cool, and where it is steep."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import batches, streams, trees
from sgmcmc.types import Array, Batch, Key, PyTree

TRIAL_STEPS, TOO_HOT = 200, 1.25
CHAINS, STANDARD_ERRORS = 16, 4


class Trial(NamedTuple):
    """What came of a trial.

    Attributes:
        good: finite, and not clearly a quarter too hot.
        pace: mean physical time of a step, of the first chain.
        steepest: the first chain's position where the gradient was largest.
        steps: made, over all chains.
    """

    good: bool
    pace: float
    steepest: PyTree
    steps: int


def tried(
    kernel: Any, start: PyTree, source: batches.Source, key: Key, temperature: float
) -> Trial:
    """One chain, and where that is a quarter too hot 16 more, which decide by their own spread.

    On few parameters the temperature of a good step's chain is a quarter too high every other
    time, and that of one chain says nothing of its own error: its terms are correlated.
    """
    single, several = jax.random.split(key)
    too_hot = TOO_HOT * max(temperature, 1e-6)
    finite, heat, pace, steepest = _trial(kernel, start, source, single[None])
    steepest = jax.tree.map(lambda x: x[0], steepest)
    if not bool(finite[0]) or float(heat[0]) <= too_hot:
        # Slow directions are still cold after so few steps; that is no fault of the step.
        return Trial(bool(finite[0]), float(pace[0]), steepest, TRIAL_STEPS)
    finite, heats, _, _ = _trial(kernel, start, source, jax.random.split(several, CHAINS))
    error = float(np.std(heats, ddof=1)) / math.sqrt(CHAINS)
    mean = float(np.mean(heats))
    hot = mean > too_hot and mean - temperature > STANDARD_ERRORS * error
    good = bool(np.all(finite)) and not hot
    return Trial(good, float(pace[0]), steepest, (1 + CHAINS) * TRIAL_STEPS)


@eqx.filter_jit
def _trial(
    kernel: Any, start: PyTree, source: batches.Source, keys: Key
) -> tuple[Array, Array, Array, PyTree]:
    """Of a chain for each key: finite; configurational temperature ⟨(θ − θ₀)·∇U⟩/d over the

    second half, in physical time; the mean time of a step there; and the position there at
    which the gradient, in the metric's coordinates, was largest.
    """
    return jax.vmap(lambda key: _one(kernel, start, source, key))(keys)


def _one(
    kernel: Any, start: PyTree, source: batches.Source, key: Key
) -> tuple[Array, Array, Array, PyTree]:
    """A chain of `_trial`."""
    state_key, steps_key, stream_key, other_key = jax.random.split(key, 4)
    state = kernel.init(start, state_key, source.data)

    def step(t: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, order, finite, heat, times, largest, steepest = carry
        order, given, _ = batches.following(source, stream_key, t, order, batches.plain)
        state, info = kernel.step(jax.random.fold_in(steps_key, t), state, given)
        gradient = kernel.posterior.potential_and_gradient(
            info.position, unseen(source, other_key, t)
        )[1]
        away = jax.tree.map(jnp.subtract, info.position, start)
        now = trees.dot(away, gradient) / trees.size(start)
        late = t >= TRIAL_STEPS // 2
        weight = info.weight.astype(zero.dtype)
        heat = heat + jnp.where(late, weight * now, 0.0)
        times = times + jnp.where(late, jnp.stack([weight, info.time.astype(zero.dtype)]), 0.0)
        # A metric that changes with the position has no coordinates.
        whitened = getattr(kernel.metric, "to_momentum", lambda g: g)(gradient)
        norm = jnp.where(late, trees.dot(whitened, whitened), -1.0)
        steeper = norm > largest
        steepest = jax.tree.map(
            lambda new, old: jnp.where(steeper, new, old), info.position, steepest
        )
        largest = jnp.where(steeper, norm, largest)
        return state, order, finite & info.finite, heat, times, largest, steepest

    zero = jnp.zeros((), trees.accumulator_dtype(start))
    order = batches.room(source, stream_key)
    here = jax.tree.map(jnp.asarray, start)
    begin = (state, order, jnp.asarray(True), zero, jnp.zeros(2, zero.dtype), zero, here)
    _, _, finite, heat, times, _, steepest = jax.lax.fori_loop(0, TRIAL_STEPS, step, begin)
    heat, pace = heat / times[0], times[1] / (TRIAL_STEPS - TRIAL_STEPS // 2)
    return finite & jnp.isfinite(heat), heat, pace, steepest


def unseen(source: batches.Source, key: Key, t: Array) -> PyTree:
    """A batch that the chain has not seen: averages over what it has are biased."""
    if source.data is None:
        return None
    if source.stream.name == "full":
        return Batch(source.data)
    drawn = streams.with_replacement()
    rows = streams.rows_at(drawn, key, t, *source.sizes)
    return streams.gather(drawn, rows, source.data)
