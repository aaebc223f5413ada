"""Reducers: what they fold is the statistic of the draws kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior, models, reducers


def log_density(p):
    return -0.5 * (jnp.sum(p["w"] ** 2) + (p["b"] - 3) ** 2 / 4)


def decay(count):
    return 0.2 / (1 + count) ** 0.5


def product(params):
    return params["w"] * params["b"]


def logits(params, x):
    return x[:, None] * params["w"]


X = jnp.array([0.5, -1.0, 2.0, 0.0])
KERNEL = sgmcmc.sgld(Posterior.from_log_density(log_density), decay)


@pytest.fixture(scope="module", params=["vmap", "map"])
def run(request):
    return sgmcmc.sample(
        jax.random.key(4), KERNEL, {"w": jnp.ones(3), "b": jnp.zeros(())},
        num_chains=3, num_burnin=2, num_samples=40, thinning=2, chunk_steps=7, progress=False,
        chain_method=request.param,
        reducers={
            "mean": reducers.mean(),
            "function": reducers.mean(product),
            "covariance": reducers.covariance(),
            "variance": reducers.covariance(product, diagonal=True),
            "predictive": reducers.predictive_mean(logits, X),
        },
    )  # fmt: skip


def weighted(run, values):
    """Mean and covariance over chains and draws with the run's weights, in float64."""
    values = np.asarray(values, np.float64).reshape(run.weights.size, -1)
    w = np.asarray(run.weights, np.float64).ravel()
    mean = w @ values / w.sum()
    return mean, (values - mean).T @ ((values - mean) * w[:, None]) / w.sum()


def test_weighted_mean_and_covariance_are_those_of_the_draws(run):
    """Σ w f / Σ w and Σ w (f − f̄)(f − f̄)ᵀ / Σ w over all chains, f̄ the pooled mean."""
    assert np.ptp(run.weights) > 0.1
    flat = np.concatenate([run.draws["b"][..., None], run.draws["w"]], axis=-1)
    mean, covariance = weighted(run, flat)
    np.testing.assert_allclose(run.reduced["mean"]["b"], mean[0], rtol=1e-5)
    np.testing.assert_allclose(run.reduced["mean"]["w"], mean[1:], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.reduced["covariance"][0], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.reduced["covariance"][1], covariance, rtol=1e-4, atol=1e-6)
    f = run.draws["w"] * run.draws["b"][..., None]
    mean, covariance = weighted(run, f)
    np.testing.assert_allclose(run.reduced["function"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.reduced["variance"][1], np.diag(covariance), rtol=1e-4)


def test_predictive_mean_averages_probabilities(run):
    """The posterior mean of softmax(logits), which is no softmax of mean logits."""
    scores = np.asarray(X)[:, None] * run.draws["w"][:, :, None, :].astype(np.float64)
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mean, _ = weighted(run, p)
    np.testing.assert_allclose(run.reduced["predictive"], mean.reshape(4, 3), rtol=1e-5)
    np.testing.assert_allclose(run.reduced["predictive"].sum(-1), 1, rtol=1e-5)


def test_predictive_mean_of_values_and_of_one_logit():
    """(mean, scale), (m,) and `kind="values"` are averaged as they are, one logit as σ(logit)."""
    model = models.mlp((1, 3, 1), likelihood="gaussian")
    draws = [model.init(key) for key in jax.random.split(jax.random.key(0), 3)]
    means = np.stack([model.predict(draw, X[:, None])[0] for draw in draws])
    one = lambda params, x: model.predict(params, x)[0][:, None]  # noqa: E731
    flat = lambda params, x: model.predict(params, x)[0]  # noqa: E731
    columns = lambda params, x: jnp.repeat(one(params, x), 3, axis=1)  # noqa: E731

    def mean(predict, **options):
        reducer = reducers.predictive_mean(predict, X[:, None], **options)
        return reducer.result(fold(reducer, draws))

    wanted = means.mean(axis=0)
    np.testing.assert_allclose(mean(model.predict), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean(flat), wanted, rtol=1e-5, atol=1e-6)
    for several in (one, columns):
        found = mean(several, kind="values")
        same = np.broadcast_to(wanted[:, None], several(draws[0], X[:, None]).shape)
        np.testing.assert_allclose(found, same, rtol=1e-5, atol=1e-6)
    sigma = (1 / (1 + np.exp(-means))).mean(axis=0)
    np.testing.assert_allclose(mean(one, kind="logits")[:, 0], sigma, rtol=1e-5)
    np.testing.assert_allclose(mean(flat, kind="logits"), sigma, rtol=1e-5)
    with pytest.raises(ValueError, match=r'got shape \(4, 1\).*"values".*"logits"'):
        mean(one)
    with pytest.raises(ValueError, match="predict: got 2 arrays with kind='logits'"):
        mean(model.predict, kind="logits")


def fold(reducer, values, weights=None):
    """One chain's state after folding `values`."""
    weights = np.ones(len(values)) if weights is None else weights
    state = reducer.init(values[0])
    for value, weight in zip(values, weights, strict=True):
        state = reducer.update(state, value, jnp.float32(weight))
    return jax.tree.map(lambda x: x[None], state)


def test_the_mean_is_stable_far_from_zero():
    """Values of 1e4 ± 1 keep their variance in float32, where E x² − (E x)² would lose it."""
    values = 1e4 + np.random.default_rng(0).choice([-1.0, 1.0], (400, 1))
    reducer = reducers.covariance()
    mean, covariance = reducer.result(fold(reducer, jnp.asarray(values, jnp.float32)))
    np.testing.assert_allclose(mean[0], values.mean(), rtol=1e-7)
    np.testing.assert_allclose(covariance[0, 0], values.var(), rtol=1e-2)


def test_half_precision_is_folded_in_float32():
    """The mean of 3,000 bfloat16 numbers has float32's digits."""
    values = jnp.asarray(np.random.default_rng(1).random((3000, 1)), jnp.bfloat16)
    reducer = reducers.mean()
    states = jax.lax.scan(
        lambda s, v: (reducer.update(s, v, jnp.float32(1)), None), reducer.init(values[0]), values
    )[0]
    mean = reducer.result(jax.tree.map(lambda x: x[None], states))
    assert mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.asarray(values, np.float64).mean(0), rtol=1e-5)


def test_draws_of_no_weight_change_nothing():
    """A weight of zero adds nothing, at the beginning too."""
    reducer, values = reducers.mean(), jnp.array([5.0, 1.0, 3.0, 9.0])
    state = fold(reducer, values, [0.0, 1.0, 1.0, 0.0])
    assert float(reducer.result(state)) == 2.0


def test_integers_and_flags_have_means():
    """A function may return counts or truth values: their mean is a share."""
    reducer = reducers.mean(lambda v: v > 2)
    assert float(reducer.result(fold(reducer, jnp.array([1.0, 3.0, 5.0, 7.0])))) == 0.75


@pytest.mark.parametrize("ratio", [1e4, 1e5])
def test_a_mean_far_from_zero_keeps_moving(ratio):
    """30,000 float32 draws of mean r sd: the mean of those very draws to a last place of float32,
    under the Monte Carlo error of .006 sd; variances to 1e-5. A plain running mean is .01 and
    .027 sd off, since an update below half a last place is lost."""
    rng = np.random.default_rng(0)
    values = jnp.asarray(ratio + rng.normal(size=(2, 30_000, 1)), jnp.float32)
    weights = jnp.asarray(rng.uniform(0.5, 1.5, size=(2, 30_000)), jnp.float32)
    reducer = reducers.covariance(diagonal=True)
    plain = reducers.mean()

    @jax.jit
    @jax.vmap
    def chain(values, weights):
        def fold(states, draw):
            return (plain.update(states[0], *draw), reducer.update(states[1], *draw)), None

        start = (plain.init(values[0]), reducer.init(values[0]))
        return jax.lax.scan(fold, start, (values, weights))[0]

    states = chain(values, weights)
    seen, w = np.asarray(values, np.float64)[..., 0], np.asarray(weights, np.float64)
    exact = np.average(seen, weights=w)
    place = np.spacing(np.float32(ratio))
    mean, variance = reducer.result(states[1])
    for found in (plain.result(states[0])[0], mean[0]):
        assert abs(float(found) - exact) <= place
    np.testing.assert_allclose(variance[0], np.average((seen - exact) ** 2, weights=w), rtol=1e-5)


def test_a_sum_of_weights_does_not_stand_still():
    """After 2²⁴ draws a float32 count is at its end; the share of one draw more is still 2⁻²⁴."""
    reducer = reducers.mean()
    state = reducer.update(reducer.init(jnp.zeros(())), jnp.zeros(()), jnp.float32(2**24))
    add = lambda s, _: (reducer.update(s, jnp.ones(()), jnp.float32(1)), None)  # noqa: E731
    state, _ = jax.lax.scan(add, state, None, 2**14)
    mean = float(reducer.result(jax.tree.map(lambda x: x[None], state)))
    assert mean == pytest.approx(2**14 / (2**24 + 2**14), rel=1e-5)
