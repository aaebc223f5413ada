"""Predictions of a run: the weighted mixture over draws, block by block."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from sgmcmc.diagnostics import classification_scores, predictive, regression_scores

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 20, 4, 5)).astype(np.float32)
X = RNG.normal(size=(11, 4)).astype(np.float32)
Y = RNG.integers(0, 5, 11)
WEIGHTS = RNG.gamma(1, size=(3, 20))


def linear(params, x):
    return x @ params


def mean_and_scale(params, x):
    mean = x @ params[:, 0]
    return mean, 0.5 + 0 * mean


def direct(weights):
    """Log probabilities by a plain logsumexp over draws, float64: (m, k), and each draw's."""
    logits = np.einsum("mi,cdik->cdmk", X, W).reshape(-1, 11, 5).astype(np.float64)
    logs = scipy.special.log_softmax(logits, axis=-1)
    w = weights.reshape(-1, 1, 1) / weights.sum()
    return scipy.special.logsumexp(logs, axis=0, b=w), logs


@pytest.mark.parametrize("weights", [np.ones((3, 20)), WEIGHTS], ids=["equal", "weighted"])
def test_lppd_is_a_direct_logsumexp(make_run, weights):
    scores = predictive(make_run(W, weights), linear, X, Y)
    expected, logs = direct(weights)
    np.testing.assert_allclose(scores.log_probabilities, expected, rtol=1e-5)
    assert scores.lppd == pytest.approx(expected[np.arange(11), Y].mean(), rel=1e-5)
    np.testing.assert_allclose(scores.probabilities.sum(1), 1, rtol=1e-12)
    entropy = -(np.exp(logs) * logs).sum(-1)
    mean_entropy = (weights.reshape(-1) / weights.sum()) @ entropy
    np.testing.assert_allclose(scores.expected_entropy, mean_entropy, rtol=1e-4)
    assert np.all(scores.mutual_information > 0)


def test_ignored_weights_are_caught(make_run):
    """The defect "weights dropped" moves log probabilities by far more than the tolerance."""
    scores = predictive(make_run(W, WEIGHTS), linear, X, Y)
    assert np.abs(scores.log_probabilities - direct(np.ones((3, 20)))[0]).max() > 0.05


def test_averaging_log_probabilities_is_caught(make_run):
    """The defect "mean of logs for log of mean": by Jensen it is lower at every point."""
    logs = direct(np.ones((3, 20)))[1]
    scores = predictive(make_run(W), linear, X, Y)
    assert scores.lppd > logs.mean(0)[np.arange(11), Y].mean() + 0.1


def test_integer_weights_are_duplicates(make_run):
    w = RNG.integers(0, 4, (3, 20))
    copies = np.repeat(W.reshape(-1, 4, 5), w.ravel(), axis=0)[None]
    one = predictive(make_run(W, w), linear, X, Y)
    other = predictive(make_run(copies), linear, X, Y)
    np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, rtol=1e-5)


def test_scores_are_those_of_the_probabilities(make_run):
    """One code for posteriors and MAP networks."""
    scores = predictive(make_run(W), linear, X, Y)
    same = classification_scores(scores.probabilities, Y)
    for name in ("accuracy", "lppd", "brier", "ece"):
        assert getattr(scores, name) == pytest.approx(getattr(same, name), rel=1e-9)


def test_regression(make_run):
    y = RNG.normal(size=11)
    scores = predictive(make_run(W, WEIGHTS), mean_and_scale, X, y)
    means = np.einsum("mi,cdi->cdm", X, W[..., 0]).reshape(-1, 11)
    same = regression_scores(means, 0.5, y, WEIGHTS.ravel())
    for name in ("rmse", "lppd", "crps", "ece"):
        assert getattr(scores, name) == pytest.approx(getattr(same, name), rel=1e-4)


@pytest.mark.parametrize(("predict", "y"), [(linear, Y), (mean_and_scale, 0.1 * Y)])
def test_blocks_change_nothing(make_run, monkeypatch, predict, y):
    """Memory for four points, or three draws, at a time: the same numbers."""
    whole = predictive(make_run(W), predict, X, y)
    monkeypatch.setattr("sgmcmc.sampling._evaluate.BLOCK_BYTES", 240)
    monkeypatch.setattr("sgmcmc.diagnostics.predictions._predictive.BLOCK_BYTES", 4 * 60 * 5 * 4)
    parts = predictive(make_run(W), predict, X, y)
    for name, value in vars(whole).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(getattr(parts, name), value, rtol=1e-5, err_msg=name)


def test_out_of_distribution_inputs_need_no_labels(make_run):
    scores = predictive(make_run(W), linear, 10 * X)
    assert scores.entropy.shape == scores.confidence.shape == (11,)
    assert predictive(make_run(W), mean_and_scale, X).sd.shape == (11,)


def test_stopped_chains_are_dropped_and_named(make_run):
    draws, weights = W.copy(), np.ones((3, 20))
    draws[1, 5:], weights[1, 5:] = np.nan, 0
    scores = predictive(make_run(draws, weights, stopped={1: 77}), linear, X, Y)
    rest = predictive(make_run(draws[[0, 2]]), linear, X, Y)
    np.testing.assert_allclose(scores.log_probabilities, rest.log_probabilities)
    assert "dropped 1 of 3 chains, stopped: chain 1 at step 77" in repr(scores)


def test_a_datatree_gives_the_same(make_run):
    arviz_base = pytest.importorskip("arviz_base")
    tree = arviz_base.from_dict({"posterior": {"w": W}, "sample_stats": {"weight": WEIGHTS}})
    from_tree = predictive(tree, lambda params, x: x @ params["w"], X, Y)
    assert from_tree.lppd == pytest.approx(predictive(make_run(W, WEIGHTS), linear, X, Y).lppd)


def test_one_logit_is_a_class_of_two(make_run):
    """(m, 1) is refused with both ways out; by `kind` class 1 has σ(logit), with all scores."""
    run = make_run(W)
    one = lambda params, x: (x @ params)[:, :1]  # noqa: E731
    two = lambda params, x: jnp.pad((x @ params)[:, :1], ((0, 0), (1, 0)))  # noqa: E731
    with pytest.raises(ValueError, match=r'predict: got shape \(11, 1\).*"values".*"logits"'):
        predictive(run, one, X)
    for predict in (one, lambda params, x: one(params, x)[:, 0]):
        scores = predictive(run, predict, X, Y % 2, kind="logits")
        np.testing.assert_allclose(
            scores.log_probabilities, predictive(run, two, X).log_probabilities, rtol=1e-5
        )
    with pytest.raises(ValueError, match=r"predict: expected logits .*without the scale"):
        predictive(run, one, X, kind="values")
    with pytest.raises(TypeError, match=r"y: got float32.*\(mean, scale\)"):
        predictive(run, linear, X, Y.astype(np.float32))


def test_bad_input(make_run):
    run = make_run(W)
    with pytest.raises(TypeError, match="run: got ndarray"):
        predictive(W, linear, X, Y)
    with pytest.raises(ValueError, match="predict: expected logits"):
        predictive(run, lambda p, x: (x @ p)[:3], X, Y)
    with pytest.raises(ValueError, match=r"predict: expected \(mean, scale\)"):
        predictive(run, lambda p, x: (x @ p, x @ p), X, Y)
    with pytest.raises(ValueError, match=r"y: got shape \(3,\)"):
        predictive(run, linear, X, Y[:3])
    with pytest.raises(ValueError, match=r"y: got shape \(11, 1\)"):
        predictive(run, mean_and_scale, X, Y[:, None])
    with pytest.raises(ValueError, match="y: got labels"):
        predictive(run, linear, X, Y + 3)
    with pytest.raises(ValueError, match="x: got no points"):
        predictive(run, linear, X[:0], Y[:0])
    broken = W.copy()
    broken[0, 3] = np.nan
    with pytest.raises(ValueError, match="1 of 60 draws predict what is not finite"):
        predictive(make_run(broken), linear, X, Y)


def test_boolean_draws_are_parameters_too(make_run):
    """A switch s with P(s) = ½ on a mean of 0 or 2: the predictive mean is the share of ones."""
    on = np.random.default_rng(5).random((4, 500)) < 0.5
    scores = predictive(
        make_run({"on": on}), lambda p, x: (jnp.where(p["on"], 2.0, 0.0) * x, jnp.ones_like(x)),
        np.ones(1, np.float32), np.ones(1),
    )  # fmt: skip
    assert scores.mean[0] == pytest.approx(2 * on.mean(), rel=1e-6)


def test_infinite_weights_are_an_error(make_run):
    weights = np.ones((3, 20))
    weights[0, 0] = np.inf
    with pytest.raises(ValueError, match=r"expected \[chain, draw\] = \(3, 20\), all finite"):
        predictive(make_run(W, weights), linear, X, Y)
