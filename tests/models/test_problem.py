"""Regressions as problems: densities against their formulas, the mode and its Gaussian exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import sgmcmc
from sgmcmc.models import gaussian, laplace, linear_regression
from sgmcmc.models._problem import linear_problem, logistic_problem

RNG = np.random.default_rng(0)
X = np.column_stack([np.ones(40), 100 + 10 * RNG.normal(size=40), RNG.normal(size=40)])
Y = X @ [1.0, 0.2, -1.0] + 0.5 * RNG.normal(size=40)
LABELS = (RNG.random(40) < 0.5).astype(int)
PARAMS = {"beta": np.array([0.8, 0.21, -1.1]), "log_sigma": np.array(-0.3)}


def prior(beta, sigma):
    return -jnp.sum(beta**2) / 2 - sigma


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("log_prior", [None, prior])
def test_linear_density(log_prior):
    """Normal errors, the prior in σ, and the Jacobian log σ of log σ."""
    made = linear_problem(X, Y, log_prior)
    density = made.posterior.log_density(PARAMS, made.data)
    beta, sigma = PARAMS["beta"], np.exp(-0.3)
    expected = stats.norm.logpdf(Y, X @ beta, sigma).sum() - 0.3
    if log_prior is not None:
        expected += float(prior(beta, sigma))
    np.testing.assert_allclose(density, expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_logistic_density():
    made = logistic_problem(X, LABELS, lambda beta: -jnp.sum(beta**2) / 2)
    beta = np.array([0.5, -0.01, 0.3])
    p = 1 / (1 + np.exp(-X @ beta))
    expected = np.where(LABELS == 1, np.log(p), np.log1p(-p)).sum() - beta @ beta / 2
    np.testing.assert_allclose(
        made.posterior.log_density({"beta": beta}, made.data), expected, rtol=1e-12
    )
    assert float(logistic_problem(X, LABELS).posterior.prior_potential({"beta": beta})) == 0


def test_linear_begins_at_least_squares():
    made = linear_problem(X, Y)
    beta, (rss,), *_ = np.linalg.lstsq(X, Y, rcond=None)
    np.testing.assert_allclose(made.params["beta"], beta, rtol=1e-5)
    np.testing.assert_allclose(made.transform(made.params)["sigma"], np.sqrt(rss / 40), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_mode_of_linear_regression_under_flat_priors():
    """β at least squares, covariance σ̂² (XᵀX)⁻¹, σ̂² = RSS/(n − 1); var log σ = 1/(2 (n − 1))."""
    made = linear_problem(X, Y)
    found = laplace(jax.random.key(0), made.posterior, made.params, made.data)
    beta, (rss,), *_ = np.linalg.lstsq(X, Y, rcond=None)
    variance = rss / 39
    covariance = variance * np.linalg.inv(X.T @ X)
    scales = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found.mode["beta"] / scales, beta / scales, atol=1e-6)
    np.testing.assert_allclose(found.mode["log_sigma"], np.log(variance) / 2, atol=1e-6)
    np.testing.assert_allclose(
        found.covariance[:3, :3] / np.outer(scales, scales),
        covariance / np.outer(scales, scales),
        atol=1e-5,
    )
    np.testing.assert_allclose(found.covariance[3, 3], 1 / (2 * 39), rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_gaussians_are_their_own_laplace_approximation():
    covariance = np.array([[4.0, 1.9], [1.9, 1.0]])
    target = gaussian([3.0, -100.0], covariance).posterior()
    found = laplace(jax.random.key(0), target, jnp.array([0.0, -101.0]))
    np.testing.assert_allclose(found.mode, [3.0, -100.0], atol=1e-6)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)
    model = linear_regression(noise_scale=0.5, prior_scale=2.0, intercept=False)
    power = 3.0
    posterior = model.posterior(40, likelihood_power=power)
    found = laplace(jax.random.key(3), posterior, jnp.array([1.0, 0.2, -1.0]), (X, Y))
    precision = power * X.T @ X / 0.25 + np.eye(3) / 4
    np.testing.assert_allclose(found.covariance, np.linalg.inv(precision), rtol=1e-6)
    np.testing.assert_allclose(
        found.mode, np.linalg.solve(precision, power * X.T @ Y / 0.25), atol=1e-5
    )


@pytest.mark.usefixtures("x64")
def test_hessian_is_the_precision_of_a_gaussian():
    """Of a density alone, and of a tempered likelihood of n examples with its prior."""
    covariance = np.array([[4.0, 1.9], [1.9, 1.0]])
    target = gaussian([3.0, -100.0], covariance).posterior()
    found = sgmcmc.optim.hessian(target, jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(found, np.linalg.inv(covariance), rtol=1e-9)
    model = linear_regression(noise_scale=0.5, prior_scale=2.0, intercept=False)
    posterior = model.posterior(40, likelihood_power=3.0)
    found = sgmcmc.optim.hessian(posterior, jnp.zeros(3), (X, Y))
    np.testing.assert_allclose(found, 3.0 * X.T @ X / 0.25 + np.eye(3) / 4, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_laplace_refuses_what_has_no_gaussian():
    params, key = jnp.array([0.5, 0.5]), jax.random.key(0)
    ridge = sgmcmc.Posterior.from_log_density(lambda x: -((x[0] - x[1]) ** 2))
    with pytest.raises(ValueError, match="the Hessian there is singular"):
        laplace(key, ridge, params)
    saddle = sgmcmc.Posterior.from_log_density(lambda x: -(x[0] ** 2) + x[1] ** 2)
    with pytest.raises(ValueError, match="not positive definite"):
        laplace(jax.random.key(1), saddle, params, num_steps=10)
    far = gaussian([1e4, 0.0], np.eye(2)).posterior()
    with pytest.raises(ValueError, match=r"still about 1e\+04 standard"):
        laplace(jax.random.key(2), far, params, num_steps=10)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], Y, r"got shapes \(3,\) and \(40,\)"),
        (X, Y[:5], r"got shapes \(40, 3\) and \(5,\)"),
        (X[:0], Y[:0], r"got shapes \(0, 3\)"),
        (X * np.nan, Y, "expected finite numbers"),
    ],
)
def test_bad_designs_are_refused(x, y, message):
    for build in (linear_problem, logistic_problem):
        with pytest.raises(ValueError, match=message):
            build(x, y)


def test_labels_that_are_none_are_refused():
    with pytest.raises(ValueError, match="y: expected zeros and ones"):
        logistic_problem(X, Y)


def test_functions_are_checked():
    with pytest.raises(TypeError, match="log_prior: got int"):
        linear_problem(X, Y, 3)
    with pytest.raises(TypeError, match="transform: got int"):
        logistic_problem(X, LABELS, transform=3)
