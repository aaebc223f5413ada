"""The step that each rule of `sgmcmc.tuning` allows, from curvature and gradient noise."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from sgmcmc.oscillator import variance

TOLERANCE = 0.05


def limits_of(
    kernel: Any, curvature: float, noise: float, temperature: float, sweep: int
) -> tuple[float | None, dict[str, float]]:
    """The friction, where it is to be chosen, and the step that each rule allows."""
    omega = math.sqrt(curvature)
    if kernel.friction is None:
        # Overdamped steps come in units of 1/λ: κ = hλ.
        edge = _stability(kernel.plan, 0.0)
        limits = {
            "stability": edge / 2 / curvature,
            "discretisation": _accurate(kernel.plan, 0.0, edge) / curvature,
        }
        swept = 0.0
        if sweep and noise > 0:
            moved = math.sqrt(6 * TOLERANCE * temperature / (curvature * noise * sweep))
            swept = min(moved, math.pi / (sweep * curvature))
        heat = noise / (2 * temperature) if temperature > 0 else 0.0
        return None, limits | _noise_limit(heat, swept)
    asked = float(kernel.friction(jnp.zeros((), jnp.int32)))
    chooses = not math.isfinite(asked)
    # γ = 1/(10 h) with hω near 1 is γ/ω near .1, which the word's limits hardly depend on.
    friction = 0.1 * omega if chooses else asked
    edge = _stability(kernel.plan, friction / omega)
    limits = {
        "stability": edge / 2 / omega,
        "discretisation": _accurate(kernel.plan, friction / omega, edge) / omega,
    }
    swept = 0.0
    if sweep and noise > 0:
        moved = (12 * TOLERANCE * temperature / (curvature * noise * sweep**3)) ** 0.25
        swept = min(moved, math.pi / (sweep * omega))
    if chooses:
        # γ = 1/(10 h), and the heat h s²/(2γT) = 5 h² s²/T.
        heat = math.sqrt(5 * noise / (temperature * TOLERANCE)) * TOLERANCE if temperature else 0.0
        limits |= _noise_limit(heat, swept)
        return 1 / (10 * min(limits.values())), limits
    heat = noise / (2 * friction * temperature) if friction * temperature > 0 else 0.0
    return None, limits | _noise_limit(heat, swept)


def _noise_limit(heat: float, swept: float) -> dict[str, float]:
    """The step at which `heat` times it is the tolerance; or that of a sweep, if longer."""
    # What a sweep leaves of the noise is less than that of independent batches.
    return {"gradient noise": max(TOLERANCE / heat, swept)} if heat > 0 else {}


def _stability(plan: Any, friction: float) -> float:
    """The largest κ at which the plan's law on one oscillator exists, to 1%; at most 8."""
    if math.isnan(variance(plan, 0.1, friction)):
        return 2.0  # another kernel than a word: that of most of them
    low, high = 0.0, 8.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if math.isfinite(variance(plan, middle, friction)) else (low, middle)
        )
    return low


def _accurate(plan: Any, friction: float, edge: float) -> float:
    """The largest κ below half the limit at which ⟨x²⟩ is off by the tolerance at most."""
    if math.isnan(variance(plan, 0.1, friction)):
        return 2 * math.sqrt(TOLERANCE / (1 + TOLERANCE))  # OBABO's
    low, high = 0.0, edge / 2
    if abs(variance(plan, high, friction) - 1) <= TOLERANCE:
        return high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        fits = abs(variance(plan, middle, friction) - 1) <= TOLERANCE
        low, high = (middle, high) if fits else (low, middle)
    return low
