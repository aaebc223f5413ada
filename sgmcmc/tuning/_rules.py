"""`step_size=None`: a step from the curvature and the noise of the gradient.

Where a search for the mode ends (it goes on while |∇U|² > dλT: a typical draw has less),

    λ     the largest curvature of U, in the metric's coordinates: power iteration on the mean
          Hessian of some minibatches, whole sweeps where 32 hold one, plus its residual;  ω = √λ
    s²    the variance of the gradient estimate, over minibatches: along the direction of λ, and
          of its noisiest coordinate, each with the curvature k of U in that direction

and the step is the largest that keeps all of

    stability        h ω (overdamped: h λ) at half of the word's limit
    discretisation   the word's own error of ⟨x²⟩ on the stiffest mode at 5%
    gradient noise   its heat at 5%: h s²/(2γT) (overdamped: h s²/(2T)) with the larger s²; or,
                     where a stream sweeps through the data in K steps and its noise adds up to
                     0, what the word's exact law on an oscillator of curvature k gives for
                     sweeps in random order, in the worse of the two directions

Then a chain makes 200 steps. Where it leaves the finite numbers the step is halved; where it
is a quarter too hot, 16 more chains decide: halved where their mean is, too, and by four of
its standard errors; six halvings at most. At the trial's steepest place λ and s² are measured
again, since a mode is flatter and quieter than what lies about it. Where they ask for a shorter
step it is shortened, by half at most at a time, for where too long a step leads is no place of
the law; and the trial is made again, six times at most. Schedules of temperature and friction
count with what they are at the end of the burn-in. All of it follows from the key.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._curvature import Noise, draw_batches, gradient_noise, largest_curvature, slope
from sgmcmc._schedule import Constant
from sgmcmc.optim._find_mode import find_mode
from sgmcmc.streams import _source as batches
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._limits import limits_of
from sgmcmc.tuning._record import HALVINGS, Tuning, tuned
from sgmcmc.tuning._trial import TRIAL_STEPS, tried
from sgmcmc.types import Key, PyTree

MODE_STEPS, POWER_STEPS, BATCHES = 500, 30, 32

SEARCHES, FIRST_RATE, FASTER = 8, 0.01, 10
LOOKS, SHORTER = 6, 1.05


class Seen(NamedTuple):
    """What was found out about U, and where."""

    mode: PyTree
    curvature: float
    noise: Noise | None
    spent: int
    given: PyTree


def tune(
    key: Key,
    kernel: Any,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int = 0,
) -> Tuning:
    """Choose the step of a kernel made with `step_size=None`; see the module.

    Args:
        key: consumed.
        kernel: a word or a list of sub-steps (`sgmcmc.kernels`, `sgmcmc.kernels`).
        params: one chain's start.
        data, stream, batch_size: as `checks.data_and_stream` gives them.
        count: the step at which schedules of temperature and friction are read.

    Raises:
        FloatingPointError: the search for the mode, or even the smallest step tried, did not
            stay finite; or there is no curvature where the search ended.
    """
    return tune_and_mode(key, kernel, params, data, stream, batch_size, count)[0]


def tune_and_mode(
    key: Key,
    kernel: Any,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int = 0,
) -> tuple[Tuning, PyTree]:
    """`tune`, and where the search for the mode ended."""
    mode_key, power_key, noise_key, trial_key = jax.random.split(key, 4)
    kernel = settled(kernel, count)
    source = batches.Source(streams.reshuffled(), batch_size, data)
    sampled = stream.law != "all" and data is not None
    temperature = float(kernel.temperature(jnp.zeros((), jnp.int32)))
    keys = mode_key, power_key, noise_key
    seen = look(keys, kernel, params, source, sampled, temperature)
    swept = stream.law not in ("independent", "all") and data is not None
    sweep = streams.num_batches(*source.sizes) if swept else 0
    noise = seen.noise
    choice = _choice(kernel, seen.curvature, noise, temperature, sweep)
    trial = kernel.source(stream, batch_size, data)
    tried_steps, looks, shortened = 0, 0, False
    while True:
        found = tried(
            tuned(kernel, choice), seen.mode, trial, jax.random.clone(trial_key), temperature
        )
        tried_steps += found.steps
        if not found.good:
            if choice.halvings == HALVINGS:
                raise FloatingPointError(
                    f"step_size: none found; {choice} did not stay finite, or cool, for "
                    f"{TRIAL_STEPS} steps from the mode. Give a step_size, rescale the parameters "
                    "(metric=), or look for NaN in the data"
                )
            choice = choice.halved()
            continue
        if looks == LOOKS:
            choice = choice.at(min(choice.limits.values())) if shortened else choice
            break
        looks += 1
        value, residual, stiffest = largest_curvature(
            kernel, found.steepest, seen.given, jax.random.clone(power_key), POWER_STEPS
        )
        curvature = float(jnp.abs(value) + residual)
        if not math.isfinite(curvature):
            break
        if sampled:
            # At its anchor an estimator of differences has no noise at all, and where a network
            # fits its data no gradient has much.
            noise = gradient_noise(kernel, found.steepest, seen.given, data, seen.mode, stiffest)
        there = _choice(kernel, max(curvature, seen.curvature), noise, temperature, sweep)
        there = there._replace(halvings=choice.halvings)
        step = min(choice.step_size, there.step_size)
        if SHORTER * step >= choice.step_size:
            choice = there.at(step) if shortened else choice
            break
        # Where a step that is too long leads is steeper than where the law is.
        shortened = True
        choice = there.at(max(step, choice.step_size / 2))
    count = look_size(source) if sampled else 1
    spent = seen.spent + 2 * tried_steps + looks * (2 * POWER_STEPS + (5 if sampled else 0)) * count
    return choice._replace(gradient_evaluations=float(spent)), seen.mode


def _choice(
    kernel: Any, curvature: float, noise: Noise | None, temperature: float, sweep: int
) -> Tuning:
    """What the rules give, before any trial."""
    pairs = [] if noise is None else [(float(s), float(bent)) for s, bent in noise]
    friction, limits = limits_of(kernel, curvature, pairs, temperature, sweep)
    reason = min(limits, key=lambda name: limits[name])
    largest = 0.0 if noise is None else noise.largest
    return Tuning(limits[reason], friction, curvature, largest, limits, reason, 0, 0.0)


def look_size(source: batches.Source) -> int:
    """Batches of a look: whole sweeps, whose mean is that of all data, where they fit in."""
    return BATCHES - BATCHES % min(streams.num_batches(*source.sizes), BATCHES)


def settled(kernel: Any, count: int) -> Any:
    """The kernel with temperature and friction as they are at step `count`."""
    at = jnp.asarray(count, jnp.int32)
    kernel = eqx.tree_at(lambda k: k.temperature, kernel, Constant(kernel.temperature(at)))
    if getattr(kernel, "friction", None) is None:
        return kernel
    return eqx.tree_at(lambda k: k.friction, kernel, Constant(kernel.friction(at)))


def look(
    keys: tuple[Key, Key, Key],
    kernel: Any,
    params: PyTree,
    source: batches.Source,
    sampled: bool,
    temperature: float,
) -> Seen:
    """Search for the mode until it is flat enough, and measure there."""
    mode_key, power_key, noise_key = keys
    count = look_size(source) if sampled else 1
    given = draw_batches(source, noise_key, count, sampled)
    mode, rate, spent = params, FIRST_RATE, 0
    for search in range(SEARCHES):
        try:
            found = find_mode(
                jax.random.fold_in(mode_key, search), kernel.posterior, mode, source.data,
                batch_size=source.batch_size if sampled else None, num_steps=MODE_STEPS,
                learning_rate=rate,
            )  # fmt: skip
        except FloatingPointError as error:
            raise FloatingPointError(
                "step_size: none found; the search for the mode left the finite numbers. Give a "
                "step_size, look for NaN in the data, or for a density that is not bounded"
            ) from error
        moved = max(
            float(jnp.max(jnp.abs(x - y)))
            for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(mode), strict=True)
        )
        mode = found
        value, residual, stiffest = largest_curvature(
            kernel, mode, given, jax.random.clone(power_key), POWER_STEPS
        )
        curvature = float(jnp.abs(value) + residual)
        spent += MODE_STEPS + (2 * POWER_STEPS + 1) * count
        steep = float(slope(kernel, mode, given))
        if steep <= trees.size(mode) * curvature * (temperature or 1.0):
            break
        # Adam's steps are at most the rate, and half of it on average along the cosine: who has
        # moved as far as that is still on the way.
        rate *= FASTER if moved > rate * MODE_STEPS / 4 else 1
    else:
        if float(value) < 0:
            raise FloatingPointError(
                f"step_size: none found; after {SEARCHES} searches for the mode U still falls, "
                f"and its curvature is {float(value):.3g}. Give a step_size, or look for a "
                "density that is not bounded"
            )
    if not (math.isfinite(curvature) and curvature > 0):
        raise FloatingPointError(
            f"step_size: none found; the curvature of U is {float(value):.3g} where the search for "
            "the mode ended, after which no step is measured. Give a step_size"
        )
    if not sampled:
        return Seen(mode, curvature, None, spent, given)
    noise = gradient_noise(kernel, mode, given, source.data, mode, stiffest)
    return Seen(mode, curvature, noise, spent + 5 * count, given)
