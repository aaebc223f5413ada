"""`step_size=None` on an adaptive clock: Δτ such that a typical step is the fixed rule's.

    h    the step that `sgmcmc.tuning` gives to the same word without its Z
    ψ̄    ψ(ζ̄) at the mean level ζ̄ = E[g]/α of the monitor, from chains at the step h
    h'   the longest up to h at which the clock adds 5% at most to the error of ⟨x²⟩ of the
         stiffest mode (`sgmcmc.tuning._clock_lag`)
    Δτ   h'/ψ̄

`friction="auto"` goes with h'. Then the kernel itself is tried, from ζ̄ on, and Δτ halved as
there.
"""

from __future__ import annotations

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc.clocks._adaptive import AdaptiveClock, Untuned
from sgmcmc.clocks._base import AbstractClock
from sgmcmc.kernels._euler import EulerStep
from sgmcmc.kernels._samadams import EulerStepOfLeaves
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import GRADIENT, SubStep, Word
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning import _clock_lag as clock_lag
from sgmcmc.tuning._limits import TOLERANCE
from sgmcmc.tuning._oscillator import variance
from sgmcmc.tuning._record import Tuning, tuned
from sgmcmc.tuning._rules import settled, tune_and_mode
from sgmcmc.tuning._trial import TRIAL_STEPS, WALKERS, mean_along_chains, verified
from sgmcmc.types import Array, Key, PyTree

SHORTENINGS = 24


def tune_adaptive(
    key: Key,
    kernel: SplittingKernel,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int,
) -> Tuning:
    """Choose Δτ; arguments and errors as `tuning.tune`. `found` has h', ψ̄ and the mean dt."""
    look_key, walk_key, lag_key, trial_key = jax.random.split(key, 4)
    fixed, clock = unpaced(kernel), template(kernel.clock)
    choice, mode = tune_and_mode(look_key, fixed, params, data, stream, batch_size, count)
    source = fixed.source(stream, batch_size, data)
    given = tuned(settled(fixed, count), choice)
    monitor = Monitor(clock, given.metric)
    (observed, square), _ = mean_along_chains(given, monitor, mode, source, walk_key)
    level = jax.tree.map(lambda x: x / clock.alpha, observed)
    psi = typical(clock, level)
    mean = jnp.mean(jnp.stack(jax.tree.leaves(level)))
    kernel = settled(kernel, count)
    temperature = float(kernel.temperature(jnp.zeros((), jnp.int32)))
    share = min(1.0, choice.curvature * temperature / float(square))
    mean_observed = float(mean * clock.alpha)
    toy = clock_lag.oscillator(kernel, clock, choice.curvature, mean_observed, share)
    step = _followed(toy, choice, psi, lag_key)
    if step < choice.step_size:
        limits = {**choice.limits, "clock": step}
        choice = choice.at(step)._replace(limits=limits, reason="clock")
    found = {"h": step, "ψ": psi}
    spent = choice.gradient_evaluations + 2 * WALKERS * TRIAL_STEPS
    choice = choice._replace(step_size=step / psi, found=found, gradient_evaluations=spent)
    # A safe start of ζ would be forgotten long after the trial.
    start = mean.astype(clock.start.dtype)
    tried = eqx.tree_at(lambda k: k.clock.template.start, kernel, start)
    source = kernel.source(stream, batch_size, data)
    choice, trial = verified(tried, choice, mode, source, trial_key)
    return choice._replace(found={**found, "mean dt": trial.pace})


def _followed(toy: SplittingKernel, choice: Tuning, psi: float, key: Key) -> float:
    """The step h' up to that of `choice`, in shares of 2^{−1/4}."""
    law, step = without_clock(toy.word), choice.step_size
    for _ in range(SHORTENINGS):
        friction, kappa, ratio = None, step * choice.curvature, 0.0
        if toy.friction is not None:
            chosen = choice.at(step).friction
            friction = float(toy.friction(jnp.zeros((), jnp.int32))) if chosen is None else chosen
            omega = math.sqrt(choice.curvature)
            kappa, ratio = step * omega, friction / omega
        paced = clock_lag.at(toy, step / psi, friction)
        found = float(clock_lag.variance(paced, jax.random.clone(key)))
        if abs(found - variance(law, kappa, ratio)) <= TOLERANCE:
            return step
        step *= 2**-0.25
    raise FloatingPointError(
        f"step_size: none found; the clock adds more than {TOLERANCE:.0%} to the variance of the "
        f"stiffest mode at any step tried, down to {step:.3g}. Give a step_size, more friction, or "
        "a clock whose α is smaller, or ψ flatter"
    )


def template(clock: AbstractClock) -> AdaptiveClock:
    """The numbers of an adaptive clock whose Δτ is to be chosen."""
    assert isinstance(clock, Untuned)
    assert clock.template is not None
    return clock.template


def typical(clock: AdaptiveClock, level: PyTree) -> float:
    """ψ at the mean level of ζ."""
    return float(clock.weight(level))


def unpaced(kernel: SplittingKernel) -> SplittingKernel:
    """The same word without the clock's own letter, untuned."""
    word = without_clock(kernel.word)
    # Each leaf's own step is one for all of them.
    flows = {
        letter: EulerStep() if isinstance(flow, EulerStepOfLeaves) else flow
        for letter, flow in word.flows.items()
    }
    return dataclasses.replace(kernel, clock=Untuned(), plan=word.plan, flows=flows)


def without_clock(word: Word) -> Word:
    """A word less the letter of its clock; recorded is what it was, for ζ moves nothing."""
    steps: list[SubStep] = []
    flows = {letter: flow for letter, flow in word.flows.items() if not flow.adapts}
    for step in word.plan.substeps:
        if step.letter in (GRADIENT, *flows):
            steps.append(step)
        elif step.end is not None and steps:
            steps[-1] = steps[-1]._replace(end=steps[-1].fraction)
    return Word(word.plan._replace(substeps=tuple(steps)), flows)


class Monitor(eqx.Module):
    """g of a gradient, or of each of its leaves for a clock per leaf, and its square.

    The square is in the metric's coordinates.
    """

    clock: AdaptiveClock
    metric: AbstractMetric

    def __call__(self, gradient: PyTree) -> tuple[PyTree, Array]:
        wide = trees.accumulator_dtype(gradient)
        whitened = self.metric.to_momentum(gradient)
        square = trees.dot(whitened, whitened)
        if not self.clock.per_leaf:
            return self.clock.observe(gradient).astype(wide), square
        return jax.tree.map(lambda x: self.clock.observe(x).astype(wide), gradient), square
