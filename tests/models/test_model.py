"""What every model promises: shapes, tracing, and errors at the call."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmcmc import models
from sgmcmc.models import Model

KEY = jax.random.key(0)
X = np.random.default_rng(5).normal(size=(6, 4, 4)).astype(np.float32)
LABELS, RESPONSES = np.arange(6) % 3, np.linspace(-1, 1, 6).astype(np.float32)

MODELS = {
    "linear": (models.linear_regression(num_features=16), RESPONSES),
    "binary": (models.logistic_regression(num_features=16), LABELS % 2),
    "multinomial": (models.logistic_regression(num_features=16, num_classes=3), LABELS),
    "mlp": (models.mlp((16, 5, 3)), LABELS),
    "mlp_gaussian": (models.mlp((16, 5, 1), likelihood="gaussian"), RESPONSES),
    "mlp_learned_noise": (
        models.mlp((16, 5, 1), likelihood="gaussian", learn_noise=True),
        RESPONSES,
    ),
    "cnn": (models.cnn((4, 4), 3, channels=(2,)), LABELS),
}


@pytest.mark.parametrize(("model", "y"), MODELS.values(), ids=MODELS)
class TestEveryModel:
    def test_shapes(self, model, y):
        """init -> floating leaves; predict and log_likelihood -> one entry an example."""
        params = jax.eval_shape(model.init, KEY)
        assert all(jnp.issubdtype(v.dtype, jnp.floating) for v in jax.tree.leaves(params))
        assert jax.eval_shape(model.log_likelihood, params, (X, y)).shape == (6,)
        assert jax.eval_shape(model.log_prior, params).shape == ()
        out = jax.eval_shape(model.predict, params, X)
        assert [v.shape[0] for v in jax.tree.leaves(out)] == [6] * len(jax.tree.leaves(out))

    def test_potential_and_gradient_are_finite_float32(self, model, y):
        params = model.init(KEY)
        step = eqx.filter_jit(model.posterior(100).potential_and_gradient)
        energy, gradient = step(params, (X, y))
        assert jax.tree.structure(gradient) == jax.tree.structure(params)
        for leaf in (energy, *jax.tree.leaves(gradient)):
            assert leaf.dtype == jnp.float32
            assert np.all(np.isfinite(leaf))

    def test_functions_jit_as_they_are(self, model, y):
        """jax.jit takes each function itself: they are hashable."""
        for function in (model.init, model.predict, model.log_likelihood, model.log_prior):
            jax.jit(function)

    def test_the_model_is_a_pytree_of_arrays(self, model, y):
        assert all(eqx.is_array_like(v) for v in jax.tree.leaves(model))


def normal_log_likelihood(params, batch):
    x, y = batch
    return -0.5 * (y - x * params) ** 2


def flat_log_prior(params):
    return jnp.zeros(())


def test_plain_functions_make_a_model():
    model = Model(jax.random.normal, None, normal_log_likelihood, flat_log_prior)
    energy = model.posterior(10).potential(jnp.float32(1.0), (np.ones(2), np.zeros(2)))
    assert float(energy) == pytest.approx(10 / 2 * 1.0)


def test_likelihood_power_is_passed_on():
    model = Model(jax.random.normal, None, normal_log_likelihood, flat_log_prior)
    data = (np.ones(2), np.zeros(2))
    half = model.posterior(2, likelihood_power=0.5).potential(jnp.float32(1.0), data)
    assert float(half) == pytest.approx(0.5)
