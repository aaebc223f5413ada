"""Our kernels in BlackJAX's loops, and theirs in ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc

blackjax = pytest.importorskip("blackjax")


def log_density(theta):
    return -0.5 * jnp.sum(theta**2)


def log_likelihood(theta, batch):
    return -0.5 * (batch - theta) ** 2


def log_prior(theta):
    return -0.5 * theta**2


def test_bound_kernel_in_their_loop():
    """BAOAB at h = .3 has exactly unit variance; their loop finds it within 5 standard errors.

    The chain is an AR(2) whose integrated time is below 6 steps: with 3 × 8,000 draws the
    sd of the variance is below √(2·6/24,000) = .022. False alarm below 1e-5.
    """
    kernel = sgmcmc.baoab(sgmcmc.Posterior.from_log_density(log_density), 0.3)
    algorithm = sgmcmc.to_blackjax(kernel)
    assert isinstance(algorithm, blackjax.SamplingAlgorithm)
    run = blackjax.util.run_inference_algorithm
    _, (states, info) = run(jax.random.key(1), algorithm, 8_000, initial_position=jnp.zeros(3))
    assert abs(np.var(states.position[100:]) - 1) < 0.11
    np.testing.assert_array_equal(states.position, info.position)


def test_bound_kernel_sees_every_example_once_an_epoch():
    """The bound stream is `reshuffled`: energies of one epoch sum to K times the full one."""
    data = np.arange(6.0, dtype=np.float32)
    posterior = sgmcmc.Posterior(log_likelihood, log_prior, data_size=6)
    kernel = sgmcmc.sgld(posterior, 1e-12, temperature=0.0)
    algorithm = sgmcmc.to_blackjax(kernel, data, batch_size=2)
    state = algorithm.init(jnp.zeros(()), jax.random.key(0))
    step, energies = jax.jit(algorithm.step), []
    for t in range(6):
        state, info = step(jax.random.key(t), state)
        energies.append(float(info.energy))
    full = 0.5 * float(np.sum(data**2))
    np.testing.assert_allclose([sum(energies[:3]), sum(energies[3:])], 3 * full, rtol=1e-5)
    assert energies[:3] != energies[3:]


def test_their_hmc_in_our_loop():
    """HMC samples N(0, I) exactly: the variance within 5 standard errors, acceptance kept.

    12,000 draws of integrated time below 3: sd of the variance below .023.
    """
    algorithm = blackjax.hmc(log_density, 0.6, jnp.ones(3), 4)
    kernel = sgmcmc.from_blackjax(algorithm, name="hmc", gradient_evaluations=5)
    run = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.zeros(3), num_burnin=100, num_samples=1_000, progress=False
    )
    assert abs(run.draws.var() - 1) < 0.12
    assert 0.5 < run.info.acceptance.mean() <= 1
    assert run.config["sampler"] == "hmc"
    assert run.gradient_evaluations == 5 * 1_100 * 4


def test_what_is_no_algorithm_is_refused():
    """Anything without init and step is named."""
    with pytest.raises(TypeError, match="algorithm: got int without init"):
        sgmcmc.from_blackjax(3)
