"""The thermostat: its two sub-flows, its word, and its law under gradient noise (F20).

Ten oscillators, every coordinate of the gradient with noise of variance s². Chains start
from the exact law and are vmapped. Of 300 chains a figure passes within .002 and five Monte
Carlo standard errors: by chance one of 12 would fail once in 150,000 seeds. In the slow test
it passes within .005, more than 4.5 standard errors of 2,500 chains.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import _tree as trees
from sgmcmc._special import relative_growth
from sgmcmc.kernels import _sgnht as thermostats
from sgmcmc.models import gaussian
from tests.laws import samplers

D = 10
# (h, A, s²): ⟨x²⟩, E ξ, Var ξ at μ = 10.
FIGURES = {
    (0.1, 1.0, 0.0): (0.9990, 1.0015, 0.0991),
    (0.1, 1.0, 4.0): (0.9994, 1.2013, 0.0999),
    (0.1, 0.1, 4.0): (0.9992, 0.2998, 0.0990),
    (0.2, 1.0, 1.0): (0.9975, 1.1025, 0.1005),
}


def noisy_target():
    """U = |x|²/2, and a batch whose one example is minus the gradient's error."""
    return sgmcmc.Posterior(_tilt, _standard, data_size=1)


def averages(kernel, deviation, seed, num_chains, burnin=30.0, time=100.0):
    """Time averages of |x|²/d, ξ and ξ² of each chain."""
    h = float(kernel.clock.step_size.value)
    steps = (jnp.asarray(round(burnin / h)), jnp.asarray(round(time / h)))
    keys = jax.random.split(jax.random.key(seed), num_chains)
    made = _averages(kernel, keys, jnp.asarray(deviation, float), steps)
    return [np.asarray(x) for x in made]


def figures(kernel, row, seed, num_chains):
    """(⟨x²⟩, E ξ, Var ξ) and their standard errors."""
    x2, thermostat, square = averages(kernel, np.sqrt(row[2]), seed, num_chains)
    middle = thermostat.mean()
    parts = (x2, thermostat, square - 2 * middle * thermostat + middle**2)
    return [(values.mean(), values.std() / np.sqrt(num_chains)) for values in parts]


@pytest.mark.parametrize("row", FIGURES)
def test_the_thermostat_takes_out_the_heat_of_gradient_noise(row):
    """BADODAB at μ = d = 10 has the printed ⟨x²⟩, E ξ = A + h s²/2 and Var ξ = T/μ."""
    h, friction, _ = row
    kernel = sgmcmc.sgnht(noisy_target(), h, friction=friction, thermostat_mass=10)
    made = figures(kernel, row, seed=1, num_chains=300)
    for (mean, mcse), printed in zip(made, FIGURES[row], strict=True):
        assert mcse < 0.004
        assert abs(mean - printed) < 0.002 + 5 * mcse


@pytest.mark.slow
@pytest.mark.parametrize("row", FIGURES)
def test_the_figures_in_full(row):
    """2,500 chains, μ left to be d: all figures to ±.005."""
    h, friction, _ = row
    made = figures(sgmcmc.sgnht(noisy_target(), h, friction=friction), row, 1, num_chains=2_500)
    for (mean, mcse), printed in zip(made, FIGURES[row], strict=True):
        assert mcse < 0.005 / 4.5
        assert abs(mean - printed) < 0.005


def test_without_a_thermostat_the_noise_heats():
    """BAOAB with γ = A under the same noise, s² = 4, has its exact ⟨x²⟩ = 1.2007."""
    still = sgmcmc.sgnht(noisy_target(), 0.1, thermostat_mass=1e20)
    mean, mcse = figures(still, (0.1, 1.0, 4.0), seed=2, num_chains=300)[0]
    assert mcse < 0.006
    assert abs(mean - 1.2007) < 5 * mcse


def test_defects_of_the_thermostat():
    """A wrong sign, and a D left out, fail a figure by more than chance allows."""
    row = (0.1, 1.0, 4.0)
    right = sgmcmc.sgnht(noisy_target(), row[0], thermostat_mass=10)
    inverted = {**right.flows, "D": thermostats.ThermostatDrift(jnp.asarray(-10.0, float))}
    steps = list(right.plan.substeps)
    steps.pop(next(i for i, step in enumerate(steps) if step.letter == "D"))
    wrong = [
        dataclasses.replace(right, flows=inverted),
        dataclasses.replace(right, plan=right.plan._replace(substeps=tuple(steps))),
    ]
    for kernel in wrong:
        made = figures(kernel, row, seed=3, num_chains=300)
        passed = [
            abs(mean - printed) < 0.005 + 5 * mcse
            for (mean, mcse), printed in zip(made, FIGURES[row], strict=True)
        ]
        assert not all(passed)


@pytest.mark.parametrize("friction", [2.0, 1e-9, 0.0, -1e-9, -2.0])
def test_friction_of_any_sign(friction):
    """O is exact for ξ > 0, = 0 and < 0: two half flows make a whole one, and dVar/dt = 2AT."""

    def moments(t, start):
        one, zero = jnp.ones(1), jnp.zeros(1)
        flow = lambda p, z: thermostats.thermostat_friction(  # noqa: E731
            p, z, jnp.asarray(t), jnp.asarray(friction), jnp.asarray(1.5)
        )[0]
        return flow(one, zero) * start[0], flow(one, zero) ** 2 * start[1] + flow(zero, one) ** 2

    half = moments(0.35, moments(0.35, (1.0, 0.0)))
    np.testing.assert_allclose(moments(0.7, (1.0, 0.0)), half, rtol=1e-13)
    np.testing.assert_allclose(half[0], np.exp(-0.7 * friction), rtol=1e-13)
    np.testing.assert_allclose(moments(1e-7, (1.0, 0.0))[1], 2 * 1.5 * 1e-7, rtol=1e-6)


def test_the_limit_of_no_friction_is_smooth():
    """φ(y) = (e^y − 1)/y is 1 at 0 and loses no digit beside it."""
    y = jnp.array([-1e-12, -1e-5, 0.0, 1e-5, 1e-12])
    series = 1 + y / 2 + y**2 / 6
    np.testing.assert_allclose(relative_growth(y), series, rtol=1e-15)


def test_an_unmoved_thermostat_is_baoab():
    """With an infinite mass ξ stays at A, and BADODAB makes the steps of BAOAB."""
    target = gaussian(np.arange(3.0), np.diag([1.0, 2.0, 0.5])).posterior()
    numbers = {"friction": 0.7, "temperature": 1.3, "metric": sgmcmc.metrics.diagonal(0.8)}
    ours = sgmcmc.sgnht(target, 0.2, thermostat_mass=1e300, **numbers)
    theirs = sgmcmc.baoab(target, 0.2, **numbers)

    @jax.jit
    def five_steps(start, key):
        one = ours.init(start, key)
        other = one._replace(extra={})
        made = []
        for t in range(5):
            noise = ours.draw(jax.random.fold_in(key, t), one)
            one, left = ours.drive(noise, one, None)
            other, right = theirs.drive(noise, other, None)
            made.append((left, right))
        return one, made

    one, made = five_steps(jnp.array([0.3, -1.0, 2.0]), jax.random.key(0))
    for left, right in made:
        np.testing.assert_allclose(left.position, right.position, rtol=1e-12)
        np.testing.assert_allclose(left.kinetic_energy, right.kinetic_energy, rtol=1e-12)
    np.testing.assert_allclose(one.extra["thermostat"][0], 0.7)


def test_the_drift_of_the_thermostat():
    """ξ += (t/μ)(rᵀr − dT) over all leaves, μ = d unless it is given, and ξ starts at A."""
    momentum = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    zero = jnp.zeros(2)
    got = thermostats.thermostat_drift(zero, momentum, jnp.asarray(0.1), 5.0, jnp.asarray(2.0))
    np.testing.assert_allclose(got[0], 0.1 / 5 * (14 - 3 * 2))
    flat = sgmcmc.Posterior.from_log_density(lambda x: 0.0 * jnp.sum(x["a"]))
    for mass, divisor in ((None, 3), (7.0, 7)):
        kernel = sgmcmc.sgnht(flat, 0.1, friction=0.4, thermostat_mass=mass, temperature=0.0)
        state = eqx.filter_jit(kernel.init)(trees.zeros_like(momentum), jax.random.key(0))
        np.testing.assert_allclose(state.extra["thermostat"][0], 0.4)
        state = state._replace(momentum=momentum)
        following, _ = eqx.filter_jit(kernel.step)(jax.random.key(1), state)
        after = 0.4 + 0.05 / divisor * 14
        after += 0.05 / divisor * 14 * np.exp(-0.2 * after)
        np.testing.assert_allclose(following.extra["thermostat"][0], after, rtol=1e-12)


def test_short_steps_of_the_thermostat_are_not_lost():
    """In float32 at ξ = 333, 10,000 steps of 1e-6, a thirtieth of its spacing, sum to .01."""
    with jax.enable_x64(False):
        start = jnp.array([333.0, 0.0], jnp.float32)
        one = jnp.ones(1, jnp.float32)

        def drift(_, thermostat):
            # rᵀr − dT = 1 − 0.
            return thermostats.thermostat_drift(thermostat, one, jnp.float32(1e-6), 1, 0.0)

        moved = np.asarray(jax.lax.fori_loop(0, 10_000, drift, start), np.float64)
        np.testing.assert_allclose(moved[0] - moved[1] - 333.0, 0.01, rtol=1e-3)
        # Added as they come, they leave ξ where it was.
        assert np.float32(333.0) + np.float32(1e-6) == np.float32(333.0)


def test_the_word_is_turned_so_that_one_gradient_serves():
    """BADODAB begins after its first B, ends halfway through its last, and counts one gradient."""
    plan = sgmcmc.sgnht(noisy_target(), 0.1).plan
    assert "".join(step.letter for step in plan.substeps) == "ADODAGB"
    assert [s.fraction for s in plan.substeps] == [0.5, 0.5, 1, 0.5, 0.5, 0, 1]
    assert plan.substeps[-1].end == 0.5
    assert (plan.gradient_evaluations, plan.num_normals, plan.order) == (1, 1, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"word": "BAOAB"}, ValueError, "no D, so the thermostat does nothing"),
        ({"word": "BADAB"}, ValueError, "no O, so the thermostat does nothing"),
        ({"word": "BUDUB"}, ValueError, "unknown letter 'U'; allowed: A, B, D, O"),
        ({"thermostat_mass": 0.0}, ValueError, "thermostat_mass: got 0.0"),
        ({"thermostat_mass": lambda t: 1.0}, TypeError, "thermostat_mass: got a schedule"),
        ({"friction": -1.0}, ValueError, "friction: got -1.0"),
    ],
)
def test_bad_thermostats_are_refused(options, error, message):
    """Words without what a thermostat needs, and numbers out of range, are named."""
    with pytest.raises(error, match=message):
        sgmcmc.sgnht(samplers.harmonic(), 0.1, **options)


def test_other_samplers_have_no_thermostat():
    """`langevin` knows no D."""
    with pytest.raises(ValueError, match="unknown letter 'D'"):
        sgmcmc.langevin(samplers.harmonic(), 0.1, word="BADODAB")


@eqx.filter_jit
def _averages(kernel, keys, deviation, steps):
    burnin, count = steps

    def chain(key):
        start, begin, run = jax.random.split(key, 3)

        def one_step(t, carry):
            state, sums = carry
            normals = jax.random.normal(jax.random.fold_in(run, t), (2, D))
            batch = sgmcmc.Batch(deviation * normals[1:])
            state, info = kernel.drive(normals[:1], state, batch)
            values = (
                jnp.mean(info.position**2),
                state.extra["thermostat"][0],
                state.extra["thermostat"][0] ** 2,
            )
            counts = jnp.where(t >= burnin, 1.0, 0.0)
            return state, jax.tree.map(lambda s, v: s + counts * v, sums, values)

        state = kernel.init(jax.random.normal(start, (D,)), begin)
        zero = jnp.zeros(())
        sums = jax.lax.fori_loop(0, burnin + count, one_step, (state, (zero, zero, zero)))[1]
        return jax.tree.map(lambda total: total / count, sums)

    return jax.vmap(chain)(keys)


def _standard(x):
    return -0.5 * jnp.sum(x**2)


def _tilt(x, examples):
    return examples @ x
