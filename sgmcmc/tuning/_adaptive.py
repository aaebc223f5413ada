"""`step_size=None` on an adaptive clock: Δτ such that a typical step is the fixed rule's.

    h    the step that `_by_curvature` gives to the same word without its Z
    ψ̄    ψ(ζ̄) at the mean level ζ̄ = E[g]/α of the monitor, from chains at the step h
    h'   the longest up to h at which the clock adds 5% at most to the error of ⟨x²⟩ of the
         stiffest mode (`_clock_lag`)
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
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import GRADIENT, SubStep, Word
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.tuning._by_curvature import choose_by_curvature
from sgmcmc.tuning._clock_lag import mode_kernel, paced_at, simulated_variance, without_leaves
from sgmcmc.tuning._oscillator import variance
from sgmcmc.tuning._problem import Problem, temperature_of
from sgmcmc.tuning._record import Tuning, with_tuning
from sgmcmc.tuning._rules import RULES
from sgmcmc.tuning._trial import halved_until_good, mean_along_chains
from sgmcmc.types import Array, Key, PyTree


def choose_with_clock(key: Key, kernel: SplittingKernel, problem: Problem) -> Tuning:
    """Choose Δτ; arguments and errors as `choose_by_curvature`.

    `measured` of what is returned: h', ψ̄ and the mean dt of the last trial.
    """
    fixed_key, chains_key, lag_key, trial_key = jax.random.split(key, 4)
    fixed, clock = without_clock(kernel), template(kernel.clock)
    tuning, mode = choose_by_curvature(fixed_key, fixed, problem)
    made = with_tuning(fixed, tuning)
    assert isinstance(made.metric, AbstractMetric)
    monitor = Monitor(clock, made.metric)
    (observed, square), _ = mean_along_chains(made, monitor, mode, problem.source(made), chains_key)
    level = jax.tree.map(lambda x: x / clock.alpha, observed)
    psi = typical(clock, level)
    mean_level = jnp.mean(jnp.stack(jax.tree.leaves(level)))
    share = min(1.0, tuning.curvature * temperature_of(kernel) / float(square))
    mean_observed = float(mean_level * clock.alpha)
    alone = mode_kernel(kernel, clock, tuning.curvature, mean_observed, share)
    step = _longest_in_step(alone, tuning, psi, lag_key)
    if step < tuning.step_size:
        limits = {**tuning.limits, "clock": step}
        tuning = tuning.at(step)._replace(limits=limits, reason="clock")
    measured = {"h": step, "ψ": psi}
    tuning = tuning._replace(step_size=step / psi, measured=measured)
    tuning = tuning.costing(2 * RULES.path_chains * RULES.trial_steps)
    # A safe start of ζ would be forgotten long after the trial.
    start = mean_level.astype(clock.start.dtype)
    warm = eqx.tree_at(lambda k: k.clock.template.start, kernel, start)
    tuning, trial = halved_until_good(
        warm, tuning, mode, problem.source(kernel), trial_key, temperature_of(kernel)
    )
    return tuning._replace(measured={**measured, "mean dt": trial.mean_dt})


def _longest_in_step(alone: SplittingKernel, tuning: Tuning, psi: float, key: Key) -> float:
    """h': the longest of `tuning`'s step times 2^{−k/4} at which the clock adds 5% at most.

    Args:
        alone: `mode_kernel`'s, the stiffest mode by itself.
        tuning: of the word without its clock.
        psi: ψ̄.
        key: used anew at each step.

    Raises:
        FloatingPointError: at none of 24 steps.
    """
    word, step = drop_clock(alone.word), tuning.step_size
    for _ in range(RULES.clock_shortenings):
        friction, kappa, ratio = None, step * tuning.curvature, 0.0
        if alone.friction is not None:
            chosen = tuning.at(step).friction
            friction = float(alone.friction(jnp.zeros((), jnp.int32))) if chosen is None else chosen
            omega = math.sqrt(tuning.curvature)
            kappa, ratio = step * omega, friction / omega
        paced = paced_at(alone, step / psi, friction)
        with_clock = float(simulated_variance(paced, jax.random.clone(key)))
        if abs(with_clock - variance(word, kappa, ratio)) <= RULES.tolerance:
            return step
        step *= 2**-0.25
    raise FloatingPointError(
        f"step_size: none found; the clock adds more than {RULES.tolerance:.0%} to the variance of "
        f"the stiffest mode at any step tried, down to {step:.3g}. Give a step_size, more "
        "friction, or a clock whose α is smaller, or ψ flatter"
    )


def template(clock: AbstractClock) -> AdaptiveClock:
    """The numbers of an adaptive clock whose Δτ is to be chosen."""
    assert isinstance(clock, Untuned)
    assert clock.template is not None
    return clock.template


def typical(clock: AdaptiveClock, level: PyTree) -> float:
    """ψ̄: ψ at the mean level of ζ."""
    return float(clock.weight(level))


def without_clock(kernel: SplittingKernel) -> SplittingKernel:
    """The same word without its clock's own letter, untuned, one step for all leaves."""
    word = drop_clock(kernel.word)
    flows = without_leaves(word.flows)
    return dataclasses.replace(kernel, clock=Untuned(), plan=word.plan, flows=flows)


def drop_clock(word: Word) -> Word:
    """A word less the letter of its clock; it records as before, for ζ moves no position."""
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
