"""`diagnostics.stationary_law` as users meet it: its record, its precision, its refusals."""

import doctest
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc.diagnostics import stationary_law
from sgmcmc.models import gaussian, linear_regression
from tests.laws import samplers


def test_it_needs_no_setting_of_precision():
    """A kernel built in float32 is judged in float64, and JAX's setting is left alone."""
    with jax.enable_x64(False):
        kernel = sgmcmc.obabo(samplers.harmonic(), 0.2)
        law = stationary_law(kernel, jnp.zeros(2))
        assert jnp.zeros(1).dtype == jnp.float32
    h = float(np.float32(0.2))
    np.testing.assert_allclose(law.covariance, np.eye(2) / (1 - h * h / 4), atol=1e-13)


def test_the_record_holds_the_laws_of_each_part():
    """Every part has one row a parameter; overdamped kernels have no momentum."""
    posterior = gaussian(np.arange(3.0), np.eye(3)).posterior()
    law = stationary_law(sgmcmc.baoab(posterior, 0.2), jnp.zeros(3))
    assert law.mean.shape == law.momentum_mean.shape == (3,)
    assert law.covariance.shape == law.cross_covariance.shape == (3, 3)
    np.testing.assert_allclose(law.momentum_mean, 0, atol=1e-12)
    law = stationary_law(sgmcmc.sgld(posterior, 0.2), jnp.zeros(3))
    assert law.momentum_mean.shape == (0,)
    assert law.cross_covariance.shape == (3, 0)
    np.testing.assert_allclose(law.spectral_radius, 0.64, rtol=1e-12)


def test_linear_regression_with_all_data():
    """On linear regression with full gradients BAOAB draws from the exact posterior."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    model = linear_regression(noise_scale=0.5)
    mean, covariance = model.exact(x, y)
    kernel = sgmcmc.baoab(
        model.posterior(20), 0.2, metric=sgmcmc.metrics.dense(covariance),
        gradient=sgmcmc.gradients.full(block_size=7),
    )  # fmt: skip
    law = stationary_law(kernel, jnp.zeros(3), [sgmcmc.Batch((jnp.asarray(x), jnp.asarray(y)))])
    np.testing.assert_allclose(law.mean, mean, atol=1e-10)
    np.testing.assert_allclose(law.covariance, covariance, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("BAOAB", 2.0), ("OBABO", 2.0), ("ABOBA", 2.0), ("OABAO", 2.0), ("BAOA", 2.0),
     ("UBU", 2.399), ("BUB", 2.399), ("sghmc", 1.236), ("euler_maruyama", 1.0),
     ("sgld", 2.0), ("leimkuhler_matthews", 2.0)],
)  # fmt: skip
def test_limits_of_stability(name, limit):
    """Below the limit of h√k there is a law; above it, an error that says there is none."""
    stationary_law(samplers.make(name, samplers.harmonic(), limit - 0.002), jnp.zeros(1))
    with pytest.raises(ValueError, match="beyond the limit of stability"):
        stationary_law(samplers.make(name, samplers.harmonic(), limit + 0.002), jnp.zeros(1))


def test_minibatches_can_be_unstable_where_their_mean_is_not():
    """Second moments may grow although the mean contracts, and are what counts."""
    posterior, batches = samplers.quadratics([0.01, 1.99], [0.0, 0.0])
    with pytest.raises(ValueError, match="no stationary law"):
        stationary_law(sgmcmc.sgld(posterior, 0.6), jnp.zeros(1), batches)


def test_targets_that_are_not_gaussian_are_refused():
    """A quartic has no affine step: a ValueError, not a wrong law."""
    quartic = sgmcmc.Posterior.from_log_density(_quartic)
    with pytest.raises(ValueError, match="not affine"):
        stationary_law(sgmcmc.baoab(quartic, 0.1), jnp.zeros(1))


def test_schedules_are_refused():
    """Numbers that change with the step index have no stationary law."""
    for numbers in ({"step_size": _decay}, {"step_size": 0.1, "temperature": _decay}):
        kernel = sgmcmc.baoab(samplers.harmonic(), **numbers)
        with pytest.raises(ValueError, match="change with the step"):
            stationary_law(kernel, jnp.zeros(1))


def test_bad_arguments_are_named():
    """No batches, integer parameters and missing data are errors that name the argument."""
    with pytest.raises(ValueError, match="batches: got an empty list"):
        stationary_law(sgmcmc.baoab(samplers.harmonic(), 0.1), jnp.zeros(1), [])
    with pytest.raises(TypeError, match="position"):
        stationary_law(sgmcmc.baoab(samplers.harmonic(), 0.1), jnp.zeros(1, int))
    posterior, _ = samplers.quadratics([1.0], [0.0])
    with pytest.raises(ValueError, match="data: got None"):
        stationary_law(sgmcmc.baoab(posterior, 0.1), jnp.zeros(1))


def test_arithmetic_in_single_precision_is_refused():
    """Code that rounds to float32 inside cannot be judged to ten digits."""
    rounded = sgmcmc.Posterior.from_log_density(Partial(_rounded))
    with pytest.raises(ValueError, match="keep float64"):
        stationary_law(sgmcmc.baoab(rounded, 0.5), jnp.zeros(1))


def test_the_example_of_the_docstring():
    """The example in the docstring prints what it says."""
    assert doctest.testmod(sys.modules[stationary_law.__module__]).failed == 0


def _quartic(x):
    return -jnp.sum(x**4) / 4


def _decay(count):
    return 0.1 / (1 + count)


def _rounded(x):
    return -0.5 * jnp.sum(x.astype(jnp.float32) ** 2)
