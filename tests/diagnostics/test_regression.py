"""Scores of Gaussian mixtures against quadrature, sampling and closed forms."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from sgmcmc.diagnostics import regression_scores
from sgmcmc.diagnostics.predictions._regression import LEVELS

RNG = np.random.default_rng(0)


def mixtures(spread):
    mean = spread * RNG.normal(size=(6, 3))
    scale = RNG.uniform(0.2, 1.5, (6, 3))
    return mean, scale, RNG.dirichlet(np.ones(6)), RNG.normal(size=3)


@pytest.mark.parametrize("spread", [0.1, 1.0, 20.0])
def test_crps_is_the_integral(spread):
    """∫ (F(t) − 1{t ≥ y})² dt by adaptive quadrature, split at y."""
    mean, scale, w, y = mixtures(spread)
    scores = regression_scores(mean, scale, y, w)
    for i in range(3):

        def cdf(t, i=i):
            return w @ scipy.stats.norm.cdf(t, mean[:, i], scale[:, i])

        points = np.sort(np.concatenate([mean[:, i], [y[i]]]))
        edges = [points[0] - 12, *points, points[-1] + 12]
        expected = sum(
            scipy.integrate.quad(lambda t, i=i: (cdf(t) - (t >= y[i])) ** 2, a, b, epsabs=1e-11)[0]
            for a, b in itertools.pairwise(edges)
        )
        assert scores.pointwise_crps[i] == pytest.approx(expected, abs=1e-8)


def test_crps_of_one_gaussian():
    """σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π)."""
    y, norm = np.array([-1.0, 0.3, 4.0]), scipy.stats.norm
    z = (y - 0.5) / 1.7
    expected = 1.7 * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    scores = regression_scores(np.full(3, 0.5), 1.7, y)
    np.testing.assert_allclose(scores.pointwise_crps, expected, rtol=1e-9)


def test_density_and_pit_of_the_mixture():
    mean, scale, w, y = mixtures(1.0)
    scores = regression_scores(mean, scale, y, w)
    parts = scipy.stats.norm(mean, scale)
    np.testing.assert_allclose(scores.log_density, np.log(w @ parts.pdf(y)), rtol=1e-12)
    np.testing.assert_allclose(scores.pit, w @ parts.cdf(y), rtol=1e-12)
    assert scores.lppd == pytest.approx(np.log(w @ parts.pdf(y)).mean())
    assert scores.nll == -scores.lppd
    assert scores.rmse == pytest.approx(np.sqrt(np.mean((w @ mean - y) ** 2)))


def test_moments_of_the_mixture():
    """sd² = E σ² + Var μ."""
    mean, scale, w, _ = mixtures(1.0)
    scores = regression_scores(mean, scale, weights=w)
    between = w @ (mean - w @ mean) ** 2
    np.testing.assert_allclose(scores.epistemic_sd, np.sqrt(between))
    np.testing.assert_allclose(scores.sd, np.sqrt(w @ scale**2 + between))
    with pytest.raises(ValueError, match="y: no responses were given"):
        _ = scores.rmse


def test_integer_weights_are_duplicates():
    mean, scale, _, y = mixtures(1.0)
    w = np.array([1, 3, 0, 2, 1, 1])
    one = regression_scores(mean, scale, y, w)
    other = regression_scores(np.repeat(mean, w, axis=0), np.repeat(scale, w, axis=0), y)
    for name in ("mean", "sd", "log_density", "pointwise_crps", "pit"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)


def test_calibration_of_intervals():
    """Responses from the forecast: ECE < .02 at 4,000 points (a coverage has sd ≤ .008).
    A forecast half as wide is caught."""
    mean = RNG.normal(size=4000)
    y = mean + RNG.normal(size=4000)
    assert regression_scores(mean, 1.0, y).ece < 0.02
    assert regression_scores(mean, 0.5, y).ece > 0.15


def test_coverage_by_hand():
    """z = 0, 1, 2: the central 68.3% interval holds the first two, up to rounding."""
    scores = regression_scores(np.zeros(3), 1.0, np.array([0.0, 0.999, 2.0]))
    np.testing.assert_allclose(scores.coverage([0.5, 0.6827, 0.99]), [1 / 3, 2 / 3, 1])


def test_far_away_responses_stay_finite():
    scores = regression_scores(np.zeros((2, 1)), 0.01, np.array([1e3]))
    assert scores.lppd == pytest.approx(-0.5e10, rel=1e-3)
    assert scores.crps == pytest.approx(1e3, rel=1e-4)


def test_plot_and_text():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    mean, scale, w, y = mixtures(1.0)
    scores = regression_scores(mean, scale, y, w)
    ax = scores.plot_reliability(Figure().add_subplot())
    np.testing.assert_allclose(ax.lines[1].get_xdata(), LEVELS)
    assert "rmse" in repr(scores)
    assert "no responses" in repr(regression_scores(mean, scale))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.zeros((1, 2, 2)), 1.0), r"mean: got shape \(1, 2, 2\)"),
        ((np.zeros((2, 3)), np.ones(4)), r"scale: got shape \(4,\)"),
        ((np.zeros((2, 3)), 0.0), "scale > 0"),
        ((np.full((2, 3), np.nan), 1.0), "finite"),
        ((np.zeros((2, 3)), 1.0, np.zeros((3, 1))), r"y: got shape \(3, 1\)"),
        ((np.zeros((2, 3)), 1.0, np.zeros(3), np.ones(3)), r"weights: expected \(2,\)"),
    ],
)
def test_bad_input(args, message):
    with pytest.raises(ValueError, match=message):
        regression_scores(*args)


def mean_distance(d, scale):
    """E|d + σξ| for ξ ~ N(0, 1)."""
    norm = scipy.stats.norm
    return 2 * scale * norm.pdf(d / scale) + d * (2 * norm.cdf(d / scale) - 1)


WIDE = {
    # Means and scales of S draws: what makes one spacing for all of the line too coarse.
    "one narrow": (RNG.normal(size=400), np.r_[1e-5, RNG.uniform(0.5, 2, 399)]),
    "seven decades": (RNG.normal(size=300), 10.0 ** RNG.uniform(-6, 1, 300)),
    "far apart": (np.repeat([0.0, 1e5], 200) + RNG.normal(size=400), np.full(400, 0.5)),
    "scattered": (RNG.uniform(0, 1e6, 300), np.ones(300)),
}


@pytest.mark.parametrize("name", WIDE)
def test_crps_where_scales_or_means_spread_widely(name):
    """Σ w A(y − μ) − ½ Σ Σ w w' A(μ − μ', √(σ² + σ'²)), to 1e-4 of the smallest σ."""
    mean, scale = WIDE[name]
    w, y = RNG.dirichlet(np.ones(len(mean))), 0.3
    pairs = mean_distance(mean[:, None] - mean, np.hypot(scale[:, None], scale))
    expected = w @ mean_distance(y - mean, scale) - w @ pairs @ w / 2
    # Beside a point that needs nothing of the kind.
    both = (np.stack([mean, np.zeros_like(mean)], 1), np.stack([scale, np.ones_like(scale)], 1))
    scores = regression_scores(*both, np.array([y, y]), w)
    assert scores.pointwise_crps[0] == pytest.approx(expected, abs=1e-4 * scale.min())
    one = regression_scores([0.0], 1.0, [y]).crps
    assert scores.pointwise_crps[1] == pytest.approx(one, abs=1e-8)


def test_infinite_weights_are_an_error():
    with pytest.raises(ValueError, match=r"weights: expected \(2,\) finite numbers"):
        regression_scores(np.zeros((2, 1)), 1.0, [0.0], [1.0, np.inf])
