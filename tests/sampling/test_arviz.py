"""`to_arviz`: no leaf is lost, and ArviZ's own functions take what it returns, whichever ArviZ."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

import sgmcmc
from sgmcmc import Posterior, diagnostics

RNG = np.random.default_rng(0)
SIZE, NOISE = 30, 0.5
Y = (1 + NOISE * RNG.normal(size=SIZE)).astype(np.float32)


def log_likelihood(params, y):
    return jax.scipy.stats.norm.logpdf(y, params["m"]["of"], NOISE)


def log_prior(params):
    return -0.5 * jnp.sum(params["m"]["of"] ** 2) - 0.5 * jnp.sum(params["free"] ** 2)


POSTERIOR = Posterior(log_likelihood, log_prior, data_size=SIZE)


def made(draws, weights=None):
    """A run whose draws [chain, draw, …] are given."""
    shape = jax.tree.leaves(draws)[0].shape[:2]
    run = sgmcmc.sample(
        jax.random.key(0), sgmcmc.sgld(POSTERIOR, 1e-3),
        {"m": {"of": jnp.zeros(())}, "free": jnp.zeros(2)}, Y,
        num_chains=2, num_burnin=0, num_samples=2, progress=False, chain_method="vmap",
    )  # fmt: skip
    info = jax.tree.map(lambda x: np.resize(x, shape), run.info)
    weights = np.ones(shape) if weights is None else weights
    return dataclasses.replace(run, draws=draws, weights=weights, info=info)


def exact_draws(chains=4, draws=1000):
    """Independent draws of the posterior, m ~ N(Σy/(N + σ²), σ²/(N + σ²))."""
    precision = SIZE / NOISE**2 + 1
    m = Y.sum() / NOISE**2 / precision + RNG.normal(size=(chains, draws)) / np.sqrt(precision)
    free = RNG.normal(size=(chains, draws, 2))
    return {"m": {"of": m.astype(np.float32)}, "free": free.astype(np.float32)}


def exact_loo():
    """Σ_i log p(y_i | y without i): normals about the mean of the others."""
    precision = (SIZE - 1) / NOISE**2 + 1
    mean, variance = (Y.sum() - Y) / NOISE**2 / precision, NOISE**2 + 1 / precision
    return float(np.sum(-0.5 * np.log(2 * np.pi * variance) - (Y - mean) ** 2 / 2 / variance))


def predicted(params, y, key):
    return params["m"]["of"] + NOISE * jax.random.normal(key, y.shape)


@pytest.fixture(scope="module")
def everything():
    """(the run, what `to_arviz` makes of it with all groups)."""
    run = made(exact_draws())
    return run, run.to_arviz(
        posterior=POSTERIOR, data=Y, predictive=predicted, key=jax.random.key(1), observed=Y,
        dims={"free": ["feature"], "y": ["obs"]}, coords={"feature": ["left", "right"]},
    )  # fmt: skip


def test_arviz_takes_it(everything):
    """`summary`, `ess`, `loo`, `plot_trace` and `plot_forest` of the ArviZ that is installed.

    Its leave-one-out density is the closed form's within .1, four times what 4,000 draws leave.
    """
    run, tree = everything
    az = pytest.importorskip("arviz")
    pytest.importorskip("matplotlib").use("Agg")
    table = az.summary(tree)
    assert set(table.index) == {"m.of", "free[left]", "free[right]"}
    ess = az.ess(tree)
    ess = ess.get("posterior", ess)
    expected = diagnostics.summary(run).table["ess_bulk"]["m/of"]
    assert float(ess["m.of"]) == pytest.approx(expected, rel=1e-6)
    loo = az.loo(tree)
    elpd = loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo
    assert elpd == pytest.approx(exact_loo(), abs=0.1)
    az.plot_trace(tree)
    az.plot_forest(tree)


def test_groups_by_hand(everything):
    """The likelihood of every draw and example; predictions about it; what was observed."""
    run, tree = everything
    found = tree["log_likelihood"]["y"]
    assert found.dims == ("chain", "draw", "obs")
    z = (Y - run.draws["m"]["of"][..., None]) / NOISE
    exact = -0.5 * z**2 - np.log(NOISE * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
    fresh = np.asarray(tree["posterior_predictive"]["y"]) - run.draws["m"]["of"][..., None]
    # 120,000 normals: an error of .2%, held to 5 of them.
    assert fresh.std() == pytest.approx(NOISE, rel=0.01)
    assert abs(np.corrcoef(fresh[0, :-1, 0], fresh[0, 1:, 0])[0, 1]) < 0.15
    np.testing.assert_array_equal(tree["observed_data"]["y"], Y)
    assert list(tree["posterior"]["feature"].values) == ["left", "right"]


def test_both_kinds(everything):
    run, _ = everything
    tree = run.to_arviz(kind="DataTree")
    assert isinstance(tree, xarray.DataTree)
    same = diagnostics.summary(run).table
    for each in (tree, run.to_arviz()):
        table = diagnostics.summary(each).table
        assert list(table.index) == ["free[0]", "free[1]", "m.of"]
        np.testing.assert_array_equal(table["ess_bulk"], same["ess_bulk"])


def test_blocks_of_examples_and_predictions_without_a_key(monkeypatch):
    run = made(exact_draws(2, 5))
    whole = run.to_arviz(posterior=POSTERIOR, data=Y, kind="DataTree")
    monkeypatch.setattr("sgmcmc.sampling._arviz.ROWS", 7)
    parts = run.to_arviz(
        posterior=POSTERIOR, data=Y, kind="DataTree",
        predictive=lambda p, y: {"mean": p["m"]["of"], "residual": y - p["m"]["of"]},
        transform=lambda p: {"square": p["m"]["of"] ** 2},
    )  # fmt: skip
    a, b = (t["log_likelihood"]["y"] for t in (whole, parts))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert set(parts["posterior_predictive"].data_vars) == {"mean", "residual"}
    np.testing.assert_allclose(parts["posterior"]["square"], run.draws["m"]["of"] ** 2, rtol=1e-6)


def leaf(place, *shape):
    return RNG.normal(size=(2, 6, *shape)).astype(np.float32) + place


CLASHES = {
    "draw": {"draw": leaf(1, 3), "x": leaf(2)},
    "chain": {"chain": leaf(1), "x": leaf(2, 2)},
    "x_dim_0": {"x": leaf(1, 2), "x_dim_0": leaf(2)},
    "a.b": {"a": {"b": leaf(1)}, "a.b": leaf(2)},
    "a/b": {"a": {"b": leaf(1, 2)}, "a/b": leaf(2)},
    "all": {"draw": leaf(1, 2), "draw_": leaf(2), "draw__dim_0": leaf(3), "a": {"b": leaf(4)},
            "a.b": leaf(5), "a/b": leaf(6), "a.b_": leaf(7)},
    "dims": {"feature": leaf(1), "w": leaf(2, 2)},
}  # fmt: skip


@pytest.mark.parametrize("name", CLASHES)
def test_no_leaf_is_lost(name, tmp_path):
    """As many variables as leaves, each with its own values, and a note on new names."""
    draws = CLASHES[name]
    dims = {"w": ["feature"]} if name == "dims" else None
    tree = made(draws).to_arviz(dims=dims)
    found = tree["posterior"]
    leaves = jax.tree.leaves(draws)
    assert len(found.data_vars) == len(leaves)
    for leaf, variable in zip(leaves, found.data_vars.values(), strict=True):
        np.testing.assert_array_equal(leaf, variable)
    assert " is " in tree.attrs["renamed"]
    assert not set(found.data_vars) & set(found.dims)
    tree.to_netcdf(tmp_path / "tree.nc")


def test_types_that_netcdf_has(tmp_path):
    """bfloat16 and float16 come as float32, truth values as 0 and 1."""
    draws = {
        "half": leaf(0, 2).astype(jnp.bfloat16),
        "short": leaf(0).astype(np.float16),
        "on": leaf(0) > 0,
    }
    tree = made(draws).to_arviz(kind="DataTree")
    kinds = {name: x.dtype for name, x in tree["posterior"].data_vars.items()}
    assert kinds == {"half": np.float32, "on": np.int8, "short": np.float32}
    np.testing.assert_array_equal(tree["posterior"]["half"], draws["half"].astype(np.float32))
    tree.to_netcdf(tmp_path / "tree.nc")
    assert float(xarray.open_datatree(tmp_path / "tree.nc")["posterior"]["on"].mean()) == (
        pytest.approx(draws["on"].mean())
    )


def test_weighted_draws_have_no_loo_until_they_are_resampled():
    draws = exact_draws(2, 50)
    run = made(draws, weights=RNG.gamma(2, size=(2, 50)))
    with pytest.raises(ValueError, match="unequal weights, which ArviZ's loo does not read"):
        run.to_arviz(posterior=POSTERIOR, data=Y)
    tree = run.resampled(jax.random.key(0)).to_arviz(posterior=POSTERIOR, data=Y)
    assert tree["log_likelihood"]["y"].shape == (1, 100, SIZE)


def test_bad_input():
    run = made(exact_draws(2, 5))
    with pytest.raises(ValueError, match=r"dims: got 'v'; expected some of free, m\.of"):
        run.to_arviz(dims={"v": ["a"]})
    with pytest.raises(ValueError, match="dims: free has 1 dimensions beside chain and draw"):
        run.to_arviz(dims={"free": ["a", "b"]})
    with pytest.raises(ValueError, match="kind: got 'tree'"):
        run.to_arviz(kind="tree")
    with pytest.raises(ValueError, match="data: a log likelihood of each example needs"):
        run.to_arviz(posterior=POSTERIOR)
    with pytest.raises(TypeError, match="posterior: got function; expected a Posterior"):
        run.to_arviz(posterior=log_likelihood, data=Y)
    with pytest.raises(TypeError, match="transform: it returned"):
        run.to_arviz(transform=lambda p: p["m"]["of"])
