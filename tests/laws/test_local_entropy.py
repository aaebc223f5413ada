"""Local entropy against closed forms: quadratics, the inner loop's own law, and two wells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.optimize import brentq

import sgmcmc

STIFFNESS = np.array([1.0, 10.0, 100.0])
START = np.ones(3)
# Estimates are held to 4 of their standard errors: a false alarm in 16,000 a comparison.


def _minus_quadratic(stiffness, y):
    return -0.5 * jnp.sum(stiffness * y**2)


def quadratic():
    return sgmcmc.Posterior.from_log_density(Partial(_minus_quadratic, jnp.asarray(STIFFNESS)))


def exact_entropy(gamma, x=START):
    """F of a quadratic: the determinant, and the energy of the pull and the bowl in series."""
    energy = 0.5 * np.sum(gamma * STIFFNESS / (STIFFNESS + gamma) * x**2)
    return 0.5 * np.sum(np.log(2 * np.pi / (STIFFNESS + gamma))) - energy


def inner_mean(step_size, gamma, num_steps, averaging):
    """E μ after L Euler steps on the quadratic: a linear recursion of y and μ."""
    y, mean = START.copy(), START.copy()
    for _ in range(num_steps):
        y = y - step_size * (STIFFNESS * y - gamma * (START - y))
        mean = (1 - averaging) * mean + averaging * y
    return mean


def inner_variance(step_size, gamma, num_steps, averaging, temperature):
    """Var μ of the same recursion, from the second moments of (y, μ)."""
    total = []
    for k in STIFFNESS:
        decay = 1 - step_size * (k + gamma)
        matrix = np.array([[decay, 0.0], [averaging * decay, 1 - averaging]])
        noise = np.sqrt(2 * step_size * temperature) * np.array([1.0, averaging])
        covariance = np.zeros((2, 2))
        for _ in range(num_steps):
            covariance = matrix @ covariance @ matrix.T + np.outer(noise, noise)
        total.append(covariance[1, 1])
    return np.array(total)


@pytest.mark.parametrize(
    ("gamma", "printed"),
    [(0.1, -0.895102), (1.0, -2.295861), (10.0, -9.790238), (100.0, -34.590648)],
)
def test_entropy_of_a_quadratic(gamma, printed):
    """The closed form has the known digits, and importance sampling agrees with it.

    At x = 1 and γ = 100 the proposal N(x, 1/γ) misses the mass, and says so; it is judged nearer.
    """
    np.testing.assert_allclose(exact_entropy(gamma), printed, atol=1e-6)
    entropy = sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), 0.01), gamma)
    x = START if gamma < 100 else 0.3 * START
    found = entropy.value(jax.random.key(1), jnp.asarray(x), num_samples=200_000)
    assert found.effective_samples > 100
    assert abs(found.value - exact_entropy(gamma, x)) < 4 * found.standard_error
    if gamma == 100:
        far = entropy.value(jax.random.key(1), jnp.asarray(START), num_samples=200_000)
        assert far.effective_samples < 100


def test_gradient_of_a_quadratic():
    """−γH/(H + γ) x at γ = 10 by BAOAB, whose law is exact on Gaussians."""
    gamma, chains = 10.0, 400
    exact = -gamma * STIFFNESS / (STIFFNESS + gamma) * START
    np.testing.assert_allclose(exact, [-0.909091, -5.0, -9.090909], atol=1e-6)
    entropy = sgmcmc.local.local_entropy(
        sgmcmc.baoab(quadratic(), 0.1, friction=3.0),
        gamma, num_steps=200, averaging=None, num_burnin=100,
    )  # fmt: skip
    found = jax.vmap(entropy.gradient, (0, None))(
        jax.random.split(jax.random.key(0), chains), jnp.asarray(START)
    )
    assert bool(jnp.all(found.finite))
    error = found.gradient.std(axis=0, ddof=1) / np.sqrt(chains)
    assert np.all(np.abs(found.gradient.mean(axis=0) - exact) < 4 * error)


@pytest.mark.parametrize(
    ("averaging", "printed"),
    [(0.25, [0.144530, 0.770311, 0.986970]), (0.75, [0.163910, 0.816902, 0.990099])],
)
def test_mean_of_the_inner_loop(averaging, printed):
    """γ (x − E μ) after 20 steps, without noise, is the recursion's, to ten digits."""
    kernel = sgmcmc.sgld(quadratic(), 0.01, temperature=0.0)
    entropy = sgmcmc.local.local_entropy(kernel, 1.0, num_steps=20, averaging=averaging)
    found = entropy.gradient(jax.random.key(0), jnp.asarray(START))
    np.testing.assert_allclose(-found.gradient, printed, atol=1e-6)
    np.testing.assert_allclose(found.mean, inner_mean(0.01, 1.0, 20, averaging), rtol=1e-10)


def test_limits():
    """Many steps without noise: the proximal point. A strong pull, h < 2/γ: minus ∇f, SGD."""
    kernel = sgmcmc.sgld(quadratic(), 0.01, temperature=0.0)
    x = jnp.asarray(START)
    for gamma in (1.0, 10.0):
        entropy = sgmcmc.local.local_entropy(kernel, gamma, num_steps=3_000, averaging=1.0)
        found = entropy.gradient(jax.random.key(0), x)
        np.testing.assert_allclose(found.mean, gamma * START / (STIFFNESS + gamma), rtol=1e-10)
    strong = sgmcmc.sgld(quadratic(), 1e-8, temperature=0.0)
    entropy = sgmcmc.local.local_entropy(strong, 1e8, num_steps=100, averaging=1.0)
    found = entropy.gradient(jax.random.key(0), x)
    np.testing.assert_allclose(found.gradient, -STIFFNESS * START, rtol=2e-6)


def test_spread_of_the_inner_loop():
    """The standard deviation of μ at T = 1 over 40,000 loops: within 4 standard errors, 1.4%."""
    loops = 40_000
    exact = np.sqrt(inner_variance(0.01, 1.0, 20, 0.25, 1.0))
    np.testing.assert_allclose(exact, [0.466086, 0.258267, 0.053055], atol=1e-6)
    entropy = sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), 0.01), 1.0)
    keys = jax.random.split(jax.random.key(3), loops)
    found = jax.vmap(entropy.gradient, (0, None))(keys, jnp.asarray(START))
    assert np.all(np.abs(found.mean.std(axis=0) / exact - 1) < 4 / np.sqrt(2 * loops))


def _log_two_wells(y):
    """A sharp deep well at −1, a wide shallow one at +1."""
    y = jnp.squeeze(y)
    return jnp.logaddexp(-100 * (y + 1) ** 2, -0.5 - 2 * (y - 1) ** 2)


def two_wells_entropy(x, gamma):
    """F of the mixture of two Gaussian wells."""
    total = 0.0
    for weight, place, k in ((1.0, -1.0, 200.0), (np.exp(-0.5), 1.0, 4.0)):
        pull = gamma * k / (gamma + k) * (x - place) ** 2 / 2
        total += weight * np.sqrt(2 * np.pi / (gamma + k)) * np.exp(-pull)
    return np.log(total)


def difference(gamma):
    return two_wells_entropy(1.0, gamma) - two_wells_entropy(-1.0, gamma)


def test_which_well_wins():
    """The wide well wins below γ* = 109.907213, the deep one above; estimates agree."""
    np.testing.assert_allclose(difference(1.0), 0.807262, atol=1e-6)
    np.testing.assert_allclose(difference(1000.0), -0.411065, atol=1e-6)
    np.testing.assert_allclose(brentq(difference, 50, 200, xtol=1e-10), 109.907213, atol=1e-5)
    posterior = sgmcmc.Posterior.from_log_density(_log_two_wells)
    for gamma in (1.0, 50.0, 1000.0):
        entropy = sgmcmc.local.local_entropy(sgmcmc.sgld(posterior, 1e-4), gamma)
        wide, deep = (
            entropy.value(jax.random.key(5), jnp.array([x]), num_samples=100_000)
            for x in (1.0, -1.0)
        )
        error = np.hypot(wide.standard_error, deep.standard_error)
        assert abs(wide.value - deep.value - difference(gamma)) < 4 * error


def test_minibatches_and_pytrees():
    """Batches are taken in order, and a dict of parameters is one point."""
    rows = np.random.default_rng(0).normal(size=(5, 2, 3))
    gamma, h = 2.0, 0.1
    posterior = sgmcmc.Posterior(_log_likelihood, _flat, data_size=10).with_likelihood_power(0.1)
    kernel = sgmcmc.sgld(posterior, h, temperature=0.0)
    entropy = sgmcmc.local.local_entropy(kernel, gamma, num_steps=5, averaging=1.0)
    x = {"a": jnp.zeros(2), "b": jnp.ones(1)}
    found = entropy.gradient(jax.random.key(0), x, jnp.asarray(rows))
    start = np.array([0.0, 0.0, 1.0])
    y = start.copy()
    for batch in rows:
        y = y - h * ((y - batch.mean(axis=0)) + gamma * (y - start))
    np.testing.assert_allclose(np.concatenate([found.mean["a"], found.mean["b"]]), y, rtol=1e-12)


def _log_likelihood(x, rows):
    return -0.5 * jnp.sum((rows - jnp.concatenate([x["a"], x["b"]])) ** 2, axis=-1)


def _flat(x):
    return jnp.zeros(())


def test_scoping():
    """γ_t = γ₀ (1 + γ₁)^t reaches the gradient: without an inner move left, −γ_t (x − μ)."""
    schedule = sgmcmc.local.scoping(0.03, 0.001)
    np.testing.assert_allclose(schedule(jnp.asarray(500)), 0.03 * 1.001**500, rtol=1e-12)
    kernel = sgmcmc.sgld(quadratic(), 1e-3, temperature=0.0)
    entropy = sgmcmc.local.local_entropy(kernel, schedule, num_steps=1)
    found = entropy.gradient(jax.random.key(0), jnp.asarray(START), step=500)
    np.testing.assert_allclose(
        found.gradient, -0.03 * 1.001**500 * 0.25 * 1e-3 * STIFFNESS, rtol=1e-10
    )


def test_published_forms():
    """The three forms in our letters: the noise of one step has the published size."""
    rate, eps = 0.1, 1e-3
    sizes = {"code": eps * np.sqrt(2 * rate), "text_final": eps * np.sqrt(rate)}
    sizes["text_v1"] = 2 * np.sqrt(rate)
    for form, size in sizes.items():
        made = sgmcmc.convert.entropy_sgd(form, rate, eps)
        np.testing.assert_allclose(np.sqrt(2 * made.step_size * made.temperature), size)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": 0.0}, "precision: got 0.0; expected a finite number > 0"),
        ({"precision": -1.0}, "precision: got -1.0"),
        ({"num_steps": 0}, "num_steps: got 0; allowed: at least 1"),
        ({"averaging": 0.0}, "averaging: got 0.0"),
        ({"averaging": 1.5}, "averaging: got 1.5; expected a finite number > 0 and ≤ 1"),
        ({"num_burnin": -1}, "num_burnin: got -1"),
    ],
)
def test_bad_numbers(changed, message):
    """Each bad number is named, with what is allowed."""
    arguments = {"precision": 1.0} | changed
    with pytest.raises(ValueError, match=message):
        sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), 0.1), **arguments)


def test_bad_kernels_and_batches():
    """Kernels that the inner loop cannot serve, and batches of another number than L."""
    with pytest.raises(TypeError, match="kernel: got Posterior; expected a sampler"):
        sgmcmc.local.local_entropy(quadratic(), 1.0)
    with pytest.raises(ValueError, match="step_size: got None"):
        sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), None), 1.0)
    local = quadratic().localized(jnp.zeros(3), 1.0)
    with pytest.raises(ValueError, match="localised already"):
        sgmcmc.local.local_entropy(sgmcmc.sgld(local, 0.1), 1.0)
    with pytest.raises(ValueError, match="form: got 'text'"):
        sgmcmc.convert.entropy_sgd("text", 0.1)
    entropy = sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), 0.1), 1.0, num_steps=5)
    with pytest.raises(ValueError, match="expected a leading axis of 5"):
        entropy.gradient(jax.random.key(0), jnp.zeros(3), jnp.zeros((4, 2)))


def _log_exponential(y):
    return y - jnp.exp(2 * y)


def exponential_mean(gamma):
    """⟨y⟩ of exp(−e^{2y} + y − γy²/2), by quadrature."""
    y = np.linspace(-60, 8, 400_001)
    density = np.exp(y - np.exp(2 * y) - gamma / 2 * y**2)
    return (y * density).sum() / density.sum()


@pytest.mark.parametrize("sampler", ["samadams", "sa_sgld"])
def test_an_adaptive_inner_clock_weighs_its_points(sampler):
    """f = e^{2y} − y about 0 at γ = .05: ⟨y⟩ = −.8893 and ∇F = γ⟨y⟩ = −.0445, for a mean of all
    points and for one of the last few.

    Steps are short where the gradient is large: means over steps are −.64 and −.66. Errors of 512
    loops are .01 and .04: 4 of them, and the wrong value 24 and 6 away.
    """
    gamma, exact = 0.05, exponential_mean(0.05)
    assert exact == pytest.approx(-0.8893, abs=1e-4)
    posterior = sgmcmc.Posterior.from_log_density(_log_exponential)
    kernel = (
        sgmcmc.samadams(posterior, 0.05, friction=1.0)
        if sampler == "samadams"
        else sgmcmc.sa_sgld(posterior, 0.02)
    )
    for seed, averaging in enumerate((None, 0.25)):
        keys = jax.random.split(jax.random.key(seed), 512)
        entropy = sgmcmc.local.local_entropy(
            kernel, gamma, num_steps=2_000, num_burnin=500, averaging=averaging
        )
        found = jax.vmap(entropy.gradient, (0, None))(keys, jnp.zeros(()))
        error = float(found.mean.std(ddof=1)) / np.sqrt(512)
        assert error < (0.02 if averaging is None else 0.06)
        assert abs(float(found.mean.mean()) - exact) < 4 * error
        np.testing.assert_allclose(found.gradient, gamma * found.mean, rtol=1e-12)


def _shrinking(count):
    return 0.01 / (1 + count)


@pytest.mark.parametrize("averaging", [None, 0.25])
def test_a_scheduled_inner_clock_weighs_its_points(averaging):
    """Without noise: Σ h_k y_k/Σ h_k; or the running sums of a h y over those of a h, x first."""
    kernel = sgmcmc.sgld(quadratic(), _shrinking, temperature=0.0)
    entropy = sgmcmc.local.local_entropy(
        kernel, 1.0, num_steps=20, num_burnin=3, averaging=averaging
    )
    y, above, below = START.copy(), np.zeros(3), 0.0
    for k in range(23):
        h = 0.01 / (1 + k)
        y = y - h * (STIFFNESS * y + 1.0 * (y - START))
        if k >= 3 and averaging is None:
            above, below = above + h * y, below + h
        elif k >= 3:
            if k == 3:  # x weighs as much as the first point
                above, below = h * START, h
            above = (1 - averaging) * above + averaging * h * y
            below = (1 - averaging) * below + averaging * h
    found = entropy.gradient(jax.random.key(0), jnp.asarray(START))
    np.testing.assert_allclose(found.mean, above / below, rtol=1e-10)
