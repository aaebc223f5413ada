"""The step that each rule of `sgmcmc.tuning` allows, from curvature and gradient noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from sgmcmc.kernels._flows import LANGEVIN
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import Word, plan, table
from sgmcmc.tuning._oscillator import has_law, swept_heat, variance

TOLERANCE = 0.05

# Longer sweeps count as independent batches, which are never cooler.
LONGEST_SWEEP = 2**16

# Flatter directions count as this share of the largest curvature, and so as a little hotter.
FLATTEST = 1e-4
OBABO = plan("OBABO", table(*LANGEVIN))


def limits_of(
    kernel: Any,
    curvature: float,
    noises: Sequence[tuple[float, float]],
    temperature: float,
    sweep: int,
) -> tuple[float | None, dict[str, float]]:
    """The friction, where it is to be chosen, and the step that each rule allows.

    Args:
        kernel: its plan and friction are read.
        curvature: λ, the largest of U.
        noises: (variance of the gradient's estimate, curvature) along some directions.
        temperature: T.
        sweep: steps in a sweep through the data; 0 where batches are independent.
    """
    largest = max((variance for variance, _ in noises), default=0.0)
    # Kernels that are not words move as most words do.
    word = kernel.word if isinstance(kernel, SplittingKernel) else OBABO
    law = word if has_law(word) else OBABO
    if kernel.friction is None:
        # Overdamped steps come in units of 1/λ: κ = hλ.
        unit, ratio, chooses = curvature, 0.0, False
        independent = _divided(2 * temperature * TOLERANCE, largest)
    else:
        asked = float(kernel.friction(jnp.zeros((), jnp.int32)))
        unit, chooses = math.sqrt(curvature), not math.isfinite(asked)
        # γ = 1/(10 h) with hω near 1 is γ/ω near .1, which the word's limits hardly depend on.
        ratio = 0.1 if chooses else asked / unit
        # Heat h s²/(2γT), with γ = 1/(10 h) 5 h² s²/T.
        independent = (
            math.sqrt(_divided(temperature * TOLERANCE, 5 * largest))
            if chooses
            else _divided(2 * asked * temperature * TOLERANCE, largest)
        )
    edge = _stability(law, ratio)
    limits = {"stability": edge / 2 / unit, "discretisation": _accurate(law, ratio, edge) / unit}
    if 0 < independent < math.inf:
        swept = 0.0
        if 2 <= sweep <= LONGEST_SWEEP:
            floor = FLATTEST * curvature
            pairs = [(s / temperature, max(bent, floor)) for s, bent in noises if s > 0]

            def heat(step: float) -> float:
                """The largest share that sweeps at this step add to a direction's variance."""
                if kernel.friction is None:
                    return max(s / k * swept_heat(law, step * k, 0.0, sweep) for s, k in pairs)
                friction = 0.1 / step if chooses else asked
                return max(
                    s / k * swept_heat(law, step * math.sqrt(k), friction / math.sqrt(k), sweep)
                    for s, k in pairs
                )

            swept = _longest(heat, limits["stability"])
        # What a sweep leaves of the noise is less than that of independent batches.
        limits["gradient noise"] = max(independent, swept)
    return (1 / (10 * min(limits.values())) if chooses else None), limits


def _divided(value: float, by: float) -> float:
    """`value / by`; infinite where there is nothing to divide by."""
    return value / by if by > 0 else math.inf


def _longest(heat: Callable[[float], float], most: float) -> float:
    """The longest step up to `most`, to 1 in 10⁴, whose heat is the tolerance at most."""
    if heat(most) <= TOLERANCE:
        return most
    low, high = most, most
    while heat(low) > TOLERANCE:
        low, high = low / 2, low
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if heat(middle) <= TOLERANCE else (low, middle)
    return low


def _stability(law: Word, friction: float) -> float:
    """The largest κ at which the plan's law on one oscillator exists, to 1%; at most 8."""
    low, high = 0.0, 8.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if math.isfinite(variance(law, middle, friction)) else (low, middle)
        )
    return low


def _accurate(law: Word, friction: float, edge: float) -> float:
    """The largest κ below half the limit at which ⟨x²⟩ is off by the tolerance at most."""
    low, high = 0.0, edge / 2
    if abs(variance(law, high, friction) - 1) <= TOLERANCE:
        return high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        fits = abs(variance(law, middle, friction) - 1) <= TOLERANCE
        low, high = (middle, high) if fits else (low, middle)
    return low
