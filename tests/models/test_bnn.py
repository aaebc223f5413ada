"""Bayesian networks: forward pass by hand, likelihoods by scipy, He's law, the noise guard."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from sgmcmc import models

RNG = np.random.default_rng(3)
X = RNG.normal(size=(12, 4))
KEY = jax.random.key(0)


def by_hand(params, x):
    hidden = np.tanh(x @ np.asarray(params[0]["weight"]) + np.asarray(params[0]["bias"]))
    return hidden @ np.asarray(params[1]["weight"]) + np.asarray(params[1]["bias"])


def jittered(params):
    """Biases start at zero: move everything, so that a forgotten bias shows."""
    return jax.tree.map(lambda v: np.asarray(v) + 0.3 * RNG.normal(size=v.shape), params)


def test_categorical_network(x64):
    model = models.mlp((4, 7, 3), activation="tanh")
    params, y = jittered(model.init(KEY)), RNG.integers(0, 3, 12)
    logits = by_hand(params, X)
    np.testing.assert_allclose(jax.jit(model.predict)(params, X), logits, rtol=1e-12)
    expected = scipy.special.log_softmax(logits, axis=1)[np.arange(12), y]
    np.testing.assert_allclose(jax.jit(model.log_likelihood)(params, (X, y)), expected, rtol=1e-12)
    every = np.concatenate([np.ravel(v) for v in jax.tree.leaves(params)])
    np.testing.assert_allclose(
        jax.jit(model.log_prior)(params), scipy.stats.norm.logpdf(every).sum(), rtol=1e-12
    )


def test_gaussian_network_with_known_noise(x64):
    model = models.mlp((4, 7, 1), likelihood="gaussian", activation="tanh", noise_scale=0.3)
    params, y = jittered(model.init(KEY)), RNG.normal(size=12)
    expected = scipy.stats.norm(by_hand(params, X)[:, 0], 0.3).logpdf(y)
    np.testing.assert_allclose(jax.jit(model.log_likelihood)(params, (X, y)), expected, rtol=1e-12)
    mean, scale = jax.jit(model.predict)(params, X)
    assert mean.shape == scale.shape == (12,)


class TestLearnedNoise:
    def model(self):
        return models.mlp((4, 7, 1), likelihood="gaussian", noise_scale=0.1, learn_noise=True)

    def scale(self, u):
        params = self.model().init(KEY) | {"log_noise": jnp.asarray(u)}
        return float(jax.jit(self.model().predict)(params, X)[1][0])

    def test_starts_at_its_prior_median_and_moves_like_a_log_scale(self, x64):
        assert self.scale(0.0) == pytest.approx(0.1)
        assert self.scale(0.1) == pytest.approx(0.1 * np.exp(0.1), rel=1e-3)

    def test_it_cannot_run_away(self, x64):
        """σ stays within a factor 30; far out the pull on u is the prior's alone: −u."""
        assert self.scale(1e3) == pytest.approx(3.0)
        assert self.scale(-1e3) == pytest.approx(0.1 / 30)
        model, y = self.model(), 1e3 * RNG.normal(size=12)
        params = model.init(KEY) | {"log_noise": jnp.asarray(50.0)}
        force = jax.jit(jax.grad(lambda p: -model.posterior(12).potential(p, (X, y))))(params)
        assert float(force["log_noise"]) == pytest.approx(-50.0, rel=1e-6)

    def test_prior_covers_weights_and_noise(self, x64):
        model = self.model()
        params = model.init(KEY) | {"log_noise": jnp.asarray(0.7)}
        known = models.mlp((4, 7, 1), likelihood="gaussian").log_prior(params["layers"])
        assert float(model.log_prior(params) - known) == pytest.approx(-0.245)


def test_he_initialisation():
    """Weights N(0, 2/fan-in) within five standard errors of a variance; biases zero."""
    layers = models.mlp((300, 400, 10)).init(KEY)
    for layer, fan_in in zip(layers, (300, 400), strict=True):
        w = np.asarray(layer["weight"])
        assert abs(w.var() * fan_in / 2 - 1) < 5 * np.sqrt(2 / w.size)
        assert not np.any(layer["bias"])
        assert w.dtype == np.float32


def test_chains_start_apart_and_keys_reproduce():
    model = models.mlp((4, 7, 3))
    a, b = model.init(jax.random.key(1)), model.init(jax.random.key(2))
    again = model.init(jax.random.key(1))
    assert np.all(np.asarray(a[0]["weight"]) != np.asarray(b[0]["weight"]))
    np.testing.assert_array_equal(a[0]["weight"], again[0]["weight"])


def test_hidden_units_can_be_permuted(x64):
    """Predictions and prior are the same after a permutation of the hidden units: weights
    are not identified, which is why summaries look at functions."""
    model = models.mlp((4, 7, 3))
    first, last = jittered(model.init(KEY))
    order = RNG.permutation(7)
    swapped = (
        {"weight": first["weight"][:, order], "bias": first["bias"][order]},
        {"weight": last["weight"][order], "bias": last["bias"]},
    )
    np.testing.assert_allclose(
        jax.jit(model.predict)(swapped, X), jax.jit(model.predict)((first, last), X), rtol=1e-10
    )
    np.testing.assert_allclose(
        jax.jit(model.log_prior)(swapped), jax.jit(model.log_prior)((first, last))
    )


def test_batches_add_up_to_the_full_likelihood(x64):
    """Mean of the N/n-scaled potentials over disjoint batches = the full potential."""
    model = models.mlp((4, 7, 3))
    params, y = model.init(KEY), RNG.integers(0, 3, 12)
    potential = eqx.filter_jit(model.posterior(12).potential)
    parts = [potential(params, (X[i : i + 4], y[i : i + 4])) for i in (0, 4, 8)]
    np.testing.assert_allclose(np.mean(parts), potential(params, (X, y)), rtol=1e-12)


def test_images_are_flattened_and_chains_vmap():
    model = models.mlp((16, 5, 2))
    images = RNG.normal(size=(3, 4, 4)).astype(np.float32)
    params = jax.vmap(model.init)(jax.random.split(KEY, 6))
    stacked = jax.jit(jax.vmap(model.predict, (0, None)))(params, images)
    assert stacked.shape == (6, 3, 2)
    one = jax.jit(model.predict)(
        jax.tree.map(lambda v: np.asarray(v)[2], params), images.reshape(3, 16)
    )
    np.testing.assert_allclose(stacked[2], one, rtol=1e-5)


def test_equal_shapes_share_one_trace():
    traces = []

    @jax.jit
    def potential(posterior, params):
        traces.append(1)
        return posterior.potential(params, (X, np.zeros(12, int)))

    for prior in (1.0, 2.0):
        model = models.mlp((4, 7, 3), prior=prior)
        potential(model.posterior(12), model.init(KEY))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("error", "sizes", "settings", "message"),
    [
        (ValueError, (4,), {}, r"sizes: got \(4,\); expected at least two"),
        (ValueError, (4, 0, 2), {}, "sizes: got 0"),
        (TypeError, (4, 2.5, 2), {}, "sizes: got 2.5"),
        (ValueError, (4, 2), {"likelihood": "poisson"}, "likelihood: got 'poisson'"),
        (ValueError, (4, 2), {"activation": "rleu"}, "activation: got 'rleu'.*relu"),
        (TypeError, (4, 2), {"activation": 3}, "activation: got int"),
        (ValueError, (4, 2), {"prior": -1.0}, "prior: got -1"),
        (TypeError, (4, 2), {"prior": "wide"}, "prior: got str"),
        (ValueError, (4, 2), {"noise_scale": 0.1}, "noise_scale.*categorical"),
        (ValueError, (4, 2), {"likelihood": "gaussian"}, "sizes: got 2 outputs"),
        (ValueError, (4, 1), {"likelihood": "gaussian", "noise_scale": 0}, "noise_scale: got 0"),
    ],
)
def test_bad_input(error, sizes, settings, message):
    with pytest.raises(error, match=message):
        models.mlp(sizes, **settings)


def test_bad_batches():
    model = models.mlp((4, 7, 3))
    with pytest.raises(ValueError, match=r"x: got shape \(12, 3\); expected \(n, 4\)"):
        model.predict(model.init(KEY), X[:, :3])
    with pytest.raises(ValueError, match="exact: this model has no posterior"):
        model.exact(X, X)
