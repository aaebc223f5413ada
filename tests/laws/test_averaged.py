"""The running mean of gradients: its law on the oscillator, which is hotter than it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import gradients
from sgmcmc.gradients._averaged import Memory
from tests.laws import samplers

pytestmark = pytest.mark.usefixtures("x64")
LATE = jnp.asarray(100_000)  # β^k is 0


def variance(kernel):
    """Stationary ⟨x²⟩, from the Jacobian of `drive` in position, mean and noise."""
    state = kernel.init(jnp.zeros(1), jax.random.key(0))

    def step(x, mean, noise):
        given = state._replace(position=x, estimator=Memory(mean, LATE))
        after = kernel.drive(noise, given, None)[0]
        return jnp.concatenate([after.position, after.estimator.mean])

    zero = jnp.zeros(1)
    by_x, by_mean, by_noise = jax.jacfwd(step, (0, 1, 2))(zero, zero, jnp.zeros((1, 1)))
    a = np.concatenate([by_x, by_mean], axis=1)
    b = np.asarray(by_noise).reshape(2, 1)
    flat = np.linalg.solve(np.eye(4) - np.kron(a, a), (b @ b.T).ravel())
    return flat[0]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_mean_heats(decay):
    """⟨x²⟩ = 1 + (h/2)(1 + β)/(1 − β) to first order: 9% at h = .01 and Adam's β = .9."""
    for h in (0.01, 0.001):
        kernel = sgmcmc.sgld(samplers.harmonic(), h, gradient=gradients.averaged(decay))
        bias = variance(kernel) - 1
        np.testing.assert_allclose(bias, h / 2 * (1 + decay) / (1 - decay), rtol=0.6 * h)


def test_without_memory_it_is_the_minibatch():
    """β = 0 gives the steps of `minibatch`; the first estimate is the gradient for any β."""
    plain = sgmcmc.sgld(samplers.harmonic(), 0.1)
    noise = jnp.ones((1, 1))
    for decay, steps in ((0.0, 3), (0.9, 1)):
        kernel = sgmcmc.sgld(samplers.harmonic(), 0.1, gradient=gradients.averaged(decay))
        one = kernel.init(jnp.ones(1), jax.random.key(0))
        other = plain.init(jnp.ones(1), jax.random.key(1))
        for _ in range(steps):
            one, other = kernel.drive(noise, one, None)[0], plain.drive(noise, other, None)[0]
        np.testing.assert_allclose(one.position, other.position, rtol=1e-12)


def test_adam_style_sgld_runs():
    """With RMSProp's metric without Γ it is Adam-style SGLD; its draws are finite."""
    kernel = sgmcmc.psgld(
        samplers.harmonic(), 0.01, metric=sgmcmc.metrics.rmsprop(gamma=False),
        gradient=gradients.averaged(0.9),
    )  # fmt: skip
    run = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.ones(3), num_chains=2, num_samples=50, progress=False
    )
    assert np.all(np.isfinite(run.draws))


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_bad_decay(decay):
    with pytest.raises(ValueError, match="decay: got"):
        gradients.averaged(decay)
