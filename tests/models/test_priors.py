"""Priors agree with scipy, sum over any pytree, and say what is wrong with an argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sgmcmc.models import priors


def pairs():
    return [
        (priors.normal(0.7), scipy.stats.norm(0, 0.7)),
        (priors.laplace(0.3), scipy.stats.laplace(0, 0.3)),
        (priors.student_t(4.0, 2.0), scipy.stats.t(4, 0, 2)),
    ]


def params():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    return ({"weight": a, "bias": b[0]}, b[1, 2])


@pytest.mark.parametrize("which", range(3), ids=["normal", "laplace", "student_t"])
class TestLogDensity:
    """Scipy's, summed over the leaves of any tree."""

    def check(self, which, tree, rtol):
        prior, law = pairs()[which]
        every = np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])
        np.testing.assert_allclose(jax.jit(prior)(tree), law.logpdf(every).sum(), rtol=rtol)

    def test_float32(self, which):
        self.check(which, params(), 1e-5)

    def test_float64(self, which, x64):
        self.check(which, jax.tree.map(np.float64, params()), 1e-12)


def test_scales_share_one_trace():
    traces = []

    @jax.jit
    def density(prior, tree):
        traces.append(1)
        return prior(tree)

    density(priors.normal(1.0), params())
    density(priors.normal(2.0), params())
    assert len(traces) == 1


def test_small_parameters_keep_their_gradient_under_student_t():
    """d/dθ log t = −(ν+1) θ/(ν s² + θ²): near 0 it is linear, and float32 must not lose it."""
    slope = jax.grad(lambda x: priors.student_t(3.0, 1.0)({"x": x}))(jnp.float32(1e-5))
    np.testing.assert_allclose(slope, -4 / 3 * 1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), [1.0, 2.0]])
def test_bad_scales_are_named(scale):
    with pytest.raises(ValueError, match="scale: got"):
        priors.normal(scale)


def test_bad_df_is_named():
    with pytest.raises(ValueError, match="df: got -1"):
        priors.student_t(-1)


def test_as_prior_takes_numbers_and_functions():
    np.testing.assert_allclose(priors.as_prior(2.0)(params()), priors.normal(2.0)(params()))
    np.testing.assert_allclose(
        priors.as_prior(priors.laplace(0.3))(params()), priors.laplace(0.3)(params())
    )
    with pytest.raises(TypeError, match="prior: got str"):
        priors.as_prior("normal")
