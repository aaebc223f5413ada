"""Logistic regression: Bernoulli and categorical log likelihoods, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from sgmcmc import models

RNG = np.random.default_rng(2)
X = RNG.normal(size=(20, 3))


def test_binary_is_bernoulli(x64):
    y, w = RNG.integers(0, 2, 20), RNG.normal(size=4)
    p = scipy.special.expit(X @ w[:3] + w[3])
    values = jax.jit(models.logistic_regression().log_likelihood)(jnp.asarray(w), (X, y))
    np.testing.assert_allclose(values, np.log(np.where(y == 1, p, 1 - p)), rtol=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
def test_multinomial_is_softmax(intercept, x64):
    y, w = RNG.integers(0, 5, 20), RNG.normal(size=(3 + intercept, 5))
    logits = X @ w[:3] + (w[3] if intercept else 0)
    expected = scipy.special.log_softmax(logits, axis=1)[np.arange(20), y]
    model = models.logistic_regression(num_classes=5, intercept=intercept)
    np.testing.assert_allclose(
        jax.jit(model.log_likelihood)(jnp.asarray(w), (X, y)), expected, rtol=1e-10
    )
    assert jax.eval_shape(model.predict, jnp.asarray(w), X).shape == (20, 5)


def test_class_probabilities_sum_to_one(x64):
    """Σ_y p(y | x) = 1 at every x: the likelihood is normalised."""
    model = models.logistic_regression(num_classes=5)
    w = jnp.asarray(RNG.normal(size=(4, 5)))
    log_likelihood = jax.jit(model.log_likelihood)
    total = sum(np.exp(log_likelihood(w, (X, np.full(20, k)))) for k in range(5))
    np.testing.assert_allclose(total, 1, rtol=1e-12)


@pytest.mark.parametrize("label", [-1, 2, 100])
def test_a_label_out_of_range_is_nan_and_never_another_class(label):
    y = np.zeros(20, int)
    y[3] = label
    values = jax.jit(models.logistic_regression().log_likelihood)(jnp.zeros(4), (X, y))
    np.testing.assert_array_equal(np.isnan(values), np.arange(20) == 3)


def test_bad_input():
    model = models.logistic_regression()
    with pytest.raises(TypeError, match="y: got float32; expected integer labels in 0 … 1"):
        model.log_likelihood(jnp.zeros(4), (X, np.zeros(20, np.float32)))
    with pytest.raises(ValueError, match=r"y: got shape \(20, 1\)"):
        model.log_likelihood(jnp.zeros(4), (X, np.zeros((20, 1), int)))
    with pytest.raises(ValueError, match="num_classes: got 1"):
        models.logistic_regression(num_classes=1)
    with pytest.raises(TypeError, match=r"num_classes: got 2\.5"):
        models.logistic_regression(num_classes=2.5)
    with pytest.raises(TypeError, match="intercept: got 1"):
        models.logistic_regression(intercept=1)
    with pytest.raises(ValueError, match="expected a vector"):
        model.predict(jnp.zeros((4, 2)), X)
    with pytest.raises(ValueError, match="expected a matrix"):
        models.logistic_regression(num_classes=3).predict(jnp.zeros(4), X)


def test_init_has_the_shape_that_predict_takes():
    binary = models.logistic_regression(num_features=3)
    many = models.logistic_regression(num_features=3, num_classes=4)
    assert binary.predict(binary.init(jax.random.key(0)), X).shape == (20, 2)
    assert many.predict(many.init(jax.random.key(0)), X).shape == (20, 4)
