"""Exact laws on the harmonic oscillator: no sampling, ten digits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc.diagnostics import stationary_law
from tests.laws import oracle, samplers

# ⟨x²⟩ − 1, ⟨p²⟩ − 1 and ⟨xp⟩ at h = .2, γ = T = k = 1; eight digits.
TABLE = {
    "BAOAB": (0, -0.01, 0),
    "OBABO": (0.01010101, 0, 0),
    "ABOBA": (0, 0.01010101, 0),
    "OABAO": (-0.01, 0, 0),
    "BAOA": (0, 0, 0.1),
    "AOAB": (0, 0, -0.1),
    "UBU": (-0.00666048, 0.00334232, 0.00168145),
    "BUB": (0.00336465, -0.00662426, -0.00336465),
    "BAO": (-0.08052343, 0.00745326, 0.08278342),
    "OBA": (-0.08052343, 0.01111895, 0.10111190),
    "ABO": (0.12079223, 0.00908512, -0.10090851),
    "sghmc": (0.01123596, 0.12359551, 0.11235955),
    "euler_maruyama": (0.26373626, 0.37362637, -0.13736264),
    "sgld": (0.11111111,),
    "leimkuhler_matthews": (0,),
}

# What unit variance of gradient noise adds to ⟨x²⟩ and ⟨p²⟩; six digits.
NOISE_SHIFTS = {
    "BAOAB": (0.101347, 0.091340),
    "OBABO": (0.101347, 0.090333),
    "ABOBA": (0.100333, 0.101347),
    "OABAO": (0.100343, 0.100340),
    "BAOA": (0.101347, 0.082151),
    "AOAB": (0.101347, 0.122555),
    "UBU": (0.100003, 0.100336),
    "BUB": (0.101007, 0.091340),
    "BAO": (0.111560, 0.082234),
    "OBA": (0.111560, 0.122679),
    "ABO": (0.091154, 0.082069),
    "sghmc": (0.101124, 0.112360),
    "euler_maruyama": (0.126374, 0.137363),
    "sgld": (0.111111,),
    "leimkuhler_matthews": (0.111111,),
}

# The same shift of ⟨x²⟩ when every kick has a batch of its own.
FRESH_SHIFTS = {"BAOAB": 0.050673, "OBABO": 0.051177, "ABOBA": 0.050665, "BUB": 0.050503}


def computed(kernel, batches=None):
    """(⟨x²⟩, ⟨p²⟩, ⟨xp⟩) about the mean, from the library."""
    law = stationary_law(kernel, jnp.zeros(1), batches)
    parts = (law.covariance, law.momentum_covariance, law.cross_covariance)
    return np.concatenate([part.ravel() for part in parts])


@pytest.mark.parametrize("name", samplers.NAMES)
def test_law_on_the_oscillator(name):
    """⟨x²⟩, ⟨p²⟩, ⟨xp⟩ at the word's end equal a derivation in NumPy and the printed table."""
    got = computed(samplers.make(name, samplers.harmonic(), 0.2))
    np.testing.assert_allclose(got, oracle.moments(name, 0.2), atol=1e-10)
    excess = got - np.array([1.0, 1.0, 0.0])[: len(got)]
    np.testing.assert_allclose(excess, TABLE[name], atol=5.01e-9)


@pytest.mark.parametrize("name", samplers.NAMES)
@pytest.mark.parametrize(
    ("k", "h", "gamma", "temperature"),
    [(1.0, 0.05, 1.0, 1.0), (4.0, 0.3, 0.5, 0.1), (0.25, 0.5, 1.5, 2.0)],
)
def test_law_as_a_function_of_its_numbers(name, k, h, gamma, temperature):
    """The law follows stiffness, step, friction and temperature as the derivation does."""
    kernel = samplers.make(name, samplers.harmonic(k), h, friction=gamma, temperature=temperature)
    numbers = {"k": k, "gamma": gamma, "temperature": temperature}
    if name == "euler_maruyama" and k == 4.0:
        # x² + p² grows: the noiseless step has an eigenvalue of modulus² 1 − hγ + h²k > 1.
        with pytest.raises(ValueError, match="no stationary law"):
            computed(kernel)
        return
    expected = oracle.moments(name, h, **numbers)
    np.testing.assert_allclose(computed(kernel), expected, rtol=1e-10, atol=1e-12)
    # Friction, which some laws do not see, is seen in how fast they are reached.
    radius = stationary_law(kernel, jnp.zeros(1)).spectral_radius
    np.testing.assert_allclose(radius, oracle.contraction(name, h, **numbers), rtol=1e-7)


@pytest.mark.parametrize(("h", "k", "temperature"), [(0.1, 1, 1), (0.5, 1, 2), (0.5, 3, 1)])
def test_closed_forms(h, k, temperature):
    """OBABO, OABAO, BAOAB, ABOBA and SGLD have the stationary moments of their closed forms."""

    def x2_p2(name):
        kernel = samplers.make(name, samplers.harmonic(k), h, temperature=temperature)
        return computed(kernel)[:2]

    factor = 1 - h * h * k / 4
    exact = temperature / k
    np.testing.assert_allclose(x2_p2("OBABO"), [exact / factor, temperature], rtol=1e-12)
    np.testing.assert_allclose(x2_p2("OABAO"), [exact * factor, temperature], rtol=1e-12)
    np.testing.assert_allclose(x2_p2("BAOAB"), [exact, temperature * factor], rtol=1e-12)
    np.testing.assert_allclose(x2_p2("ABOBA"), [exact, temperature / factor], rtol=1e-12)
    np.testing.assert_allclose(x2_p2("sgld"), [exact / (1 - h * k / 2)], rtol=1e-12)
    np.testing.assert_allclose(x2_p2("leimkuhler_matthews"), [exact], rtol=1e-12)


@pytest.mark.parametrize("name", samplers.NAMES)
def test_gradient_noise(name):
    """Independent gradient errors of unit variance shift the law by the table's figures."""
    posterior, batches = samplers.noisy_harmonic()
    got = computed(samplers.make(name, posterior, 0.2), batches)
    expected = oracle.moments(name, 0.2, error=1.0)
    np.testing.assert_allclose(got, expected, atol=1e-10)
    shift = (got - oracle.moments(name, 0.2))[:2]
    np.testing.assert_allclose(shift, NOISE_SHIFTS[name], atol=5.01e-7)


@pytest.mark.parametrize("name", FRESH_SHIFTS)
def test_gradient_noise_with_a_batch_for_each_kick(name):
    """With a new batch for each B the shift of ⟨x²⟩ is the table's "fresh" column."""
    posterior, batches = samplers.noisy_harmonic()
    kernel = samplers.make(name, posterior, 0.2, reuse_gradient=False, batches_per_step=2)
    pairs = [
        jax.tree.map(lambda *parts: jnp.stack(parts), *pair)
        for pair in itertools.product(batches, repeat=2)
    ]
    got = computed(kernel, pairs)
    np.testing.assert_allclose(got, oracle.moments(name, 0.2, error=1.0, fresh=True), atol=1e-10)
    np.testing.assert_allclose(
        got[0] - oracle.moments(name, 0.2)[0], FRESH_SHIFTS[name], atol=5.01e-7
    )


@pytest.mark.parametrize("h", [0.1, 0.2, 0.4])
def test_gradient_noise_of_baoab_in_closed_form(h):
    """F2: Δ⟨x²⟩ = h² (1 + c) / (4 k (1 − c)(1 − h²k/4)), 1.10134658 in all at h = .2."""
    posterior, batches = samplers.noisy_harmonic()
    got = computed(sgmcmc.baoab(posterior, h), batches)[0]
    c = np.exp(-h)
    np.testing.assert_allclose(got, 1 + h**2 * (1 + c) / (4 * (1 - c) * (1 - h**2 / 4)), rtol=1e-12)
    if h == 0.2:
        np.testing.assert_allclose(got, 1.10134658, atol=5.01e-9)


def test_fractions_choose_the_letters_share():
    """BAOAB with its second A, O left out of balance equals the same letters typed in NumPy."""
    kernel = sgmcmc.langevin(
        samplers.harmonic(), 0.2, word="ABAO", fractions=[0.25, 1.0, 0.75, 1.0]
    )
    got = computed(kernel)
    matrix, c = np.eye(2), np.exp(-0.2)
    for factor in (
        [[1, 0.05], [0, 1]], [[1, 0], [-0.2, 1]], [[1, 0.15], [0, 1]], [[1, 0], [0, c]],
    ):  # fmt: skip
        matrix = np.array(factor) @ matrix
    s = oracle.lyapunov(matrix, np.diag([0, 1 - c * c]))
    np.testing.assert_allclose(got, [s[0, 0], s[1, 1], s[0, 1]], rtol=1e-12)
