"""The step that each rule of `_by_curvature` allows, from curvature and gradient noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from sgmcmc._curvature import Spread
from sgmcmc._schedule import Unchosen
from sgmcmc.kernels._base import AbstractDynamics
from sgmcmc.kernels._flows import LANGEVIN
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import Word, plan, table
from sgmcmc.tuning._oscillator import has_law, swept_heat, variance
from sgmcmc.tuning._record import SHIFT, auto_friction, lasting
from sgmcmc.tuning._rules import RULES

OBABO = plan("OBABO", table(*LANGEVIN))

# (variance of the gradient's estimate, curvature of U), along one direction.
DirectionNoise = tuple[float, float]


class Sweep(NamedTuple):
    """A sweep through the data.

    Attributes:
        steps: K; 0 where batches are independent.
        unevenness: ρ, the share of independent noise in it (`streams.unevenness`).
    """

    steps: int
    unevenness: float = 0.0


def limits_of(
    kernel: AbstractDynamics,
    curvature: float,
    noises: Sequence[DirectionNoise],
    temperature: float,
    sweep: Sweep,
    spread: Spread | None = None,
    slope: tuple[float, float] | None = None,
) -> tuple[float | None, dict[str, float]]:
    """The friction, where it is to be chosen, and the step that each rule allows.

    Args:
        kernel: its word and friction are read.
        curvature: λ, the largest of U.
        noises: along some directions.
        temperature: T.
        sweep: through the data.
        spread: of the noise over the coordinates, where the kernel takes its mean out.
        slope: (|∂_i tr Σ|, curvature) of a coordinate, Σ the covariance of the gradient's
            estimate; None: its law is no matter.
    """
    word = _lawful_word(kernel)
    overdamped, asked = kernel.friction is None, 0.0
    auto = isinstance(kernel.friction, Unchosen)
    if kernel.friction is not None and not auto:
        asked = float(kernel.friction(jnp.zeros((), jnp.int32)))
    # Overdamped steps come in units of 1/λ: κ = hλ; others in units of 1/ω: κ = hω.
    unit = curvature if overdamped else math.sqrt(curvature)
    # γ = 1/(10 h) with hω near 1 is γ/ω near .1, which the word's limits hardly depend on.
    ratio = 1 / RULES.friction_steps if auto else asked / unit
    edge = _stability(word, ratio)
    limits = {"stability": edge / 2 / unit, "discretisation": _accurate(word, ratio, edge) / unit}

    if spread is not None:
        limits |= _cooled(spread, None if auto else asked, temperature)
        return (auto_friction(min(limits.values())) if auto else None), limits

    largest = max((variance for variance, _ in noises), default=0.0)
    if overdamped:
        independent = _divided(2 * temperature * RULES.tolerance, largest)
    elif auto:
        # Heat h s²/(2γT), with γ = 1/(10 h) 5 h² s²/T.
        heat = RULES.friction_steps / 2 * largest
        independent = math.sqrt(_divided(temperature * RULES.tolerance, heat))
    else:
        independent = _divided(2 * asked * temperature * RULES.tolerance, largest)
    if 0 < independent < math.inf:
        swept = 0.0
        if 2 <= sweep.steps <= RULES.longest_sweep:
            floor = RULES.flattest * curvature
            pairs = [(s / temperature, max(k, floor)) for s, k in noises if s > 0]
            friction = None if overdamped or auto else asked
            heat_at = _heat_of_sweeps(word, pairs, sweep, overdamped, friction)
            swept = _longest(heat_at, limits["stability"])
        # What a sweep leaves of the noise is less than that of independent batches.
        limits["gradient noise"] = max(independent, swept)
    if slope is not None and 2 <= sweep.steps <= RULES.longest_sweep:
        shifted = _unshifted(slope, curvature, temperature, sweep.steps, overdamped)
        if shifted < math.inf:
            limits[SHIFT] = shifted
    return (auto_friction(lasting(limits)) if auto else None), limits


def _cooled(spread: Spread, friction: float | None, temperature: float) -> dict[str, float]:
    """The steps that a thermostat's kernel may make under gradient noise; {} without noise.

    It is ξ̄ = γ + h s̄²/(2T), s̄² the mean over coordinates, and one of variance s² is off by the
    share h (s² − s̄²)/(2T ξ̄). And a step's noise may have an eighth of the friction of a whole step,
    h²s̄²/(2T) ≤ 1/8, or all positions are too cold.

    Args:
        spread: of the noise.
        friction: γ; None: 1/(10 h).
        temperature: T.
    """
    mean = float(spread.mean)
    if not mean > 0:
        return {}
    limits = {"thermostat": math.sqrt(temperature / mean) / 2}
    left = spread.uneven - RULES.tolerance * mean
    if left > 0 and friction is None:
        heat = RULES.friction_steps / 2 * left
        limits["gradient noise"] = math.sqrt(RULES.tolerance * temperature / heat)
    elif left > 0 and friction is not None:
        limits["gradient noise"] = 2 * friction * temperature * RULES.tolerance / left
    return limits


def _lawful_word(kernel: AbstractDynamics) -> Word:
    """The kernel's word, or OBABO for kernels without one whose law is known: most move so."""
    if isinstance(kernel, SplittingKernel) and has_law(kernel.word):
        return kernel.word
    return OBABO


def _heat_of_sweeps(
    word: Word,
    noises: Sequence[DirectionNoise],
    sweep: Sweep,
    overdamped: bool,
    friction: float | None,
) -> Callable[[float], float]:
    """h ↦ the largest share that the noise of sweeps adds to the variance of a direction.

    Args:
        word: with a law.
        noises: in units of T.
        sweep: of two steps or more.
        overdamped: whether there is no momentum.
        friction: γ; None: 1/(10 h).
    """

    def heat(step: float) -> float:
        if overdamped:
            return max(s / k * heat_of(word, step * k, 0.0, sweep) for s, k in noises)
        gamma = 1 / RULES.friction_steps / step if friction is None else friction
        return max(
            s / k * heat_of(word, step * math.sqrt(k), gamma / math.sqrt(k), sweep)
            for s, k in noises
        )

    return heat


def _unshifted(
    slope: tuple[float, float], curvature: float, temperature: float, steps: int, overdamped: bool
) -> float:
    """The step at which sweeps move the mean of a coordinate by the tolerance, in its sd.

    Errors e_j that add up to 0 in random order leave one of −1/(K − 1) for each still to come,
    and move θ meanwhile. With the mean over a sweep of what ∂e_j makes of it, chains sample

        U + c tr Σ(θ),    c = h² (K + 1)/12, the energy of their swings of p; overdamped h/4

    as long as a sweep is short of 1/ω (overdamped: 1/λ); beyond, c tends to 1/(2(K − 1) λ). The
    mean of coordinate i is moved by c ∂_i tr Σ/k_i, its sd √(T/k_i).
    """
    most = _divided(RULES.tolerance * math.sqrt(slope[1] * temperature), slope[0])
    if 2 * (steps - 1) * curvature * most >= 1:
        return math.inf
    return 4 * most if overdamped else math.sqrt(12 * most / (steps + 1))


def heat_of(word: Word, kappa: float, friction: float, sweep: Sweep) -> float:
    """What a sweep's noise adds to ⟨x²⟩ at noise of variance 1, the mean over its batches.

    Errors of covariance ∝ N δ_ij/n_i − 1 are K − 1 parts of those that add up to 0, and ρK of
    independent ones (`streams.unevenness`). Arguments as in `swept_heat`.
    """
    swept = swept_heat(word, kappa, friction, sweep.steps)
    if not sweep.unevenness or not math.isfinite(swept):
        return swept
    independent = variance(word, kappa, friction, 1.0) - variance(word, kappa, friction)
    rest = sweep.unevenness * sweep.steps
    return (swept * (sweep.steps - 1) + independent * rest) / (sweep.steps - 1 + rest)


def _divided(value: float, by: float) -> float:
    """`value / by`; infinite where there is nothing to divide by."""
    return value / by if by > 0 else math.inf


def _longest(heat: Callable[[float], float], most: float) -> float:
    """The longest step up to `most`, to 1 in 10⁴, whose heat is the tolerance at most."""
    if heat(most) <= RULES.tolerance:
        return most
    low, high = most, most
    while heat(low) > RULES.tolerance:
        low, high = low / 2, low
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if heat(middle) <= RULES.tolerance else (low, middle)
    return low


def _stability(word: Word, friction: float) -> float:
    """The largest κ at which the word's law on one oscillator exists, to 1%; at most 8."""
    low, high = 0.0, 8.0
    while high - low > 0.01:
        middle = (low + high) / 2
        exists = math.isfinite(variance(word, middle, friction))
        low, high = (middle, high) if exists else (low, middle)
    return low


def _accurate(word: Word, friction: float, edge: float) -> float:
    """The largest κ below half the limit at which ⟨x²⟩ is off by the tolerance at most."""
    low, high = 0.0, edge / 2
    if abs(variance(word, high, friction) - 1) <= RULES.tolerance:
        return high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        fits = abs(variance(word, middle, friction) - 1) <= RULES.tolerance
        low, high = (middle, high) if fits else (low, middle)
    return low
