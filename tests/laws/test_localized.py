"""Localised posteriors: their exact law on Gaussians, and many centres at once."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import sgmcmc
from sgmcmc.diagnostics import stationary_law

MEAN = np.array([1.0, -2.0])
PRECISION = np.array([[2.0, 0.5], [0.5, 1.0]])


def _log_density(mean, precision, x):
    return -0.5 * (x - mean) @ precision @ (x - mean)


def target():
    return sgmcmc.Posterior.from_log_density(
        Partial(_log_density, jnp.asarray(MEAN), jnp.asarray(PRECISION))
    )


def _log_likelihood(x, y):
    return -0.5 * jnp.sum((y - x) ** 2, axis=-1)


def _log_prior(x):
    return -0.5 * jnp.sum(x**2)


def test_the_law_about_a_centre():
    """N((Λ + ρ)⁻¹(Λμ + ρc), T (Λ + ρ)⁻¹), to ten digits, by BAOAB at any step."""
    center, rho, temperature = np.array([-3.0, 4.0]), 1.7, 0.6
    kernel = sgmcmc.baoab(target().localized(center, rho), 0.3, temperature=temperature)
    law = stationary_law(kernel, jnp.zeros(2))
    precision = PRECISION + rho * np.eye(2)
    mean = np.linalg.solve(precision, PRECISION @ MEAN + rho * center)
    np.testing.assert_allclose(law.mean, mean, atol=1e-10)
    np.testing.assert_allclose(law.covariance, temperature * np.linalg.inv(precision), atol=1e-10)


def test_minibatches_leave_the_pull_as_it_is():
    """Only the likelihood is scaled by N/n: over all batches of 2 the mean is the exact one."""
    data = np.random.default_rng(0).normal(size=(4, 2))
    center, rho = np.array([2.0, 0.0]), 3.0
    posterior = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=4)
    kernel = sgmcmc.baoab(posterior.localized(center, rho), 0.1)
    batches = [sgmcmc.Batch(jnp.asarray(data[[i, j]])) for i in range(4) for j in range(i)]
    law = stationary_law(kernel, jnp.zeros(2), batches)
    mean = (data.sum(axis=0) + rho * center) / (4 + 1 + rho)
    np.testing.assert_allclose(law.mean, mean, atol=1e-10)


def test_centres_are_vmapped():
    """A stack of centres is a vmap over kernels, equal to one kernel each."""
    centers = jnp.array([[0.0, 0.0], [3.0, -1.0], [-2.0, 5.0]])

    @jax.jit
    def end(center):
        kernel = sgmcmc.baoab(target().localized(center, 2.0), 0.2)
        key = jax.random.key(0)
        state = kernel.init(center, jax.random.fold_in(key, 100))
        step = lambda t, s: kernel.step(jax.random.fold_in(key, t), s)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 20, step, state).position

    together = jax.vmap(end)(centers)
    np.testing.assert_allclose(together, [end(center) for center in centers], rtol=1e-10)
