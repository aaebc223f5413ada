"""The local learning coefficient against exact values: quadratics, crossings, linear networks.

An estimate is held to 4 of its standard errors between chains, which with 16 chains a right one
misses once in 900 (Student's t of 15 degrees), plus what Euler's step or a short run biases.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.integrate import quad

import sgmcmc
from sgmcmc.diagnostics import deep_linear_coefficient, learning_coefficient

STIFFNESS = np.logspace(-4, 1, 11)
BAOAB = functools.partial(sgmcmc.baoab, friction=2.0)


def nbeta(n):
    return n / np.log(n)


def flat(params):
    return jnp.zeros(())


def _quadratic(stiffness, w, rows):
    return -0.5 * jnp.sum(stiffness * w**2) * jnp.ones(rows.shape[0])


def _crossing(power, w, rows):
    """w₁² w₂^{2k}"""
    return -(w[0] ** 2) * w[1] ** (2 * power) * jnp.ones(rows.shape[0])


def _linear_network(teacher, weights, rows):
    product = functools.reduce(lambda left, right: right @ left, weights)
    return -0.5 * jnp.sum((product - teacher) ** 2) * jnp.ones(rows.shape[0])


def estimate(log_likelihood, params, n, **options):
    """λ̂ of a loss without data: n rows of nothing, one of them a step."""
    posterior = sgmcmc.Posterior(log_likelihood, flat, data_size=n)
    data = np.zeros(n, np.float32)
    options = {
        "precision": 1.0, "num_chains": 16, "batch_size": 1, "evaluation_data": data[:1],
    } | options  # fmt: skip
    return learning_coefficient(jax.random.key(0), posterior, params, data, **options)


def linear_network(widths, rank, **options):
    """The minimum is the balanced factorisation of diag(1, …, 1, 0, …)."""
    layers = [np.zeros((b, a), np.float32) for a, b in itertools.pairwise(widths)]
    teacher = np.zeros((widths[-1], widths[0]), np.float32)
    for matrix in [*layers, teacher]:
        matrix[range(rank), range(rank)] = 1
    log_likelihood = Partial(_linear_network, jnp.asarray(teacher))
    return estimate(log_likelihood, [jnp.asarray(x) for x in layers], 10_000, **options)


def exact_quadratic(n, precision, step_size=0.0):
    """½ Σ nβh/(nβh + ρ), each term over 1 − h(nβh + ρ)/2 by Euler's stationary variance."""
    curvature = nbeta(n) * STIFFNESS
    total = curvature + precision
    return 0.5 * np.sum(curvature / total / (1 - step_size * total / 2))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1_000, [5.5, 3.407487, 1.426343, 0.548320]),
        (100_000, [5.5, 5.021440, 3.187076, 2.191268]),
    ],
)
def test_known_values_of_a_quadratic(n, expected):
    """Localisation lowers λ̂: ρ = 0, 1, 100, 1000."""
    found = [exact_quadratic(n, rho) for rho in (0.0, 1.0, 100.0, 1000.0)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("rho", "step_size"), [(1.0, 0.02), (100.0, 0.02)])
def test_quadratic_without_bias(rho, step_size):
    """BAOAB has the exact law of positions on Gaussians, at any stable step."""
    found = estimate(
        Partial(_quadratic, jnp.asarray(STIFFNESS, jnp.float32)), jnp.zeros(11), 1_000,
        precision=rho, step_size=step_size, kernel=BAOAB, num_steps=10_000, thinning=10,
    )  # fmt: skip
    exact = exact_quadratic(1_000, rho)
    assert abs(found.estimate - exact) < 4 * found.standard_error
    assert found.standard_error < 0.03 * exact
    assert found.r_hat < 1.05
    np.testing.assert_allclose(found.trace.mean(), found.estimate, rtol=1e-6)
    assert found.share_below == 0
    assert found.nbeta == pytest.approx(nbeta(1_000))


def test_euler_step():
    """Euler's bias is the known one, by the exact stationary law and by sampling."""
    printed = {1e-5: 3.412809, 1e-4: 3.463540, 5e-4: 3.783050}
    for step_size, value in printed.items():
        np.testing.assert_allclose(exact_quadratic(1_000, 1.0, step_size), value, atol=1e-6)
    found = estimate(
        Partial(_quadratic, jnp.asarray(STIFFNESS, jnp.float32)), jnp.zeros(11), 1_000,
        step_size=5e-4, num_steps=40_000, num_burnin=10_000, thinning=20,
    )  # fmt: skip
    assert abs(found.estimate - printed[5e-4]) < 4 * found.standard_error
    assert found.standard_error < 0.01 * printed[5e-4]
    assert found.step_size == pytest.approx(5e-4)


def exact_crossing(power, n, precision):
    """By quadrature over w₂; given it w₁ is normal."""
    scale = 2 * nbeta(n)

    def weighted(w, numerator):
        rise = scale * w ** (2 * power)
        density = np.exp(-precision * w**2 / 2) / np.sqrt(rise + precision)
        return density * (0.5 * rise / (rise + precision) if numerator else 1.0)

    edges = [0, 1e-3, 1e-2, 0.05, 0.2, 1, 3, 12]
    edges = [e / np.sqrt(min(precision, 1)) for e in edges]
    top, bottom = (
        sum(quad(weighted, a, b, (numerator,), epsabs=0)[0] for a, b in itertools.pairwise(edges))
        for numerator in (True, False)
    )  # fmt: skip
    return top / bottom


def test_known_values_of_crossings():
    """w₁² w₂^{2k} for k = 0 to 3 at two sizes of the data, and over the localisation."""
    for n, expected in {
        1_000: [0.498279, 0.361403, 0.209529, 0.141564],
        1_000_000: [0.499997, 0.425292, 0.241341, 0.161421],
    }.items():
        found = [exact_crossing(k, n, 1.0) for k in range(4)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    found = [exact_crossing(1, 10_000, rho) for rho in (0.1, 1.0, 10.0, 100.0, 1000.0)]
    np.testing.assert_allclose(found, [0.427488, 0.391247, 0.293265, 0.064355, 0.001076], atol=1e-5)


def exact_cube(powers, scale):
    """∏ w_j^{2k_j} on [0, 1]^d, nβ = scale: −log of it is a sum of exponentials of means 2k_j."""
    rates = [1 / (2 * k) for k in powers]

    def density(u):
        if len(set(rates)) == 1:
            return u ** (len(rates) - 1) * np.exp(-rates[0] * u)
        first, second = rates
        return (np.exp(-first * u) - np.exp(-second * u)) / (second - first)

    def weighted(u, moment):
        rise = scale * np.exp(-u)
        return rise**moment * np.exp(-rise) * density(u)

    edges = [0, 3, 6, 9, 15, 30, 60, 120, 300]
    top, bottom = (
        sum(quad(weighted, a, b, (moment,), epsabs=0)[0] for a, b in itertools.pairwise(edges))
        for moment in (1, 0)
    )
    return top / bottom


def test_known_values_on_a_cube():
    """Flat priors on [0, 1]^d: the slow way to λ where two directions share it."""
    powers = [(1, 1), (1, 2), (1, 3), (2, 3), (1, 1, 1)]
    found = [exact_cube(k, 1_000) for k in powers]
    np.testing.assert_allclose(found, [0.387277, 0.226197, 0.155704, 0.118502, 0.287855], atol=1e-5)
    # λ = ¼ of multiplicity 1 is reached; λ = ½ of multiplicity 2 is missed by about 1/log nβ.
    np.testing.assert_allclose(exact_cube((1, 2), 1e12), 0.25, atol=1e-3)
    np.testing.assert_allclose(0.5 - exact_cube((1, 1), 1e12), 1 / np.log(1e12), rtol=0.1)


@pytest.mark.parametrize(
    ("power", "rho"),
    [(1, 1.0), (2, 10.0), *(pytest.param(k, 1.0, marks=pytest.mark.slow) for k in (0, 2, 3))],
)
def test_crossings(power, rho):
    """Degenerate minima, far below d/2 = 1: the finite-n value, not its limit."""
    found = estimate(
        Partial(_crossing, power), jnp.zeros(2), 1_000,
        precision=rho, step_size=0.01, kernel=BAOAB, num_steps=20_000, thinning=20,
    )  # fmt: skip
    exact = exact_crossing(power, 1_000, rho)
    assert abs(found.estimate - exact) < 4 * found.standard_error
    assert found.standard_error < 0.04 * exact


LOWEST = -20.0  # of log s: less carries no mass


def exact_two_layers(widths, precision, n):
    """½‖W₂W₁‖² with one or two hidden units.

    W₂ is normal given W₁, whose singular values s have density ∏ s^{H₁−H₂} |s₁² − s₂²| ×
    e^{−ρs²/2} (nβs² + ρ)^{−H₃/2}; λ̂ is the mean of (H₃/2) Σ nβs²/(nβs² + ρ).
    """
    inputs, hidden, outputs = widths
    inputs, outputs = max(inputs, outputs), min(inputs, outputs)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    t = LOWEST + (nodes + 1) * (np.log(8 / np.sqrt(precision)) - LOWEST) / 2
    s = np.exp(t)
    rise = nbeta(n) * s**2
    density = weights * s * s ** (inputs - hidden) * np.exp(-precision * s**2 / 2)
    density = density * (rise + precision) ** (-outputs / 2)
    share = outputs / 2 * rise / (rise + precision)
    if hidden == 1:
        return np.sum(density * share) / np.sum(density)
    # The kink on the diagonal: |s₁² − s₂²| is twice an integral over s₁ > s₂.
    lower = (nodes[:, None] + 1) / 2 * (t[None, :] - LOWEST) + LOWEST
    s2, inner = np.exp(lower), weights[:, None] * (t[None, :] - LOWEST) / 2
    rise2 = nbeta(n) * s2**2
    second = inner * s2 * s2 ** (inputs - hidden) * np.exp(-precision * s2**2 / 2)
    second = second * (rise2 + precision) ** (-outputs / 2)
    joint = second * density[None, :] * (s[None, :] ** 2 - s2**2)
    both = outputs / 2 * rise2 / (rise2 + precision) + share[None, :]
    return np.sum(joint * both) / np.sum(joint)


NETWORKS = [(1, 1, 1), (2, 1, 2), (2, 2, 2), (4, 2, 4), (4, 2, 3)]


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (1.0, [0.382479, 0.859807, 1.443641, 3.403880, 2.807335]),
        (10.0, [0.266106, 0.671001, 1.165351, 2.911420, 2.387538]),
    ],
)
def test_known_values_of_two_layers(rho, expected):
    """Zero networks at n = 10⁴."""
    found = [exact_two_layers(widths, rho, 10_000) for widths in NETWORKS]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "widths",
    [(2, 2, 2), *(pytest.param(w, marks=pytest.mark.slow) for w in NETWORKS if w != (2, 2, 2))],
)
def test_zero_networks(widths):
    """Rank 0 at n = 10⁴: the exact values, which lie some per cent below the limits."""
    found = linear_network(widths, 0, step_size=0.01, kernel=BAOAB, num_steps=20_000, thinning=20)
    exact = exact_two_layers(widths, 1.0, 10_000)
    assert abs(found.estimate - exact) < 3 * found.standard_error
    assert found.standard_error < 0.03 * exact


def check_network(widths, rank, **options):
    """Within 5% of the closed form and two errors; the finite-n value lies below the limit."""
    limit = deep_linear_coefficient(widths, rank).coefficient
    found = linear_network(widths, rank, kernel=BAOAB, **options)
    assert abs(found.estimate / limit - 1) < 0.05 + 2 * found.standard_error / limit
    assert found.standard_error < 0.02 * limit
    assert found.r_hat < 1.02
    assert found.gradient_norm == 0
    assert found.fall == 0


def test_a_linear_network():
    """5-3-5 of rank 1: 8, of 30 parameters."""
    check_network((5, 3, 5), 1, step_size=0.01, num_steps=10_000, thinning=20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "rank", "step_size", "num_steps"),
    [
        ((5, 5, 5), 2, 0.005, 20_000),
        ((5, 5, 5), 5, 0.004, 20_000),
        ((5, 5, 5, 5), 2, 0.001, 30_000),
    ],
)
def test_larger_linear_networks(widths, rank, step_size, num_steps):
    """Two and three layers, degenerate and regular."""
    check_network(widths, rank, step_size=step_size, num_steps=num_steps, thinning=20)


def _normal(w, y):
    return -0.5 * jnp.sum((y - w) ** 2, axis=-1)


def test_minibatches_of_data():
    """A regular model with data: nβρ-corrected d/2, with batches of 100 of 1,000."""
    y = np.random.default_rng(0).normal(size=(1_000, 3))
    posterior = sgmcmc.Posterior(_normal, lambda w: -50 * jnp.sum(w**2), data_size=1_000)
    found = learning_coefficient(
        jax.random.key(0), posterior, jnp.asarray(y.mean(axis=0), jnp.float32), y,
        batch_size=100, precision=1.0, step_size=2e-4, num_steps=4_000, thinning=4,
    )  # fmt: skip
    curvature = nbeta(1_000)
    total = curvature + 1
    # Batches without replacement add h/2 times the gradient's variance to the temperature.
    heat = 1 + 2e-4 / 2 * curvature**2 / 100 * (900 / 999)
    exact = 1.5 * curvature / total / (1 - 2e-4 * total / 2) * heat
    assert abs(found.estimate - exact) < 4 * found.standard_error
    assert found.standard_error < 0.02 * exact
