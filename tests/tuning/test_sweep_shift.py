"""Sweeps where gradients are noisier in one place than in another: where the mean goes, and the
step that `step_size=None` takes for it.

Eight examples ±1 tilt N(0, 1) by ±a e^{βx/2}/(β/2); they cancel, and a batch of one has a gradient
of variance s²(x) = A e^{βx}. In random order chains sample x²/2 + c s²(x), c = h² (K + 1)/12
underdamped and h/4 overdamped, to leading order in h.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import streams
from sgmcmc._curvature import draw_batches, gradient_noise
from sgmcmc.streams._source import Source
from sgmcmc.tuning import Rules
from sgmcmc.tuning._limits import Sweep, limits_of
from sgmcmc.tuning._record import Tuning, auto_friction

SIGNS = jnp.asarray([1.0, -1.0] * 4)
A, BETA, K = 24.0, 0.5, 8


def normal(x):
    return -0.5 * jnp.sum(x**2)


def steeper(x, sign):
    # The estimate multiplies by N/n = 8.
    return sign * jnp.sqrt(A) / 8 * jnp.sum(jnp.exp(BETA * x / 2)) * 2 / BETA


POSTERIOR = sgmcmc.Posterior(steeper, normal, data_size=K)


def mean_by_quadrature(c):
    """E[x] under exp(−x²/2 − c s²(x))."""
    x = np.linspace(-8, 8, 4001)
    weights = np.exp(-(x**2) / 2 - c * A * np.exp(BETA * x))
    return np.sum(weights * x) / weights.sum()


@pytest.mark.parametrize(
    ("kernel", "c", "thinning"),
    [
        (sgmcmc.baoab(POSTERIOR, 0.09, friction=1.0), 0.09**2 * (K + 1) / 12, 10),
        (sgmcmc.sgld(POSTERIOR, 0.03), 0.03 / 4, 20),
    ],
    ids=["baoab", "sgld"],
)
def test_the_mean_under_sweeps(kernel, c, thinning):
    """Its mean is moved by −.08: within 30% of the formula, and 4 standard errors (512 chains)."""
    run = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.zeros(1), SIGNS, batch_size=1, num_chains=512,
        num_burnin=100, num_samples=200, thinning=thinning, chain_method="vmap", progress=False,
    )  # fmt: skip
    means = np.mean(run.draws, axis=(1, 2))
    error, wanted = means.std(ddof=1) / np.sqrt(len(means)), mean_by_quadrature(c)
    assert error < 0.01
    assert wanted < -0.06
    assert abs(means.mean() - wanted) < 0.3 * abs(wanted) + 4 * error


@pytest.mark.parametrize("overdamped", [False, True])
def test_the_step_for_it(overdamped):
    """At the step that is allowed c |∂s²|/√k is 5% of an sd."""
    kernel = sgmcmc.sgld(POSTERIOR, 0.1) if overdamped else sgmcmc.baoab(POSTERIOR, 0.1)
    batches = draw_batches(Source(streams.reshuffled(), 1, SIGNS), jax.random.key(0), 32, True)
    zero = jnp.zeros(1)
    noise = gradient_noise(kernel, zero, batches, SIGNS, zero, jnp.ones(1), True)
    # 32 batches are four sweeps: their variance is known up to 32/31.
    np.testing.assert_allclose(noise.slope, (BETA * A * 32 / 31, 1.0), rtol=1e-5)
    slope = float(noise.slope[0]), float(noise.slope[1])
    _, limits = limits_of(kernel, 1.0, noise.pairs, 1.0, Sweep(K), slope=slope)
    h = limits["shift by sweeps"]
    c = h / 4 if overdamped else h**2 * (K + 1) / 12
    np.testing.assert_allclose(c * slope[0] / slope[1] ** 0.5, Rules().tolerance, rtol=1e-6)
    # No friction takes the force away: "auto" goes by the other limits.
    untuned = sgmcmc.baoab(POSTERIOR, None, friction="auto")
    friction, limits = limits_of(untuned, 1.0, noise.pairs, 1.0, Sweep(K), slope=slope)
    others = min(limit for name, limit in limits.items() if name != "shift by sweeps")
    assert others > limits["shift by sweeps"]
    assert friction == auto_friction(others)
    tuning = Tuning(0.0, friction, 1.0, 1.0, limits, "", 0, 0.0)
    assert tuning.at(limits["shift by sweeps"]).friction == friction
    assert tuning.at(2 * others).friction == auto_friction(2 * others)
    without = {"stability": 1.0, "shift by sweeps": 2.0}
    assert tuning._replace(limits=without).at(0.5).friction == auto_friction(0.5)
    # A longer sweep than 1/ω moves the mean by no more than this, at any step.
    _, limits = limits_of(kernel, 1.0, noise.pairs, 1.0, Sweep(K), slope=(0.6, 1.0))
    assert "shift by sweeps" not in limits
