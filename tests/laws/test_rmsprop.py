"""pSGLD with RMSProp's memory on N(0, 1): chains against the figures of other chains."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import metrics
from tests.laws import samplers


def bent(epsilon, power):
    """⟨x²⟩ of (ε + |x|)^power e^{−x²/2}."""
    grid = np.linspace(-8, 8, 4001)
    density = (epsilon + np.abs(grid)) ** power * np.exp(-(grid**2) / 2)
    return density @ grid**2 / density.sum()


def test_rmsprop_with_memory_and_gamma():
    """At a = .5, ε = 1 and h → 0, Γ leaves (ε + |x|)^a: between the law and that without Γ.

    4,000 chains at h = .02 and .01, extrapolated; five standard errors.
    """
    metric = metrics.rmsprop(decay=0.5, epsilon=1.0)
    means, errors = [], []
    for h in (0.02, 0.01):
        kernel = sgmcmc.psgld(samplers.harmonic(), h, metric=metric)
        keys = jax.random.split(jax.random.key(round(1 / h)), 4_000)
        squares = np.asarray(_chains(kernel, keys, jnp.asarray(round(20 / h))))
        means.append(squares.mean())
        errors.append(squares.std() / np.sqrt(len(squares)))
    error = np.hypot(2 * errors[1], errors[0])
    assert error < 0.025
    assert abs(2 * means[1] - means[0] - bent(1.0, 0.5)) < 5 * error
    assert bent(1.0, 0) + 5 * error < 2 * means[1] - means[0] < bent(1.0, 1) - 5 * error


@pytest.mark.parametrize(
    ("decay", "h", "time", "figure"),
    [(0.9, 0.01, 15, 1.716), (0.9, 0.002, 6, 1.835), (0.99, 0.01, 15, 1.319),
     (0.99, 0.002, 6, 1.605), (0.999, 0.01, 40, 1.055)],
)  # fmt: skip
def test_rmsprop_with_memory(decay, h, time, figure):
    """Without Γ ⟨x²⟩ is as printed; 8,000 chains, within .01 and five standard errors.

    Were the figures exact to .01, one of the five would fail once in 300,000 seeds.
    """
    metric = metrics.rmsprop(decay=decay, epsilon=0.1, gamma=False)
    kernel = sgmcmc.psgld(samplers.harmonic(), h, metric=metric)
    # All operations go coordinate by coordinate: the chains are those of one position.
    state = kernel.init(jax.random.normal(jax.random.key(0), (8_000,)), jax.random.key(1))
    squares = np.asarray(_squares(kernel, state, jnp.asarray(round(time / h))))
    mcse = squares.std() / np.sqrt(len(squares))
    assert mcse < 0.015
    assert abs(squares.mean() - figure) < 0.01 + 5 * mcse


def test_a_start_where_the_gradient_is_small_is_no_throw():
    """From x = ±10⁻⁴ the first g² makes Γ some −10⁸; at h = .01 that was a step to 10⁵ or 10⁶.

    G = 1/(ε + |g|) alone moves it by √(2h/10⁻⁴) ~ 14 in standard deviation, once: 100 is
    seven of them, 10⁻⁹ for 1,000 chains.
    """
    kernel = sgmcmc.psgld(samplers.harmonic(), 0.01, metric=metrics.rmsprop())
    signs = jax.random.rademacher(jax.random.key(0), (1_000, 1), float)
    farthest = np.asarray(_farthest(kernel, 1e-4 * signs, jnp.asarray(300)))
    assert np.all(farthest < 100)
    assert farthest.min() > 0.1


@eqx.filter_jit
def _farthest(kernel, starts, steps):
    """The largest |x| of each chain."""

    def chain(start, key):
        def one_step(t, carry):
            state, largest = carry
            state, info = kernel.step(jax.random.fold_in(key, t), state, None)
            return state, jnp.maximum(largest, jnp.abs(info.position[0]))

        state = kernel.init(start, jax.random.key(1))
        return jax.lax.fori_loop(0, steps, one_step, (state, jnp.zeros(())))[1]

    return jax.vmap(chain)(starts, jax.random.split(jax.random.key(2), len(starts)))


@eqx.filter_jit
def _chains(kernel, keys, steps):
    """Time averages of x² of one-dimensional chains, the first fifth left out."""

    def chain(key):
        start, begin, run = jax.random.split(key, 3)

        def one_step(t, carry):
            state, total = carry
            state, info = kernel.step(jax.random.fold_in(run, t), state, None)
            return state, total + jnp.where(5 * t >= steps, info.position[0] ** 2, 0)

        state = kernel.init(jax.random.normal(start, (1,)), begin)
        total = jax.lax.fori_loop(0, steps, one_step, (state, jnp.zeros(())))[1]
        return total / (steps - (steps + 4) // 5)

    return jax.vmap(chain)(keys)


@eqx.filter_jit
def _squares(kernel, state, steps):
    """Time averages of x², the first fifth left out."""

    def one_step(t, carry):
        state, total = carry
        state, info = kernel.step(jax.random.fold_in(jax.random.key(2), t), state, None)
        return state, total + jnp.where(5 * t >= steps, info.position**2, 0)

    zero = jnp.zeros_like(state.position)
    total = jax.lax.fori_loop(0, steps, one_step, (state, zero))[1]
    return total / (steps - (steps + 4) // 5)
