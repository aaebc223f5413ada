"""`step_size=None` beside gradient noise: sweeps, directions, and the trial's own error."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import diagnostics, streams
from sgmcmc._curvature import draw_batches, gradient_noise
from sgmcmc.kernels._flows import LANGEVIN
from sgmcmc.kernels._words import plan, table
from sgmcmc.streams._streams import unevenness
from sgmcmc.tuning import Rules
from sgmcmc.tuning import _limits as limits
from sgmcmc.tuning import _oscillator as oscillator
from sgmcmc.tuning import _trial as trial
from sgmcmc.tuning._problem import Problem
from tests.laws import samplers

ALLOWED = Rules().tolerance
CURVATURES = np.geomspace(1.0, 400.0, 16)
OPTIONS = {"num_chains": 2, "num_burnin": 50, "num_samples": 20, "progress": False}
SIGNS = np.array([1.0, -1.0, 2.0, -2.0])


def normal(x):
    return -0.5 * jnp.sum(x**2)


def tilted(x, sign):
    return 10.0 * sign * jnp.sum(x) / 4


def posterior_of_four():
    """N(0, 1), and four examples that tilt it by 10 (±1, ±2): s² = 250 a batch of one."""
    return sgmcmc.Posterior(tilted, normal, data_size=4), jnp.asarray(SIGNS)


def slowly(posterior, h):
    return sgmcmc.langevin(posterior, h, word="BAOAB", friction=0.7, reuse_gradient=False)


@pytest.mark.parametrize("h", [0.05, 0.4])
@pytest.mark.parametrize(
    "name",
    ["baoab", "obabo", "aboba", "ubu", "bub", "sghmc", "sgld", "leimkuhler_matthews", slowly],
)
def test_the_heat_of_sweeps_is_the_law_of_the_kernel(name, h):
    """⟨x²⟩ under reshuffled batches, averaged over a sweep, is that of all 24 orders exactly.

    The last kernel has two gradients a step, on one batch.
    """
    posterior, signs = posterior_of_four()
    parts = [sgmcmc.Batch(signs[i : i + 1]) for i in range(4)]
    kernel = name(posterior, h) if callable(name) else samplers.make(name, posterior, h)
    friction = 0.0 if kernel.friction is None else float(kernel.friction(0))
    law = diagnostics.stationary_law(
        kernel, jnp.zeros(1), parts, epochs=diagnostics.sweeps("reshuffled", 4)
    )
    found = oscillator.variance(kernel.word, h, friction)
    found += 250 * oscillator.swept_heat(kernel.word, h, friction, 4)
    np.testing.assert_allclose(found, law.covariance[0, 0], rtol=1e-7)


@pytest.mark.parametrize("name", ["baoab", "obabo", "sgld"])
def test_the_heat_of_sweeps_of_two_sizes(name):
    """Five examples in batches of 2, 2 and 1: ⟨x²⟩ by all 30 sweeps is that of the formula."""
    tilts = np.array([1.0, -1.0, 2.0, -2.5, 0.5])
    posterior = sgmcmc.Posterior(tilted, normal, data_size=5)
    batches = [c for n in (2, 1) for c in itertools.combinations(range(5), n)]
    epochs = [
        [batches.index(one), batches.index(two), batches.index(rest)]
        for one, two, rest in itertools.product(batches[:10], batches[:10], batches[10:])
        if len({*one, *two, *rest}) == 5
    ]
    parts = [
        sgmcmc.Batch(jnp.asarray(np.resize(tilts[list(c)], 2)), mask=jnp.arange(2) < len(c))
        for c in batches
    ]
    kernel = samplers.make(name, posterior, 0.4)
    friction = 0.0 if kernel.friction is None else float(kernel.friction(0))
    law = diagnostics.stationary_law(kernel, jnp.zeros(1), parts, epochs=epochs)
    sweep = limits.Sweep(3, unevenness(5, 2))
    # Var g of each batch: N²S²/(N − 1) (N/n_j − 1), S² that of an example's 10/4 tilt.
    noise = 25 * (2.5**2 * tilts.var()) / 4 * np.mean(5 / np.array([2, 2, 1]) - 1)
    found = oscillator.variance(kernel.word, 0.4, friction)
    found += noise * limits.heat_of(kernel.word, 0.4, friction, sweep)
    assert len(epochs) == 30
    np.testing.assert_allclose(found, law.covariance[0, 0], rtol=1e-6)


def test_long_sweeps_are_independent_batches():
    """Beyond what friction lets a mode remember an order of batches is none."""
    word = plan("BAOAB", table(*LANGEVIN))
    independent = oscillator.variance(word, 0.05, 2.0, 1.0) - oscillator.variance(word, 0.05, 2.0)
    heats = [oscillator.swept_heat(word, 0.05, 2.0, 10**n) for n in range(1, 6)]
    assert np.all(np.diff(heats) > 0)
    np.testing.assert_allclose(heats[-1], independent, rtol=2e-3)


def ellipsoid(hessian, x):
    return -0.5 * x @ hessian @ x


def pushed(x, push):
    return push @ x / 8


def noisy(hessian, scales):
    """Eight examples that push along each axis with mean 0 and variance scale², in a batch of 1."""
    pushes = jax.random.rademacher(jax.random.key(5), (4, len(scales)), float) * scales
    posterior = sgmcmc.Posterior(pushed, Partial(ellipsoid, jnp.asarray(hessian)), data_size=8)
    return posterior, jnp.concatenate([pushes, -pushes])


def heated(word, h, friction, curvature, variance, steps):
    """The share by which sweeps of noise widen a mode's variance, at T = 1."""
    omega = np.sqrt(curvature)
    heat = oscillator.swept_heat(word, h * omega, friction / omega, steps)
    return variance / curvature * heat


@pytest.mark.parametrize(
    ("make", "friction"), [(sgmcmc.baoab, 1.0), (sgmcmc.obabo, "auto"), (sgmcmc.ubu, 5.0)]
)
def test_a_sweep_heats_its_worst_mode_by_the_tolerance(make, friction):
    """Equal noise everywhere: where noise decides, the exact worst mode is off by ε, no more.

    That is as far as 32 batches tell a variance: 32 signs' is off by 20% with a chance of 10⁻³.
    """
    posterior, pushes = noisy(np.diag(CURVATURES), 300.0 * np.ones(16))
    kernel = make(posterior, None, friction=friction)
    run = sgmcmc.sample(jax.random.key(0), kernel, jnp.zeros(16), pushes, batch_size=1, **OPTIONS)
    found = run.tuning
    assert found.reason == "gradient noise"
    gamma = found.friction if friction == "auto" else friction
    worst = max(
        heated(kernel.word, found.step_size, gamma, k, found.gradient_noise, 8) for k in CURVATURES
    )
    np.testing.assert_allclose(worst, ALLOWED, rtol=0.2)


def test_noise_and_curvature_are_of_one_direction():
    """Loud where U is flat, quiet where it is steep: each mode is heated by ε at most, exactly.

    The largest variance and the largest curvature together would ask for a step a third as long.
    """
    scales = np.where(np.arange(16) == 0, 1000.0, 1.0)
    posterior, pushes = noisy(np.diag(CURVATURES), scales)
    kernel = sgmcmc.baoab(posterior, None, friction=5.0)
    found = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.zeros(16), pushes, batch_size=1, **OPTIONS
    ).tuning
    assert found.reason == "gradient noise"
    variances = scales**2
    shares = [
        heated(kernel.word, found.step_size, 5.0, k, s, 8)
        for k, s in zip(CURVATURES, variances, strict=True)
    ]
    np.testing.assert_allclose(max(shares), ALLOWED, rtol=0.5)
    _, paired = limits.limits_of(
        kernel, 400.0, [(found.gradient_noise, 400.0)], 1.0, limits.Sweep(8)
    )
    assert paired["gradient noise"] < found.step_size / 2


def test_noise_along_the_stiffest_direction_counts():
    """All noise along (1, …, 1)/4, the stiffest direction: 16 times what a coordinate shows."""
    along = np.ones((16, 1)) / 4
    others = np.linalg.qr(np.hstack([along, np.eye(16)[:, 1:]]))[0]
    hessian = others @ np.diag(CURVATURES[::-1]) @ others.T
    signs = jnp.asarray(np.outer([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0], 20 * np.ones(16)))
    posterior = sgmcmc.Posterior(pushed, Partial(ellipsoid, jnp.asarray(hessian)), data_size=8)
    found = sgmcmc.sample(
        jax.random.key(0), sgmcmc.baoab(posterior, None, friction=5.0), jnp.zeros(16), signs,
        batch_size=1, stream="with_replacement", **OPTIONS,
    ).tuning  # fmt: skip
    # 32 signs: their variance is within 20% of 1 but for a chance of 10⁻³.
    np.testing.assert_allclose(found.gradient_noise, 16 * 20.0**2, rtol=0.2)
    np.testing.assert_allclose(found.step_size, 2 * 5.0 * ALLOWED / found.gradient_noise, rtol=1e-3)


def test_a_sweep_may_be_longer():
    """Under a reshuffled stream a short sweep allows a step that independent batches do not."""
    posterior, pushes = noisy(np.diag(CURVATURES), 300.0 * np.ones(16))
    allowed = {}
    for stream in ("with_replacement", "reshuffled"):
        run = sgmcmc.sample(
            jax.random.key(0), sgmcmc.baoab(posterior, None, friction="auto"), jnp.zeros(16),
            pushes, batch_size=1, stream=stream, **OPTIONS,
        )  # fmt: skip
        allowed[stream] = run.tuning.limits["gradient noise"]
        independent = np.sqrt(ALLOWED / (5 * run.tuning.gradient_noise))
        assert allowed[stream] >= independent * (1 - 1e-6)
    assert allowed["reshuffled"] > 1.5 * allowed["with_replacement"]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_the_noise_of_large_batches_drawn_with_replacement(batch_size):
    """250/n, also where n is most of N = 4 or all: a sweep's batches would have a third, or none.

    Over 16 keys of 32 batches, whose mean variance has an error of 6% at most.
    """
    posterior, signs = posterior_of_four()
    at, stream = jnp.zeros(1), streams.with_replacement()
    problem = Problem(at, signs, stream, batch_size, 0)
    kernel = sgmcmc.sgld(posterior, 0.1)

    def measured(key):
        batches = draw_batches(problem.measured, key, problem.num_measured, True)
        return gradient_noise(kernel, at, batches, signs, at, jnp.ones(1)).stiffest[0]

    found = jnp.mean(jax.vmap(measured)(jax.random.split(jax.random.key(0), 16)))
    np.testing.assert_allclose(found, 250 / batch_size, rtol=0.25)


def trials_of(dimensions, temperature, seed, count):
    """200 steps of BAOAB at that temperature, h = .3 and γ = 1 on N(0, I), judged at T = 1."""
    posterior = sgmcmc.Posterior.from_log_density(normal)
    kernel = sgmcmc.baoab(posterior, 0.3, friction=1.0, temperature=temperature)
    source = kernel.source(streams.full(), 0, None)
    return [
        trial.trial_of(kernel, jnp.zeros(dimensions), source, key, 1.0)
        for key in jax.random.split(jax.random.key(seed), count)
    ]


def test_a_trial_is_judged_by_its_own_error():
    """Two parameters: ⟨x·∇U⟩/d of one chain is over 1.25 every fourth time, and no step is hot.

    False alarms: Student's t with 15 degrees of freedom over 4, 6·10⁻⁴ of those; 1% for 60 keys.
    """
    trials = trials_of(2, 1.0, 1, 60)
    assert all(one.good for one in trials)
    assert 5 <= sum(one.num_steps > Rules().trial_steps for one in trials) <= 40


def test_a_trial_finds_what_is_hot():
    """At 1.6 T in 50 dimensions every trial is hot, by more than a quarter and four errors."""
    assert not any(one.good for one in trials_of(50, 1.6, 2, 10))


def squares(x, example):
    a, y = example
    return -2 * (y - a @ x) ** 2


def test_a_trial_is_not_hot_by_chance():
    """Four parameters, gradients whose noise swamps T: steps without a real fault are kept."""
    x = jax.random.normal(jax.random.key(9), (100, 4))
    y = x @ jnp.arange(4.0) + 0.5 * jax.random.normal(jax.random.key(8), (100,))
    kernel = sgmcmc.baoab(sgmcmc.Posterior(squares, normal, data_size=100), None, friction="auto")
    halvings = [
        sgmcmc.sample(
            jax.random.key(seed), kernel, jnp.zeros(4), (x, y), batch_size=10, **OPTIONS
        ).tuning.halvings
        for seed in range(4)
    ]
    assert np.mean(halvings) <= 1


def test_noise_is_not_that_at_the_anchor():
    """SVRG has no noise where it is anchored; its draws' scale is that of the Gaussian exactly."""
    x = jax.random.normal(jax.random.key(9), (100, 4))
    y = x @ jnp.arange(4.0) + 0.5 * jax.random.normal(jax.random.key(8), (100,))
    posterior = sgmcmc.Posterior(squares, normal, data_size=100)
    kernel = sgmcmc.baoab(posterior, None, friction="auto", gradient=sgmcmc.gradients.svrg(10))
    run = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.zeros(4), (x, y), batch_size=10,
        **{**OPTIONS, "num_samples": 500},
    )  # fmt: skip
    scale = np.sqrt(np.diag(np.linalg.inv(4 * np.asarray(x.T @ x) + np.eye(4))))
    assert run.tuning.gradient_noise > 1
    # Few effective draws: within a factor 2. With the noise at the anchor it is off by 1,000s.
    assert np.all(np.std(run.draws, axis=(0, 1)) < 2 * scale)
