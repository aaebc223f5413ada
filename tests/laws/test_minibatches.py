"""Exact laws under minibatches: four quadratics, one a step, drawn with replacement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc.diagnostics import stationary_law
from tests.laws import oracle, samplers

# U = Σ k_i (x − m_i)²/2, whose target is N(.5, 1).
STIFFNESS, CENTRES = np.array([0.1, 0.4, 0.2, 0.3]), np.array([-1.0, 0.5, 2.0, 0.0])
STEPS = (0.2, 0.1, 0.05, 0.025, 0.0125)

# Variance bias of x at these steps. BAOAB shares a gradient between steps, so that its
# positions are those of AOAB; "BAOAB twice" evaluates each B on the step's own batch.
BIAS = {
    "UBU": (6.894e-2, 3.572e-2, 1.818e-2, 9.169e-3, 4.605e-3),
    "BAOAB": (7.655e-2, 3.750e-2, 1.861e-2, 9.275e-3, 4.631e-3),
    "AOAB": (7.655e-2, 3.750e-2, 1.861e-2, 9.275e-3, 4.631e-3),
    "BAOAB twice": (7.737e-2, 3.786e-2, 1.872e-2, 9.304e-3, 4.639e-3),
    "euler_maruyama": (3.665e-1, 1.570e-1, 7.318e-2, 3.538e-2, 1.740e-2),
    "sgld": (1.977e-1, 9.255e-2, 4.485e-2, 2.208e-2, 1.096e-2),
    "leimkuhler_matthews": (8.409e-2, 3.936e-2, 1.907e-2, 9.391e-3, 4.660e-3),
}


def kernel_of(row, posterior, h):
    if row == "BAOAB twice":
        return sgmcmc.langevin(posterior, h, word="BAOAB", reuse_gradient=False)
    return samplers.make(row, posterior, h)


@pytest.mark.parametrize("row", BIAS)
def test_law_with_replacement(row):
    """Mean and variance equal a derivation in NumPy and the printed bias of the variance."""
    posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
    name = {"BAOAB twice": "BAOAB", "BAOAB": "AOAB"}.get(row, row)
    for h, printed in zip(STEPS, BIAS[row], strict=True):
        law = stationary_law(kernel_of(row, posterior, h), jnp.zeros(1), batches)
        mean, variance = oracle.minibatch_variance(name, h, 4 * STIFFNESS, CENTRES)
        np.testing.assert_allclose(law.mean, mean, atol=1e-10)
        np.testing.assert_allclose(law.mean, 0.5, atol=1e-10)
        np.testing.assert_allclose(law.covariance, variance, rtol=1e-9)
        digits = 10.0 ** (np.floor(np.log10(printed)) - 3)
        assert abs(law.covariance[0, 0] - 1 - printed) <= 0.501 * digits


@pytest.mark.parametrize("row", BIAS)
def test_bias_is_of_first_order_and_of_the_size_of_the_noise_share(row):
    """With replacement the bias halves with h, and exact words inflate by ≈ h s²/(2γ), s² = .74."""
    posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
    bias = [
        stationary_law(kernel_of(row, posterior, h), jnp.zeros(1), batches).covariance[0, 0] - 1
        for h in (0.0125, 0.00625)
    ]
    assert abs(np.log2(bias[0] / bias[1]) - 1) < 0.05
    if row not in ("euler_maruyama", "sgld"):
        assert abs(bias[1] / (0.00625 * 0.74 / 2) - 1) < 0.03


def test_full_gradient_is_one_batch_with_all_the_data():
    """On all data at once UBU has its bias of second order, and the two estimators agree."""
    posterior, _ = samplers.quadratics(STIFFNESS, CENTRES)
    data = [sgmcmc.Batch((jnp.asarray(STIFFNESS), jnp.asarray(CENTRES)))]
    wide = sgmcmc.Posterior(_quadratics, posterior.log_prior, data_size=4)
    printed = (-6.660e-3, -1.666e-3, -4.166e-4, -1.042e-4, -2.604e-5)
    for h, bias in zip(STEPS, printed, strict=True):
        for gradient in (sgmcmc.gradients.minibatch(), sgmcmc.gradients.full()):
            law = stationary_law(sgmcmc.ubu(wide, h, gradient=gradient), jnp.zeros(1), data)
            np.testing.assert_allclose(law.covariance - 1, bias, rtol=5.01e-4)
            np.testing.assert_allclose(law.mean, 0.5, atol=1e-12)


def test_minibatch_gradients_average_to_the_full_one():
    """The mean of the gradients over all batches is the gradient over all data."""
    posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
    x = jnp.array([0.7])
    gradients = [posterior.potential_and_gradient(x, batch)[1] for batch in batches]
    exact = np.sum(STIFFNESS * (0.7 - CENTRES))
    np.testing.assert_allclose(np.mean(gradients), exact, rtol=1e-12)


def test_a_batch_for_each_kick_is_no_batch_twice():
    """Two batches a step halve the leading inflation of BAOAB, at twice the gradients."""
    posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
    kernel = sgmcmc.langevin(
        posterior, 0.01, word="BAOAB", reuse_gradient=False, batches_per_step=2
    )
    assert kernel.traits.gradient_evaluations == 2
    pairs = [
        jax.tree.map(lambda a, b: jnp.stack([a, b]), one, other)
        for one in batches
        for other in batches
    ]
    bias = stationary_law(kernel, jnp.zeros(1), pairs).covariance[0, 0] - 1
    np.testing.assert_allclose(bias, 0.01 * 0.74 / 4, rtol=0.02)


def _quadratics(x, examples):
    k, m = examples
    return -0.5 * k * (x[0] - m) ** 2
