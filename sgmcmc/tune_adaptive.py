"""`step_size=None` on an adaptive clock: Δτ such that a typical step is the fixed rule's.

    h    the step that `sgmcmc.tuning` gives to the same word without its Z
    ψ̄    ψ(ζ̄) at the mean level ζ̄ = E[g]/α of the monitor, from chains at the step h
    Δτ   h/ψ̄

`friction="auto"` goes with h. Then the kernel itself is tried, from ζ̄ on, and Δτ halved as
there.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import batches, streams, trees
from sgmcmc.adaptive import AdaptiveKernel
from sgmcmc.adaptive_clock import AdaptiveClock
from sgmcmc.along import WALKERS, walk
from sgmcmc.pace import Untuned
from sgmcmc.rates import Constant
from sgmcmc.splitting import SplittingKernel, extend
from sgmcmc.trial import TRIAL_STEPS
from sgmcmc.tuning import Tuning, settled, tune_and_mode, tuned
from sgmcmc.types import Array, Key, PyTree
from sgmcmc.verified import verified
from sgmcmc.words import Plan


def tune_adaptive(
    key: Key,
    kernel: AdaptiveKernel,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int,
) -> Tuning:
    """Choose Δτ; arguments and errors as `tuning.tune`. `found` has h, ψ̄ and the mean dt."""
    look_key, walk_key, trial_key = jax.random.split(key, 3)
    fixed = unpaced(kernel)
    choice, mode = tune_and_mode(look_key, fixed, params, data, stream, batch_size, count)
    source = batches.source(stream, batch_size, data, fixed)
    given = tuned(settled(fixed, count), choice)
    level, _ = walk(given, Monitor(kernel.clock), mode, source, walk_key)
    level = jax.tree.map(lambda x: x / kernel.clock.alpha, level)
    psi = float(kernel.clock.weight(level))
    found = {"fixed step": choice.step_size, "ψ": psi}
    spent = choice.gradient_evaluations + 2 * WALKERS * TRIAL_STEPS
    choice = choice._replace(
        step_size=choice.step_size / psi, found=found, gradient_evaluations=spent
    )
    # A safe start of ζ would be forgotten long after the trial.
    warm = jnp.mean(jnp.stack(jax.tree.leaves(level))).astype(kernel.clock.start.dtype)
    tried = eqx.tree_at(lambda k: k.clock.start, settled(kernel, count), warm)
    source = batches.source(stream, batch_size, data, kernel)
    choice, trial = verified(tried, choice, mode, source, trial_key)
    return choice._replace(found={**found, "mean dt": trial.pace})


def unpaced(kernel: AdaptiveKernel) -> SplittingKernel:
    """The same word without Z, untuned."""
    clock = Untuned(Constant(jnp.asarray(jnp.nan, dtype=float)))
    fixed: SplittingKernel = extend(
        kernel, SplittingKernel, clock=clock, plan=without_z(kernel.plan)
    )
    return fixed


def without_z(plan: Plan) -> Plan:
    """A plan less its Z; recorded is what it was, for ζ moves nothing."""
    steps: list[Any] = []
    for step in plan.substeps:
        if step.letter != "Z":
            steps.append(step)
        elif step.end is not None and steps:
            steps[-1] = steps[-1]._replace(end=steps[-1].fraction)
    return plan._replace(substeps=tuple(steps))


class Monitor(eqx.Module):
    """g of a gradient, or of each of its leaves for a clock per leaf."""

    clock: AdaptiveClock

    def __call__(self, gradient: PyTree) -> PyTree:
        if not self.clock.per_leaf:
            return self._wide(self.clock.observe(gradient), gradient)
        one = lambda part: self._wide(self.clock.observe(part), part)  # noqa: E731
        return jax.tree.map(one, gradient)

    def _wide(self, value: Array, gradient: PyTree) -> Array:
        return value.astype(trees.accumulator_dtype(gradient))
