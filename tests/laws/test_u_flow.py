"""The U flow: the exact flow of drift, friction and noise together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from sgmcmc import metrics
from sgmcmc._special import position_noise_rest
from sgmcmc.kernels import _flows as substeps
from tests.laws import oracle


def flow(t, gamma, temperature=1.0, dtype=jnp.float64):
    """The flow's matrix on (x, p) and its noise's matrix on (ξ1, ξ2), from unit vectors."""
    t, gamma, temperature = (jnp.asarray(v, dtype) for v in (t, gamma, temperature))

    def one(x, p, first, second):
        position, momentum = substeps.drift_with_friction(
            x, p, (first, second), t, gamma, temperature, metrics.identity()
        )
        return jnp.stack([position, momentum])

    columns = jax.vmap(one)(*jnp.eye(4, dtype=dtype))
    assert columns.dtype == dtype
    return np.asarray(columns[:2], np.float64).T, np.asarray(columns[2:], np.float64).T


def spread(t, gamma, temperature=1.0):
    noise = flow(t, gamma, temperature)[1]
    return noise @ noise.T


@pytest.mark.parametrize(("t", "gamma"), [(0.2, 1.0), (1.0, 0.3), (0.5, 8.0), (2.0, 0.01)])
def test_covariance_is_the_integral_of_its_definition(t, gamma):
    """Σ = 2γT ∫ φ(s) φ(s)ᵀ ds with φ = ((1 − e^{−γs})/γ, e^{−γs}), by quadrature."""
    temperature = 1.7
    phi = (lambda s: -np.expm1(-gamma * s) / gamma, lambda s: np.exp(-gamma * s))

    def entry(f, g):
        integral = quad(lambda s: f(s) * g(s), 0, t, epsabs=0, epsrel=1e-12)[0]
        return 2 * gamma * temperature * integral

    expected = [[entry(f, g) for g in phi] for f in phi]
    np.testing.assert_allclose(spread(t, gamma, temperature), expected, rtol=1e-10)


@pytest.mark.parametrize(("t", "gamma"), [(0.2, 1.0), (1.3, 2.0), (0.01, 0.1)])
def test_flow_is_the_matrix_exponential(t, gamma):
    """Flow and covariance equal those of Van Loan's block exponential."""
    matrix, covariance = oracle.u_flow(t, gamma, 1.0)
    np.testing.assert_allclose(flow(t, gamma)[0], matrix, rtol=1e-12)
    np.testing.assert_allclose(spread(t, gamma), covariance, rtol=1e-9)


@pytest.mark.parametrize("z", [1e-4, 1e-2, 0.3, 0.6, 2.0])
def test_semigroup(z):
    """Two flows of duration t are one of 2t: Σ(2t) = A Σ(t) Aᵀ + Σ(t)."""
    matrix, _ = flow(z, 1.0)
    np.testing.assert_allclose(flow(2 * z, 1.0)[0], matrix @ matrix, rtol=1e-12)
    half = spread(z, 1.0)
    np.testing.assert_allclose(spread(2 * z, 1.0), matrix @ half @ matrix.T + half, rtol=1e-11)


def test_without_friction_it_is_a_drift():
    """At γ = 0 the flow is x + t p with no noise, and it is continuous there."""
    for dtype in (jnp.float32, jnp.float64):
        matrix, noise = flow(0.7, 0.0, dtype=dtype)
        np.testing.assert_allclose(matrix, [[1, 0.7], [0, 1]], rtol=1e-7)
        np.testing.assert_array_equal(noise, 0)
    matrix, noise = flow(0.7, 1e-12)
    np.testing.assert_allclose(matrix, [[1, 0.7], [0, 1]], atol=1e-11)
    # Σ → 2γT [[t³/3, t²/2], [t²/2, t]].
    expected = 2e-12 * np.array([[0.7**3 / 3, 0.7**2 / 2], [0.7**2 / 2, 0.7]])
    np.testing.assert_allclose(noise @ noise.T, expected, rtol=1e-10)


@pytest.mark.parametrize("z", [1e-4, 3e-4, 1e-3, 1e-2, 0.1, 0.29, 0.31, 0.5, 0.99, 1.01, 3.0, 20.0])
def test_noise_in_single_precision(z):
    """In float32 the noise's coefficients and Σ keep a relative error of 1e-5 from γt = 1e-4 on."""
    t = 0.25
    gamma = np.float32(z / t)
    exact_t, exact_gamma = float(np.float32(t)), float(gamma)
    _, noise = flow(t, gamma, dtype=jnp.float32)
    w = exact_gamma * exact_t
    expected = np.array(
        [
            [
                exact_t * np.tanh(w / 2) / w * np.sqrt(-np.expm1(-2 * w)),
                exact_t * np.sqrt(2 * _difference(w)) / w,
            ],
            [np.sqrt(-np.expm1(-2 * w)), 0.0],
        ]
    )
    np.testing.assert_allclose(noise, expected, rtol=1e-5)
    np.testing.assert_allclose(noise @ noise.T, expected @ expected.T, rtol=1e-5)


def _difference(w):
    """w − 2 tanh(w/2), by its integral ∫ tanh²(s/2) ds, which cancels nothing."""
    return quad(lambda s: np.tanh(s / 2) ** 2, 0, w, epsabs=0, epsrel=1e-12)[0]


def test_series_meets_the_closed_form():
    """(z − 2 tanh(z/2))/z³ from its series equals its integral, and is 1/12 at 0."""
    z = np.array([1e-6, 1e-3, 0.1, 0.5, 0.999999, 1.000001, 2.0, 30.0])
    got = position_noise_rest(jnp.asarray(z))
    np.testing.assert_allclose(got, [_difference(w) / w**3 for w in z], rtol=1e-11)
    np.testing.assert_allclose(position_noise_rest(jnp.zeros(())), 1 / 12, rtol=1e-15)
