"""What `sample` takes and keeps: starts, data, `collect`, dtypes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior
from tests.compare import assert_same_bits
from tests.ten_examples import (
    BAOAB,
    DATA,
    PARAMS,
    POSTERIOR,
    SEED,
    N,
    log_likelihood,
    log_prior,
    run,
)


@pytest.mark.parametrize("as_array", [np.array, jnp.array])
def test_params_are_unharmed(as_array):
    """`params` are copied, for one chain or more, stacked or not: usable and equal afterwards."""
    for stacked, chains in [(False, 1), (True, 2)]:
        given = jax.tree.map(lambda x: as_array(np.stack([x] * 2) if stacked else x), PARAMS)  # noqa: B023
        kept = jax.tree.map(lambda x: np.array(x, copy=True), given)
        made = run(params=given, num_chains=chains)
        made.resume(1, progress=False)
        jax.tree.map(np.testing.assert_array_equal, given, kept)


def test_data_are_unharmed_and_may_be_numpy_or_jax():
    """NumPy and JAX data give the same bits, and are usable afterwards."""
    as_jax = jax.tree.map(jnp.asarray, DATA)
    options = {"num_chains": 2, "num_burnin": 5, "num_samples": 12, "progress": False}
    made = sgmcmc.sample(
        jax.random.key(SEED), BAOAB, PARAMS, as_jax, batch_size=3, chain_method="vmap", **options
    )
    assert_same_bits(made, run())
    jax.tree.map(np.testing.assert_array_equal, as_jax, DATA)


def test_stacked_params_start_each_chain_from_its_own():
    """A leading chain axis gives every chain its start: at step size → 0 it stays there."""
    still = sgmcmc.sgld(POSTERIOR, 1e-12)
    starts = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([1.0, -1.0])}
    made = run(still, params=starts)
    np.testing.assert_allclose(made.draws["w"][:, 0], starts["w"], atol=1e-4)
    np.testing.assert_allclose(made.draws["b"][:, 0], starts["b"], atol=1e-4)


def test_init_function_disperses_the_starts():
    """init(key) is called once a chain, with another key each, the same in every run."""
    seen = []

    def init(key):
        seen.append(tuple(np.asarray(jax.random.key_data(key))))
        return {"w": PARAMS["w"] + jax.random.normal(key, (3,)), "b": PARAMS["b"]}

    still = sgmcmc.sgld(POSTERIOR, 1e-12)
    first, second = run(still, params=init), run(still, params=init)
    assert len(seen) == 4
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]
    assert_same_bits(first, second)
    assert not np.any(first.draws["w"][0, 0] == first.draws["w"][1, 0])


class Scale(eqx.Module):
    width: jax.Array

    def init(self, key):
        return {"w": PARAMS["w"] + self.width * jax.random.normal(key, (3,)), "b": PARAMS["b"]}


def test_init_may_be_a_method_or_partial_that_holds_arrays():
    """A bound method of a module, or a Partial, is a function and not the parameters."""
    width = jnp.array(0.1)
    function = jax.tree_util.Partial(lambda w, key: Scale(w).init(key), width)
    assert_same_bits(run(params=Scale(width).init), run(params=function))


class Linear(eqx.Module):
    w: jax.Array
    b: jax.Array

    def __call__(self, x):
        return x @ self.w + self.b


def module_likelihood(model, batch):
    return -0.5 * (batch["y"] - model(batch["x"])) ** 2


def module_prior(model):
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(model))


def test_callable_modules_are_parameters():
    """An equinox module that can be called and holds arrays is a position, NumPy's leaves too."""
    target = Posterior(module_likelihood, module_prior, data_size=N)
    kernel = sgmcmc.sgld(target, 0.01)
    one = run(kernel, params=Linear(PARAMS["w"], PARAMS["b"]))
    other = run(kernel, params=Linear(np.asarray(PARAMS["w"]), np.asarray(PARAMS["b"])))
    assert isinstance(one.draws, Linear)
    assert_same_bits(one, other)


def test_python_floats_are_parameters():
    """Leaves may be Python's floats; they become arrays of the default dtype."""
    target = Posterior.from_log_density(lambda p: -0.5 * p["a"] ** 2)
    made = sgmcmc.sample(
        jax.random.key(SEED),
        sgmcmc.sgld(target, 0.1),
        {"a": 1.0},
        num_burnin=0,
        num_samples=3,
        progress=False,
    )
    assert made.draws["a"].shape == (4, 3)


def norms(params):
    return {"norm": jnp.sum(params["w"] ** 2), "big": params["b"] > 0, "one": 1.0}


def test_collect_keeps_what_was_asked_for():
    """True: all; False: nothing; names: those leaves; a function: what it makes of each draw."""
    everything = run()
    assert set(everything.draws) == {"w", "b"}
    assert run(collect=False).draws == ()
    named = run(collect=["w"])
    assert set(named.draws) == {"w"}
    np.testing.assert_array_equal(named.draws["w"], everything.draws["w"])
    made = run(collect=norms, chain_method="map")
    wanted = np.sum(everything.draws["w"] ** 2, -1)
    np.testing.assert_allclose(made.draws["norm"], wanted, rtol=1e-4)
    np.testing.assert_array_equal(made.draws["big"], everything.draws["b"] > 0)
    np.testing.assert_array_equal(made.draws["one"], 1)


def test_draws_keep_the_parameters_dtype():
    """A position of half precision stays one; energies and weights are float32."""
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    made = run(params=params, num_samples=3)
    assert made.draws["w"].dtype == jnp.bfloat16
    assert made.info.energy.dtype == np.float32
    assert np.isfinite(np.asarray(made.draws["w"], np.float32)).all()


def test_float64_runs_in_float64():
    """Under x64 a float64 position is sampled in float64 throughout."""
    with jax.enable_x64(True):
        target = Posterior(log_likelihood, log_prior, data_size=N)
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), PARAMS)
        made = run(sgmcmc.baoab(target, 0.05), params=params, num_samples=3)
        assert made.draws["w"].dtype == np.float64
        assert made.info.energy.dtype == np.float64
