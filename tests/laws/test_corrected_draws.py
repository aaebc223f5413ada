"""Metropolis-corrected samplers draw from the exact law (F22), MALA and HMC too.

Each figure passes within 5 of its standard errors, taken from independent chains: were they
exactly normal, one of the 60 would fail by chance once in 30,000 seeds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import sgmcmc
from sgmcmc import metrics
from tests.laws import blocks

BOTH = [sgmcmc.amagold, sgmcmc.sggmc]
with jax.enable_x64(False):
    TARGET, _ = blocks.double_well()


@pytest.fixture(autouse=True)
def double_precision():
    """In single precision, as users run them, unlike the rest of this folder."""
    with jax.enable_x64(False):
        yield


def _powers(x):
    return jnp.stack([x, x**2, x**4])


# name: sampler, h, stream, acceptance as printed.
ROWS = {
    "sggmc iid .3": (sgmcmc.sggmc, 0.3, "with_replacement", 0.387),
    "sggmc permuted .3": (sgmcmc.sggmc, 0.3, "reshuffled", 0.467),
    "amagold .3": (sgmcmc.amagold, 0.3, "with_replacement", 0.408),
    "sggmc iid .15": (sgmcmc.sggmc, 0.15, "with_replacement", 0.645),
    "sggmc permuted .15": (sgmcmc.sggmc, 0.15, "reshuffled", 0.774),
    "amagold .15": (sgmcmc.amagold, 0.15, "with_replacement", 0.659),
}


def sample(kernel, chains, steps, stream="with_replacement", **options):
    """(run, each chain's averages of x, x² and x⁴) in single precision, as users run it."""
    data = tuple(jnp.asarray(values, jnp.float32) for values in blocks.WELL)
    run = sgmcmc.sample(
        jax.random.key(2), kernel, jnp.array(0.3), data, batch_size=1, stream=stream,
        num_chains=chains, num_burnin=200, num_samples=steps, collect=_powers,
        chain_method="vmap", progress=False, **options,
    )  # fmt: skip
    return run, np.asarray(run.draws, np.float64).mean(axis=1)


def check(averages, exact, also=0.0):
    """Means over chains within 5 of their standard errors, and of those of `exact` itself."""
    error = averages.std(axis=0, ddof=1) / np.sqrt(len(averages)) + also
    np.testing.assert_array_less(np.abs(averages.mean(axis=0) - exact), 5 * error)


def check_row(name, chains, steps):
    sampler, h, stream, acceptance = ROWS[name]
    exact = blocks.exact_moments()
    np.testing.assert_allclose(exact, [-0.206759, 1.060733, 2.102085], atol=6e-7)
    run, averages = sample(sampler(TARGET, h, 4), chains, steps, stream)
    check(averages, exact)
    # Printed to three digits.
    check(np.asarray(run.info.acceptance, np.float64).mean(axis=1), acceptance, also=1e-4)


@pytest.mark.parametrize("name", list(ROWS)[:3])
def test_double_well_of_four_batches(name):
    """F22 at h = .3: exact moments and the printed acceptance, with 500 chains of 1,000 blocks."""
    check_row(name, 500, 1_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_double_well_of_four_batches_in_full(name):
    """F22 with 2,000 chains of 3,000 blocks: standard errors of about .0015, .001 and .004."""
    check_row(name, 2_000, 3_000)


def test_without_the_correction_the_law_is_another():
    """OBABO at h = .15 has the printed moments +.0331, 1.3146, 3.7804, far from the exact."""
    kernel = sgmcmc.langevin(TARGET, 0.15, word="OBABO", reuse_gradient=False)
    _, averages = sample(kernel, 500, 1_000, thinning=4)
    check(averages, [0.0331, 1.3146, 3.7804], also=np.array([9e-4, 8e-4, 4.8e-3]))
    with pytest.raises(AssertionError):
        check(averages, blocks.exact_moments())


@pytest.mark.parametrize("sampler", BOTH)
def test_double_well_at_another_temperature(sampler):
    """At T = .5 the moments are those of exp(−U/T)."""
    _, averages = sample(sampler(TARGET, 0.2, 4, temperature=0.5), 400, 800, "reshuffled")
    check(averages, blocks.exact_moments(0.5))


def _gaussian_log_likelihood(params, batch):
    flat, _ = ravel_pytree(params)
    return -0.5 * (batch @ flat - 1.0) ** 2


def _gaussian_log_prior(params):
    flat, _ = ravel_pytree(params)
    return -0.5 * jnp.sum(flat**2)


@pytest.mark.parametrize("sampler", BOTH)
def test_gaussian_tree_under_a_dense_metric(sampler):
    """Bayesian linear regression, a dict of parameters, n = 3 of 12, T = .7: mean, covariance.

    The metric is a rough estimate of the covariance, no more.
    """
    x = np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32)
    covariance, temperature = np.linalg.inv(np.eye(3) + x.T.astype(float) @ x), 0.7
    mean = covariance @ x.sum(axis=0)
    target = sgmcmc.Posterior(_gaussian_log_likelihood, _gaussian_log_prior, data_size=12)
    metric = metrics.dense(covariance + np.diag([0.05, 0.03, 0.02]))
    kernel = sampler(target, 0.4, 4, metric=metric, temperature=temperature)
    start = {"b": jnp.array(0.3), "w": jnp.array([-0.4, 0.8])}
    run = sgmcmc.sample(
        jax.random.key(4), kernel, start, x, batch_size=3, num_chains=200, num_burnin=100,
        num_samples=500, chain_method="vmap", progress=False,
    )  # fmt: skip
    draws = np.concatenate([run.draws["b"][..., None], run.draws["w"]], axis=-1).astype(float)
    outer = (draws - mean)[..., :, None] * (draws - mean)[..., None, :]
    check(draws.mean(axis=1), mean)
    check(outer.mean(axis=1), temperature * covariance)
    assert 0.2 < run.info.acceptance.mean() < 0.98


FULL = {
    "mala": lambda target, h, **o: sgmcmc.mala(target, h, **o),
    "hmc": lambda target, h, **o: sgmcmc.hmc(target, h, 4, **o),
}


@pytest.mark.parametrize("name", FULL)
def test_full_gradient_references_on_the_double_well(name):
    """MALA and HMC at T = .5: the moments of exp(−U/T), and U itself in `Info.energy`."""
    pytest.importorskip("blackjax")
    kernel = FULL[name](TARGET, 0.3, temperature=0.5)
    data = tuple(jnp.asarray(values, jnp.float32) for values in blocks.WELL)
    run = sgmcmc.sample(
        jax.random.key(6), kernel, jnp.array(0.3), data, num_chains=300, num_burnin=100,
        num_samples=600, chain_method="vmap", progress=False,
    )  # fmt: skip
    draws = np.asarray(run.draws, np.float64)
    check(np.stack([draws, draws**2, draws**4], -1).mean(axis=1), blocks.exact_moments(0.5))
    np.testing.assert_allclose(run.info.energy, blocks.potential(draws), rtol=1e-4, atol=1e-5)
    assert 0.5 < run.info.acceptance.mean() < 1
    assert run.gradient_evaluations == 300 * 700 * {"mala": 1, "hmc": 4}[name]


def test_hmc_takes_any_metric():
    """A Gaussian tree under a dense metric at T = .7: mean and covariance."""
    pytest.importorskip("blackjax")
    covariance = np.array([[1.0, 0.3, 0.1], [0.3, 0.7, -0.2], [0.1, -0.2, 0.5]])
    target = sgmcmc.Posterior.from_log_density(
        jax.tree_util.Partial(_gaussian, jnp.asarray(np.linalg.inv(covariance), jnp.float32))
    )
    metric = metrics.dense(covariance + 0.1 * np.eye(3))
    kernel = sgmcmc.hmc(target, 0.8, 3, metric=metric, temperature=0.7)
    start = {"b": jnp.array(0.3), "w": jnp.array([-0.4, 0.8])}
    run = sgmcmc.sample(
        jax.random.key(7), kernel, start, num_chains=200, num_burnin=50, num_samples=300,
        chain_method="vmap", progress=False,
    )  # fmt: skip
    draws = np.concatenate([run.draws["b"][..., None], run.draws["w"]], axis=-1).astype(float)
    check(draws.mean(axis=1), np.zeros(3))
    check((draws[..., :, None] * draws[..., None, :]).mean(axis=1), 0.7 * covariance)


def _gaussian(precision, params):
    flat, _ = ravel_pytree(params)
    return -0.5 * flat @ precision @ flat
