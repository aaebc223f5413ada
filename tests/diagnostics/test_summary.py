"""The summary of a run: rows, names, weights, dropped chains, and nothing left out in silence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from sgmcmc.diagnostics import statistics, summary

RNG = np.random.default_rng(0)
DRAWS = {"bias": RNG.normal(size=(4, 50, 2)), "weight": RNG.normal(size=(4, 50, 2, 3)) + 1}


def names(result):
    return tuple(result.table.index)


def predict(params, x):
    return x @ params["weight"] + params["bias"].sum()


def test_rows_are_the_scalars_by_name(make_run):
    result = summary(make_run(DRAWS))
    assert list(result.table.index[:3]) == ["bias[0]", "bias[1]", "weight[0,0]"]
    assert result.table.index[-1] == "weight[1,2]"
    np.testing.assert_array_equal(
        result.table["mcse_mean"].iloc[-1], statistics(DRAWS["weight"][..., 1, 2])["mcse_mean"]
    )
    assert (result.num_chains, result.num_samples) == (4, 50)


def test_rates(make_run):
    result = summary(make_run(DRAWS, wall_time=2.0, gradient_evaluations=1000.0))
    np.testing.assert_allclose(result.table["ess_per_second"], result.table["ess_bulk"] / 2)
    np.testing.assert_allclose(result.table["ess_per_gradient"], result.table["ess_bulk"] / 1000)
    bare = summary(make_run(DRAWS, wall_time=None, gradient_evaluations=None))
    assert "ess_per_second" not in bare.table


def test_a_bare_array_and_nested_trees(make_run):
    assert names(summary(make_run(DRAWS["bias"]))) == ("theta[0]", "theta[1]")
    nested = {"layers": ({"w": DRAWS["bias"]}, {"w": DRAWS["bias"][..., 0]})}
    run = make_run(DRAWS)._replace(draws=nested)
    assert names(summary(run)) == ("layers/0/w[0]", "layers/0/w[1]", "layers/1/w")
    assert names(summary(run, ["layers/1"])) == ("layers/1/w",)


def test_var_names(make_run):
    assert names(summary(make_run(DRAWS), "bias")) == ("bias[0]", "bias[1]")
    with pytest.raises(ValueError, match="var_names: got 'wait'; expected some of bias, weight"):
        summary(make_run(DRAWS), ["wait"])


def test_functions(make_run):
    def norm2(params):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    result = summary(make_run(DRAWS), functions={"norm2": norm2, "bias": lambda p: p["bias"]})
    assert names(result) == ("norm2", "bias[0]", "bias[1]")
    values = sum((v**2).sum(axis=tuple(range(2, v.ndim))) for v in DRAWS.values())
    np.testing.assert_allclose(result.table["mean"].iloc[0], values.mean(), rtol=1e-5)


def test_predictions_are_probabilities(make_run):
    x, y = RNG.normal(size=(5, 2)).astype(np.float32), np.array([0, 2, 1, 1, 0])
    run = make_run(DRAWS)
    result = summary(run, predict=predict, x=x, y=y)
    assert names(result) == tuple(f"prediction[{i}]" for i in range(5))
    logits = np.einsum("mi,cdik->cdmk", x, DRAWS["weight"]) + DRAWS["bias"].sum(-1)[..., None, None]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(result.table["mean"], p.mean((0, 1))[np.arange(5), y], rtol=1e-4)
    every = summary(run, predict=predict, x=x)
    assert names(every)[:4] == (*(f"prediction[0,{k}]" for k in range(3)), "prediction[1,0]")
    np.testing.assert_allclose(every.table["mean"], p.mean((0, 1)).ravel(), rtol=1e-4)


def test_predictions_of_a_regression_are_means(make_run):
    def mean_and_scale(params, x):
        mean = x @ params["bias"]
        return mean, jnp.ones_like(mean)

    x = np.eye(2, dtype=np.float32)
    result = summary(make_run(DRAWS), predict=mean_and_scale, x=x)
    np.testing.assert_allclose(result.table["mean"], DRAWS["bias"].mean((0, 1)), rtol=1e-4)


def one_column(params, x):
    return x @ params["weight"][:, :1] + params["bias"][0]


def test_one_column_is_a_value_or_a_logit(make_run):
    """(m, 1) is refused with both ways out; by `kind` it is a mean, or σ of a logit."""
    x, y = np.eye(2, dtype=np.float32), np.array([0, 1])
    run = make_run(DRAWS)
    with pytest.raises(ValueError, match=r'got shape \(2, 1\).*"values".*"logits"') as error:
        summary(run, predict=one_column, x=x)
    assert len(str(error.value)) < 300
    values = DRAWS["weight"][..., 0] + DRAWS["bias"][..., :1]
    shown = summary(run, predict=one_column, x=x, kind="values").table
    np.testing.assert_allclose(shown["mean"], values.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(shown["sd"], values.std((0, 1)), rtol=0.02)
    sigma = 1 / (1 + np.exp(-values))
    shown = summary(run, predict=one_column, x=x, kind="logits").table
    np.testing.assert_allclose(shown["mean"], sigma.mean((0, 1)), rtol=1e-4)
    of_y = summary(run, predict=one_column, x=x, y=y, kind="logits").table
    wanted = np.stack([1 - sigma[..., 0], sigma[..., 1]], axis=-1).mean((0, 1))
    np.testing.assert_allclose(of_y["mean"], wanted, rtol=1e-4)
    with pytest.raises(ValueError, match="kind: got 'means'"):
        summary(run, predict=one_column, x=x, kind="means")


def test_three_means_are_not_three_logits_in_silence(make_run):
    """A two-axis array is read as logits, and the notes say so; by `kind` its values are listed."""
    x = RNG.normal(size=(4, 2)).astype(np.float32)
    assert "(4, 3) are read as logits" in repr(summary(make_run(DRAWS), predict=predict, x=x))
    means = summary(make_run(DRAWS), predict=predict, x=x, kind="values")
    values = np.einsum("mi,cdik->cdmk", x, DRAWS["weight"]) + DRAWS["bias"].sum(-1)[..., None, None]
    np.testing.assert_allclose(means.table["mean"], values.mean((0, 1)).ravel(), rtol=1e-4)
    assert means.notes == ()


def test_predictions_agree_where_permuted_units_do_not(make_run):
    """Chains in mirrored modes: R̂ of the weight is large, that of its prediction is not."""
    w = np.abs(RNG.normal(size=(4, 200, 1))) + 1
    w[::2] *= -1
    run = make_run(w)
    assert summary(run).table["r_hat"].iloc[0] > 1.5

    def even(params, x):
        return x * params**2

    assert summary(run, predict=even, x=np.ones(1)).table["r_hat"].iloc[0] < 1.05


class TestLimit:
    def test_parameters_left_out_are_counted(self, make_run):
        result = summary(make_run(DRAWS), max_rows=4)
        assert names(result) == ("bias[0]", "weight[0,0]", "weight[0,2]", "weight[1,1]")
        assert result.notes == ("4 of 8 parameters, evenly spaced (max_rows)",)
        assert "4 of 8 parameters" in repr(result)
        full = summary(make_run(DRAWS), max_rows=None)
        at = [full.table.index.get_loc(name) for name in names(result)]
        np.testing.assert_array_equal(result.table["mean"], full.table["mean"].iloc[at])
        assert full.notes == ()

    def test_points_left_out_are_counted(self, make_run):
        x = RNG.normal(size=(10, 2)).astype(np.float32)
        result = summary(make_run(DRAWS), predict=predict, x=x, max_rows=6)
        assert [n for n in names(result) if n.endswith(",0]")] == [
            "prediction[0,0]",
            "prediction[5,0]",
        ]
        assert "predictions at 2 of 10 points" in repr(result)


def test_stopped_chains_are_dropped_and_named(make_run):
    draws, weights = DRAWS["bias"].copy(), np.ones((4, 50))
    draws[2, 30:], weights[2, 30:] = np.nan, 0
    result = summary(make_run(draws, weights, stopped={2: 130}))
    assert "dropped 1 of 4 chains, stopped: chain 2 at step 130" in repr(result)
    assert "chain 2 at step 130" in result._repr_html_()
    np.testing.assert_allclose(
        result.table["mean"], statistics(np.delete(draws, 2, axis=0))["mean"]
    )
    unrecorded = summary(make_run(draws, weights))
    assert "stopped: chain 2" in repr(unrecorded)
    weights[:, 30:], draws[:, 30:] = 0, np.nan
    with pytest.raises(ValueError, match="no chain with draws is left; stopped: chain 0"):
        summary(make_run(draws, weights))


def test_weights_are_used_and_reported(make_run):
    weights = RNG.gamma(1, size=(4, 50))
    result = summary(make_run(DRAWS["bias"], weights))
    expected = statistics(DRAWS["bias"], weights)
    for name, column in expected.items():
        np.testing.assert_allclose(result.table[name], column, rtol=1e-12)
    assert "Kish efficiency" in repr(result)


def test_broken_and_constant_quantities_are_reported(make_run):
    draws = DRAWS["weight"].reshape(4, 50, 6).copy()
    draws[..., 0], draws[1, 3, 1] = 1.0, np.inf
    text = repr(summary(make_run(draws)))
    assert "1 quantities have draws that are not finite" in text
    assert "1 quantities never change" in text


def test_text_and_html(make_run):
    result = summary(make_run(RNG.normal(size=(4, 50, 40))))
    text = repr(result)
    assert text.startswith("Summary of 4 chains × 50 draws")
    assert "28 more rows in .table" in text
    assert "worst r_hat" in text
    assert max(len(line) for line in text.splitlines()) <= 110
    assert result._repr_html_().count("<tr>") == 13


def test_it_is_immutable(make_run):
    result = summary(make_run(DRAWS))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.table = None
    with pytest.raises(ValueError, match="read-only"):
        result.table["mean"].to_numpy()[0] = 0


def test_a_datatree_gives_the_same(make_run):
    arviz_base = pytest.importorskip("arviz_base")
    weights = RNG.gamma(5, size=(4, 50))
    tree = arviz_base.from_dict({"posterior": DRAWS, "sample_stats": {"weight": weights}})
    from_tree, from_run = summary(tree), summary(make_run(DRAWS, weights))
    assert names(from_tree) == names(from_run)
    for name, column in from_tree.table.items():
        np.testing.assert_array_equal(column, from_run.table[name])
    assert "ess_per_second" not in from_tree.table
    tree.attrs["sampling_time"] = 2.0
    assert "ess_per_second" in summary(tree).table


def test_bad_input(make_run):
    run = make_run(DRAWS)
    with pytest.raises(TypeError, match="run: got list; expected"):
        summary([1, 2])
    with pytest.raises(ValueError, match="predict, x: give both or neither"):
        summary(run, predict=predict)
    with pytest.raises(ValueError, match="max_rows: got 0"):
        summary(run, max_rows=0)
    with pytest.raises(ValueError, match=r"y: got float64 \(5,\); expected integer labels"):
        summary(run, predict=predict, x=np.zeros((5, 2), np.float32), y=np.zeros(5))
    with pytest.raises(ValueError, match="weights of shape"):
        summary(run._replace(weights=np.ones((4, 49))))
    with pytest.raises(ValueError, match="it holds no draws"):
        summary(run._replace(draws=()))
    with pytest.raises(ValueError, match="got 3 draws a chain"):
        summary(make_run(np.zeros((2, 3))))
    with pytest.raises(TypeError, match=r"functions\['n'\]: got int"):
        summary(run, functions={"n": 3})


def test_booleans_and_integers_are_summarised(make_run):
    """P(m > 0) = Φ(1) = .8413 for m ~ N(1, 1): functions, collected draws, and predictions.

    40,000 independent draws: an error of .0018, held to 4 of them, 1 in 16,000.
    """
    m = np.random.default_rng(4).normal(1, 1, size=(4, 10_000)).astype(np.float32)
    run = make_run({"m": m})
    mean = summary(run, functions={"m > 0": lambda p: p["m"] > 0}).table["mean"]
    assert mean["m > 0"] == pytest.approx(0.8413, abs=0.0073)
    predicted = summary(run, predict=lambda p, x: p["m"] * x > 0, x=np.ones(1, np.float32))
    assert predicted.table["mean"].iloc[0] == mean["m > 0"]
    collected = summary(make_run({"m": m > 0, "n": (m > 0).astype(np.int8), "never": m > 99}))
    assert collected.table["mean"]["m"] == collected.table["mean"]["n"] == mean["m > 0"]
    assert "1 quantities never change" in repr(collected)


def test_leaves_whose_paths_read_alike_are_all_listed(make_run):
    one, other = DRAWS["bias"][..., 0], DRAWS["bias"][..., 1] + 5
    run = make_run(DRAWS)._replace(draws={"a": {"b": one}, "a/b": other, "c": one})
    result = summary(run)
    assert names(result) == ("['a']['b']", "['a/b']", "c")
    np.testing.assert_allclose(result.table["mean"], [one.mean(), other.mean(), one.mean()])
    assert "paths that read alike are listed as ['a']['b'], ['a/b']" in repr(result)
    both = {"f": lambda p: {"g": p["c"]}, "f/g": lambda p: p["c"] + 5}
    assert names(summary(run, functions=both)) == ("['f']['g']", "['f/g']")


def test_a_table_is_a_frame(make_run):
    """pandas' own constructor takes it, and rows are found by their names."""
    result = summary(make_run(DRAWS))
    again = pandas.DataFrame(result.table, index=["weight[0,1]", "bias[0]"])
    assert again.loc["bias[0]", "mean"] == result.table["mean"].iloc[0]
