"""Strong orders: paths at step h against paths at a much smaller step, on one Brownian motion."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import sgmcmc
from tests.laws import samplers

TIME, PATHS, FINEST = 4.0, 400, 9


def motion(t):
    """Flow and noise covariance of (x, p, W, I, J): dx = p dt, dp = −p dt + √2 dW, I' = W, J' = I.

    γ = T = 1; I and J are the iterated integrals of W that H and K are made of.
    """
    drift = np.zeros((5, 5))
    drift[0, 1], drift[1, 1], drift[3, 2], drift[4, 3] = 1, -1, 1, 1
    gain = np.array([0.0, np.sqrt(2), 1, 0, 0])
    block = np.block([[-drift, np.outer(gain, gain)], [np.zeros((5, 5)), drift.T]])
    e = expm(block * t)
    return e[5:, 5:].T, e[5:, 5:].T @ e[:5, 5:]


@functools.cache
def increments():
    """{level: noise of `motion` over each half step of h = 2^-level, [half step, path, 5]}."""
    t = 2.0 ** -(FINEST + 1)
    rng = np.random.default_rng(0)
    # Each in its own unit, for they are of size t^.5 to t^2.5; nearly dependent, which rounding
    # may turn into eigenvalues a little below 0.
    unit = t ** np.array([1.5, 0.5, 0.5, 1.5, 2.5])
    values, vectors = np.linalg.eigh(motion(t)[1] / np.outer(unit, unit))
    factor = unit[:, None] * vectors * np.sqrt(np.maximum(values, 0))
    noise = rng.normal(size=(round(TIME / t), PATHS, 5)) @ factor.T
    levels = {FINEST: noise}
    for level in range(FINEST - 1, 0, -1):
        noise = join(noise, 2.0 ** -(level + 2))
        levels[level] = noise
    return levels


def join(noise, t):
    """The noise over pairs of intervals of length t."""
    return noise[0::2] @ motion(t)[0].T + noise[1::2]


def normals(name, level):
    """The normals, [step, row, path], that make a kernel follow the given Brownian motion."""
    h = 2.0**-level
    halves = increments()[level]
    if name in ("UBU", "BUB"):
        # The kernel draws the momentum's noise first, the position's from it and a second.
        t, parts = (h / 2, halves) if name == "UBU" else (h, join(halves, h / 2))
        spread = motion(t)[1]
        factor = np.linalg.cholesky(spread[[1, 0]][:, [1, 0]])
        pairs = np.linalg.solve(factor, parts[:, :, [1, 0]].transpose(0, 2, 1))
        return pairs.reshape(-1, 4 if name == "UBU" else 2, PATHS)
    whole = join(halves, h / 2)
    w, area, iterated = whole[:, :, 2], whole[:, :, 3], whole[:, :, 4]
    if name in samplers.THIRD_ORDER:
        # ∫ s W ds = h I − J.
        deviation = area / h - w / 2
        bend = (h * area / 2 - (h * area - iterated) + w * h**2 / 12) / h**2
        return np.stack([w, np.sqrt(12) * deviation, np.sqrt(720) * bend], axis=1) / np.sqrt(h)
    return w[:, None] / np.sqrt(h)


@functools.cache
def endpoint(name, level):
    """x at the end of all paths, from x = p = 0."""
    kernel = samplers.make(name, sgmcmc.Posterior.from_log_density(_density), 2.0**-level)
    state = kernel.init(jnp.zeros(PATHS), jax.random.key(0))
    # The kernel's state stands part of a kick after the word's beginning, or before its end.
    share = {"BAOAB": 1 / 2, "BUB": 1 / 2, "sort": -1 / 6, "should": -1 / 6}.get(name, 0.0)
    momentum = share * 2.0**-level * jax.grad(_density)(jnp.zeros(PATHS))
    state = state._replace(momentum=momentum)
    return np.asarray(_run(kernel, state, jnp.asarray(normals(name, level))))


@eqx.filter_jit
def _run(kernel, state, noise):
    return jax.lax.scan(lambda s, n: (kernel.drive(n, s, None)[0], None), state, noise)[0].position


@pytest.mark.parametrize(
    ("name", "order", "coarse", "printed"),
    [("euler_maruyama", 1, 4, 6.6e-2), ("BAOAB", 1, 2, 7.9e-2), ("UBU", 2, 2, 9.3e-3),
     ("BUB", 2, 2, 7.6e-3), ("sort", 3, 2, 2.9e-4), ("should", 3, 2, 3.1e-4),
     ("quicsort", 3, 2, 6.0e-4)],
)  # fmt: skip
def test_strong_order(name, order, coarse, printed):
    """RMS errors of x at t = 4 on U = x²/2 + .6 cos(1.5 x) fall as h, h² and h³."""
    reference = endpoint("sort" if name == "quicsort" else "quicsort", FINEST)
    levels = range(coarse, coarse + 4)
    errors = [np.sqrt(np.mean((endpoint(name, level) - reference) ** 2)) for level in levels]
    slope = -np.polyfit(list(levels), np.log2(errors), 1)[0]
    assert abs(slope - order) < 0.1
    # The table's own figure, from other paths and other starts.
    assert 0.7 < errors[0] / printed < 1.4


def _density(x):
    return -jnp.sum(x**2 / 2 + 0.6 * jnp.cos(1.5 * x))
