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


def triple(t):
    """Flow and noise covariance of (x, p, W): dx = p dt, dp = −p dt + √2 dW (γ = T = 1)."""
    drift = np.array([[0.0, 1, 0], [0, -1, 0], [0, 0, 0]])
    gain = np.array([0.0, np.sqrt(2), 1])
    block = np.block([[-drift, np.outer(gain, gain)], [np.zeros((3, 3)), drift.T]])
    e = expm(block * t)
    return e[3:, 3:].T, e[3:, 3:].T @ e[:3, 3:]


@functools.cache
def increments():
    """{level: noise of (x, p, W) over each half step of h = 2^-level, [half step, path, 3]}."""
    t = 2.0 ** -(FINEST + 1)
    rng = np.random.default_rng(0)
    # Of rank two to rounding, which leaves eigenvalues a little below 0.
    values, vectors = np.linalg.eigh(triple(t)[1])
    factor = vectors * np.sqrt(np.maximum(values, 0))
    noise = rng.normal(size=(round(TIME / t), PATHS, 3)) @ factor.T
    levels = {FINEST: noise}
    for level in range(FINEST - 1, 0, -1):
        flow = triple(2.0 ** -(level + 2))[0]
        noise = noise[0::2] @ flow.T + noise[1::2]
        levels[level] = noise
    return levels


def normals(name, level):
    """The normals, [step, row, path], that make a kernel follow the given Brownian motion."""
    h = 2.0**-level
    halves = increments()[level]
    if name == "UBU":
        # The kernel draws the momentum's noise first, the position's from it and a second.
        spread = triple(h / 2)[1]
        factor = np.linalg.cholesky(spread[[1, 0]][:, [1, 0]])
        pairs = np.linalg.solve(factor, halves[:, :, [1, 0]].transpose(0, 2, 1))
        return pairs.reshape(-1, 4, PATHS)
    return (halves[0::2] + halves[1::2])[:, None, :, 2] / np.sqrt(h)


@functools.cache
def endpoint(name, level):
    """x at the end of all paths, from x = p = 0."""
    kernel = samplers.make(name, sgmcmc.Posterior.from_log_density(_density), 2.0**-level)
    state = kernel.init(jnp.zeros(PATHS), jax.random.key(0))
    momentum = jnp.zeros(PATHS)
    if name == "BAOAB":
        # The kernel's state stands half a kick after the word's beginning.
        momentum = momentum + 2.0**-level / 2 * jax.grad(_density)(jnp.zeros(PATHS))
    state = state._replace(momentum=momentum)
    return np.asarray(_run(kernel, state, jnp.asarray(normals(name, level))))


@eqx.filter_jit
def _run(kernel, state, noise):
    return jax.lax.scan(lambda s, n: (kernel.drive(n, s, None)[0], None), state, noise)[0].position


@pytest.mark.parametrize(
    ("name", "order", "coarse", "printed"),
    [("euler_maruyama", 1, 4, 6.6e-2), ("BAOAB", 1, 2, 7.9e-2), ("UBU", 2, 2, 9.3e-3)],
)
def test_strong_order(name, order, coarse, printed):
    """RMS errors of x at t = 4 on U = x²/2 + .6 cos(1.5 x) fall as h, h and h²."""
    reference = endpoint("UBU", FINEST)
    levels = range(coarse, coarse + 4)
    errors = [np.sqrt(np.mean((endpoint(name, level) - reference) ** 2)) for level in levels]
    slope = -np.polyfit(list(levels), np.log2(errors), 1)[0]
    assert abs(slope - order) < 0.15
    # The table's own figure, from other paths and other starts.
    assert 0.7 < errors[0] / printed < 1.4


def _density(x):
    return -jnp.sum(x**2 / 2 + 0.6 * jnp.cos(1.5 * x))
