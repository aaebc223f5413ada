"""Ratios that a closed form loses to cancellation near 0: (1 − e^{−z})/z and its kin."""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial

import jax.numpy as jnp

from sgmcmc.types import Array

# Below this the series of psi, h and k serve, which need 24 terms there; above it the closed
# forms have lost at most two digits.
SWITCH = 2.0


def divide(numerator: Array, denominator: Array, limit: float) -> Array:
    """numerator / denominator with its limit where both vanish."""
    zero = denominator == 0
    return jnp.where(zero, limit, numerator / jnp.where(zero, 1.0, denominator))


def relative_growth(y: Array) -> Array:
    """(e^y − 1)/y, which is 1 at y = 0."""
    return divide(jnp.expm1(y), y, 1.0)


def phi_ratio(z: Array) -> Array:
    """φ(t)/t at z = γt: (1 − e^{−z})/z, 1 at z = 0."""
    return divide(-jnp.expm1(-z), z, 1.0)


def psi_ratio(z: Array) -> Array:
    """ψ(t)/t² at z = γt: (e^{−z} + z − 1)/z², 1/2 at z = 0."""
    large = jnp.maximum(z, SWITCH)
    return _switch(z, _PSI_SERIES, (jnp.exp(-large) + large - 1) / large**2)


def h_ratio(a: Array) -> Array:
    """c_H/h at a = γh: 6 (e^{−a}(a + 2) + a − 2)/a³, 1 at a = 0."""
    large = jnp.maximum(a, SWITCH)
    return _switch(a, _H_SERIES, 6 * (jnp.exp(-large) * (large + 2) + large - 2) / large**3)


def k_ratio(a: Array) -> Array:
    """c_K/h at a = γh: 60 (e^{−a}(a² + 6a + 12) − (a² − 6a + 12))/a⁴, −a at small a."""
    large = jnp.maximum(a, SWITCH)
    decayed = jnp.exp(-large) * (large**2 + 6 * large + 12)
    closed = 60 * (decayed - (large**2 - 6 * large + 12)) / large**4
    return a * _switch(a, _K_SERIES, closed / large)


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


def _switch(z: Array, coefficients: tuple[float, ...], closed: Array) -> Array:
    """The series below SWITCH, where closed forms cancel to nothing; `closed` above."""
    small = jnp.minimum(z, SWITCH)
    series = jnp.zeros_like(z)
    for coefficient in reversed(coefficients):
        series = series * small + coefficient
    return jnp.where(z < SWITCH, series, closed)


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


_TERMS = 24
_PSI_SERIES = tuple((-1) ** n / factorial(n) for n in range(2, _TERMS + 2))
_H_SERIES = tuple(6 * (-1) ** n * (2 - n) / factorial(n) for n in range(3, _TERMS + 3))
_K_SERIES = tuple(60 * (-1) ** n * (n - 3) * (n - 4) / factorial(n) for n in range(5, _TERMS + 5))
_REST_SERIES = _rest_series(16)
