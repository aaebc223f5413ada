"""Classification scores against examples worked by hand, and against scikit-learn."""

import numpy as np
import pytest

from sgmcmc.diagnostics import classification_scores

PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
LABELS = np.array([0, 1, 1, 0])


def test_by_hand():
    """Correct: 1, 0, 1, 0. Each confidence .9, .6, .7, .8 has a bin of fifteen to itself."""
    scores = classification_scores(PROBABILITIES, LABELS)
    assert scores.accuracy == 0.5
    assert scores.lppd == pytest.approx(np.log([0.9, 0.4, 0.7, 0.2]).mean())
    assert scores.nll == -scores.lppd
    assert scores.brier == pytest.approx(np.mean([0.02, 0.72, 0.18, 1.28]))
    assert scores.ece == pytest.approx((0.1 + 0.6 + 0.3 + 0.8) / 4)
    np.testing.assert_allclose(scores.confidence, [0.9, 0.6, 0.7, 0.8])


def test_ece_pools_within_bins():
    """Ten points at confidence .81 to .85, one bin (.8, .8667]: |accuracy − mean confidence|."""
    confidence = np.linspace(0.81, 0.85, 10)
    y = np.array([0] * 6 + [1] * 4)
    scores = classification_scores(np.stack([confidence, 1 - confidence], 1), y)
    assert scores.ece == pytest.approx(abs(0.6 - 0.83))
    edges, share, accuracy, mean_confidence = scores.reliability()
    assert len(edges) == 16
    assert share[12] == 1
    assert accuracy[12] == pytest.approx(0.6)
    assert mean_confidence[12] == pytest.approx(0.83)


def test_bins_are_closed_on_the_right_and_hold_certainty():
    scores = classification_scores([[0.8, 0.2], [1.0, 0.0]], [0, 0])
    _, share, _, _ = scores.reliability(num_bins=5)
    np.testing.assert_allclose(share, [0, 0, 0, 0.5, 0.5])


def test_a_calibrated_forecast_has_a_small_ece():
    """Labels drawn from the forecast: ECE below .02 at 20,000 points.

    Each of about 14 filled bins adds share × |noise|, noise sd ≤ .5/√count: .01 together at
    most. A forecast sharpened by a factor two in the logits is caught (> .05).
    """
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (p.cumsum(1) < rng.random((20_000, 1))).sum(1)
    sharp = p**2 / (p**2).sum(1, keepdims=True)
    assert classification_scores(p, y).ece < 0.02
    assert classification_scores(sharp, y).ece > 0.05


def test_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    p, y = rng.dirichlet(np.ones(2), 50), rng.integers(0, 2, 50)
    scores = classification_scores(p, y)
    assert scores.nll == pytest.approx(metrics.log_loss(y, p))
    assert scores.brier == pytest.approx(2 * metrics.brier_score_loss(y, p[:, 1]))
    assert scores.accuracy == metrics.accuracy_score(y, p.argmax(1))


def test_one_column_is_no_distribution():
    """A column of ones would be certain of everything."""
    with pytest.raises(ValueError, match=r"got shape \(3, 1\); expected \(m, k\) of k ≥ 2"):
        classification_scores(np.ones((3, 1)), [0, 0, 0])


def test_entropy():
    scores = classification_scores([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(scores.entropy, [np.log(2), 0])
    with pytest.raises(ValueError, match="did not come from draws"):
        _ = scores.mutual_information


def test_without_labels_there_are_no_scores():
    scores = classification_scores(PROBABILITIES)
    assert "no labels" in repr(scores)
    with pytest.raises(ValueError, match="y: no labels were given"):
        _ = scores.accuracy


def test_text():
    assert "accuracy 0.5000, lppd" in repr(classification_scores(PROBABILITIES, LABELS))


def test_plot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    scores = classification_scores(PROBABILITIES, LABELS)
    assert scores.plot_reliability(ax, label="here") is ax
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.6, 0.7, 0.8, 0.9])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0, 1, 0, 1])


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "sgmcmc\[plots\]"'):
        classification_scores(PROBABILITIES, LABELS).plot_reliability()


@pytest.mark.parametrize(
    ("error", "p", "y", "message"),
    [
        (ValueError, [0.5, 0.5], None, r"probabilities: got shape \(2,\)"),
        (ValueError, [[0.5, 0.6]], None, "rows sum to 1"),
        (ValueError, [[1.5, -0.5]], None, "values ≥ 0"),
        (ValueError, [[np.nan, 1.0]], None, "values ≥ 0"),
        (TypeError, PROBABILITIES, np.zeros(4), "y: got float64"),
        (ValueError, PROBABILITIES, np.zeros(3, int), r"y: got shape \(3,\)"),
        (ValueError, PROBABILITIES, np.array([0, 1, 2, 0]), "y: got labels 0 … 2; expected 0 … 1"),
    ],
)
def test_bad_input(error, p, y, message):
    with pytest.raises(error, match=message):
        classification_scores(p, y)
