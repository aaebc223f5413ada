"""The local learning coefficient: its chosen step, its warnings, its record, and bad input."""

import dataclasses
import functools
import types
import warnings
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc.diagnostics import LearningCoefficient, learning_coefficient
from sgmcmc.diagnostics.learning import _coefficient as coefficient
from sgmcmc.diagnostics.learning._record import complaints
from tests.diagnostics.test_learning_coefficient import (
    BAOAB,
    _normal,
    _quadratic,
    estimate,
    flat,
    nbeta,
)


def test_the_chosen_step():
    """`step_size=None`: the step comes from the curvature, and Euler's bias stays below 6%."""
    found = estimate(
        Partial(_quadratic, jnp.ones(3)), jnp.zeros(3), 1_000, num_steps=2_000, thinning=4
    )
    exact = 1.5 * nbeta(1_000) / (nbeta(1_000) + 1)
    assert found.run.tuning is not None
    assert abs(found.estimate / exact - 1) < 0.06 + 4 * found.standard_error / exact


def test_warnings():
    """Each known failure is named, with its remedy."""
    quick = {"num_steps": 200, "kernel": BAOAB, "step_size": 0.02}
    quadratic = Partial(_quadratic, jnp.ones(3))
    away = jnp.ones(3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = estimate(quadratic, away, 1_000, **quick)
    messages = " ".join(str(w.message) for w in seen)
    assert "not at a minimum: the gradient of nβL has norm 251" in messages
    assert "is negative, and 100% of the draws have a lower loss" in messages
    assert found.estimate < 0
    assert found.share_below == 1
    # U along −g: nβ/2 and the pull's share, ‖g‖⁴/(2 gᵀ(H + ρ)g).
    np.testing.assert_allclose(found.fall, 1.5 * nbeta(1_000) ** 2 / (nbeta(1_000) + 1), rtol=1e-5)
    many = Partial(_quadratic, jnp.ones(50))
    with pytest.warns(UserWarning, match="second half of the draws gives"):
        estimate(many, jnp.zeros(50), 1_000, num_steps=400, num_burnin=0, step_size=2e-5)


def _saddle(w, rows):
    """Rises in two directions and falls, as far as it goes, in a third."""
    fall = 0.005 * (1 - jnp.cos(w[0]))
    return -(0.5 * jnp.sum(w[1:] ** 2) - fall) * jnp.ones(rows.shape[0])


def test_a_saddle():
    """No gradient and λ̂ > 0, but draws below: the share of them is what says so."""
    quick = {"num_steps": 1_000, "kernel": BAOAB, "step_size": 0.02}
    with pytest.warns(UserWarning, match="of the draws have a lower loss than params: a saddle"):
        found = estimate(_saddle, jnp.zeros(3), 1_000, **quick)
    assert found.gradient_norm == 0
    assert found.estimate > 0
    assert found.share_below > 0.05


def _shelf(w, rows):
    """A bowl that ends, 3.5 standard deviations out, on a high shelf: few chains get there."""
    loss = jnp.where(w[0] > 3.5 / np.sqrt(nbeta(1_000)), 0.5, 0.5 * w[0] ** 2)
    return -loss * jnp.ones(rows.shape[0])


def test_chains_on_a_shelf():
    """Chains that end far from the others are named in a run too."""
    quick = {"num_steps": 2_000, "kernel": BAOAB, "step_size": 0.02, "num_burnin": 200}
    with pytest.warns(UserWarning, match="are far from the others, and finite"):
        found = estimate(_shelf, jnp.zeros(1), 1_000, **quick)
    assert np.isfinite(found.per_chain).all()


def _cliff(w, rows):
    """A bowl with nothing beyond 2.3 standard deviations: half of the chains get there."""
    loss = jnp.where(w[0] > 2.3 / np.sqrt(nbeta(1_000)), jnp.nan, 0.5 * w[0] ** 2)
    return -loss * jnp.ones(rows.shape[0])


def test_lost_chains():
    """Chains that diverge are left out and named; if all do, an error."""
    quadratic = Partial(_quadratic, jnp.ones(3))
    with pytest.raises(FloatingPointError, match="Try a smaller step_size"):
        estimate(quadratic, jnp.zeros(3), 1_000, num_steps=400, step_size=1.0)
    with pytest.warns(UserWarning, match="left the finite numbers and are left out"):
        found = estimate(_cliff, jnp.zeros(1), 1_000, num_steps=400, step_size=0.02, kernel=BAOAB)
    lost = np.isnan(found.per_chain)
    assert sorted(found.run.stopped) == np.flatnonzero(lost).tolist()
    np.testing.assert_allclose(found.estimate, found.per_chain[~lost].mean())


def test_plot_and_repr():
    """One running mean for each chain, and the estimate; the text has the numbers."""
    pytest.importorskip("matplotlib").use("agg")
    found = estimate(
        Partial(_quadratic, jnp.ones(3)), jnp.zeros(3), 1_000,
        num_steps=2_000, num_burnin=1_000, kernel=BAOAB, step_size=0.02, num_chains=4,
    )  # fmt: skip
    assert len(found.plot().lines) == 5
    np.testing.assert_array_equal(found.plot_trace().lines[2].get_ydata(), found.trace[2])
    assert "4 of 4 chains" in repr(found)
    assert "nβ 144.8" in repr(found)


def test_a_chain_apart():
    """A finite chain far from the others is named; normal ones are not, in 1,000 tries."""
    per_chain = np.random.default_rng(0).normal(8.0, 0.1, size=16)
    per_chain[3] = 60.0
    given = dict.fromkeys((f.name for f in dataclasses.fields(LearningCoefficient)), 0.0)
    given["run"] = types.SimpleNamespace(interrupted=False)
    record = LearningCoefficient(**given | {"estimate": 11.0, "per_chain": per_chain})
    (message,) = complaints(record)
    assert message.startswith("chains [3] are far from the others")
    for many in np.random.default_rng(1).normal(8.0, 0.1, size=(1_000, 16)):
        assert not complaints(dataclasses.replace(record, per_chain=many))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": 0.0}, "precision: got 0.0; expected a finite number > 0"),
        ({"inverse_temperature": -1.0}, "inverse_temperature: got -1.0"),
        ({"num_chains": 1}, "num_chains: got 1; allowed: at least 2"),
        ({"num_steps": 3}, "num_steps: got 3; allowed: at least 4"),
        ({"num_steps": 10, "thinning": 5}, "expected at least 4 draws"),
        ({"kernel": functools.partial(sgmcmc.sgld, temperature=0.5)}, "temperature 0.5"),
    ],
)
def test_bad_numbers(changed, message):
    """Each bad number is named, with what is allowed."""
    with pytest.raises(ValueError, match=message):
        estimate(Partial(_quadratic, jnp.ones(3)), jnp.zeros(3), 1_000, step_size=0.01, **changed)


def test_bad_posteriors():
    """A target without data, a localised one, a tempered one, and one too small for 1/log n."""
    given = {"precision": 1.0, "step_size": 0.01}
    key, w = jax.random.key(0), jnp.zeros(3)
    bare = sgmcmc.Posterior.from_log_density(lambda w: -jnp.sum(w**2))
    with pytest.raises(ValueError, match="needs a likelihood and its n examples"):
        learning_coefficient(key, bare, w, None, **given)
    plain = sgmcmc.Posterior(_normal, flat, data_size=2)
    for other in (plain.localized(w, 1.0), plain.with_likelihood_power(0.5)):
        with pytest.raises(ValueError, match="pass it plain"):
            learning_coefficient(key, other, w, np.zeros((2, 3)), **given)
    with pytest.raises(ValueError, match="1/log n needs n ≥ 3"):
        learning_coefficient(key, plain, w, np.zeros((2, 3)), **given)
    with pytest.raises(TypeError, match="posterior: got int"):
        learning_coefficient(key, 3, w, np.zeros((2, 3)), **given)


def test_the_share_below_counts_draws_by_weight():
    """Two chains of four draws, one below L(w*) each, of weights 3, 1, 1, 1: a half, not 1/4."""
    loss = np.array([[0.9, 1.2, 1.3, 1.4], [0.8, 1.1, 1.2, 1.5]])
    weights = np.tile([3.0, 1.0, 1.0, 1.0], (2, 1))
    run = SimpleNamespace(
        draws={"loss": loss, "square": np.ones((2, 4))}, weights=weights, config={}
    )
    figure = pytest.importorskip("matplotlib.figure")
    found = coefficient._result(run, 10.0, 0.2, 1.0, 1.0, 0.0, 0.0)
    assert found.share_below == pytest.approx(0.5)
    lines = found.plot(figure.Figure().add_subplot()).lines
    ends = [line.get_ydata()[-1] for line in lines[:2]]
    np.testing.assert_allclose(ends, found.per_chain)
    assert found.estimate == pytest.approx(np.mean(found.per_chain))
