"""`predictive_distance` on Gaussians, where both measures are known in closed form."""

import numpy as np
import pytest

from sgmcmc.diagnostics import predictive_distance


def gaussians(seed, mean, sd, chains=20, draws=50, inputs=40):
    """Independent draws, the chains about centres of their own as correlated ones are."""
    rng = np.random.default_rng(seed)
    # Half of the variance between chains: an effective number of draws near that of chains.
    centres = rng.normal(size=(chains, 1, inputs)) * np.sqrt(0.5)
    return mean + sd * (centres + rng.normal(size=(chains, draws, inputs)) * np.sqrt(0.5))


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.0, 1.3), (0.4, 1.0), (0.3, 0.8)])
def test_closed_form(shift, scale):
    """Spread scale² + shift² − 1, squared shift² + (scale − 1)², over 100 repetitions.

    The mean is within 4 standard errors (false alarm below 1e-3 over all); both errors are
    right to a factor 1.4, but that of `squared` at 0 (see below). The plain estimate of
    `squared`, with no jackknife, is too large by .05 and more, ten times the slack.
    """
    pairs = [
        predictive_distance(gaussians(2 * i, shift, scale), gaussians(2 * i + 1, 0.0, 1.0))
        for i in range(100)
    ]
    for name, truth in (
        ("spread", scale**2 + shift**2 - 1),
        ("squared", shift**2 + (scale - 1) ** 2),
    ):
        values = np.array([getattr(pair, name) for pair in pairs])
        errors = np.array([getattr(pair, f"{name}_error") for pair in pairs])
        # What is left of the bias is of second order in 1/chains.
        assert abs(values.mean() - truth) < 4 * values.std(ddof=1) / 10 + 0.005, name
        # At 0 `squared` is all curvature, for which a jackknife's error is known to be too large.
        most = 2.0 if name == "squared" and truth == 0 else 1.4
        assert 1 / 1.4 < np.sqrt(np.mean(errors**2)) / values.std(ddof=1) < most, name


def test_units_do_not_matter():
    """An affine map of the predictions at each input changes nothing."""
    ours, theirs = gaussians(0, 0.2, 1.2), gaussians(1, 0.0, 1.0)
    slope, offset = np.geomspace(0.01, 100, 40), np.linspace(-1, 1, 40)
    plain = predictive_distance(ours, theirs)
    np.testing.assert_allclose(
        predictive_distance(offset + slope * ours, offset + slope * theirs), plain, rtol=1e-8
    )


def test_integer_weights_are_duplicates():
    """A draw of weight 2 counts as two; ignoring the weights gives another distance."""
    rng = np.random.default_rng(5)
    values, reference = rng.normal(size=(4, 50, 3)), rng.normal(size=(4, 60, 3))
    values[:, ::2] += 1.0
    weights = np.ones((4, 50))
    weights[:, ::2] = 2
    doubled = np.concatenate([values, values[:, ::2]], axis=1)
    got = predictive_distance(values, reference, weights)
    np.testing.assert_allclose(got, predictive_distance(doubled, reference), rtol=1e-10)
    assert abs(got.spread - predictive_distance(values, reference).spread) > 0.05
    with pytest.raises(ValueError, match=r"weights: got shape \(4, 49\)"):
        predictive_distance(values, reference, weights[:, 1:])


def test_chains_in_any_order():
    ours, theirs = gaussians(0, 0.2, 1.2), gaussians(1, 0.0, 1.0)
    np.testing.assert_allclose(
        predictive_distance(ours[::-1], theirs[::-1]), predictive_distance(ours, theirs), rtol=1e-10
    )


@pytest.mark.parametrize(
    ("values", "reference", "message"),
    [
        (np.zeros((4, 5)), np.ones((4, 5, 3)), r"values: got shape \(4, 5\)"),
        (np.zeros((1, 5, 3)), np.ones((4, 5, 3)), "at least two chains"),
        (np.zeros((4, 5, 2)), gaussians(0, 0, 1, inputs=3), "at 2 inputs; the reference has 3"),
        (np.zeros((4, 5, 3)), np.ones((4, 5, 3)), "reference: it does not vary"),
        (np.full((4, 5, 3), np.nan), np.ones((4, 5, 3)), "values: got a number that is not"),
    ],
)
def test_bad_input(values, reference, message):
    with pytest.raises(ValueError, match=message):
        predictive_distance(values, reference)
