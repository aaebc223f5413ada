"""Gradient estimators: what they estimate, and the data they refuse to do without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmcmc import Batch, Posterior, gradients

N = 7
DATA = (jnp.sin(jnp.arange(14.0)).reshape(N, 2), jnp.cos(jnp.arange(7.0)))
THETA = jnp.array([0.4, -0.3])


def log_likelihood(theta, batch):
    return -0.5 * (batch[1] - batch[0] @ theta) ** 2


def log_prior(theta):
    return -0.5 * jnp.sum(theta**2)


POSTERIOR = Posterior(log_likelihood, log_prior, data_size=N)


def by_hand(rows):
    x, y = (np.asarray(part, np.float64)[rows] for part in DATA)
    theta = np.asarray(THETA, np.float64)
    return theta - N / len(rows) * x.T @ (y - x @ theta)


@pytest.mark.parametrize("rows", [[0, 4, 6], [3], list(range(N))])
def test_minibatch_is_the_scaled_sum(rows):
    """∇U = θ − (N/n) Xᵀ(y − Xθ) over the batch, for a linear regression."""
    batch = jax.tree.map(lambda x: x[jnp.array(rows)], DATA)
    energy, gradient, state = gradients.minibatch()(POSTERIOR, THETA, batch, ())
    np.testing.assert_allclose(gradient, by_hand(rows), rtol=1e-5)
    np.testing.assert_allclose(energy, POSTERIOR.potential(THETA, batch), rtol=1e-6)
    assert state == ()


def test_a_share_scales_the_gradient_and_not_the_energy():
    """A batch of share s kicks with s times its gradient; its energy still estimates U."""
    batch = jax.tree.map(lambda x: x[:3], DATA)
    energy, gradient, _ = gradients.minibatch()(
        POSTERIOR, THETA, Batch(batch, share=jnp.asarray(0.25)), ()
    )
    np.testing.assert_allclose(gradient, 0.25 * by_hand([0, 1, 2]), rtol=1e-5)
    np.testing.assert_allclose(energy, POSTERIOR.potential(THETA, batch), rtol=1e-6)


@pytest.mark.parametrize("block_size", [None, 1, 3, 7, 50])
@pytest.mark.parametrize("wrap", [False, True])
def test_full_is_exact_in_any_blocks(block_size, wrap):
    """The full gradient does not depend on how many examples are evaluated at a time."""
    energy, gradient, _ = gradients.full(block_size)(
        POSTERIOR, THETA, Batch(DATA) if wrap else DATA, ()
    )
    np.testing.assert_allclose(gradient, by_hand(range(N)), rtol=1e-5)
    np.testing.assert_allclose(energy, POSTERIOR.potential(THETA, DATA), rtol=1e-6)


def test_full_needs_no_data_where_there_is_no_likelihood():
    """A density by itself has its gradient, in blocks or not."""
    free = Posterior.from_log_density(log_prior)
    for estimator in (gradients.full(), gradients.full(2), gradients.minibatch()):
        assert estimator.init(free, THETA, None) == ()
        np.testing.assert_allclose(estimator(free, THETA, None, ())[1], THETA)


@pytest.mark.parametrize("block_size", [0, -3])
def test_block_sizes_are_positive(block_size):
    """A block size below one is a ValueError."""
    with pytest.raises(ValueError, match=f"block_size: got {block_size}"):
        gradients.full(block_size)
