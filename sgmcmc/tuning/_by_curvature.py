"""The step of words, and of all kernels that move at a fixed pace: by curvature and noise.

Where a search for the mode ends (`_mode`),

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
    shift by sweeps  where they do, and s² changes from place to place: 5% of its sd in the mean
                     of the coordinate along which the sum of all s² changes fastest

A kernel that takes the heat of noise out of itself (`sgnht`) is held to less: 5% of what is left,
by the spread of the noise over the coordinates, beyond what chance makes of 512 batches, and
h ≤ √(T/s̄²)/2, s̄² the mean over them.

Then a chain makes 200 steps. Where it leaves the finite numbers the step is halved; where it
is a quarter too hot, 16 more chains decide: halved where their mean is, too, and by four of
its standard errors; six halvings at most. At the trial's steepest place λ and s² are measured
again, since a mode is flatter and quieter than what lies about it. Where they ask for a shorter
step it is shortened, by half at most at a time, for a chain at too long a step visits places
where chains of the target's law do not come; and the trial is made again, six times at most.
Schedules of temperature and friction count with what they are at the end of the burn-in. All of
it follows from the key.
"""

from __future__ import annotations

import math

import jax

from sgmcmc._curvature import Noise, Spread, gradient_noise, largest_curvature
from sgmcmc.kernels._base import AbstractDynamics
from sgmcmc.tuning._limits import Sweep, limits_of
from sgmcmc.tuning._mode import POWER_COST, Mode, ModeKeys, bound, measure_mode, noise_cost
from sgmcmc.tuning._problem import Problem, temperature_of
from sgmcmc.tuning._record import Tuning
from sgmcmc.tuning._rules import RULES
from sgmcmc.tuning._trial import halved_until_good
from sgmcmc.types import Key, PyTree


def choose_by_curvature(
    key: Key, kernel: AbstractDynamics, problem: Problem
) -> tuple[Tuning, PyTree]:
    """The step of a kernel at a fixed pace, and the position where the search for the mode ended.

    Args:
        key: consumed.
        kernel: untuned, and settled.
        problem: start, data and batches.

    Raises:
        FloatingPointError: the search for the mode, or even the smallest step tried, did not
            stay finite; or there is no curvature where the search ended.
    """
    search_key, power_key, batches_key, trial_key = jax.random.split(key, 4)
    keys = ModeKeys(search_key, power_key, batches_key)
    mode = measure_mode(keys, kernel, problem)
    tuning = _allowed(kernel, problem, mode.curvature, mode.noise, mode.spread)
    tuning = tuning.costing(mode.gradient_evaluations)
    return _tried(tuning, kernel, problem, mode, power_key, trial_key), mode.position


def _tried(
    tuning: Tuning,
    kernel: AbstractDynamics,
    problem: Problem,
    mode: Mode,
    power_key: Key,
    trial_key: Key,
) -> Tuning:
    """`tuning` after its trials: halved, and shortened where they came to steeper places."""
    source, temperature = problem.source(kernel), temperature_of(kernel)
    if mode.spread is not None:
        # 200 steps are few for a thermostat: what it has not taken out yet is no fault of the step.
        temperature *= RULES.warmer
    shortened = False
    for _ in range(RULES.max_shortenings):
        tuning, trial = halved_until_good(
            kernel, tuning, mode.position, source, trial_key, temperature
        )
        measured = _measured(kernel, problem, mode, trial.steepest, power_key)
        tuning = tuning.costing(_measuring_cost(problem))
        if measured is None:
            return tuning
        allowed = _allowed(kernel, problem, *measured, mode.spread)._replace(
            halvings=tuning.halvings, gradient_evaluations=tuning.gradient_evaluations
        )
        step = min(tuning.step_size, allowed.step_size)
        if RULES.shorter * step >= tuning.step_size:
            return allowed.at(step) if shortened else tuning
        shortened = True
        tuning = allowed.at(max(step, tuning.step_size / 2))
    tuning, _ = halved_until_good(kernel, tuning, mode.position, source, trial_key, temperature)
    return tuning.at(min(tuning.limits.values()))


def _measured(
    kernel: AbstractDynamics, problem: Problem, mode: Mode, position: PyTree, key: Key
) -> tuple[float, Noise | None] | None:
    """Curvature, of the mode at least, and noise at a position; None where it is not finite."""
    stiffest = largest_curvature(
        kernel, position, mode.batches, jax.random.clone(key), RULES.power_iterations
    )
    curvature = bound(stiffest)
    if not math.isfinite(curvature):
        return None
    noise = None
    if problem.noisy:
        # At its anchor an estimator of differences has no noise at all, and where a network
        # fits its data no gradient has much.
        noise = gradient_noise(
            kernel, position, mode.batches, problem.data, mode.position, stiffest.direction,
            problem.sweep > 1,
        )  # fmt: skip
    return max(curvature, mode.curvature), noise


def _measuring_cost(problem: Problem) -> int:
    """Minibatch gradients of `_measured`."""
    return (POWER_COST + noise_cost(problem)) * problem.num_measured


def _allowed(
    kernel: AbstractDynamics,
    problem: Problem,
    curvature: float,
    noise: Noise | None,
    spread: Spread | None,
) -> Tuning:
    """The longest step that all rules allow, before any trial."""
    pairs, slope = ([], None) if noise is None else (noise.pairs, noise.slope)
    sweep = Sweep(problem.sweep, problem.unevenness)
    friction, limits = limits_of(
        kernel, curvature, pairs, temperature_of(kernel), sweep, spread,
        None if slope is None else (float(slope[0]), float(slope[1])),
    )  # fmt: skip
    reason = min(limits, key=lambda name: limits[name])
    largest = 0.0 if noise is None else noise.largest
    measured = None
    if spread is not None:
        measured = {f"{name} noise": float(x) for name, x in spread._asdict().items()}
    return Tuning(limits[reason], friction, curvature, largest, limits, reason, 0, 0.0, measured)
