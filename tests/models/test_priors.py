"""Priors agree with scipy, sum over any pytree, and say what is wrong with an argument."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
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


@pytest.mark.parametrize(("scale", "floor"), [(1.0, 0.01), (0.3, 0.3), (2.0, None)])
def test_horseshoe_like_is_a_density(scale, floor, x64):
    """It integrates to 1, by quadrature on both sides of its rounded pole, and sums over leaves."""
    prior = priors.horseshoe_like(scale, floor)
    pieces = [0, 1e-3 * scale, 0.1 * scale, scale, 10 * scale, np.inf]
    density = lambda x: float(jnp.exp(prior({"x": np.float64(x)})))  # noqa: E731
    mass = sum(scipy.integrate.quad(density, a, b)[0] for a, b in itertools.pairwise(pieces))
    np.testing.assert_allclose(2 * mass, 1, rtol=1e-7)
    tree = {"a": np.asarray([0.1, -2.0]), "b": np.asarray(0.7)}
    each = sum(float(prior({"x": np.float64(x)})) for x in (0.1, -2.0, 0.7))
    np.testing.assert_allclose(prior(tree), each, rtol=1e-12)


def test_horseshoe_like_lies_over_the_horseshoe(x64):
    """(2π³)^{−1/2} log(1 + 2/θ²) bounds ∫ N(θ; 0, λ²) C⁺(λ) dλ above; half of it with 4 below."""
    prior, k = priors.horseshoe_like(np.sqrt(2), 1e-9), (2 * np.pi**3) ** -0.5
    for x in (0.05, 0.5, 3.0):
        exact = k * np.exp(x**2 / 2) * scipy.special.exp1(x**2 / 2)
        bound = float(jnp.exp(prior({"x": np.float64(x)}))) * k * 2 * np.pi * np.sqrt(2)
        np.testing.assert_allclose(bound, k * np.log1p(2 / x**2), rtol=1e-8)
        assert k / 2 * np.log1p(4 / x**2) < exact < bound


def test_horseshoe_like_has_a_bounded_gradient():
    """0 at the rounded pole and where θ² underflows; elsewhere below the bound that is stated."""
    slope = jax.vmap(jax.grad(lambda x: priors.horseshoe_like(1.0, 1e-2)({"x": x})))
    assert slope(jnp.zeros(1))[0] == 0
    x = jnp.geomspace(1e-30, 1e6, 200)
    slopes = slope(x)
    assert bool(jnp.all(jnp.isfinite(slopes)))
    assert bool(jnp.all(slopes <= 0))
    assert float(-slopes.min()) == pytest.approx(1 / (0.01 * np.log(1 / 2e-4)), rel=0.02)
    with pytest.raises(ValueError, match="floor: got 0"):
        priors.horseshoe_like(1.0, 0.0)


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
