"""Defects put in on purpose: each must fail the very check that the right kernel passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import _tree as trees
from sgmcmc import noise
from sgmcmc.diagnostics import stationary_law
from sgmcmc.gradients._minibatch import Minibatch
from sgmcmc.kernels import _euler as euler
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.metrics import _constant as constant
from tests.laws import oracle, samplers

STIFFNESS, CENTRES = np.array([0.1, 0.4, 0.2, 0.3]), np.array([-1.0, 0.5, 2.0, 0.0])
WORDS = ("BAOAB", "OBABO", "UBU", "sghmc", "sgld", "leimkuhler_matthews")


pytestmark = pytest.mark.usefixtures("x64")  # laws are compared to ten digits


def check_law(name, kernel, temperature=1.0):
    """The law on the oscillator at h = .2, and the speed of reaching it, are the derived ones."""
    law = stationary_law(kernel, jnp.zeros(1))
    parts = (law.covariance, law.momentum_covariance, law.cross_covariance)
    got = np.concatenate([part.ravel() for part in parts])
    expected = oracle.moments(name, 0.2, temperature=temperature)
    np.testing.assert_allclose(got, expected, atol=1e-10)
    # Some laws do not depend on friction; how fast they are reached does.
    np.testing.assert_allclose(law.spectral_radius, oracle.contraction(name, 0.2), rtol=1e-7)


def check_minibatch_law(name, kernel, batches):
    """Mean and variance on four quadratics, one a step, at h = .2 are the derived ones."""
    law = stationary_law(kernel, jnp.zeros(1), batches)
    mean, variance = oracle.minibatch_variance(name, 0.2, 4 * STIFFNESS, CENTRES)
    np.testing.assert_allclose([law.mean[0], law.covariance[0, 0]], [mean, variance], rtol=1e-9)


def check_independent_noise(kernel):
    """With no force SGLD's increments are independent normals, over steps and chains."""
    run = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.zeros(1), num_chains=4, num_burnin=0, num_samples=2_001,
        progress=False,
    )  # fmt: skip
    increments = np.diff(run.draws[..., 0], axis=1) / np.sqrt(2 * 0.2)
    bound = 5 / np.sqrt(2_000)
    assert abs(increments.mean()) < bound
    assert abs(increments.var() - 1) < bound
    for lag in (1, 2, 3):
        correlation = np.mean(increments[:, lag:] * increments[:, :-lag])
        assert abs(correlation) < bound, f"noise is correlated over {lag} steps"
    between = np.corrcoef(increments) - np.eye(4)
    assert np.max(np.abs(between)) < bound, "chains share their noise"


def flat():
    return sgmcmc.sgld(sgmcmc.Posterior.from_log_density(lambda x: 0.0 * jnp.sum(x)), 0.2)


def as_a(kind, kernel):
    """The same kernel as a subclass."""
    return kind(**{f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel)})


def must_fail(check, *args, **options):
    with pytest.raises((AssertionError, ValueError)):
        check(*args, **options)


@pytest.mark.parametrize("name", WORDS)
def test_the_right_kernels_pass(name):
    """No check fails a kernel as it is."""
    check_law(name, samplers.make(name, samplers.harmonic(), 0.2))
    check_law(name, samplers.make(name, samplers.harmonic(), 0.2, temperature=3.0), temperature=3.0)
    if name in ("UBU", "sgld", "leimkuhler_matthews", "sghmc"):
        posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
        check_minibatch_law(name, samplers.make(name, posterior, 0.2), batches)


class Unscaled(Minibatch):
    """Forgets N/n."""

    def estimate(self, posterior, position, batch, state):
        energy, gradient, state = super().estimate(posterior, position, batch, state)
        return energy, trees.scale(1 / posterior.data_size, gradient), state


@pytest.mark.parametrize("name", ["UBU", "sgld", "sghmc"])
def test_missing_scale_of_the_batch(name):
    """Without N/n the minibatch law fails."""
    posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
    kernel = samplers.make(name, posterior, 0.2, gradient=Unscaled())
    must_fail(check_minibatch_law, name, kernel, batches)


def test_noise_of_the_wrong_size(monkeypatch):
    """√h in the place of √(2h), and h in that of √h, fail the law."""

    def sgld():
        # A function that no trace has seen, so that no trace hides the defect.
        target = sgmcmc.Posterior.from_log_density(lambda x: -0.5 * jnp.sum(x**2))
        return sgmcmc.sgld(target, 0.2)

    def wrong(size):
        def step(position, gradient, normals, t, temperature, metric):
            moved = trees.axpy(-t, gradient, position)
            return trees.axpy(size(t) * jnp.sqrt(temperature), normals, moved)

        return step

    for size in (jnp.sqrt, lambda t: t):
        monkeypatch.setattr(euler, "overdamped_euler", wrong(size))
        must_fail(check_law, "sgld", sgld())
    monkeypatch.setattr(euler, "overdamped_euler", wrong(lambda t: jnp.sqrt(2 * t)))
    check_law("sgld", sgld())


@pytest.mark.parametrize("name", ["BAOAB", "OBABO", "UBU", "sghmc"])
def test_dropped_sub_step(name):
    """Any one sub-step left out fails the law, or leaves none."""
    kernel = samplers.make(name, samplers.harmonic(), 0.2)
    steps = kernel.plan.substeps
    for i, step in enumerate(steps):
        if step.letter == "G":
            continue
        rest = [*steps[:i], *steps[i + 1 :]]
        if not any(s.end is not None for s in rest):
            rest[-1] = rest[-1]._replace(end=rest[-1].fraction)
        plan = kernel.plan._replace(substeps=tuple(rest))
        must_fail(check_law, name, dataclasses.replace(kernel, plan=plan))


@pytest.mark.parametrize("name", ["BAOAB", "UBU"])
def test_half_a_sub_step(name):
    """Any one sub-step of half its length fails the law."""
    kernel = samplers.make(name, samplers.harmonic(), 0.2)
    steps = kernel.plan.substeps
    for i, step in enumerate(steps):
        if step.letter == "G":
            continue
        end = None if step.end is None else step.end / 2
        shorter = step._replace(fraction=step.fraction / 2, end=end)
        plan = kernel.plan._replace(substeps=(*steps[:i], shorter, *steps[i + 1 :]))
        must_fail(check_law, name, dataclasses.replace(kernel, plan=plan))


class Tempered(Minibatch):
    """Divides the gradient by a temperature of 3."""

    def estimate(self, posterior, position, batch, state):
        energy, gradient, state = super().estimate(posterior, position, batch, state)
        return energy, trees.scale(1 / 3, gradient), state


@pytest.mark.parametrize("name", WORDS)
def test_temperature_on_the_wrong_side(name):
    """The gradient over T with noise of T = 1, noise left alone, and both at once fail the law."""
    if name != "leimkuhler_matthews":
        kernel = samplers.make(name, samplers.harmonic(), 0.2, gradient=Tempered())
        must_fail(check_law, name, kernel, temperature=3.0)
    kernel = samplers.make(name, samplers.harmonic(), 0.2)
    must_fail(check_law, name, kernel, temperature=3.0)
    kernel = samplers.make(name, samplers.harmonic(), 0.2, temperature=3.0, gradient=Tempered())
    must_fail(check_law, name, kernel, temperature=3.0)
    # T in the place of √T in the noise is a temperature of T².
    kernel = samplers.make(name, samplers.harmonic(), 0.2, temperature=9.0)
    must_fail(check_law, name, kernel, temperature=3.0)


class Stale(SplittingKernel):
    """Kicks with the gradient of the step before, and so of its batch and position."""

    def init(self, position, rng_key, data=None):
        state = super().init(position, rng_key, data)
        return state._replace(extra={**state.extra, "stale": trees.zeros_like(state.position)})

    def evaluated(self, phase, batch):
        after = super().evaluated(phase, batch)
        extra = {**phase.extra, "stale": after.gradient}
        return after._replace(gradient=phase.extra["stale"], extra=extra)


@pytest.mark.parametrize("name", ["UBU", "sgld", "BAOAB"])
def test_stale_gradient(name):
    """A gradient kept from the last batch, at the last position, fails both laws."""
    posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
    kernel = as_a(Stale, samplers.make(name, posterior, 0.2))
    must_fail(check_minibatch_law, name.replace("BAOAB", "AOAB"), kernel, batches)
    must_fail(check_law, name, as_a(Stale, samplers.make(name, samplers.harmonic(), 0.2)))


def test_gradient_taken_too_early():
    """UBU with its gradient from before the first U fails the law."""
    kernel = sgmcmc.ubu(samplers.harmonic(), 0.2)
    u, g, b, v = kernel.plan.substeps
    plan = kernel.plan._replace(substeps=(g, u, b, v))
    must_fail(check_law, "UBU", dataclasses.replace(kernel, plan=plan))


class OneKey(SplittingKernel):
    """Draws every step from one key."""

    def draw(self, rng_key, state):
        return noise.draw(jax.random.key(0), state.position, self.plan.num_normals, self.noise)


class KeyTwice(SplittingKernel):
    """Uses each chain's key for two steps."""

    def draw(self, rng_key, state):
        key = jax.random.fold_in(jax.random.key(0), state.clock.count // 2)
        return noise.draw(key, state.position, self.plan.num_normals, self.noise)


class SharedKey(SplittingKernel):
    """A new key each step, but the same for all chains."""

    def draw(self, rng_key, state):
        key = jax.random.fold_in(jax.random.key(0), state.clock.count)
        return noise.draw(key, state.position, self.plan.num_normals, self.noise)


def test_independent_noise():
    """The sampler's own noise is independent over steps and chains."""
    check_independent_noise(flat())


@pytest.mark.parametrize("kind", [OneKey, KeyTwice, SharedKey])
def test_reused_key(kind):
    """One key for all steps, for two steps, or for all chains is seen in the noise."""
    must_fail(check_independent_noise, as_a(kind, flat()))


def test_two_sub_steps_with_the_same_normals():
    """U's two halves that share their normals fail the law."""
    kernel = sgmcmc.ubu(samplers.harmonic(), 0.2)
    steps = [step._replace(noise=0) for step in kernel.plan.substeps]
    plan = kernel.plan._replace(substeps=tuple(steps))
    must_fail(check_law, "UBU", dataclasses.replace(kernel, plan=plan))


def test_metric_on_the_wrong_side():
    """L in the place of Lᵀ in the kick fails the whitened law of a correlated target."""

    class Swapped(constant.Dense):
        def to_momentum(self, gradient):
            return self.factor @ gradient

    target = np.array([[2.0, 0.9], [0.9, 0.5]])
    density = lambda x: -0.5 * x @ jnp.asarray(np.linalg.inv(target)) @ x  # noqa: E731
    posterior = sgmcmc.Posterior.from_log_density(density)

    def check(metric):
        law = stationary_law(sgmcmc.baoab(posterior, 0.2, metric=metric), jnp.zeros(2))
        np.testing.assert_allclose(law.covariance, target, atol=1e-10)

    check(constant.dense(target))
    must_fail(check, Swapped(constant.dense(target).factor))
