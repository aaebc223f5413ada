"""Runs sliced and joined: the same draws in other runs, and what cannot be joined is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import Posterior, diagnostics
from tests.compare import assert_same_tree


def log_density(stiffness, x):
    return -0.5 * stiffness * jnp.sum(x["a"] ** 2)


def sgld(step_size, stiffness=1.0):
    target = Posterior.from_log_density(Partial(log_density, jnp.float32(stiffness)))
    return sgmcmc.sgld(target, step_size)


KERNEL = sgld(0.1)
START = {"a": jnp.zeros(2)}


def run(seed, kernel=KERNEL, params=START, **options):
    options = {
        "num_chains": 3, "num_burnin": 2, "num_samples": 12, "progress": False,
        "chain_method": "vmap", **options,
    }  # fmt: skip
    return sgmcmc.sample(jax.random.key(seed), kernel, params, **options)


@pytest.fixture(scope="module")
def one():
    return dataclasses.replace(run(1), reduced={"m": np.zeros(2)})


@pytest.fixture(scope="module")
def other():
    return run(2)


def test_a_part_is_a_run(one):
    part = one.sel(chain=[0, 2], draw=slice(4, None, 2))
    assert (part.num_chains, part.num_samples) == (2, 4)
    np.testing.assert_array_equal(part.draws["a"], one.draws["a"][[0, 2], 4::2])
    np.testing.assert_array_equal(part.info.energy, one.info.energy[[0, 2], 4::2])
    assert part.info.acceptance is None
    assert part.gradient_evaluations == pytest.approx(one.gradient_evaluations * 2 / 3)
    assert (part.reduced, part.config["num_chains"], part.config["num_samples"]) == ({}, 2, 4)
    table = diagnostics.summary(part).table
    expected = diagnostics.statistics(one.draws["a"][[0, 2], 4::2])
    np.testing.assert_array_equal(table["ess_bulk"], expected["ess_bulk"])
    assert pandas.DataFrame(table, index=["a[1]"]).loc["a[1]", "mean"] == table["mean"]["a[1]"]
    assert "2 × 4 of 4" in repr(part)
    assert part.to_arviz(kind="DataTree")["posterior"]["a"].shape == (2, 4, 2)
    assert one.sel(chain=1).draws["a"].shape == (1, 12, 2)
    assert one.sel(draw=-1).weights.shape == (3, 1)
    assert_same_tree(one.sel().draws, one.draws)
    assert one.sel(chain=np.array([True, False, True])).num_chains == 2


def test_parts_joined_are_the_whole(one):
    for dim, parts in {
        "chain": [one.sel(chain=[0]), one.sel(chain=slice(1, 3))],
        "draw": [one.sel(draw=slice(5)), one.sel(draw=slice(5, None))],
    }.items():
        whole = sgmcmc.concat(parts, dim)
        assert_same_tree(
            (whole.draws, whole.weights, whole.info), (one.draws, one.weights, one.info)
        )
        assert whole.num_chains == 3


def test_runs_side_by_side_and_one_after_another(one, other):
    wide, long = sgmcmc.concat([one, other]), sgmcmc.concat([one, other], dim="draw")
    assert wide.draws["a"].shape == (6, 12, 2)
    assert long.draws["a"].shape == (3, 24, 2)
    np.testing.assert_array_equal(wide.draws["a"][3:], other.draws["a"])
    np.testing.assert_array_equal(long.draws["a"][:, 12:], other.draws["a"])
    assert wide.gradient_evaluations == one.gradient_evaluations + other.gradient_evaluations
    assert (wide.num_steps, long.num_steps) == (14, 28)
    table = diagnostics.summary(wide).table
    both = np.concatenate([one.draws["a"], other.draws["a"]])
    np.testing.assert_array_equal(table["r_hat"], diagnostics.statistics(both)["r_hat"])
    with pytest.raises(ValueError, match="is there already, from the same key"):
        sgmcmc.concat([wide, other])


def test_it_is_saved_and_never_resumed(one, other, tmp_path):
    for made in (one.sel(chain=[0]), sgmcmc.concat([one, other])):
        loaded = sgmcmc.load(made.save(tmp_path / "run"))
        np.testing.assert_array_equal(loaded.draws["a"], made.draws["a"])
        for each in (made, loaded):
            with pytest.raises(ValueError, match="so there are no chains to go on with"):
                each.resume(5, kernel=KERNEL)
        again = sgmcmc.concat([loaded.sel(draw=slice(6)), made.sel(draw=slice(6, None))], "draw")
        assert_same_tree(again.draws, made.draws)


def test_copies_are_refused(one):
    for dim in ("chain", "draw"):
        with pytest.raises(ValueError, match="is there already, from the same key"):
            sgmcmc.concat([one, one], dim)
    longer = one.resume(3, progress=False)
    with pytest.raises(ValueError, match=r"run\.resume adds"):
        sgmcmc.concat([one, longer], "draw")
    assert_same_tree(
        sgmcmc.concat([one, longer.sel(draw=slice(12, None))], "draw").draws, longer.draws
    )


def test_what_differs_is_named(one, other):
    with pytest.raises(ValueError, match=r"runs: step_size is 0\.1.* of run 0 and 0\.2.* of run 1"):
        sgmcmc.concat([one, run(3, sgld(0.2))])
    with pytest.raises(ValueError, match="runs: thinning is 1 of run 0 and 2 of run 1"):
        sgmcmc.concat([one, run(3, thinning=2)])
    with pytest.raises(ValueError, match="runs: run 0 has 12 draws and run 1 has 6"):
        sgmcmc.concat([one, other.sel(draw=slice(6))])
    with pytest.raises(ValueError, match="runs: run 0 has 3 chains and run 1 has 1"):
        sgmcmc.concat([one, other.sel(chain=0)], "draw")
    with pytest.raises(ValueError, match="by another kernel than run 0"):
        sgmcmc.concat([one, run(3, sgld(0.1, stiffness=2.0))])
    with pytest.raises(ValueError, match="other names or shapes"):
        sgmcmc.concat([one, dataclasses.replace(other, draws={"b": other.draws["a"]})])
    with pytest.raises(TypeError, match="runs: got Run; expected a list of runs"):
        sgmcmc.concat(one)
    with pytest.raises(ValueError, match="dim: got 'time'"):
        sgmcmc.concat([one, other], "time")


def test_bad_positions(one):
    with pytest.raises(IndexError, match=r"chain: got \[5\]; positions are 0 … 2"):
        one.sel(chain=[5])
    with pytest.raises(ValueError, match=r"draw: .* takes none of the 12"):
        one.sel(draw=slice(20, None))
    with pytest.raises(ValueError, match=r"chain: got \[1, 1\], which takes one twice"):
        one.sel(chain=[1, 1])


def test_draws_before_a_chain_stopped_are_sound(other):
    """A chain that stops is dropped by diagnostics unless only earlier draws are taken."""
    draws, weights, finite = other.draws["a"].copy(), other.weights.copy(), other.info.finite.copy()
    draws[1, 8:], weights[1, 8:], finite[1, 8:] = np.nan, 0, False
    info = other.info._replace(finite=finite)
    lost = dataclasses.replace(
        other, draws={"a": draws}, weights=weights, info=info, stopped={1: 10}
    )
    assert lost.sel(chain=[1, 0]).stopped == {0: 10}
    assert lost.sel(chain=[0, 2]).stopped == {}
    assert lost.sel(draw=slice(9)).stopped == {1: 10}
    assert lost.sel(draw=slice(7)).stopped == {}
    joined = sgmcmc.concat([lost.sel(chain=0), lost.sel(chain=[1, 2])])
    assert joined.stopped == lost.stopped
    assert "dropped 1 of 3 chains, stopped: chain 1" in repr(diagnostics.summary(joined))
