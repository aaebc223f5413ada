"""Defects of local entropy and of the learning coefficient: each must fail a check."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import _tree as trees
from sgmcmc.diagnostics import learning_coefficient
from sgmcmc.local import LocalEntropy
from tests.defects.test_defects import as_a, must_fail
from tests.laws.test_local_entropy import START, inner_mean, quadratic

pytestmark = pytest.mark.usefixtures("x64")  # laws are compared beyond single precision


def entropy():
    kernel = sgmcmc.sgld(quadratic(), 0.01, temperature=0.0)
    return sgmcmc.local.local_entropy(kernel, 1.0, num_steps=20, averaging=0.25)


def check_inner_loop(entropy):
    """μ after 20 steps without noise is the linear recursion's."""
    found = entropy.gradient(jax.random.key(0), jnp.asarray(START))
    np.testing.assert_allclose(found.mean, inner_mean(0.01, 1.0, 20, 0.25), rtol=1e-10)
    np.testing.assert_allclose(found.gradient, found.mean - START, rtol=1e-10)


class FromZero(LocalEntropy):
    """The average begins at zero."""

    def start(self, params):
        return trees.zeros_like(params)


class Pushed(LocalEntropy):
    """The γ-term pushes away from the centre."""

    def about(self, center, precision):
        return super().about(center, -precision)


class Forgotten(LocalEntropy):
    """No γ-term in the inner loop."""

    def about(self, center, precision):
        return self.kernel


@pytest.mark.parametrize("kind", [FromZero, Pushed, Forgotten])
def test_inner_loop(kind):
    """Each passes for the right loop alone."""
    check_inner_loop(entropy())
    must_fail(check_inner_loop, as_a(kind, entropy()))


ROWS = np.random.default_rng(0).normal(size=(200, 2))


def _log_likelihood(w, y):
    return -0.5 * jnp.sum((y - w) ** 2, axis=-1)


def _log_prior(w):
    return -5.0 * jnp.sum(w**2)


def tempered(factor, posterior, step_size):
    """BAOAB with the likelihood's weight off by a factor."""
    power = posterior.likelihood_power * factor
    return sgmcmc.baoab(posterior.with_likelihood_power(power), step_size, friction=3.0)


def deviation(factor, num_steps=4_000):
    """λ̂ of a regular model in two dimensions, at batches of 100 of 200: (off by, its error), in λ.

    λ is 2 · ½ nβ/(nβ + 1). Minibatch noise heats underdamped chains by h s²/(2γ), here 0.06%.
    """
    posterior = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=200)
    found = learning_coefficient(
        jax.random.key(0), posterior, jnp.asarray(ROWS.mean(axis=0)), ROWS,
        batch_size=100, precision=1.0, step_size=0.02, num_steps=num_steps, thinning=4,
        kernel=functools.partial(tempered, factor),
    )  # fmt: skip
    curvature = 200 / np.log(200)
    exact = curvature / (curvature + 1)
    return abs(found.estimate - exact) / exact, found.standard_error / exact


def test_weight_of_the_data():
    """β forgotten (a factor log n), N/n forgotten (a factor n/N), at a quarter of the steps."""
    off, error = deviation(1.0)
    assert off < 4 * error
    assert error < 0.04
    for factor in (float(np.log(200)), 0.5):
        off, error = deviation(factor, num_steps=1_000)
        assert off > 5 * error
