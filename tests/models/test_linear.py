"""Linear regression: its closed form against the potential and against brute force."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sgmcmc import models

RNG = np.random.default_rng(1)
X = RNG.normal(size=(30, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.7 + 0.4 * RNG.normal(size=30)


@pytest.mark.parametrize("intercept", [True, False])
def test_exact_posterior_is_the_potentials(intercept, x64):
    """The gradient vanishes at the exact mean; the Hessian is the inverse covariance."""
    model = models.linear_regression(0.4, 1.5, intercept=intercept)
    mean, covariance = model.exact(X, Y)
    potential = eqx.filter_jit(model.posterior(len(Y)).potential)
    data = (jnp.asarray(X), jnp.asarray(Y))
    np.testing.assert_allclose(jax.jit(jax.grad(potential))(jnp.asarray(mean), data), 0, atol=1e-10)
    hessian = jax.jit(jax.hessian(potential))(jnp.asarray(mean), data)
    np.testing.assert_allclose(hessian @ covariance, np.eye(3 + intercept), atol=1e-10)


def test_exact_posterior_by_quadrature(x64):
    """One slope, no intercept: mean and variance from a grid of exp(−U)."""
    model = models.linear_regression(0.4, 1.5, intercept=False)
    data = (jnp.asarray(X[:, :1]), jnp.asarray(Y))
    mean, covariance = model.exact(*data)
    grid = mean[0] + np.sqrt(covariance[0, 0]) * np.linspace(-10, 10, 2001)
    potential = eqx.filter_jit(model.posterior(len(Y)).potential)
    energy = jax.vmap(lambda w: potential(w[None], data))(jnp.asarray(grid))
    weight = np.exp(-(energy - energy.min()))
    weight = weight / weight.sum()
    np.testing.assert_allclose(weight @ grid, mean[0], rtol=1e-10)
    np.testing.assert_allclose(weight @ (grid - mean[0]) ** 2, covariance[0, 0], rtol=1e-10)


def test_log_likelihood_is_scipys_and_per_example(x64):
    model = models.linear_regression(0.4)
    w = RNG.normal(size=4)
    expected = scipy.stats.norm(X @ w[:3] + w[3], 0.4).logpdf(Y)
    np.testing.assert_allclose(
        jax.jit(model.log_likelihood)(jnp.asarray(w), (X, Y)), expected, rtol=1e-12
    )
    mean, scale = model.predict(jnp.asarray(w), X)
    assert mean.shape == scale.shape == (30,)


def test_permuting_examples_permutes_values_and_keeps_the_potential(x64):
    model = models.linear_regression(0.4)
    w, order = jnp.asarray(RNG.normal(size=4)), RNG.permutation(30)
    log_likelihood = jax.jit(model.log_likelihood)
    values = np.asarray(log_likelihood(w, (X, Y)))
    np.testing.assert_allclose(log_likelihood(w, (X[order], Y[order])), values[order])
    potential = eqx.filter_jit(model.posterior(30).potential)
    np.testing.assert_allclose(potential(w, (X, Y)), potential(w, (X[order], Y[order])), rtol=1e-12)


def test_batches_are_scaled_by_n_over_batch_size(x64):
    """The mean potential over the five disjoint batches of 6 is that of all 30 examples."""
    model = models.linear_regression(0.4)
    potential, w = eqx.filter_jit(model.posterior(30).potential), jnp.asarray(RNG.normal(size=4))
    parts = [potential(w, (X[i : i + 6], Y[i : i + 6])) for i in range(0, 30, 6)]
    np.testing.assert_allclose(np.mean(parts), potential(w, (X, Y)), rtol=1e-12)


def test_responses_as_a_column_are_refused():
    with pytest.raises(ValueError, match=r"y: got shape \(30, 1\)"):
        models.linear_regression().log_likelihood(jnp.zeros(4), (X, Y[:, None]))


def test_bad_input():
    with pytest.raises(ValueError, match="noise_scale: got 0"):
        models.linear_regression(0)
    with pytest.raises(ValueError, match="prior_scale: got nan"):
        models.linear_regression(1.0, float("nan"))
    with pytest.raises(ValueError, match="num_features: got None; init needs it"):
        models.linear_regression().init(jax.random.key(0))
    with pytest.raises(ValueError, match="num_features: got 0"):
        models.linear_regression(num_features=0)
    with pytest.raises(ValueError, match=r"x: got shape \(2, 5\); expected \(n, 3\)"):
        models.linear_regression().predict(jnp.zeros(4), np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"params: got shape \(2, 2\); expected a vector"):
        models.linear_regression().predict(jnp.zeros((2, 2)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"data: got a tuple of length 3; expected the pair"):
        models.linear_regression().log_likelihood(jnp.zeros(4), (X, Y, Y))
    with pytest.raises(ValueError, match="x, y: got shapes"):
        models.linear_regression().exact(X, Y[:3])
    with pytest.raises(ValueError, match="data_size: got None"):
        models.linear_regression().posterior()


def test_init_draws_from_the_prior():
    model = models.linear_regression(1.0, 3.0, num_features=2)
    starts = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 10_000))
    assert starts.shape == (10_000, 3)
    np.testing.assert_allclose(np.std(starts), 3.0, rtol=5 / np.sqrt(2 * 30_000))


def test_one_trace_for_every_noise_and_prior():
    traces = []

    @jax.jit
    def potential(posterior, w):
        traces.append(1)
        return posterior.potential(w, (X, Y))

    for scale in (1.0, 2.0):
        potential(models.linear_regression(scale, scale).posterior(30), jnp.zeros(4))
    assert len(traces) == 1
