"""A spectrum of curvatures under gradient noise: the configurational temperature (F28).

U = Σ λ_i x_i²/2, λ geometric from 1 to 400 in 50 steps, gradient noise of variance 30 in every
coordinate, BAOAB at γ = T = 1. T_conf = ⟨x·∇U⟩/d is the mean of λ_i ⟨x_i²⟩, coordinate by
coordinate 1 + s² h² (1 + c)/(4 (1 − c)(1 − h²λ_i/4)), c = e^{−γh}.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc.diagnostics import stationary_law

CURVATURES = np.geomspace(1.0, 400.0, 50)
VARIANCE = 30.0
FIGURES = {0.05: 1.7880, 0.09: 2.7810}


def target(curvatures):
    """The oscillators, whose batches of one example tilt every coordinate alike."""
    prior = Partial(_oscillators, jnp.asarray(curvatures))
    return sgmcmc.Posterior(_tilt, prior, data_size=1)


@pytest.mark.parametrize("step_size", FIGURES)
def test_configurational_temperature(step_size):
    """The exact laws of the 50 coordinates average to the printed figure, and to the formula."""
    signs = [sgmcmc.Batch(jnp.array([sign * np.sqrt(VARIANCE)])) for sign in (1.0, -1.0)]
    laws = [
        stationary_law(sgmcmc.baoab(target([k]), step_size), jnp.zeros(1), signs)
        for k in CURVATURES
    ]
    heat = np.array([k * law.covariance[0, 0] for k, law in zip(CURVATURES, laws, strict=True)])
    c = np.exp(-step_size)
    room = 4 * (1 - c) * (1 - step_size**2 * CURVATURES / 4)
    np.testing.assert_allclose(heat, 1 + VARIANCE * step_size**2 * (1 + c) / room, rtol=1e-9)
    assert abs(heat.mean() - FIGURES[step_size]) < 5.1e-5


def test_a_run_has_it_too():
    """`sample` on a stream of such batches: within 5 standard errors of 64 chains."""
    data = jnp.asarray(np.sqrt(VARIANCE) * np.array([1.0, -1.0]))
    # Two examples, batches of one: the likelihood is scaled by N/n = 2.
    posterior = sgmcmc.Posterior(
        _half_tilt, Partial(_oscillators, jnp.asarray(CURVATURES)), data_size=2
    )
    run = sgmcmc.sample(
        jax.random.key(0), sgmcmc.baoab(posterior, 0.05), jnp.zeros(50), data, batch_size=1,
        stream="with_replacement", num_chains=64, num_burnin=400, num_samples=400, thinning=5,
        chain_method="vmap", progress=False,
    )  # fmt: skip
    chains = (run.draws**2 * CURVATURES).mean(axis=(1, 2))
    assert abs(chains.mean() - FIGURES[0.05]) < 5 * chains.std(ddof=1) / 8


def _oscillators(curvatures, x):
    return -0.5 * jnp.sum(curvatures * x**2)


def _tilt(x, sign):
    return sign * jnp.sum(x)


def _half_tilt(x, sign):
    return sign * jnp.sum(x) / 2
