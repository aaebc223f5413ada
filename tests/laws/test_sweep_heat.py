"""What gradient noise that cancels over a symmetric sweep does to variances, exactly.

Quadratics of one stiffness: the batch's gradient is x − m_j, so that its noise s² = Var(m_j) does
not depend on x. Kicks that sum to 0 in random order move x, without friction, by a variance of
h⁴ s² K³/12 at the turn of a sweep (the integral of a Brownian bridge), and bring it back. So the
mean over a sweep lies below that, and falls as h⁴; drawn with replacement it would be h s²/(2γ).
"""

import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc.diagnostics import stationary_law, sweeps

BATCHES, NOISE = 5, 10.0


def log_likelihood(x, centres):
    return -0.5 * (x[0] - centres) ** 2 / BATCHES


def log_prior(x):
    return 0.0 * jnp.sum(x)


def bias(stream, h):
    """Of the variance of x under BAOAB, whose positions are exact without noise; γ = T = 1."""
    centres = np.array([-1.0, 0.5, 2.0, 0.0, -1.2])
    centres = (centres - centres.mean()) * np.sqrt(NOISE / centres.var())
    posterior = sgmcmc.Posterior(log_likelihood, log_prior, data_size=BATCHES)
    batches = [sgmcmc.Batch(jnp.asarray(centres[i : i + 1])) for i in range(BATCHES)]
    law = stationary_law(
        sgmcmc.baoab(posterior, h), jnp.zeros(1), batches, epochs=sweeps(stream, BATCHES)
    )
    return float(law.covariance[0, 0]) - 1


@pytest.mark.usefixtures("x64")
def test_a_symmetric_sweep_takes_its_noise_back():
    steps = np.array([0.04, 0.02])
    found = np.array([bias("symmetric", h) for h in steps])
    bound = steps**4 * NOISE * BATCHES**3 / 12
    assert np.all((found < bound) & (found > bound / 4))
    assert 3.8 < np.log2(found[0] / found[1]) < 4.2
    assert bias("with_replacement", 0.02) == pytest.approx(0.02 * NOISE / 2, rel=0.02)
