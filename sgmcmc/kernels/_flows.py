"""Exact sub-flows of Langevin dynamics, the letters of which samplers are words.

All take the whitened momentum r = M^{-1/2} p (see `sgmcmc.metrics`), a duration t, and
standard normals as pytrees like the position. With c = e^{−γt}, metric G = L Lᵀ = M⁻¹:

    A   θ += t L r                                     drift
    B   r −= t Lᵀ ∇U                                   kick
    O   r ← c r + √(T (1 − c²)) ξ                      Ornstein-Uhlenbeck
    U   A and O together, exactly                      two normals a coordinate

and, not exact flows but steps of their own, the overdamped Euler step E, that of Leimkuhler
and Matthews M, and Euler's friction F, which explicit schemes use in the place of O.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial

import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc.metrics._base import Metric
from sgmcmc.types import Array, PyTree


def drift(position: PyTree, momentum: PyTree, t: Array, metric: Metric) -> PyTree:
    """A: the new position."""
    return trees.axpy(t, metric.to_position(momentum), position)


def kick(momentum: PyTree, gradient: PyTree, t: Array, metric: Metric) -> PyTree:
    """B: the new momentum."""
    return trees.axpy(-t, metric.to_momentum(gradient), momentum)


def ornstein_uhlenbeck(
    momentum: PyTree, noise: PyTree, t: Array, friction: Array, temperature: Array
) -> PyTree:
    """O: the new momentum."""
    amplitude = jnp.sqrt(temperature * -jnp.expm1(-2 * friction * t))
    return trees.axpy(amplitude, noise, trees.scale(jnp.exp(-friction * t), momentum))


def drift_with_friction(
    position: PyTree,
    momentum: PyTree,
    noise: tuple[PyTree, PyTree],
    t: Array,
    friction: Array,
    temperature: Array,
    metric: Metric,
) -> tuple[PyTree, PyTree]:
    """U: the exact flow of A and O together: (position, momentum).

    The momentum's noise is drawn first; the position's is its regression on it plus an
    independent rest, a form without cancellation (`position_noise_rest`).
    """
    z = friction * t
    kicked = trees.scale(jnp.sqrt(temperature * -jnp.expm1(-2 * z)), noise[0])
    rest = t * jnp.sqrt(2 * temperature * z * position_noise_rest(z))
    shift = trees.scale(t * _divide(-jnp.expm1(-z), z, 1.0), momentum)
    shift = trees.axpy(t * _divide(jnp.tanh(z / 2), z, 0.5), kicked, shift)
    shift = trees.axpy(rest, noise[1], shift)
    momentum = trees.add(trees.scale(jnp.exp(-z), momentum), kicked)
    return trees.add(position, metric.to_position(shift)), momentum


def overdamped_euler(
    position: PyTree, gradient: PyTree, noise: PyTree, t: Array, temperature: Array, metric: Metric
) -> PyTree:
    """E: θ − t G ∇U + √(2tT) L ξ."""
    amplitude = jnp.sqrt(2 * t * temperature)
    force = trees.scale(-t, metric.to_momentum(gradient))
    return trees.add(position, metric.to_position(trees.axpy(amplitude, noise, force)))


def leimkuhler_matthews(
    position: PyTree,
    gradient: PyTree,
    noise: tuple[PyTree, PyTree],
    t: Array,
    temperature: Array,
    metric: Metric,
) -> PyTree:
    """M: θ − t G ∇U + √(tT/2) L (ξ_k + ξ_{k+1}); `noise` is (the last, the new)."""
    amplitude = jnp.sqrt(t * temperature / 2)
    force = trees.scale(-t, metric.to_momentum(gradient))
    shift = trees.axpy(amplitude, trees.add(*noise), force)
    return trees.add(position, metric.to_position(shift))


def euler_friction(
    momentum: PyTree, noise: PyTree, t: Array, friction: Array, temperature: Array
) -> PyTree:
    """F: (1 − γt) r + √(2γTt) ξ."""
    amplitude = jnp.sqrt(2 * friction * temperature * t)
    return trees.axpy(amplitude, noise, trees.scale(1 - friction * t, momentum))


def position_noise_rest(z: Array) -> Array:
    """(z − 2 tanh(z/2)) / z³, which is 1/12 at z = 0.

    The closed form loses all digits as z → 0 (in float32, 0.8% at z = .01), the series
    converges for z < π: it serves below 1, where the closed form has lost one digit.
    """
    small = jnp.minimum(z, 1.0)
    series = jnp.zeros_like(z)
    for coefficient in reversed(_REST_SERIES):
        series = series * small**2 + coefficient
    large = jnp.maximum(z, 1.0)
    return jnp.where(z < 1.0, series, (large - 2 * jnp.tanh(large / 2)) / large**3)


def _divide(numerator: Array, denominator: Array, limit: float) -> Array:
    """numerator / denominator with its limit where both vanish."""
    zero = denominator == 0
    return jnp.where(zero, limit, numerator / jnp.where(zero, 1.0, denominator))


def _rest_series(terms: int) -> tuple[float, ...]:
    """Coefficients in z² of (z − 2 tanh(z/2)) / z³, from the Bernoulli numbers."""
    bernoulli = [Fraction(1)]
    for m in range(1, 2 * terms + 4):
        total = sum((comb(m + 1, j) * b for j, b in enumerate(bernoulli)), Fraction(0))
        bernoulli.append(-total / (m + 1))
    # 2 tanh(z/2) = Σ_n 4 (4^n − 1) B_2n / (2n)! z^(2n−1); n = 1 cancels z, the rest is ours.
    return tuple(
        float(-4 * (4**n - 1) * bernoulli[2 * n] / factorial(2 * n)) for n in range(2, terms + 2)
    )


_REST_SERIES = _rest_series(16)
