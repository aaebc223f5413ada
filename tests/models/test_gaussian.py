"""The Gaussian target is scipy's, in every form of its covariance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sgmcmc import models

MEAN = np.array([1.0, -2.0, 0.5])
FULL = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
COVARIANCES = {"scalar": 0.3, "diagonal": np.array([0.1, 2.0, 5.0]), "full": FULL}


def as_matrix(covariance):
    return np.diag(np.broadcast_to(covariance, 3)) if np.ndim(covariance) < 2 else covariance


@pytest.mark.parametrize("covariance", COVARIANCES.values(), ids=COVARIANCES)
def test_density_gradient_and_exact(covariance, x64):
    """log density = scipy's; ∇U = C⁻¹(θ − m); exact() returns what was given."""
    model = models.gaussian(MEAN, covariance)
    matrix = as_matrix(covariance)
    theta = np.random.default_rng(0).normal(size=3)
    posterior = model.posterior()
    law = scipy.stats.multivariate_normal(MEAN, matrix)
    np.testing.assert_allclose(
        eqx.filter_jit(posterior.log_density)(theta), law.logpdf(theta), rtol=1e-12
    )
    energy, gradient = eqx.filter_jit(posterior.potential_and_gradient)(jnp.asarray(theta))
    np.testing.assert_allclose(energy, -law.logpdf(theta), rtol=1e-12)
    np.testing.assert_allclose(gradient, np.linalg.solve(matrix, theta - MEAN), rtol=1e-10)
    mean, exact = model.exact()
    np.testing.assert_array_equal(mean, MEAN)
    np.testing.assert_array_equal(exact, matrix)


@pytest.mark.parametrize("covariance", COVARIANCES.values(), ids=COVARIANCES)
def test_starts_are_twice_as_wide_as_the_target(covariance):
    """init draws from N(m, 4 C): 20,000 draws, tolerance five standard errors of a covariance."""
    model = models.gaussian(MEAN, covariance)
    starts = np.asarray(jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(0), 20_000)))
    matrix = 4 * as_matrix(covariance)
    sd = np.sqrt(np.outer(np.diag(matrix), np.diag(matrix)))
    assert np.all(np.abs(np.cov(starts.T) - matrix) < 5 * sd * np.sqrt(2 / 20_000))


def test_one_trace_for_every_mean_and_covariance():
    traces = []

    @jax.jit
    def potential(posterior, theta):
        traces.append(1)
        return posterior.potential(theta)

    for scale in (1.0, 2.0, 3.0):
        potential(models.gaussian(scale * MEAN, scale * FULL).posterior(), jnp.ones(3))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([[0.0]], 1.0, r"mean: got shape \(1, 1\)"),
        ([np.nan], 1.0, "mean: .*finite"),
        ([0.0, 0.0], [1.0, 1.0, 1.0], r"covariance: got shape \(3,\)"),
        ([0.0, 0.0], [1.0, -1.0], "covariance: got the variance -1"),
        ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], "covariance: not symmetric"),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], "smallest eigenvalue is -1"),
        ([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]], "not positive definite"),
        ([0.0, 0.0], [[1.0, np.inf], [np.inf, 1.0]], "not finite"),
    ],
)
def test_bad_input(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        models.gaussian(mean, covariance)


def test_it_takes_no_data():
    with pytest.raises(ValueError, match="data_size: got 3; this target has no data"):
        models.gaussian([0.0], 1.0).posterior(3)
    with pytest.raises(ValueError, match=r"params: got shape \(2,\); expected \(1,\)"):
        models.gaussian([0.0], 1.0).log_prior(jnp.zeros(2))
