"""Short chains from the mode: whether a step stays finite and cool, and means along their way.

A refresh of what an estimator remembers of all data (SVRG's snapshot) is due in these chains
where it is due in a run.
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
from sgmcmc.kernels._base import AbstractDynamics
from sgmcmc.loop._chain import ChainKeys, fold
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.streams import _streams as streams
from sgmcmc.streams._source import Source
from sgmcmc.tuning._record import Tuning, with_tuning
from sgmcmc.tuning._rules import RULES
from sgmcmc.types import Array, Batch, Info, Key, PyTree, State


class Trial(NamedTuple):
    """What came of a trial.

    Attributes:
        good: finite, and not clearly a quarter too hot.
        mean_dt: mean physical time of a step, of the first chain.
        steepest: the first chain's position where the gradient was largest.
        num_steps: made, over all chains.
    """

    good: bool
    mean_dt: float
    steepest: PyTree
    num_steps: int


def halved_until_good(
    kernel: AbstractDynamics,
    tuning: Tuning,
    start: PyTree,
    source: Source,
    key: Key,
    temperature: float,
) -> tuple[Tuning, Trial]:
    """`tuning`, its step halved until a trial of it is good; and that trial.

    Args:
        kernel: untuned, and settled.
        tuning: its `halvings` and `gradient_evaluations` count on.
        start: near the mode.
        source: the kernel's batches.
        key: used anew for each trial.
        temperature: what a chain is held against: T, or more where the kernel's own law is hotter.

    Raises:
        FloatingPointError: not even after six halvings.
    """
    kernel = kernel.for_burnin(RULES.trial_steps)
    while True:
        trial = trial_of(
            with_tuning(kernel, tuning), start, source, jax.random.clone(key), temperature
        )
        tuning = tuning.costing(2 * trial.num_steps)
        if trial.good:
            return tuning, trial
        if tuning.halvings >= RULES.max_halvings:
            raise FloatingPointError(
                f"step_size: none found; {tuning} did not stay finite, or cool, for "
                f"{RULES.trial_steps} steps of {kernel.traits.name} from the mode. Give a "
                "step_size, rescale the parameters (metric=), or look for NaN in the data"
            )
        tuning = tuning.halved()


def trial_of(
    kernel: AbstractDynamics, start: PyTree, source: Source, key: Key, temperature: float
) -> Trial:
    """One chain, and where that is a quarter too hot 16 more, which decide by their own spread.

    On few parameters the temperature of a good step's chain is a quarter too high every other
    time, and that of one chain says nothing of its own error: its terms are correlated.
    """
    single, several = jax.random.split(key)
    too_hot = RULES.too_hot * max(temperature, 1e-6)
    first = _chains(kernel, start, source, single[None])
    steepest = jax.tree.map(lambda x: x[0], first.steepest)
    mean_dt, num_steps = float(first.mean_dt[0]), RULES.trial_steps
    if not bool(first.finite[0]) or float(first.temperature[0]) <= too_hot:
        # Slow directions are still cold after so few steps; that is no fault of the step.
        return Trial(bool(first.finite[0]), mean_dt, steepest, num_steps)
    more = _chains(kernel, start, source, jax.random.split(several, RULES.trial_chains))
    error = float(np.std(more.temperature, ddof=1)) / math.sqrt(RULES.trial_chains)
    mean = float(np.mean(more.temperature))
    hot = mean > too_hot and mean - temperature > RULES.standard_errors * error
    good = bool(np.all(more.finite)) and not hot
    return Trial(good, mean_dt, steepest, (1 + RULES.trial_chains) * num_steps)


class TrialChain(NamedTuple):
    """What one chain of a trial was like, all but `finite` in its second half.

    Attributes:
        finite: bool.
        temperature: configurational, ⟨(θ − θ₀)·∇U⟩/d, in physical time.
        mean_dt: the mean time of a step.
        steepest: where the gradient, in the metric's coordinates, was largest.
    """

    finite: Array
    temperature: Array
    mean_dt: Array
    steepest: PyTree


class TrialSums(NamedTuple):
    """Running sums of a trial's chain: weights w, Σ w (θ − θ₀)·∇U/d, times; largest |∇U|²."""

    finite: Array
    heat: Array
    weight: Array
    time: Array
    largest: Array
    steepest: PyTree


@eqx.filter_jit
def _chains(kernel: AbstractDynamics, start: PyTree, source: Source, keys: Key) -> TrialChain:
    """A chain for each key, with a leading axis."""
    return jax.vmap(lambda key: _chain(kernel, start, source, key))(keys)


def _chain(kernel: AbstractDynamics, start: PyTree, source: Source, key: Key) -> TrialChain:
    """One chain of a trial."""
    *own, fresh_key = jax.random.split(key, 4)
    zero = jnp.zeros((), trees.accumulator_dtype(start))

    def whitened(gradient: PyTree) -> PyTree:
        # A metric that changes with the position has no coordinates.
        metric = kernel.metric
        return metric.to_momentum(gradient) if isinstance(metric, AbstractMetric) else gradient

    def begin(state: State) -> TrialSums:
        here = jax.tree.map(jnp.asarray, start)
        return TrialSums(jnp.asarray(True), zero, zero, zero, zero, here)

    def add(t: Array, state: State, info: Info, sums: TrialSums) -> TrialSums:
        batch = fresh_batch(source, fresh_key, t)
        gradient = kernel.posterior.potential_and_gradient(info.position, batch)[1]
        away = jax.tree.map(jnp.subtract, info.position, start)
        heat = trees.dot(away, gradient) / trees.size(start)
        late = t >= RULES.trial_steps // 2
        weight = info.weight.astype(zero.dtype)
        direction = whitened(gradient)
        square = jnp.where(late, trees.dot(direction, direction), -1.0)
        steeper = square > sums.largest
        return TrialSums(
            finite=sums.finite & info.finite,
            heat=sums.heat + jnp.where(late, weight * heat, 0.0),
            weight=sums.weight + jnp.where(late, weight, 0.0),
            time=sums.time + jnp.where(late, info.time.astype(zero.dtype), 0.0),
            largest=jnp.where(steeper, square, sums.largest),
            steepest=jax.tree.map(
                lambda new, old: jnp.where(steeper, new, old), info.position, sums.steepest
            ),
        )

    sums = fold(kernel, source, ChainKeys(*own), start, RULES.trial_steps, begin, add)[1]
    temperature = sums.heat / sums.weight
    finite = sums.finite & jnp.isfinite(temperature)
    late_steps = RULES.trial_steps - RULES.trial_steps // 2
    return TrialChain(finite, temperature, sums.time / late_steps, sums.steepest)


def fresh_batch(source: Source, key: Key, t: Array) -> PyTree:
    """A batch that the chain has not seen: averages over those that moved it are biased."""
    if source.data is None:
        return None
    if source.stream.law == "all":
        return Batch(source.data)
    drawn = streams.with_replacement()
    rows = streams.rows_at(drawn, key, t, source.sizes[0], source.width)
    return streams.gather(drawn, rows, source.data)


@eqx.filter_jit
def mean_along_chains(
    kernel: AbstractDynamics,
    observe: Callable[[PyTree], PyTree],
    start: PyTree,
    source: Source,
    key: Key,
) -> tuple[PyTree, PyTree]:
    """Eight chains of 200 steps from `start`.

    Returns:
        The mean over the chains and the second half of their steps of `observe` of the
        gradient's estimate, on a batch of its own; and where they end, with a chain axis.
    """
    late_steps = RULES.trial_steps - RULES.trial_steps // 2

    def chain(key: Key) -> tuple[PyTree, PyTree]:
        *own, fresh_key = jax.random.split(key, 4)

        def observed(state: State, t: Array) -> PyTree:
            batch = fresh_batch(source, fresh_key, t)
            estimate = kernel.gradient(kernel.posterior, state.position, batch, state.estimator)
            return observe(estimate[1])

        def begin(state: State) -> PyTree:
            shapes = jax.eval_shape(observed, state, jnp.zeros((), jnp.int32))
            return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def add(t: Array, state: State, info: Info, total: PyTree) -> PyTree:
            late = t >= RULES.trial_steps // 2
            plus = lambda a, b: a + jnp.where(late, b, 0)  # noqa: E731
            return jax.tree.map(plus, total, observed(state, t))

        keys = ChainKeys(*own)
        state, total = fold(kernel, source, keys, start, RULES.trial_steps, begin, add)
        return jax.tree.map(lambda x: 1 / late_steps * x, total), state.position

    means, ends = jax.vmap(chain)(jax.random.split(key, RULES.path_chains))
    return jax.tree.map(lambda x: jnp.mean(x, axis=0), means), ends


def nothing(gradient: PyTree) -> Any:
    """`observe` where the ends of the chains alone matter."""
    return ()
