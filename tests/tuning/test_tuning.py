"""`step_size=None`: the rules on quadratics, where what they should give is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import _curvature as curvature
from sgmcmc import diagnostics
from sgmcmc.tuning import Rules
from sgmcmc.tuning import _oscillator as oscillator
from tests.laws import samplers

LARGEST, VARIANCE, ALLOWED = 400.0, 30.0, Rules().tolerance
CURVATURES = np.geomspace(1.0, LARGEST, 50)
OPTIONS = {"num_chains": 2, "num_burnin": 50, "num_samples": 20, "progress": False}


def oscillators(curvatures, x):
    return -0.5 * jnp.sum(curvatures * x**2)


def tilt(x, sign):
    return sign * jnp.sum(x) / 2


def exact():
    return sgmcmc.Posterior.from_log_density(Partial(oscillators, jnp.asarray(CURVATURES)))


def noisy(variance=VARIANCE):
    """Batches of one of the two examples tilt every coordinate by ±√variance."""
    posterior = sgmcmc.Posterior(tilt, Partial(oscillators, jnp.asarray(CURVATURES)), data_size=2)
    return posterior, jnp.asarray(np.sqrt(variance) * np.array([1.0, -1.0]))


def chosen(make, **numbers):
    kernel = make(exact(), None, **numbers)
    return sgmcmc.sample(jax.random.key(0), kernel, jnp.ones(50), **OPTIONS)


def test_power_iteration_meets_the_largest_curvature():
    """30 products on 1…400 in 50 steps: within its residual of the largest, which is small."""
    value, residual, _ = curvature.largest_curvature(
        sgmcmc.baoab(exact(), 0.1), jnp.zeros(50), None, jax.random.key(0), 30
    )
    assert abs(value - LARGEST) <= residual
    assert residual < 4


@pytest.mark.parametrize("name", ["baoab", "obabo", "aboba", "ubu", "bub", "sghmc", "sgld",
                                  "leimkuhler_matthews", "euler_maruyama"])  # fmt: skip
def test_the_oscillator_is_the_law_of_the_kernel(name):
    """The planner's law in NumPy is that of `drive`'s Jacobian, with and without noise."""
    kernel = samplers.make(name, samplers.harmonic(), 0.3)
    law = diagnostics.stationary_law(kernel, jnp.zeros(1))
    np.testing.assert_allclose(oscillator.variance(kernel.word, 0.3, 1.0), law.covariance[0, 0],
                               rtol=1e-7)  # fmt: skip
    posterior, batches = samplers.noisy_harmonic()
    law = diagnostics.stationary_law(samplers.make(name, posterior, 0.3), jnp.zeros(1), batches)
    np.testing.assert_allclose(
        oscillator.variance(kernel.word, 0.3, 1.0, heat=1.0), law.covariance[0, 0], rtol=1e-7
    )


@pytest.mark.parametrize(
    ("make", "numbers", "step", "reason"),
    [
        # κ = 1, half the limit: BAOAB's own error is 0 (spec: .05).
        (sgmcmc.baoab, {}, 0.05, "stability"),
        # κ = 2 √(ε/(1 + ε)).
        (sgmcmc.obabo, {}, 0.021822, "discretisation"),
        # The exact law; κ = √(6ε) is its first term.
        (sgmcmc.ubu, {}, 0.027386, "discretisation"),
        # 2ε/λ to first order; 1/(1 − hλ/2) = 1 + ε exactly.
        (sgmcmc.sgld, {}, 0.1 / 1.05 / LARGEST, "discretisation"),
        (sgmcmc.leimkuhler_matthews, {}, 1 / LARGEST, "stability"),
    ],
)
def test_steps_without_noise(make, numbers, step, reason):
    """The rules give the printed steps to the residual of the curvature."""
    run = chosen(make, **numbers)
    np.testing.assert_allclose(run.tuning.step_size, step, rtol=0.02)
    assert run.tuning.reason == reason
    assert run.config["step_size"] == pytest.approx(run.tuning.step_size, rel=1e-6)
    assert run.tuning.halvings == 0


@pytest.mark.parametrize(("make", "friction", "step"), [(sgmcmc.baoab, 1.0, 0.003333),
                                                        (sgmcmc.baoab, 5.0, 0.016667),
                                                        (sgmcmc.obabo, 5.0, 0.016667),
                                                        (sgmcmc.ubu, 5.0, 0.016667)])  # fmt: skip
def test_steps_with_noise(make, friction, step):
    """h = 2γTε/s² where noise decides; the worst mode is off by 1.1 (ε + ε) at most, exactly."""
    posterior, data = noisy()
    kernel = make(posterior, None, friction=friction)
    run = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.ones(50), data, batch_size=1,
        stream="with_replacement", **OPTIONS,
    )  # fmt: skip
    # s² is estimated from 32 signs: how many are plus moves it.
    np.testing.assert_allclose(run.tuning.gradient_noise, VARIANCE, rtol=0.2)
    allowed = step * VARIANCE / run.tuning.gradient_noise
    np.testing.assert_allclose(run.tuning.step_size, allowed, rtol=1e-3)
    assert run.tuning.reason == "gradient noise"
    h, omega = run.tuning.step_size, np.sqrt(CURVATURES)
    worst = max(
        abs(oscillator.variance(kernel.word, h * w, friction / w, heat=VARIANCE / w**2) - 1)
        for w in omega
    )
    assert worst <= 1.1 * 2 * ALLOWED


@pytest.mark.parametrize(
    ("scale", "centre", "start"),
    [(1e4, 5e4, 0.0), (1e-3, 0.0, 1.0), (1e-4, 0.0, 1e-4), (1.0, 0.0, 1e3)],
)
def test_the_search_is_of_any_scale(scale, centre, start):
    """h = scale for N(centre, scale²), wherever the search begins: Adam's rate is no scale."""

    def log_density(x):
        return -0.5 * jnp.sum(((x - centre) / scale) ** 2)

    kernel = sgmcmc.baoab(sgmcmc.Posterior.from_log_density(log_density), None)
    run = sgmcmc.sample(jax.random.key(0), kernel, start * jnp.ones(3), **OPTIONS)
    np.testing.assert_allclose(run.tuning.step_size, scale, rtol=0.01)
    assert run.tuning.halvings == 0


@pytest.mark.parametrize("make", [sgmcmc.sort, sgmcmc.should, sgmcmc.quicsort])
def test_kernels_without_letters_get_a_step(make):
    """Their law is not in `oscillator`: the limits are those of most words, and not 0."""
    run = chosen(make)
    np.testing.assert_allclose(run.tuning.step_size, 0.021822, rtol=0.02)
    assert np.all(np.isfinite(run.draws))
    assert np.std(run.draws) > 0


def hot_at_first(t):
    return jnp.where(t < OPTIONS["num_burnin"], 10.0, 1.0)


def test_schedules_count_with_the_end_of_the_burnin():
    """T falls from 10 to 1 in the burn-in: the noise limit is that of T = 1."""
    posterior, data = noisy()
    steps = [
        sgmcmc.sample(
            jax.random.key(0), sgmcmc.baoab(posterior, None, temperature=temperature),
            jnp.ones(50), data, batch_size=1, stream="with_replacement", **OPTIONS,
        ).tuning.step_size
        for temperature in (1.0, hot_at_first)
    ]  # fmt: skip
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-6)


def rising(x):
    return jnp.sum(x)


def cubic(x):
    return jnp.sum(x**3)


def cone(x):
    return -jnp.sum(jnp.abs(x))


@pytest.mark.parametrize("log_density", [rising, cubic, cone])
def test_no_curvature_is_an_error(log_density):
    """Densities that are not bounded, or whose curvature says nothing, are named as such."""
    kernel = sgmcmc.baoab(sgmcmc.Posterior.from_log_density(log_density), None)
    with pytest.raises(FloatingPointError, match="step_size: none found"):
        sgmcmc.sample(jax.random.key(0), kernel, jnp.ones(3), **OPTIONS)


def test_friction_by_itself():
    """friction="auto": γ = 1/(10 h), in the run's configuration and in `tuning`."""
    run = chosen(sgmcmc.baoab, friction="auto")
    np.testing.assert_allclose(run.tuning.friction, 0.1 / run.tuning.step_size, rtol=1e-6)
    assert run.config["friction"] == pytest.approx(run.tuning.friction, rel=1e-6)
    assert "friction" in repr(run.tuning)


def test_scaling_time_scales_the_step():
    """U → 4U, T → 4T, γ → 2γ: h → h/2, to the digits of float32."""
    one = sgmcmc.Posterior.from_log_density(Partial(oscillators, jnp.asarray(CURVATURES)))
    four = sgmcmc.Posterior.from_log_density(Partial(oscillators, jnp.asarray(4 * CURVATURES)))
    kernels = (
        sgmcmc.obabo(one, None, friction=1.0),
        sgmcmc.obabo(four, None, friction=2.0, temperature=4.0),
    )
    h = [
        sgmcmc.sample(jax.random.key(0), kernel, jnp.ones(50), **OPTIONS).tuning.step_size
        for kernel in kernels
    ]
    np.testing.assert_allclose(h[1], h[0] / 2, rtol=1e-3)


def test_a_metric_is_in_the_coordinates():
    """Under the metric of the target every direction has curvature 1."""
    metric = sgmcmc.metrics.diagonal(jnp.asarray(1 / np.sqrt(CURVATURES)))
    run = chosen(sgmcmc.obabo, metric=metric)
    np.testing.assert_allclose(run.tuning.curvature, 1.0, rtol=1e-3)


def test_the_same_key_the_same_step_and_a_run_goes_on(tmp_path):
    """Deterministic; saved, loaded, and resumed with the untuned kernel, bit for bit."""
    kernel = sgmcmc.baoab(exact(), None)
    run, twin = (sgmcmc.sample(jax.random.key(3), kernel, jnp.ones(50), **OPTIONS) for _ in "ab")
    assert run.tuning == twin.tuning
    loaded = sgmcmc.load(run.save(tmp_path / "run"))
    assert loaded.tuning == run.tuning
    more = loaded.resume(num_samples=5, kernel=kernel)
    straight = sgmcmc.sample(
        jax.random.key(3), kernel, jnp.ones(50), **{**OPTIONS, "num_samples": 25}
    )
    np.testing.assert_array_equal(more.draws, straight.draws)
    assert "tuned" in repr(run)
    assert any("tuned" in note for note in diagnostics.summary(run).notes)


def steep_far_out(x):
    return -jnp.sum(0.5 * x**2 + 10.0 * jnp.maximum(jnp.abs(x) - 5.0, 0.0) ** 4)


def steeper_about(x):
    return -jnp.sum(x**2 / 2 + x**4 / 2)


def test_curvature_is_that_of_where_chains_go():
    """U = x²/2 + x⁴/2: λ is 1 at the mode and E[1 + 6x²] = 2.9 on average, and so hω ≤ 1 there.

    With the mode's curvature h is 1, and every chain is lost.
    """
    posterior = sgmcmc.Posterior.from_log_density(steeper_about)
    run = sgmcmc.sample(
        jax.random.key(0), sgmcmc.baoab(posterior, None, friction="auto"), jnp.zeros(20), **OPTIONS
    )
    assert run.tuning.curvature >= 2.9
    assert 0.5 <= run.tuning.step_size * np.sqrt(run.tuning.curvature) <= 1.01


def test_where_too_long_a_step_leads_is_no_place_of_the_law(monkeypatch):
    """Were curvature 10⁴ times as large at the first trial's steepest place: half the step.

    That is looked at again, and there the curvature is that of N(0, 1) as everywhere.
    """
    calls = []

    def once(*arguments):
        calls.append(0)
        stiffest = curvature.largest_curvature(*arguments)
        return stiffest._replace(value=stiffest.value * (1e4 if len(calls) == 2 else 1))

    for module in ("_mode", "_by_curvature"):
        monkeypatch.setattr(f"sgmcmc.tuning.{module}.largest_curvature", once)
    posterior = sgmcmc.Posterior.from_log_density(Partial(oscillators, jnp.ones(3)))
    kernel = sgmcmc.baoab(posterior, None, friction="auto")
    run = sgmcmc.sample(jax.random.key(0), kernel, jnp.ones(3), **OPTIONS)
    assert len(calls) == 3
    np.testing.assert_allclose(run.tuning.step_size, 0.5, rtol=0.01)
    np.testing.assert_allclose(run.tuning.friction, 0.1 / run.tuning.step_size, rtol=1e-6)


def test_a_chain_lost_in_the_burnin_starts_again_at_half_the_step():
    """The mode knows nothing of a wall that the starts stand behind."""
    posterior = sgmcmc.Posterior.from_log_density(steep_far_out)
    kernel = sgmcmc.baoab(posterior, None)
    run = sgmcmc.sample(jax.random.key(0), kernel, 7.0 * jnp.ones(3), **OPTIONS)
    assert run.tuning.halvings >= 1
    assert not run.stopped
    assert np.all(np.isfinite(run.draws))


def test_no_step_is_an_error():
    """A target that is finite nowhere is not tuned in silence."""

    def broken(x):
        return jnp.sum(x) * jnp.inf

    kernel = sgmcmc.baoab(sgmcmc.Posterior.from_log_density(broken), None)
    with pytest.raises(FloatingPointError):
        sgmcmc.sample(jax.random.key(0), kernel, jnp.ones(3), **OPTIONS)


def test_bad_input():
    """A step by hand without one, and "auto" beside a step."""
    kernel = sgmcmc.baoab(exact(), None)
    with pytest.raises(ValueError, match=r"step_size: None is chosen by sgmcmc\.sample"):
        kernel.step(jax.random.key(1), kernel.init(jnp.ones(50), jax.random.key(0)))
    with pytest.raises(ValueError, match='friction: got "auto" beside'):
        sgmcmc.baoab(exact(), 0.1, friction="auto")
