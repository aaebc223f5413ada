"""Diagnostics on what `sgmcmc.sample` returns."""

import jax
import numpy as np
import pytest

import sgmcmc
from sgmcmc import diagnostics, models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2)).astype(np.float32)
Y = (X @ [1.0, -1.0] + 0.5 * RNG.normal(size=40)).astype(np.float32)


@pytest.fixture(scope="module")
def regression():
    model = models.linear_regression(0.5, 1.0, num_features=2)
    kernel = sgmcmc.baoab(model.posterior(40), 0.05, friction=3.0)
    run = sgmcmc.sample(
        jax.random.key(0), kernel, model.init, (X, Y), num_burnin=500, num_samples=500,
        thinning=5, progress=False,
    )  # fmt: skip
    return model, run


def test_summary_finds_the_exact_posterior(regression):
    """Means within 4 MCSE and sds within 15% of the closed form, R̂ < 1.02."""
    model, run = regression
    mean, covariance = model.exact(X, Y)
    table = diagnostics.summary(run).table
    assert np.all(np.abs(table["mean"] - mean) < 4 * table["mcse_mean"])
    np.testing.assert_allclose(table["sd"], np.sqrt(np.diag(covariance)), rtol=0.15)
    assert table["r_hat"].max() < 1.02
    assert np.all(table["ess_per_second"] > 0)
    np.testing.assert_allclose(
        table["ess_per_gradient"], table["ess_bulk"] / run.gradient_evaluations
    )


def test_predictive_is_near_the_exact_predictive(regression):
    """The predictive variance is σ² + x'Cx; lppd differs from the exact one by < 0.01."""
    model, run = regression
    scores = diagnostics.predictive(run, model.predict, X, Y)
    mean, covariance = model.exact(X, Y)
    design = np.c_[X, np.ones(40)]
    sd = np.sqrt(0.25 + np.einsum("ni,ij,nj->n", design, covariance, design))
    exact = diagnostics.regression_scores(design @ mean, sd, Y)
    assert scores.lppd == pytest.approx(exact.lppd, abs=0.01)
    assert scores.crps == pytest.approx(exact.crps, rel=0.02)


def test_the_run_and_its_datatree_agree(regression):
    _, run = regression
    tree = run.to_arviz()
    ours, theirs = diagnostics.summary(run), diagnostics.summary(tree)
    for name, column in theirs.table.items():
        np.testing.assert_allclose(column, ours.table[name], rtol=1e-12)
    assert list(ours.table.index) == list(theirs.table.index)


def test_a_diverged_chain_is_named():
    model = models.gaussian([0.0], 1.0)
    starts = np.array([[0.1], [1e30]], np.float32)
    kernel = sgmcmc.euler_maruyama(model.posterior(), 0.1, friction=1.0)
    run = sgmcmc.sample(
        jax.random.key(0), kernel, starts, num_chains=2, num_burnin=10, num_samples=50,
        on_nonfinite="stop_chain", progress=False,
    )  # fmt: skip
    assert list(run.stopped) == [1]
    assert "dropped 1 of 2 chains, stopped: chain 1" in repr(diagnostics.summary(run))


def exact_draws(model):
    mean, covariance = model.exact(X, Y)
    return {"theta": np.random.default_rng(1).multivariate_normal(mean, covariance, size=20_000)}


def test_a_run_agrees_with_exact_reference_draws(regression):
    model, run = regression
    found = diagnostics.compare_to_reference(run, exact_draws(model))
    assert found.passed(mcse=0.05)


def test_defect_hot_minibatches_fail_the_comparison(regression):
    """The same kernel with four examples a step, drawn with replacement: too hot."""
    model, _ = regression
    kernel = sgmcmc.baoab(model.posterior(40), 0.05, friction=3.0)
    run = sgmcmc.sample(
        jax.random.key(1), kernel, model.init, (X, Y), batch_size=4, stream="with_replacement",
        num_burnin=500, num_samples=500, thinning=5, progress=False,
    )  # fmt: skip
    found = diagnostics.compare_to_reference(run, exact_draws(model))
    assert not found.passed()
    assert found.table["sd_ratio"].min() > 1.1
