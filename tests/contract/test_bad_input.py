"""Bad input: an error at the call that names the argument, the value and what is allowed.

Rows of the issue's table that belong elsewhere: loading a damaged file (test_run.py), NaN
data and divergence (test_execution.py), words (test_words.py).
"""

# ruff: noqa: E501 (a table, a row a line)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior, gradients, metrics, reducers
from sgmcmc.loop._driver import watching
from sgmcmc.sampling import _draws as draws

N = 6
DATA = {"x": np.ones((N, 2), np.float32), "y": np.arange(N, dtype=np.float32)}
PARAMS = {"w": jnp.zeros(2)}


def log_likelihood(params, batch):
    return -0.5 * (batch["y"] - batch["x"] @ params["w"]) ** 2


def log_prior(params):
    return -0.5 * jnp.sum(params["w"] ** 2)


def posterior(likelihood=log_likelihood):
    return Posterior(likelihood, log_prior, data_size=N)


def call(kernel=None, params=PARAMS, data=DATA, key=None, **options):
    """`sample` with one argument bad: it must fail before any step."""
    kernel = sgmcmc.sgld(posterior(), 0.01) if kernel is None else kernel
    key = jax.random.key(0) if key is None else key
    options = {"num_burnin": 1, "num_samples": 2, "progress": False, **options}
    return sgmcmc.sample(key, kernel, params, data, **options)


def sgld(**options):
    return sgmcmc.sgld(posterior(), **{"step_size": 0.01, **options})


def baoab(**options):
    return sgmcmc.baoab(posterior(), **{"step_size": 0.01, **options})


def with_metric(metric):
    return lambda: call(sgld(metric=metric))


free = Posterior.from_log_density(log_prior)
short = {"x": DATA["x"][:4], "y": DATA["y"]}
V, T = ValueError, TypeError
ROWS = {
    # Batch sizes.
    "batch 0": (lambda: call(batch_size=0), V, "batch_size: got 0; allowed: at least 1 and at most 6"),
    "batch -1": (lambda: call(batch_size=-1), V, "batch_size: got -1; allowed: at least 1"),
    "batch 7": (lambda: call(batch_size=7), V, "batch_size: got 7; .*at most 6"),
    "batch 7 symmetric": (lambda: call(batch_size=7, stream="symmetric"), V, "batch_size: got 7"),
    "batch 0 replaced": (lambda: call(batch_size=0, stream="with_replacement"), V, "batch_size: got 0"),
    "batch 2.0": (lambda: call(batch_size=2.0), T, "batch_size: got 2.0; expected an integer"),
    "batch True": (lambda: call(batch_size=True), T, "batch_size: got True"),
    "batch of full": (lambda: call(batch_size=2, stream="full"), V, "batch_size: got 2; .*6"),
    "batch of full()": (
        lambda: call(sgld(gradient=gradients.full()), batch_size=2), V, "batch_size: got 2; allowed: None"),
    "batch without data": (
        lambda: call(sgmcmc.sgld(free, 0.1), data=None, batch_size=2), V, "batch_size: got 2 without data"),
    "stream": (lambda: call(batch_size=2, stream="shuffle"), V, "stream: got 'shuffle'; allowed: .*cyclic"),
    # Data.
    "data lengths": (lambda: call(data=short), V, "data: leaves must share one leading axis.*x: 4, y: 6"),
    "data size": (
        lambda: call(data=jax.tree.map(lambda x: x[:4], DATA)), V, "data: leaves x, y have 4 .*data_size=6"),
    "data scalar": (lambda: call(data={**DATA, "s": 1.0}), V, "data: .*s: a scalar"),
    "data empty": (lambda: call(data={}), V, "data: got a pytree without arrays"),
    "data strings": (lambda: call(data={**DATA, "s": np.array(list("abcdef"))}), T, "data: leaf s is <U1"),
    "data missing": (lambda: call(data=None), V, r"data: got None; .*needs its data"),
    "data unwanted": (lambda: call(sgmcmc.sgld(free, 0.1)), V, "data: this posterior has no likelihood"),
    # Likelihoods.
    "scalar likelihood": (
        lambda: call(sgmcmc.sgld(posterior(lambda p, b: jnp.sum(log_likelihood(p, b))), 0.1)), V,
        r"log_likelihood: expected \(n,\) = \(6,\).* got \(\)"),
    "column likelihood": (
        lambda: call(sgmcmc.sgld(posterior(lambda p, b: log_likelihood(p, b)[:, None]), 0.1), batch_size=3), V,
        r"log_likelihood: expected \(n,\) = \(3,\).* got \(3, 1\)"),
    # Numbers of a kernel.
    "step 0": (lambda: sgld(step_size=0), V, "step_size: got 0.0; expected a finite number > 0"),
    "step -1": (lambda: sgld(step_size=-1e-3), V, "step_size: got -0.001"),
    "step nan": (lambda: sgld(step_size=np.nan), V, "step_size: got nan"),
    "step inf": (lambda: sgld(step_size=np.inf), V, "step_size: got inf"),
    "step str": (lambda: sgld(step_size="0.1"), T, "step_size: got '0.1'"),
    "step schedule": (lambda: sgld(step_size=lambda t: -1.0), V, r"step_size\(0\): got -1.0"),
    "step grid": (lambda: call(sgld(step_size=jnp.array([0.1, 0.2]))), V, r"step_size: got an array of shape \(2,\)"),
    "friction -1": (lambda: baoab(friction=-1.0), V, "friction: got -1.0; expected a finite number ≥ 0"),
    "friction nan": (lambda: baoab(friction=np.nan), V, "friction: got nan"),
    "friction grid": (lambda: call(baoab(friction=jnp.ones(2))), V, "friction: got an array"),
    "temperature -1": (lambda: sgld(temperature=-0.5), V, "temperature: got -0.5"),
    "temperature nan": (lambda: baoab(temperature=float("nan")), V, "temperature: got nan"),
    "noise": (lambda: sgld(noise="uniform"), V, "noise: got 'uniform'; allowed: gaussian, fast"),
    "posterior": (lambda: sgmcmc.sgld(log_prior, 0.1), T, "posterior: got function"),
    "metric kind": (lambda: sgld(metric=jnp.ones(2)), T, "metric: got "),
    "gradient kind": (lambda: sgld(gradient="full"), T, "gradient: got 'full'"),
    # Parameters and metrics.
    "params int": (lambda: call(params={"w": jnp.arange(2)}), T, "params: leaf w is int32"),
    "params python int": (lambda: call(params={"w": 1}), T, "params: leaf w is int"),
    "params bool": (lambda: call(params={"w": jnp.array([True])}), T, "params: leaf w is bool"),
    "params nested": (lambda: call(params={"a": [PARAMS, {"n": np.int8(1)}]}), T, "params: leaf a/1/n is int8"),
    "params empty": (lambda: call(params={}), V, "params: got a pytree without leaves"),
    "params None": (lambda: call(params=None), V, "params: got a pytree without leaves"),
    "params zero": (lambda: call(params={"w": jnp.zeros((0, 2))}), V, "params: leaf w is empty"),
    "init int": (lambda: call(params=lambda key: {"w": jnp.arange(2)}), T, "params: leaf w is int32"),
    "diagonal shape": (with_metric(metrics.diagonal({"w": jnp.ones(3)})), V, r"metric: leaf w has shape \(3,\)"),
    "diagonal tree": (with_metric(metrics.diagonal({"v": jnp.ones(2)})), V, "metric: .*'v', 'w'"),
    "dense shape": (with_metric(metrics.dense(np.eye(3))), V, r"metric: .*3 × 3.*w \(2,\).*2 entries"),
    # Counts.
    "chains 0": (lambda: call(num_chains=0), V, "num_chains: got 0; allowed: at least 1"),
    "samples 0": (lambda: call(num_samples=0), V, "num_samples: got 0"),
    "thinning 0": (lambda: call(thinning=0), V, "thinning: got 0"),
    "burnin -1": (lambda: call(num_burnin=-1), V, "num_burnin: got -1; allowed: at least 0"),
    "chains 1.5": (lambda: call(num_chains=1.5), T, "num_chains: got 1.5; expected an integer"),
    "chunk 0": (lambda: call(chunk_steps=0), V, "chunk_steps: got 0"),
    "too many steps": (lambda: call(num_samples=2**20, thinning=2**12), V, "num_samples: .*4,294,967,297 steps"),
    "policy": (lambda: call(on_nonfinite="skip"), V, "on_nonfinite: got 'skip'; allowed: raise, stop_chain"),
    "method": (lambda: call(chain_method="pmap"), V, "chain_method: got 'pmap'; allowed: auto, vmap"),
    # What is kept.
    "collect name": (lambda: call(collect=["v"]), V, "collect: no leaf is called 'v'; there are w"),
    "collect str": (lambda: call(collect="w"), T, "collect: got 'w'; expected True, False, names"),
    "reducers list": (lambda: call(reducers=[reducers.mean()]), T, "reducers: got list"),
    "reducers uncalled": (lambda: call(reducers={"m": reducers.mean}), T, "reducers: 'm' has no init"),
    # Estimators that need data.
    "full without data": (
        lambda: sgld(gradient=gradients.full()).init(PARAMS, jax.random.key(0)), V, "data: got None; the `full`"),
    "full in blocks without data": (
        lambda: sgld(gradient=gradients.full(2)).init(PARAMS, jax.random.key(0)), V, "data: got None"),
    # Keys and kernels.
    "key int": (lambda: call(key=3), T, "key: got int; expected one jax.random.key"),
    "key many": (lambda: call(key=jax.random.split(jax.random.key(0), 3)), T, r"key: got .*\(3,\)"),
    "key words": (lambda: call(key=jnp.zeros(3, jnp.uint32)), T, r"key: got .*\(3,\)"),
    "key floats": (lambda: call(key=jnp.zeros(2)), T, "key: got"),
    "kernel": (lambda: call(kernel=log_prior), T, "kernel: got function; expected a sampler"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_bad_input(name):
    """The message names the argument, what was given and what is allowed."""
    make, error, message = ROWS[name]
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("block_size", [None, 2])
def test_full_gradient_refuses_a_part_of_the_data(block_size):
    """`full` given fewer than N examples would scale them silently: a ValueError names data."""
    kernel = sgld(gradient=gradients.full(block_size))
    state = kernel.init(PARAMS, jax.random.key(0), DATA)
    part = jax.tree.map(lambda x: x[:4], DATA)
    with pytest.raises(ValueError, match="data: the `full` gradient estimator got 4 of 6"):
        kernel.step(jax.random.key(1), state, part)
    with pytest.raises(ValueError, match="data: "):
        kernel.step(jax.random.key(1), state, None)


@pytest.mark.parametrize("collect", [True, False])
def test_too_many_draws_are_refused_before_the_start(monkeypatch, collect):
    """Beyond half the free memory: a MemoryError with the bytes, and collect=, reducers, store=."""

    def never(*_):
        raise AssertionError("a step was made")

    monkeypatch.setattr(draws, "free_memory", lambda: 1_000_000)
    with watching(never), pytest.raises(MemoryError) as caught:
        call(num_samples=100_000, num_chains=3, collect=collect)
    message = str(caught.value)
    assert f"{3 * 100_000 * (64 + 8 * collect):,} bytes" in message
    for part in ("num_samples", "1,000,000", "collect=", "reducers", "store="):
        assert part in message
    with watching(never), pytest.raises(AssertionError, match="a step was made"):
        call(num_samples=1_000, num_chains=3, collect=collect)
