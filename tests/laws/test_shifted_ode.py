"""The third-order schemes: their formulas, coefficients, laws, orders and limits."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.integrate import quad

import sgmcmc
from sgmcmc.diagnostics import stationary_law
from tests.laws import samplers

# ⟨x²⟩ − 1, ⟨p²⟩ − 1 and ⟨xp⟩ at h = .2, γ = T = k = 1, four digits.
TABLE = {
    "sort": (2.159e-6, -9.549e-5, -4.304e-6),
    "should": (-2.253e-6, -1.041e-4, 1.228e-7),
    "quicsort": (-1.025e-5, -1.284e-4, 5.634e-5),
}
NAMES = tuple(TABLE)


def errors_of(kernel):
    law = stationary_law(kernel, jnp.zeros(1))
    return np.array(
        [law.covariance[0, 0] - 1, law.momentum_covariance[0, 0] - 1, law.cross_covariance[0, 0]]
    )


def gradient(x):
    return x - 0.9 * np.sin(1.5 * x)


def density(x):
    return -jnp.sum(x**2 / 2 + 0.6 * jnp.cos(1.5 * x))


def textbook(name, x, v, normals, h, gamma, temperature):
    """The scheme as its papers write it, unturned, with the first gradient evaluated anew."""
    w, b, k = np.sqrt(2 * gamma * temperature * h / np.array([1.0, 12.0, 720.0]))[:, None] * normals
    phi = lambda t: (1 - np.exp(-gamma * t)) / gamma  # noqa: E731
    psi = lambda t: (np.exp(-gamma * t) + gamma * t - 1) / gamma**2  # noqa: E731
    e, half = np.exp(-gamma * h), np.exp(-gamma * h / 2)
    v1, delta = v + b + 6 * k, (w - 12 * k) / h
    if name == "quicsort":
        left, right = (0.5 - np.sqrt(3) / 6) * h, (0.5 + np.sqrt(3) / 6) * h
        g1 = gradient(x + phi(left) * v1 + psi(left) * delta)
        g2 = gradient(x + phi(right) * v1 + psi(right) * delta - h * phi(h / 3) * g1)
        new = x + phi(h) * v1 + psi(h) * delta - h / 2 * (phi(right) * g1 + phi(left) * g2)
        v2 = e * v1 - h / 2 * (np.exp(-gamma * right) * g1 + np.exp(-gamma * left) * g2)
        return new, v2 + phi(h) * delta - (b - 6 * k)
    g0 = gradient(x)
    g1 = gradient(x + phi(h / 2) * v1 + psi(h / 2) * (delta - g0))
    if name == "sort":
        new = x + phi(h) * v1 + psi(h) * (delta - g0 / 3 - 2 * g1 / 3)
        kicks = h * (e * g0 / 6 + 2 * half * g1 / 3 + gradient(new) / 6)
        return new, e * v1 - kicks + phi(h) * delta - (b - 6 * k)
    a = gamma * h
    c_h = 6 * (e * (a + 2) + a - 2) / (a**2 * gamma)
    c_k = 60 * (e * (a**2 + 6 * a + 12) - (a**2 - 6 * a + 12)) / (a**3 * gamma)
    nu = c_h * b + c_k * k
    new = x + phi(h) * v - psi(h) * (g0 / 3 + 2 * g1 / 3) + psi(h) * w / h + nu
    kicks = h * (e * g0 / 6 + 2 * half * g1 / 3 + gradient(new) / 6)
    return new, e * v - kicks + phi(h) * w / h - gamma * nu


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_the_papers(name):
    """Turned or not, five steps on a non-Gaussian target are those of the papers' formulas."""
    h, gamma, temperature = 0.5, 1.3, 0.7
    normals = np.random.default_rng(0).normal(size=(6, 3, 4))
    x, v = np.linspace(-1, 1, 4), np.array([0.3, -0.2, 0.1, 0.5])
    kernel = getattr(sgmcmc, name)(
        sgmcmc.Posterior.from_log_density(density), h, friction=gamma, temperature=temperature
    )
    state = kernel.init(jnp.asarray(x), jax.random.key(0))
    turned = 0.0 if name == "quicsort" else h / 6
    state = state._replace(momentum=jnp.asarray(v + turned * gradient(x)))
    path = [(x, v)]
    for step in normals:
        path.append(textbook(name, *path[-1], step, h, gamma, temperature))
    lag = 1 if name == "quicsort" else 0
    for i, step in enumerate(normals):
        end, _ = kernel.phases(jnp.asarray(step), state, None)
        state, info = kernel.drive(jnp.asarray(step), state, None)
        np.testing.assert_allclose(info.position, path[i + lag][0], rtol=1e-11)
        np.testing.assert_allclose(end.momentum, path[i + lag][1], rtol=1e-10)
        np.testing.assert_allclose(state.position, path[i + 1][0], rtol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_law_on_the_oscillator(name):
    """⟨x²⟩, ⟨p²⟩ and ⟨xp⟩ are the printed ones at h = .2, to their four digits."""
    got = errors_of(getattr(sgmcmc, name)(samplers.harmonic(), 0.2))
    np.testing.assert_allclose(got, TABLE[name], rtol=5.1e-4)


@pytest.mark.parametrize(
    ("name", "position", "momentum"),
    [("sort", 3.99, 2.99), ("should", 4.01, 2.99), ("quicsort", 2.71, 3.02)],
)
def test_stationary_order(name, position, momentum):
    """Slopes of ⟨x²⟩ and ⟨p²⟩ between h = .025 and .0125; the largest error has order 3."""
    kernels = [getattr(sgmcmc, name)(samplers.harmonic(), h) for h in (0.025, 0.0125)]
    slopes = np.log2(np.abs(errors_of(kernels[0]) / errors_of(kernels[1])))
    np.testing.assert_allclose(slopes[:2], [position, momentum], atol=0.011)
    assert kernels[0].traits.order == 3


@pytest.mark.parametrize(("name", "limit"), [("sort", 4.33), ("should", 4.33), ("quicsort", 3.40)])
def test_limits_of_stability(name, limit):
    """There is a law to the limit of h√k at γ = 1, and beyond it an error."""
    make = getattr(sgmcmc, name)
    stationary_law(make(samplers.harmonic(), limit - 0.01), jnp.zeros(1))
    with pytest.raises(ValueError, match="beyond the limit of stability"):
        stationary_law(make(samplers.harmonic(), limit + 0.01), jnp.zeros(1))


@pytest.mark.parametrize("name", NAMES)
def test_metric_temperature_and_time(name):
    """A metric is a change of coordinates, T a scale of the law, (k, γ) → (s²k, sγ) one of time."""
    target = np.array([[2.0, 0.9], [0.9, 0.5]])
    posterior = sgmcmc.Posterior.from_log_density(
        Partial(_correlated, jnp.asarray(np.linalg.inv(target)))
    )
    make = getattr(sgmcmc, name)
    kernel = make(posterior, 0.2, metric=sgmcmc.metrics.dense(target), temperature=3.0)
    law = stationary_law(kernel, jnp.zeros(2))
    excess = 1 + np.array(TABLE[name])
    np.testing.assert_allclose(law.covariance, 3 * excess[0] * target, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(law.momentum_covariance, 3 * excess[1] * np.eye(2), atol=1e-6)
    law = stationary_law(make(samplers.harmonic(4.0), 0.1, friction=2.0), jnp.zeros(1))
    np.testing.assert_allclose(4 * law.covariance[0, 0], excess[0], rtol=1e-8)


@pytest.mark.parametrize("gamma", [1e-3, 0.1, 1.0, 20.0])
def test_noise_of_should_is_the_best_linear_guess(gamma):
    """Without a force its noise is the exact one's regression on W, H and K, by quadrature."""
    h = 0.5
    kernel = sgmcmc.should(sgmcmc.Posterior.from_log_density(_flat), h, friction=gamma)
    state = kernel.init(jnp.zeros(1), jax.random.key(0))._replace(momentum=jnp.ones(1))

    def step(noise):
        after = kernel.drive(noise.reshape(3, 1), state, None)[0]
        return jnp.concatenate([after.position, after.momentum])

    phi = (lambda t: -np.expm1(-gamma * t) / gamma, lambda t: np.exp(-gamma * t))
    np.testing.assert_allclose(step(jnp.zeros(3)), [f(h) for f in phi], rtol=1e-9)
    # W, H and K as integrals of the Brownian motion's increments, over their spreads.
    weights = (
        lambda s: 1 / np.sqrt(h),
        lambda s: (0.5 - s / h) * np.sqrt(12 / h),
        lambda s: (1 / 12 - s * (h - s) / (2 * h**2)) * np.sqrt(720 / h),
    )
    exact = [
        [quad(lambda s, f=f, w=w: f(h - s) * w(s), 0, h, epsabs=1e-14)[0] for w in weights]
        for f in phi
    ]
    gain = jax.jacfwd(step)(jnp.zeros(3))
    np.testing.assert_allclose(gain, np.sqrt(2 * gamma) * np.array(exact), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("z", [0.0, 1e-8, 1e-4, 0.01, 0.3, 1.0, 1.999, 2.0, 3.0, 30.0])
def test_coefficients_keep_their_digits(z, dtype):
    """φ, ψ, c_H and c_K are right to rounding at any γh, where closed forms lose all digits."""
    a = Decimal(float(np.asarray(z, dtype)))
    with localcontext(prec=80):
        e = (-a).exp()
        exact = [Decimal(1), Decimal("0.5"), Decimal(1), Decimal(0)]
        if z:
            exact = [
                (1 - e) / a,
                (e + a - 1) / a**2,
                6 * (e * (a + 2) + a - 2) / a**3,
                60 * (e * (a**2 + 6 * a + 12) - (a**2 - 6 * a + 12)) / a**4,
            ]
    from sgmcmc import _special as special

    functions = ("phi_ratio", "psi_ratio", "h_ratio", "k_ratio")
    got = [getattr(special, name)(jnp.asarray(z, dtype)) for name in functions]
    assert all(value.dtype == dtype for value in got)
    np.testing.assert_allclose(
        np.array(got, float), [float(x) for x in exact], rtol=60 * jnp.finfo(dtype).eps
    )


def test_increments_have_the_law_of_the_papers():
    """W, H, K ~ N(0, h), N(0, h/12), N(0, h/720), independent: simulated Brownian paths."""
    rng, n = np.random.default_rng(1), 200
    path = np.cumsum(rng.normal(size=(20_000, n)) / np.sqrt(n), axis=1)
    s = np.arange(1, n + 1) / n
    bridge = path - s * path[:, -1:]
    w, h, k = path[:, -1], bridge.mean(axis=1), (bridge * (0.5 - s)).mean(axis=1)
    seen = np.cov(np.stack([w, np.sqrt(12) * h, np.sqrt(720) * k]))
    np.testing.assert_allclose(seen, np.eye(3), atol=5 * np.sqrt(2 / 20_000))


@pytest.mark.parametrize("name", NAMES)
def test_limits_of_the_numbers(name):
    """T = 0 draws no noise and descends, γ = 0 is finite, and a step costs two gradients."""
    make = getattr(sgmcmc, name)
    kernel = make(samplers.harmonic(), 0.2, temperature=0.0)
    law = stationary_law(kernel, jnp.zeros(1))
    np.testing.assert_array_equal(law.covariance, 0.0)
    assert kernel.traits.gradient_evaluations == 2
    still = make(samplers.harmonic(), 0.2, friction=0.0)
    state = still.init(jnp.ones(1), jax.random.key(0))
    state, info = still.drive(jnp.ones((3, 1)), state, None)
    assert bool(info.finite)
    assert np.all(np.isfinite(state.momentum))


@pytest.mark.parametrize(("name", "noise"), [("sort", "gaussian"), ("quicsort", "fast")])
def test_a_run(name, noise):
    """Minibatches, a tree of float32, chains: draws have the posterior's spread, resume goes on."""
    y = jnp.linspace(-1, 1, 32, dtype=jnp.float32)
    posterior = sgmcmc.Posterior(_residual, _standard, data_size=32)
    kernel = getattr(sgmcmc, name)(posterior, 0.1, friction=2.0, noise=noise)
    start = {"a": jnp.zeros(3, jnp.float32), "b": jnp.zeros((), jnp.float32)}
    options = {"batch_size": 8, "num_burnin": 50, "stream": "symmetric", "progress": False}
    key = jax.random.key(1)
    whole = sgmcmc.sample(key, kernel, start, y, num_samples=400, **options)
    assert whole.draws["a"].dtype == np.float32
    assert whole.draws["a"].shape == (4, 400, 3)
    # The prior has precision 1, the data add 32/16 on b alone.
    np.testing.assert_allclose(np.var(whole.draws["a"]), 1.0, atol=0.35)
    np.testing.assert_allclose(np.var(whole.draws["b"]), 1 / 3, atol=0.2)
    if name == "sort":
        part = sgmcmc.sample(jax.random.key(1), kernel, start, y, num_samples=150, **options)
        rest = part.resume(num_samples=250)
        np.testing.assert_array_equal(rest.draws["b"][:, -250:], whole.draws["b"][:, 150:])


def test_fast_noise_keeps_covariances_but_not_order_three():
    """Under "fast" noise the kernels state order 2, for its sixth moment is not a normal's."""
    for name in NAMES:
        kernel = getattr(sgmcmc, name)(samplers.harmonic(), 0.2, noise="fast")
        assert kernel.traits.order == 2
        np.testing.assert_allclose(errors_of(kernel), TABLE[name], rtol=5.1e-4)


@pytest.mark.parametrize("name", ["bub", "babo", "symplectic_euler"])
def test_words_by_name(name):
    """BUB, BABO and symplectic Euler are their words, and sghmc's steps are the last one's."""
    kernel = getattr(sgmcmc, name)(samplers.harmonic(), 0.2)
    twin = {"bub": "BUB", "babo": "BABO", "symplectic_euler": "sghmc"}[name]
    other = samplers.make(twin, samplers.harmonic(), 0.2)
    for one, two in zip(
        stationary_law(kernel, jnp.zeros(1)), stationary_law(other, jnp.zeros(1)), strict=True
    ):
        np.testing.assert_array_equal(one, two)
    assert kernel.traits.name == name
    assert kernel.traits.order == {"bub": 2, "babo": 2, "symplectic_euler": 1}[name]
    assert kernel.traits.gradient_evaluations == 1


def test_babo_has_the_law_of_obabo():
    """BABO is OBABO between its two O's: the same positions, and exact momenta."""
    law = stationary_law(sgmcmc.babo(samplers.harmonic(), 0.2), jnp.zeros(1))
    np.testing.assert_allclose(law.covariance, 1 / (1 - 0.01), rtol=1e-12)
    np.testing.assert_allclose(law.momentum_covariance, 1.0, rtol=1e-12)


def _correlated(precision, x):
    return -0.5 * x @ precision @ x


def _residual(params, y):
    return -0.5 * (y - params["b"]) ** 2 / 16


def _standard(params):
    return -0.5 * (jnp.sum(params["a"] ** 2) + params["b"] ** 2)


def _flat(x):
    return 0.0 * jnp.sum(x)
