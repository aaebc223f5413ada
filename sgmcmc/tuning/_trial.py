"""Chains of a step under trial, all from the mode.

One or 17 of them say whether the step stays finite and cool, and where the gradient is largest;
`verified` halves a step until they do; `mean_along_chains` is the mean of a function of the
gradient over eight of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _tree as trees
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.streams import _source as batches
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._record import HALVINGS, Tuning, tuned
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
        order, given, _ = batches.next_batch(source, stream_key, t, order, batches.no_vmap)
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
        constant = isinstance(kernel.metric, AbstractMetric)
        whitened = kernel.metric.to_momentum(gradient) if constant else gradient
        norm = jnp.where(late, trees.dot(whitened, whitened), -1.0)
        steeper = norm > largest
        steepest = jax.tree.map(
            lambda new, old: jnp.where(steeper, new, old), info.position, steepest
        )
        largest = jnp.where(steeper, norm, largest)
        return state, order, finite & info.finite, heat, times, largest, steepest

    zero = jnp.zeros((), trees.accumulator_dtype(start))
    order = batches.empty_order(source, stream_key)
    here = jax.tree.map(jnp.asarray, start)
    begin = (state, order, jnp.asarray(True), zero, jnp.zeros(2, zero.dtype), zero, here)
    _, _, finite, heat, times, _, steepest = jax.lax.fori_loop(0, TRIAL_STEPS, step, begin)
    heat, pace = heat / times[0], times[1] / (TRIAL_STEPS - TRIAL_STEPS // 2)
    return finite & jnp.isfinite(heat), heat, pace, steepest


def unseen(source: batches.Source, key: Key, t: Array) -> PyTree:
    """A batch that the chain has not seen: averages over what it has are biased."""
    if source.data is None:
        return None
    if source.stream.law == "all":
        return Batch(source.data)
    drawn = streams.with_replacement()
    rows = streams.rows_at(drawn, key, t, *source.sizes)
    return streams.gather(drawn, rows, source.data)


def verified(
    kernel: Any,
    choice: Tuning,
    start: PyTree,
    source: batches.Source,
    key: Key,
    warmer: float = 1.0,
) -> tuple[Tuning, Trial]:
    """`choice`, halved until a trial of the kernel stays finite and cool; and that trial.

    Args:
        kernel: untuned, with temperature and friction that are constant.
        choice: its `halvings` count on.
        start: near the mode.
        source: the kernel's batches.
        key: used anew for each trial.
        warmer: how much hotter than T the kernel's own law may be.

    Raises:
        FloatingPointError: not even the smallest step will do.
    """
    temperature = warmer * float(kernel.temperature(0))
    spent = 0
    while True:
        trial = tried(tuned(kernel, choice), start, source, jax.random.clone(key), temperature)
        spent += 2 * trial.steps
        if trial.good:
            total = choice.gradient_evaluations + spent
            return choice._replace(gradient_evaluations=total), trial
        if choice.halvings >= HALVINGS:
            raise FloatingPointError(
                f"step_size: none found; {choice} did not stay finite, or cool, for "
                f"{TRIAL_STEPS} steps of {kernel.name} from the mode. Give a step_size, rescale "
                "the parameters (metric=), or look for NaN in the data"
            )
        choice = choice.halved()


WALKERS = 8


@eqx.filter_jit
def mean_along_chains(
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
            order, given, _ = batches.next_batch(source, stream_key, t, order, batches.no_vmap)
            state, _ = kernel.step(jax.random.fold_in(steps_key, t), state, given)
            late = t >= TRIAL_STEPS // 2
            add = lambda a, b: a + jnp.where(late, b, 0)  # noqa: E731
            return state, order, jax.tree.map(add, total, seen(state, t))

        shapes = jax.eval_shape(seen, state, jnp.zeros((), jnp.int32))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        begin = (state, batches.empty_order(source, stream_key), zeros)
        state, _, total = jax.lax.fori_loop(0, TRIAL_STEPS, step, begin)
        share = 1 / (TRIAL_STEPS - TRIAL_STEPS // 2)
        return jax.tree.map(lambda x: share * x, total), state.position

    means, places = jax.vmap(one)(jax.random.split(key, WALKERS))
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), means), places
