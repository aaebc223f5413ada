"""The search for the mode, and the curvature and noise of the gradient where it ends.

The search goes on while |∇U|² > dλT: a typical draw has less.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._curvature import (
    SPREAD_BATCHES,
    Noise,
    Spread,
    Stiffest,
    draw_batches,
    gradient_noise,
    largest_curvature,
    noise_spread,
    squared_slope,
)
from sgmcmc.kernels._base import AbstractDynamics
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.optim._find_mode import find_mode
from sgmcmc.tuning._problem import Problem, temperature_of
from sgmcmc.tuning._rules import RULES
from sgmcmc.types import Key, PyTree

# Gradients of a batch: a Hessian's product counts as two, the noise as one and two products, its
# slope as one and two products more.
POWER_COST, SLOPE_COST, NOISE_COST = 2 * RULES.power_iterations, 1, 5


class ModeKeys(NamedTuple):
    """Keys of the searches, of the power iteration's start, and of the batches measured on."""

    search: Key
    power: Key
    batches: Key


class Mode(NamedTuple):
    """Where the search for the mode ended, and what was measured there.

    Attributes:
        position: near the mode.
        curvature: λ with its residual, in the metric's coordinates.
        noise: of the gradient's estimate; None where gradients are of all data.
        batches: those measured on, with a leading axis; None without data.
        gradient_evaluations: minibatch gradients spent.
        spread: of the noise over coordinates, for a kernel that takes its mean out; else None.
    """

    position: PyTree
    curvature: float
    noise: Noise | None
    batches: PyTree
    gradient_evaluations: int
    spread: Spread | None = None


def measure_mode(keys: ModeKeys, kernel: AbstractDynamics, problem: Problem) -> Mode:
    """Search for the mode until it is flat enough, and measure curvature and noise there.

    Args:
        keys: consumed, but for `keys.power`.
        kernel: settled.
        problem: its start is where the first search begins.

    Raises:
        FloatingPointError: a search did not stay finite, U still falls where the last one
            ended, or there is no curvature.
    """
    count = problem.num_measured
    batches = draw_batches(problem.measured, keys.batches, count, problem.noisy)
    position, stiffest, searches = _search(keys, kernel, problem, batches)
    curvature = bound(stiffest)
    if not (math.isfinite(curvature) and curvature > 0):
        raise FloatingPointError(
            f"step_size: none found; the curvature of U is {float(stiffest.value):.3g} where the "
            "search for the mode ended, after which no step is measured. Give a step_size"
        )
    spent = searches * (RULES.mode_steps + (POWER_COST + SLOPE_COST) * count)
    if not problem.noisy:
        return Mode(position, curvature, None, batches, spent)
    noise = gradient_noise(
        kernel, position, batches, problem.data, position, stiffest.direction, problem.sweep > 1
    )
    spent += noise_cost(problem) * count
    if not (isinstance(kernel, SplittingKernel) and kernel.cools):
        return Mode(position, curvature, noise, batches, spent)
    key = jax.random.fold_in(keys.search, RULES.max_searches)
    spread = noise_spread(kernel, position, problem.measured, problem.data, key)
    return Mode(position, curvature, noise, batches, spent + SPREAD_BATCHES, spread)


def noise_cost(problem: Problem) -> int:
    """Gradients of each batch that measuring the noise takes."""
    if not problem.noisy:
        return 0
    return NOISE_COST * (2 if problem.sweep > 1 else 1)


def bound(stiffest: Stiffest) -> float:
    """λ: |λ̂| and its residual, within which there is an eigenvalue."""
    return float(jnp.abs(stiffest.value) + stiffest.residual)


def _search(
    keys: ModeKeys, kernel: AbstractDynamics, problem: Problem, batches: PyTree
) -> tuple[PyTree, Stiffest, int]:
    """Where the search for the mode ended, the curvature there, and how many searches it took."""
    position, rate = problem.start, RULES.learning_rate
    temperature = temperature_of(kernel)
    for search in range(RULES.max_searches):
        before = position
        position = _descended(
            jax.random.fold_in(keys.search, search), kernel, problem, before, rate
        )
        stiffest = largest_curvature(
            kernel, position, batches, jax.random.clone(keys.power), RULES.power_iterations
        )
        square = float(squared_slope(kernel, position, batches))
        if square <= trees.size(position) * bound(stiffest) * (temperature or 1.0):
            return position, stiffest, search + 1
        # Adam's steps are at most the rate, and half of it on average along the cosine: a search
        # that moved half as far as that was still on its way to the mode.
        if _distance(position, before) > rate * RULES.mode_steps / 4:
            rate *= RULES.learning_rate_growth
    if float(stiffest.value) < 0:
        raise FloatingPointError(
            f"step_size: none found; after {RULES.max_searches} searches for the mode U still "
            f"falls, and its curvature is {float(stiffest.value):.3g}. Give a step_size, or look "
            "for a density that is not bounded"
        )
    return position, stiffest, RULES.max_searches


def _descended(
    key: Key, kernel: AbstractDynamics, problem: Problem, position: PyTree, rate: float
) -> PyTree:
    """Where one search from `position` ends."""
    try:
        return find_mode(
            key, kernel.posterior, position, problem.data,
            batch_size=problem.batch_size if problem.noisy else None,
            num_steps=RULES.mode_steps, learning_rate=rate,
        )  # fmt: skip
    except FloatingPointError as error:
        raise FloatingPointError(
            "step_size: none found; the search for the mode left the finite numbers. Give a "
            "step_size, look for NaN in the data, or for a density that is not bounded"
        ) from error


def _distance(position: PyTree, other: PyTree) -> float:
    """The largest difference of two positions' entries."""
    differences = jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), position, other)
    return max(jax.tree.leaves(differences))
