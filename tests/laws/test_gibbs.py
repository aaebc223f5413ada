"""The Gibbs posterior of local entropy as a kernel: Entropy-SGLD's law, its batches, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from tests.laws.test_entropy_sgld import GAMMA, POWER, RATE, STEP, TEMPERATURE, anchor_variance
from tests.laws.test_local_entropy import quadratic


def make(num_steps=50, averaging=0.1, power=POWER):
    inner = sgmcmc.sgld(quadratic(), STEP, temperature=TEMPERATURE)
    entropy = sgmcmc.local.local_entropy(inner, GAMMA, num_steps=num_steps, averaging=averaging)
    return sgmcmc.local.gibbs_posterior(entropy, RATE, power=power)


def run(kernel, **changed):
    given = {"num_chains": 400, "num_burnin": 80, "num_samples": 10, "thinning": 40} | changed
    return sgmcmc.sample(
        jax.random.key(0), kernel, jnp.zeros(3), progress=False, chain_method="vmap", **given
    )


def check_law(kernel, num_chains):
    """Mean and variance are those of Entropy-SGLD's anchor, to 4 standard errors.

    Draws are 40 steps apart and correlated by 0.1 at most. A false alarm in 16,000 a comparison.
    """
    found = run(kernel, num_chains=num_chains)
    assert found.gradient_evaluations == 480 * num_chains * 50
    exact, draws = anchor_variance(RATE, 50, 0.1), 10 * num_chains
    assert np.all(np.abs(found.draws.mean(axis=(0, 1))) < 4 * np.sqrt(1.25 * exact / draws))
    assert np.all(np.abs(found.draws.var(axis=(0, 1)) / exact - 1) < 4 * np.sqrt(2.5 / draws))


def test_law():
    """4,000 draws: the variance to 10%."""
    check_law(make(), 400)


def test_resuming_and_schedules():
    """A run goes on bit for bit; one inner step a step is enough, and γ may be a schedule."""
    whole = run(make(1, 1.0), num_chains=2, num_samples=20, num_burnin=0, thinning=1)
    first = run(make(1, 1.0), num_chains=2, num_samples=12, num_burnin=0, thinning=1)
    np.testing.assert_array_equal(first.resume(8, progress=False).draws, whole.draws)
    inner = sgmcmc.sgld(quadratic(), STEP, temperature=TEMPERATURE)
    scope = sgmcmc.local.scoping(GAMMA, 0.5)
    kernel = sgmcmc.local.gibbs_posterior(
        sgmcmc.local.local_entropy(inner, scope, num_steps=2), RATE
    )
    state = kernel.init(jnp.ones(3), jax.random.key(0))
    state = state._replace(clock=state.clock._replace(count=jnp.asarray(7)))
    info = kernel.step(jax.random.key(1), state)[1]
    key = jax.random.split(jax.random.key(1))[1]
    found = kernel.entropy.gradient(key, jnp.ones(3), step=7)
    np.testing.assert_allclose(info.gradient_norm, np.linalg.norm(found.gradient))


def _log_likelihood(w, rows):
    return -0.5 * jnp.sum((rows - w) ** 2, axis=-1)


def _flat(w):
    return jnp.zeros(())


@pytest.mark.parametrize("num_steps", [1, 3])
def test_batches(num_steps):
    """A step sees the L batches of its turn, one after another; noise off but for 1e-12."""
    rows = np.arange(24.0).reshape(24, 1) / 24
    posterior = sgmcmc.Posterior(_log_likelihood, _flat, data_size=24).with_likelihood_power(1 / 24)
    inner = sgmcmc.sgld(posterior, 0.1, temperature=1e-24)
    entropy = sgmcmc.local.local_entropy(inner, 2.0, num_steps=num_steps, averaging=0.5)
    found = sgmcmc.sample(
        jax.random.key(0), sgmcmc.local.gibbs_posterior(entropy, 0.3), jnp.zeros(1), rows,
        batch_size=3,
        stream="cyclic", num_chains=1, num_burnin=0, num_samples=4, progress=False,
    )  # fmt: skip
    x, batches = 0.0, iter(np.tile(rows[:, 0], 2).reshape(-1, 3))
    for draw in found.draws[0, :, 0]:
        y = mean = x
        for _ in range(num_steps):
            y = y - 0.1 * (y - next(batches).mean() + 2.0 * (y - x))
            mean = (mean + y) / 2
        x = x - 0.3 * 2.0 * (x - mean)
        np.testing.assert_allclose(draw, x, atol=1e-10)


def test_bad_input():
    """Each is named; a kernel that is not finite says so."""
    entropy = make().entropy
    with pytest.raises(TypeError, match="entropy: got SplittingKernel"):
        sgmcmc.local.gibbs_posterior(entropy.kernel, 0.1)
    with pytest.raises(ValueError, match="power: got 0"):
        make(power=0.0)
    for step in (None, 0.0):
        with pytest.raises(ValueError, match=f"step_size: got {step}"):
            sgmcmc.local.gibbs_posterior(entropy, step)
    cold = sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), 0.1, temperature=0.0), 1.0)
    with pytest.raises(ValueError, match="temperature: got 0"):
        sgmcmc.local.gibbs_posterior(cold, 0.1)
    far = sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), 1e100), 1.0)
    with pytest.raises(sgmcmc.NonFiniteError):
        run(sgmcmc.local.gibbs_posterior(far, 0.1), num_chains=2)
