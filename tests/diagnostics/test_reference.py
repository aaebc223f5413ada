"""Comparison with reference draws: exact cases, calibrated errors, weights, and clear refusals."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from sgmcmc.diagnostics import compare_to_reference, statistics
from sgmcmc.diagnostics.convergence import _reference as reference

RNG = np.random.default_rng(0)
NORMALS = RNG.normal(size=(4, 500, 2))


def test_a_run_against_itself_moved_and_scaled(make_run):
    """f → a + b f: mean error (a + (b − 1) m)/s and sd ratio |b|, to rounding."""
    shift, scale = np.array([0.3, -1.0]), np.array([1.2, -0.5])
    found = compare_to_reference(make_run({"x": shift + scale * NORMALS}), {"x": NORMALS}).table
    m, s = NORMALS.mean(axis=(0, 1)), NORMALS.std(axis=(0, 1), ddof=1)
    np.testing.assert_allclose(found["mean_error"], (shift + (scale - 1) * m) / s, rtol=1e-10)
    np.testing.assert_allclose(found["sd_ratio"], np.abs(scale), rtol=1e-12)
    np.testing.assert_allclose(found["reference_mean"], m, rtol=1e-12)
    np.testing.assert_allclose(found["reference_sd"], s, rtol=1e-12)


def test_rows_come_in_the_order_of_the_reference(make_run):
    run = make_run({"a": NORMALS[..., 0], "b": NORMALS, "unused": NORMALS[..., 1]})
    found = compare_to_reference(run, {"b": NORMALS, "a": NORMALS[..., 0]})
    assert tuple(found.table.index) == ("b[0]", "b[1]", "a")
    assert found.notes == ("not in the reference: unused",)
    assert (found.num_chains, found.num_samples) == (4, 500)


def test_reference_with_and_without_chains(make_run):
    """Chains of the reference change its Monte Carlo error, and neither mean nor sd."""
    run = make_run({"x": NORMALS})
    split = compare_to_reference(run, {"x": NORMALS}).table
    whole = compare_to_reference(run, {"x": NORMALS.reshape(-1, 2)}).table
    for column in ("mean_error", "sd_ratio"):
        np.testing.assert_allclose(split[column], whole[column], atol=1e-12)


def test_one_array_is_called_theta(make_run):
    found = compare_to_reference(make_run(NORMALS), {"theta": NORMALS})
    assert tuple(found.table.index) == ("theta[0]", "theta[1]")


def to_scale(params):
    return {"scale": jnp.exp(params["log_scale"]), "pair": jnp.stack([params["a"], -params["a"]])}


def test_transform_maps_every_draw(make_run):
    a, log_scale = NORMALS[..., 0].astype(np.float32), NORMALS[..., 1].astype(np.float32)
    run = make_run({"a": a, "log_scale": log_scale})
    draws = {"scale": np.exp(log_scale), "pair": np.stack([a, -a], axis=-1)}
    found = compare_to_reference(run, draws, to_scale)
    assert tuple(found.table.index) == ("scale", "pair[0]", "pair[1]")
    np.testing.assert_allclose(found.table["mean_error"], 0, atol=1e-6)
    np.testing.assert_allclose(found.table["sd_ratio"], 1, atol=1e-6)


def autoregressive(coefficient, shape):
    """Stationary N(0, 1) chains."""
    noise = RNG.normal(size=shape)
    x = np.empty(shape)
    x[:, 0] = noise[:, 0]
    for t in range(1, shape[1]):
        x[:, t] = coefficient * x[:, t - 1] + np.sqrt(1 - coefficient**2) * noise[:, t]
    return x


def check_calibration(compare, make_run, weights):
    """Errors over their MCSE have mean square 1, over 200 independent quantities.

    A χ² with 200 degrees of freedom over 200 is within 1 ± 0.5 except with probability 2e-6.
    The run's draws are AR(1) with coefficient ½.
    """
    run = make_run({"x": autoregressive(0.5, (4, 1000, 200))}, weights)
    found = compare(run, {"x": RNG.normal(size=(2000, 200))}).table
    for error, mcse in (
        (found["mean_error"], found["mean_error_mcse"]),
        (found["sd_ratio"] - 1, found["sd_ratio_mcse"]),
    ):
        assert 0.5 < np.mean((error / mcse) ** 2) < 1.5


@pytest.mark.parametrize("weighted", [False, True])
def test_monte_carlo_errors_are_calibrated(make_run, weighted):
    """Also under weights that have nothing to do with the values, which make errors larger."""
    weights = RNG.exponential(size=(4, 1000)) if weighted else None
    check_calibration(compare_to_reference, make_run, weights)


def check_weights(compare, make_run):
    """Draws 0, 1, 2, 3, … of weight 1, 0, 1, 0, …: as the even ones alone."""
    x = np.tile(np.arange(100.0), (4, 1))
    weights = np.tile([1.0, 0.0], (4, 50))
    even = x[:, ::2].reshape(-1)
    found = compare(make_run({"x": x}, weights), {"x": even}).table
    np.testing.assert_allclose(found["mean_error"], 0, atol=1e-12)
    np.testing.assert_allclose(found["sd_ratio"], 1, rtol=1e-12)


def test_weights_count(make_run):
    check_weights(compare_to_reference, make_run)
    check_correlated_weights(compare_to_reference, make_run)


def check_correlated_weights(compare, make_run):
    """N(0, 1) reweighted to N(0.5, 0.8²): within 5 Monte Carlo errors of it (1e-6)."""
    x = RNG.normal(size=(4, 5000))
    weights = np.exp(x**2 / 2 - (x - 0.5) ** 2 / (2 * 0.8**2))
    found = compare(make_run({"x": x}, weights), {"x": RNG.normal(0.5, 0.8, size=5000)}).table
    assert abs(found["mean_error"].iloc[0]) < 5 * found["mean_error_mcse"].iloc[0] < 0.2
    assert abs(found["sd_ratio"].iloc[0] - 1) < 5 * found["sd_ratio_mcse"].iloc[0] < 0.2


def test_defect_weights_ignored(make_run):
    def unweighted(run, draws):
        return compare_to_reference(run._replace(weights=np.ones_like(run.weights)), draws)

    for check in (check_weights, check_correlated_weights):
        with pytest.raises(AssertionError):
            check(unweighted, make_run)


def check_chains_apart(make_run):
    """Four chains that stand still about −3, −1, 1, 3: the spread between them counts."""
    x = NORMALS[..., 0] * 0.1 + np.array([-3.0, -1.0, 1.0, 3.0])[:, None]
    found = compare_to_reference(make_run({"x": x}), {"x": x.reshape(-1)})
    np.testing.assert_allclose(found.table["sd_ratio"], 1, rtol=1e-12)


def test_spread_between_chains_counts(make_run):
    check_chains_apart(make_run)


def test_defect_scale_along_the_wrong_axis(make_run, monkeypatch):
    def within(values, weights):
        return statistics(values, weights) | {"sd": values.std(axis=1, ddof=1).mean(axis=0)}

    monkeypatch.setattr(reference, "statistics", within)
    with pytest.raises(AssertionError):
        check_chains_apart(make_run)


def test_defect_error_of_the_variance_taken_for_that_of_the_scale(make_run, monkeypatch):
    """se(s²) in the place of se(s²)/(2s): errors twice too large."""

    def wrong(values, weights):
        out = right(values, weights)
        out[3] *= 2 * out[1]
        return out

    right = reference._moments
    monkeypatch.setattr(reference, "_moments", wrong)
    with pytest.raises(AssertionError):
        check_calibration(compare_to_reference, make_run, None)


def test_passed_and_worst(make_run):
    """The limits themselves pass; a NaN does not."""
    run = make_run({"x": NORMALS * [1.0, 1.05] + [0.05, 0.0]})
    found = compare_to_reference(run, {"x": NORMALS})
    assert found.passed()
    assert not found.passed(mean=0.01)
    assert not found.passed(sd=(0.98, 1.02))
    assert not found.passed(mcse=0.01)
    ratio = found.table["sd_ratio"].max()
    assert found.passed(sd=(0.9, float(ratio)))
    assert found.worst["mean_error"][0] == "x[0]"
    assert found.worst["sd_ratio"] == ("x[1]", ratio)
    broken = NORMALS.copy()
    broken[0, 0, 1] = np.nan
    broken = compare_to_reference(make_run({"x": broken}), {"x": NORMALS})
    assert not broken.passed()
    assert broken.worst["mean_error"][0] == "x[1]"


def test_dropped_chains_are_told(make_run):
    found = compare_to_reference(make_run({"x": NORMALS}, stopped={1: 17}), {"x": NORMALS})
    assert found.num_chains == 3
    assert "chain 1 at step 17" in repr(found)


def test_what_is_shown(make_run):
    found = compare_to_reference(make_run({"<x>": NORMALS}), {"<x>": NORMALS})
    assert "4 chains × 500 draws" in repr(found)
    assert "worst mean_error" in repr(found)
    assert "&lt;x&gt;[1]" in found._repr_html_()
    as_dict = json.loads(json.dumps(found.to_dict()))
    assert as_dict["<x>[1]"]["sd_ratio"] == found.table["sd_ratio"].iloc[1]
    with pytest.raises(ValueError, match="read-only"):
        found.table["mean"].to_numpy()[0] = 1.0


def test_takes_an_arviz_object():
    from arviz_base import from_dict

    weights = np.ones((4, 500))
    tree = from_dict({"posterior": {"x": NORMALS}, "sample_stats": {"weight": weights}})
    found = compare_to_reference(tree, {"x": NORMALS})
    np.testing.assert_array_equal(found.table["sd_ratio"], 1)


BAD = [
    ({}, ValueError, "draws: got an empty"),
    ([1.0], TypeError, "draws: got list"),
    ({"y": NORMALS}, ValueError, "the run has no 'y'; it has x"),
    ({"x": NORMALS[..., 0]}, ValueError, r"x has shape \(4, 500\).*\[draw, 2\]"),
    ({"x": NORMALS[0, :, :1]}, ValueError, r"x has shape \(500, 1\)"),
    ({"x": NORMALS[None]}, ValueError, r"x has shape \(1, 4, 500, 2\)"),
    ({"x": np.where(NORMALS > 2, np.inf, NORMALS)}, ValueError, "x has values that are not finite"),
    ({"x": NORMALS * [0.0, 1.0]}, ValueError, "x has an entry that never changes"),
    ({"x": NORMALS.astype(str)}, TypeError, "x is <U32; expected numbers"),
    ({"x": NORMALS[:, :3]}, ValueError, "x has 3 draws a chain; expected at least 4"),
]


@pytest.mark.parametrize(("draws", "error", "message"), BAD)
def test_bad_references_are_refused(make_run, draws, error, message):
    with pytest.raises(error, match=message):
        compare_to_reference(make_run({"x": NORMALS}), draws)


def test_bad_runs_and_transforms_are_refused(make_run):
    with pytest.raises(TypeError, match="run: got int"):
        compare_to_reference(3, {"x": NORMALS})
    with pytest.raises(TypeError, match="transform: it returned ndarray"):
        compare_to_reference(make_run({"x": NORMALS}), {"x": NORMALS}, lambda params: params["x"])
    with pytest.raises(TypeError, match="transform: got int"):
        compare_to_reference(make_run({"x": NORMALS}), {"x": NORMALS}, 3)


def test_booleans_and_paths_that_read_alike(make_run):
    """Truth values count as 0 and 1; of two leaves called a/b each is compared."""
    on = NORMALS[..., 0] > 0
    found = compare_to_reference(make_run({"on": on}), {"on": on})
    assert found.table["mean"]["on"] == found.table["reference_mean"]["on"] == on.mean()
    moved = compare_to_reference(
        make_run({"x": NORMALS[..., 0]}), {"on": on}, lambda p: {"on": p["x"] > 0}
    )
    assert moved.table["sd_ratio"]["on"] == 1
    run = make_run({"x": NORMALS})._replace(draws={"a": {"b": NORMALS}, "a/b": NORMALS + 1})
    found = compare_to_reference(run, {"['a/b']": NORMALS + 1})
    assert found.notes == ("not in the reference: ['a']['b']",)
    np.testing.assert_allclose(found.table["mean_error"], 0, atol=1e-12)
