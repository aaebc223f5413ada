"""Numbers that JAX would change on the way in; its own settings of numbers and functions."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import clocks, diagnostics, gradients, local, metrics, models, optim, reducers
from sgmcmc.loop._chunk import Piece, run_chunk
from sgmcmc.loop._start import begun, kept, placed, whole
from tests.problems import regression

IDS = np.arange(40, dtype=np.int64) % 8 + 10**10
SMALL = IDS - 10**10
X = np.ones(40, np.float32)


def key():
    """A new one: JAX's check of reuse is on."""
    return jax.random.key(0)


def log_likelihood(params, batch):
    return -0.5 * (batch["x"] - params["m"][batch["ids"] % 8]) ** 2


def log_prior(params):
    return -0.5 * jnp.sum(params["m"] ** 2)


POSTERIOR = sgmcmc.Posterior(log_likelihood, log_prior, data_size=40)
SGLD = sgmcmc.sgld(POSTERIOR, 0.01)
START = {"m": jnp.zeros(8)}
DATA = {"ids": IDS, "x": X}
QUIET = {"progress": False}


class Drawn:
    """Draws as diagnostics read them."""

    draws, weights = np.ones((2, 3, 2)), np.ones((2, 3))


ENTRANCES = {
    "sample": lambda data: sgmcmc.sample(key(), SGLD, START, data, **QUIET),
    "tune": lambda data: sgmcmc.tune(key(), sgmcmc.sgld(POSTERIOR, None), START, data),
    "to_blackjax": lambda data: sgmcmc.to_blackjax(SGLD, data),
    "log_density": lambda data: POSTERIOR.log_density(START, data),
    "svrg": lambda data: sgmcmc.sgld(POSTERIOR, 0.1, gradient=gradients.svrg(3)).init(
        START, key(), data
    ),
    "fit": lambda data: optim.fit(
        key(), POSTERIOR, START, data, optimizer=optax.sgd(0.1), num_steps=1, **QUIET
    ),
    "find_mode": lambda data: optim.find_mode(key(), POSTERIOR, START, data),
    "laplace": lambda data: optim.laplace(key(), POSTERIOR, START, data),
    "hessian": lambda data: optim.hessian(POSTERIOR, START, data),
    "local_entropy": lambda data: local.local_entropy(SGLD, 1.0).value(key(), START, data),
    "spectrum": lambda data: diagnostics.curvature_of(POSTERIOR, START, data),
    "learning": lambda data: diagnostics.learning_coefficient(
        key(), POSTERIOR, START, data, precision=1.0
    ),
    "predictive": lambda data: diagnostics.predictive(Drawn, lambda p, x: p * x["x"], data),
    "predictive_mean": lambda data: reducers.predictive_mean(lambda p, x: p * x["x"], data),
}


@pytest.mark.parametrize("name", ENTRANCES)
def test_integers_of_64_bits_are_not_wrapped(name):
    """Ids beyond 2³² are refused by name wherever data enter, and the error says what to do."""
    with pytest.raises(ValueError, match=r"(data|x): leaf ids is int64 .* wrap in int32") as error:
        ENTRANCES[name](DATA)
    assert "np.unique" in str(error.value)
    assert "jax_enable_x64" in str(error.value)
    assert len(str(error.value)) < 300


def test_what_fits_is_taken():
    """int64 and uint64 within 32 bits, float64 within float32, and all of them under x64."""
    density = lambda ids, x=X: float(  # noqa: E731
        POSTERIOR.log_density({"m": jnp.arange(8.0)}, {"ids": ids, "x": x})
    )
    assert density(np.full(40, 2**31 - 1)) == density(np.full(40, 2**31 - 1, np.int32))
    assert density(np.zeros(40, np.uint64)) == density(np.zeros(40, np.int32))
    wanted = -0.5 * np.sum((1.0 - np.arange(40) % 8) ** 2.0) - 0.5 * np.sum(np.arange(8.0) ** 2)
    assert density(SMALL, X.astype(float)) == wanted
    with jax.enable_x64(True):
        assert density(IDS) == wanted
        assert density(IDS + 2**33, X.astype(float)) == wanted
    with pytest.raises(ValueError, match=r"data: leaf x .* 1e\+300, which in float32 is infinite"):
        density(SMALL, X.astype(float) * 1e300)
    with pytest.raises(ValueError, match=r"data: leaf ids is uint64 .* wrap in uint32"):
        density(np.full(40, 2**33, np.uint64))
    with pytest.raises(ValueError, match=r"params: leaf m .* 1e\+200"):
        sgmcmc.sample(key(), SGLD, {"m": np.full(8, 1e200)}, {"ids": SMALL, "x": X}, **QUIET)


@contextlib.contextmanager
def strict():
    """No rank and no dtype is promoted."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


PLAIN = regression()
CHUNKS = {
    "with_replacement": {"gradient": gradients.saga(), "stream": "with_replacement"},
    "reshuffled": {"gradient": gradients.svrg(4)},
    "symmetric": {"gradient": gradients.averaged(0.9), "stream": "symmetric"},
    "cyclic": {"gradient": gradients.control_variate(PLAIN.start), "stream": "cyclic"},
    "full": {"gradient": gradients.full(5), "stream": "full", "batch_size": None},
    "decreasing": {"step_size": clocks.decreasing(0.01), "metric": metrics.dense(np.eye(3))},
    "cyclical": {
        "step_size": clocks.cyclical(0.01, num_cycles=2, total_steps=100, exploration=0.3),
        "metric": metrics.diagonal(0.5),
    },
    "schedule": {"step_size": optax.cosine_decay_schedule(0.01, 1_000), "noise": "fast"},
}


@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_promotes_nothing(name):
    """The loop, its streams, reducers, estimators, clocks and metrics: traced, not run."""
    options = {"step_size": 0.01, "stream": "reshuffled", "batch_size": 5} | CHUNKS[name]
    stream, batch_size = options.pop("stream"), options.pop("batch_size")
    with strict():
        kernel = sgmcmc.sgld(PLAIN.posterior, **options)
        start = placed(key(), kernel, PLAIN.start, PLAIN.data, batch_size, stream, 2)
        collect = Partial(whole)
        folded = {"mean": reducers.mean(), "covariance": reducers.covariance()}
        chains = eqx.filter_eval_shape(
            begun, start, "vmap", collect, kept(start, collect), folded, protect=True
        )
        span = Piece(1, 2, True).from_step(0)
        carry, _ = eqx.filter_eval_shape(run_chunk, chains.inputs, span, chains.carry)
        eqx.filter_eval_shape(folded["covariance"].result, carry.reduced["covariance"])


FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.arange(6, dtype=np.int32) % 2
MODELS = {
    "mlp": (models.mlp((4, 5, 3), prior=models.priors.laplace(0.3)), FEATURES, LABELS),
    "gaussian mlp": (
        models.mlp((4, 5, 1), likelihood="gaussian", learn_noise=True),
        FEATURES,
        FEATURES[:, 0],
    ),
    "cnn": (models.cnn((2, 2), 3, channels=(2,)), FEATURES.reshape(6, 2, 2), LABELS),
    "logistic": (models.logistic_regression(num_features=4), FEATURES, LABELS),
    "multinomial": (
        models.logistic_regression(num_features=4, num_classes=3),
        FEATURES,
        LABELS,
    ),
    "linear": (models.linear_regression(num_features=4), FEATURES, FEATURES[:, 0]),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_models_promote_nothing(name):
    """Potential and gradient of each of the library's models."""
    model, x, y = MODELS[name]
    with strict():
        params = jax.eval_shape(model.init, key())
        posterior = model.posterior(data_size=6)
        jax.eval_shape(posterior.potential_and_gradient, params, (jnp.asarray(x), jnp.asarray(y)))


def test_the_rest_of_the_methods_are_jitted():
    """`jax.jit` takes whatever bound method has arrays inside, and gives the plain call's value."""
    posterior = PLAIN.posterior.localized(PLAIN.start, 2.0)
    data = jnp.asarray(PLAIN.data)
    clock, metric = clocks.adaptive(0.1), metrics.diagonal(jnp.asarray(0.5))
    entropy = local.local_entropy(sgmcmc.sgld(PLAIN.posterior, 0.1), 1.0, num_steps=2)
    reducer = reducers.predictive_mean(lambda p, x: x @ p["w"], data)
    calls = [
        (posterior.potential, (PLAIN.start, data)),
        (posterior.log_density, (PLAIN.start, data)),
        (clock.tick, (clock.init(PLAIN.start),)),
        (metric.to_position, (PLAIN.start,)),
        (gradients.control_variate(PLAIN.start).init, (posterior, PLAIN.start, data)),
        (reducer.init, (PLAIN.start,)),
        (entropy.gradient, (key(), PLAIN.start, data[None, :3].repeat(2, axis=0))),
    ]
    for method, arguments in calls:
        shapes = eqx.filter_eval_shape(method, *arguments)
        jitted = eqx.filter_eval_shape(jax.jit(method), *arguments)
        assert jax.tree.structure(jitted) == jax.tree.structure(shapes)
    np.testing.assert_allclose(
        jax.jit(posterior.potential)(PLAIN.start, data),
        posterior.potential(PLAIN.start, data),
        rtol=1e-6,
    )


class Scaled(eqx.Module):
    """A density of someone else's: a module whose bound method is handed in."""

    scale: jax.Array

    def log_density(self, params):
        return -0.5 * jnp.sum((params / self.scale) ** 2)


def test_a_method_of_another_module_stays_its_own():
    """Held by a `Posterior`, it is not taken for one of the posterior's."""
    posterior = sgmcmc.Posterior.from_log_density(Scaled(jnp.asarray(2.0)).log_density)
    assert float(posterior.potential(jnp.full(3, 2.0))) == 1.5
    assert float(jax.jit(posterior.potential)(jnp.full(3, 2.0))) == 1.5
