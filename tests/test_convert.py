"""Rows of the scaling contract: the same chain in two conventions, on shared normals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from sgmcmc import convert

N, D, STEPS = 50, 3, 25
HESSIAN = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.2], [0.0, -0.2, 0.5]])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def log_density(theta):
    """U = N θᵀHθ/2 + N Σθ: as large as a sum over N examples."""
    return -N * (0.5 * theta @ jnp.asarray(HESSIAN) @ theta + jnp.sum(theta))


def gradient(theta):
    return N * (HESSIAN @ theta + 1)


def normals():
    return np.random.default_rng(0).normal(size=(STEPS, D))


def ours(convention, momentum=None):
    """Positions of the kernel that the convention names, driven by the shared normals."""
    make = getattr(sgmcmc, convention.kernel)
    options = {"temperature": convention.temperature}
    if convention.friction is not None:
        options["friction"] = convention.friction
    kernel = make(sgmcmc.Posterior.from_log_density(log_density), convention.step_size, **options)
    state = kernel.init(jnp.zeros(D), jax.random.key(0))
    if momentum is not None:
        state = state._replace(momentum=jnp.asarray(momentum))
    positions = []
    for xi in normals():
        state, info = kernel.drive(jnp.asarray(xi)[None], state, None)
        positions.append(np.asarray(info.position))
    return np.array(positions)


def overdamped(update):
    theta, positions = np.zeros(D), []
    for xi in normals():
        theta = update(theta, xi)
        positions.append(theta)
    return np.array(positions)


def underdamped(update, momentum):
    theta, positions = np.zeros(D), []
    for xi in normals():
        theta, momentum = update(theta, momentum, xi)
        positions.append(theta)
    return np.array(positions)


def check(one, other):
    assert np.ptp(one) > 1e-3
    np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_welling_teh():
    """ε/2 times the gradient with noise of variance ε is our step h = ε/2."""
    epsilon = 2e-3
    theirs = overdamped(lambda x, xi: x - epsilon / 2 * gradient(x) + np.sqrt(epsilon) * xi)
    check(ours(convert.welling_teh(epsilon)), theirs)


def test_blackjax_sgld_against_blackjax_itself():
    """BlackJAX's own sgld step, its noise recovered from its key, is our step h = ε."""
    blackjax = pytest.importorskip("blackjax")
    epsilon, temperature = 1e-3, 0.7
    algorithm = blackjax.sgld(lambda x, _: -jnp.asarray(gradient(x)))
    zero = blackjax.sgld(lambda x, _: jnp.zeros(D))
    kernel = sgmcmc.sgld(
        sgmcmc.Posterior.from_log_density(log_density),
        convert.blackjax_sgld(epsilon, temperature).step_size,
        temperature=temperature,
    )
    theta, state = jnp.ones(D), kernel.init(jnp.ones(D), jax.random.key(0))
    for t in range(5):
        key = jax.random.key(t)
        noise = zero.step(key, jnp.zeros(D), None, epsilon, temperature)
        xi = noise / np.sqrt(2 * temperature * epsilon)
        theta = algorithm.step(key, theta, None, epsilon, temperature)
        state, _ = kernel.drive(xi[None], state, None)
        np.testing.assert_allclose(state.position, theta, rtol=1e-10)


def test_blackjax_sghmc():
    """θ with the old momentum is explicit Euler, γ = α."""
    epsilon, alpha, p0 = 0.01, 0.8, np.array([1.0, -1.0, 0.5])

    def theirs(x, p, xi):
        noise = np.sqrt(2 * alpha * epsilon) * xi
        return x + epsilon * p, (1 - alpha * epsilon) * p - epsilon * gradient(x) + noise

    check(ours(convert.blackjax_sghmc(epsilon, alpha), p0), underdamped(theirs, p0))


@pytest.mark.parametrize("temperature", [None, 0.5 / N])
def test_per_datum(temperature):
    """A log posterior over N at temperature T' is ours at h = lr/N and T = N T'."""
    lr, t = 0.05, 1 / N if temperature is None else temperature
    theirs = overdamped(lambda x, xi: x - lr * gradient(x) / N + np.sqrt(2 * lr * t) * xi)
    check(ours(convert.per_datum(lr, N, temperature)), theirs)


def test_per_datum_momentum():
    """The same with momentum: h = lr/√N, γ = α√N, p = √N m."""
    lr, alpha, m0 = 0.05, 0.3, np.array([0.1, 0.0, -0.2])

    def theirs(x, m, xi):
        noise = np.sqrt(2 * alpha * lr / N) * xi
        return x + lr * m, (1 - alpha * lr) * m - lr * gradient(x) / N + noise

    convention = convert.per_datum_momentum(lr, alpha, N)
    check(ours(convention, np.sqrt(N) * m0), underdamped(theirs, m0))


def test_mean_loss():
    """The gradient of the mean loss with noise variance 2 lr T/N is ours at h = lr/N."""
    lr, t = 0.05, 0.5
    theirs = overdamped(lambda x, xi: x - lr * gradient(x) / N + np.sqrt(2 * lr * t / N) * xi)
    check(ours(convert.mean_loss(lr, N, t)), theirs)


def test_mean_loss_momentum():
    """v = h p with h = √(lr/N) and γ = α/h is symplectic Euler, not exact friction."""
    lr, alpha, t = 0.05, 0.1, 0.5
    convention = convert.mean_loss_momentum(lr, alpha, N, t)
    p0 = np.array([1.0, 2.0, 3.0])

    def theirs(x, v, xi):
        v = (1 - alpha) * v - lr * gradient(x) / N + np.sqrt(2 * alpha * lr * t / N) * xi
        return x + v, v

    check(ours(convention, p0), underdamped(theirs, convention.step_size * p0))


def test_sghmc_paper():
    """v ← (1 − α)v − η∇U + N(0, 2αη): h = √η, γ = α/h."""
    eta, alpha = 1e-3, 0.1
    convention = convert.sghmc_paper(eta, alpha)
    p0 = np.array([1.0, 2.0, 3.0])

    def theirs(x, v, xi):
        v = (1 - alpha) * v - eta * gradient(x) + np.sqrt(2 * alpha * eta) * xi
        return x + v, v

    check(ours(convention, p0), underdamped(theirs, convention.step_size * p0))


def test_optimizer_is_the_sampler_at_temperature_zero():
    """optax.sgd with momentum on the mean loss is `sghmc` at T = 0, iterate by iterate."""
    rate, beta = 0.05, 0.9
    optimizer = optax.sgd(rate, momentum=beta)
    theta = jnp.zeros(D)
    state, theirs = optimizer.init(theta), []
    for _ in range(STEPS):
        updates, state = optimizer.update(jnp.asarray(gradient(theta) / N), state, theta)
        theta = optax.apply_updates(theta, updates)
        theirs.append(np.asarray(theta))
    check(ours(convert.optimizer(rate, beta, N, temperature=0.0), np.zeros(D)), np.array(theirs))


def test_amagold_friction_agrees_to_first_order():
    """Its half-implicit friction (1 − hβ)/(1 + hβ) is e^{−γh} with γ = 2β, up to h³."""
    beta = 0.7
    for h in (0.1, 0.05):
        gamma = convert.amagold(h, beta).friction
        error = (1 - h * beta) / (1 + h * beta) - np.exp(-gamma * h)
        assert abs(error) < (h * beta) ** 3


def test_diffrax_stationary_law():
    """dv = −γv − u∇f with f = U/T has velocities of variance u = T."""
    convention = convert.diffrax(gamma=2.0, u=0.3, step_size=0.1)
    assert convention == convert.Convention("langevin", 0.1, 2.0, 0.3)


def test_scaling_by_a_constant():
    """(U, T, h) and (U/a, T/a, ah) are one and the same overdamped chain."""
    a, h = 7.0, 1e-3
    posterior = sgmcmc.Posterior.from_log_density
    one = sgmcmc.sgld(posterior(log_density), h, temperature=1.0)
    other = sgmcmc.sgld(posterior(lambda x: log_density(x) / a), a * h, temperature=1 / a)
    state = one.init(jnp.ones(D), jax.random.key(0))
    state_too = other.init(jnp.ones(D), jax.random.key(0))
    for xi in normals():
        state, _ = one.drive(jnp.asarray(xi)[None], state, None)
        state_too, _ = other.drive(jnp.asarray(xi)[None], state_too, None)
    np.testing.assert_allclose(state.position, state_too.position, rtol=1e-10)


def test_underdamped_scaling_by_a_constant():
    """(U, T) and (U/a, T/a) with h → √a h, γ → γ/√a, p → p/√a are one chain."""
    a, h, friction, p0 = 4.0, 0.02, 1.5, np.array([1.0, -0.5, 0.2])
    posterior = sgmcmc.Posterior.from_log_density
    one = sgmcmc.baoab(posterior(log_density), h, friction=friction)
    other = sgmcmc.baoab(
        posterior(lambda x: log_density(x) / a), np.sqrt(a) * h,
        friction=friction / np.sqrt(a), temperature=1 / a,
    )  # fmt: skip
    states = [k.init(jnp.ones(D), jax.random.key(0)) for k in (one, other)]
    states = [s._replace(momentum=p) for s, p in zip(states, (p0, p0 / np.sqrt(a)), strict=True)]
    for xi in normals():
        steps = zip((one, other), states, strict=True)
        states = [k.drive(jnp.asarray(xi)[None], s, None)[0] for k, s in steps]
    np.testing.assert_allclose(states[0].position, states[1].position, rtol=1e-10)


def test_bad_numbers_are_named():
    """The argument, its value and what is allowed stand in the message."""
    with pytest.raises(ValueError, match=r"epsilon: got -1; expected a finite number > 0"):
        convert.welling_teh(-1)
    with pytest.raises(ValueError, match=r"momentum: got 1\.5; allowed: 0 ≤ momentum < 1"):
        convert.optimizer(0.1, 1.5, 10)
