"""`diagnostics.stationary_law` as users meet it: its record, its precision, its refusals."""

import doctest
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import clocks, gradients
from sgmcmc.diagnostics import stationary_law, sweeps
from sgmcmc.models import gaussian, linear_regression
from tests.laws import estimators, samplers


def test_it_needs_no_setting_of_precision():
    """A kernel built in float32 is judged in float64, and JAX's setting is left alone."""
    with jax.enable_x64(False):
        kernel = sgmcmc.obabo(samplers.harmonic(), 0.2)
        law = stationary_law(kernel, jnp.zeros(2))
        assert jnp.zeros(1).dtype == jnp.float32
    h = float(np.float32(0.2))
    np.testing.assert_allclose(law.covariance, np.eye(2) / (1 - h * h / 4), atol=1e-13)


def test_the_record_holds_the_laws_of_each_part():
    """Every part has one row a parameter; overdamped kernels have no momentum."""
    posterior = gaussian(np.arange(3.0), np.eye(3)).posterior()
    law = stationary_law(sgmcmc.baoab(posterior, 0.2), jnp.zeros(3))
    assert law.mean.shape == law.momentum_mean.shape == (3,)
    assert law.covariance.shape == law.cross_covariance.shape == (3, 3)
    np.testing.assert_allclose(law.momentum_mean, 0, atol=1e-12)
    law = stationary_law(sgmcmc.sgld(posterior, 0.2), jnp.zeros(3))
    assert law.momentum_mean.shape == (0,)
    assert law.cross_covariance.shape == (3, 0)
    np.testing.assert_allclose(law.spectral_radius, 0.64, rtol=1e-12)


def test_linear_regression_with_all_data():
    """On linear regression with full gradients BAOAB draws from the exact posterior."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    model = linear_regression(noise_scale=0.5)
    mean, covariance = model.exact(x, y)
    kernel = sgmcmc.baoab(
        model.posterior(20), 0.2, metric=sgmcmc.metrics.dense(covariance),
        gradient=sgmcmc.gradients.full(block_size=7),
    )  # fmt: skip
    law = stationary_law(kernel, jnp.zeros(3), [sgmcmc.Batch((jnp.asarray(x), jnp.asarray(y)))])
    np.testing.assert_allclose(law.mean, mean, atol=1e-10)
    np.testing.assert_allclose(law.covariance, covariance, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("BAOAB", 2.0), ("OBABO", 2.0), ("ABOBA", 2.0), ("OABAO", 2.0), ("BAOA", 2.0),
     ("UBU", 2.399), ("BUB", 2.399), ("sghmc", 1.236), ("euler_maruyama", 1.0),
     ("sgld", 2.0), ("leimkuhler_matthews", 2.0)],
)  # fmt: skip
def test_limits_of_stability(name, limit):
    """Below the limit of h√k there is a law; above it, an error that says there is none."""
    stationary_law(samplers.make(name, samplers.harmonic(), limit - 0.002), jnp.zeros(1))
    with pytest.raises(ValueError, match="beyond the limit of stability"):
        stationary_law(samplers.make(name, samplers.harmonic(), limit + 0.002), jnp.zeros(1))


def test_minibatches_can_be_unstable_where_their_mean_is_not():
    """Second moments may grow although the mean contracts, and are what counts."""
    posterior, batches = samplers.quadratics([0.01, 1.99], [0.0, 0.0])
    with pytest.raises(ValueError, match="no stationary law"):
        stationary_law(sgmcmc.sgld(posterior, 0.6), jnp.zeros(1), batches)


def test_targets_that_are_not_gaussian_are_refused():
    """A quartic has no affine step: a ValueError, not a wrong law."""
    quartic = sgmcmc.Posterior.from_log_density(_quartic)
    with pytest.raises(ValueError, match="not affine"):
        stationary_law(sgmcmc.baoab(quartic, 0.1), jnp.zeros(1))


def over_a_period(steps, weights):
    """The variance of SGLD's draws on U = x²/2 over a period, by its recursion in NumPy."""
    variance, total = 1.0, 0.0
    for _ in range(2 + 4_000 // len(steps)):
        total = 0.0
        for h, weight in zip(steps, weights, strict=True):
            variance = (1 - h) ** 2 * variance + 2 * h
            total += weight * variance
    return total / sum(weights)


@pytest.mark.parametrize(
    ("length", "weights"), [(50, "time"), (300, "time"), (500, "equal"), (1000, "time")]
)
def test_cyclical_clocks(length, weights):
    """The law over a cycle, whatever its length divides; that of the first step is 4/3.

    As the cycle grows long it is (1/√(1 − a) − 1)/(a/2), a = h/2: 1.2376 at h = .5.
    """
    clock = clocks.cyclical(0.5, num_cycles=2, total_steps=2 * length, weights=weights)
    law = stationary_law(sgmcmc.sgld(samplers.harmonic(), clock), jnp.zeros(1))
    steps = 0.25 * (np.cos(np.pi * np.arange(length) / length) + 1)
    shares = steps if weights == "time" else np.ones(length)
    np.testing.assert_allclose(law.covariance, over_a_period(steps, shares), rtol=1e-9)
    if weights == "time":
        slow = 8 * (1 / np.sqrt(0.75) - 1)
        np.testing.assert_allclose(law.covariance, slow, rtol=0.3 / length)


def test_an_exploration_without_weight():
    """Its draws are no part of the law, but its steps at temperature 0 are of the dynamics."""
    clock = clocks.cyclical(0.5, num_cycles=1, total_steps=8, exploration=0.5)
    kernel = sgmcmc.sgld(samplers.harmonic(), clock, temperature=clock.temperature(1.0))
    law = stationary_law(kernel, jnp.zeros(1))
    steps = 0.25 * (np.cos(np.pi * np.arange(8) / 8) + 1)
    variance = total = 0.0
    for k in range(800):
        h, sampling = steps[k % 8], k % 8 >= 4
        variance = (1 - h) ** 2 * variance + 2 * h * sampling
        total = (0.0 if k % 8 == 0 else total) + sampling * h * variance
    np.testing.assert_allclose(law.covariance, total / steps[4:].sum(), rtol=1e-9)


class InTurn(clocks.AbstractClock):
    """h and h/3 in turn, weights 1 and 1/3; `says` is what it declares."""

    step_size: clocks.Rate
    says: int | None

    @property
    def period(self):
        return self.says

    def tick(self, state):
        h = self.step_size(state.count)
        share = jnp.where(state.count % 2 == 0, 1.0, 1 / 3)
        return h * share, share, state._replace(count=state.count + 1)


def in_turn(count):
    return jnp.where(count % 2 == 0, 0.5, 0.5 / 3)


def test_two_steps_in_turn():
    """Declared, by a clock or by `periodic`, h and h/3 have the law over both."""
    right = over_a_period([0.5, 0.5 / 3], [1, 1 / 3])
    for step in (
        clocks.scheduled(clocks.periodic(in_turn, 2)),
        clocks.periodic(in_turn, 2),
        clocks.periodic(in_turn, 4),
        InTurn(clocks.as_rate(0.5, "step_size"), 2),
    ):
        law = stationary_law(sgmcmc.sgld(samplers.harmonic(), step), jnp.zeros(1))
        np.testing.assert_allclose(law.covariance, right, rtol=1e-7)  # 1/3 may be of float32


@pytest.mark.parametrize("says", [None, 1, 3])
def test_clocks_that_do_not_say_their_period_are_refused(says):
    """Nor is one believed that says a wrong one."""
    clock = InTurn(clocks.as_rate(0.5, "step_size"), says)
    with pytest.raises(ValueError, match="chang"):
        stationary_law(sgmcmc.sgld(samplers.harmonic(), clock), jnp.zeros(1))


@pytest.mark.parametrize(
    "numbers",
    [
        {"step_size": lambda count: 0.1 / (1 + count)},
        {"step_size": in_turn},
        {"step_size": clocks.decreasing(0.1)},
        {"step_size": 0.1, "temperature": lambda count: 1 / (1 + count)},
        {"step_size": 0.1, "friction": in_turn},
    ],
    ids=["step", "in turn", "decreasing", "temperature", "friction"],
)
def test_schedules_are_refused(numbers):
    """Numbers that change with the step index, and do not say that they come again."""
    kernel = sgmcmc.baoab(samplers.harmonic(), **numbers)
    with pytest.raises(ValueError, match="change with the step"):
        stationary_law(kernel, jnp.zeros(1))


class Fading(sgmcmc.kernels.AbstractKernel):
    """Noise that is less from step 500 on, in a kernel that says nothing of it."""

    posterior = None
    clock = None
    traits = sgmcmc.kernels.Traits("fading", order=1, gradient_evaluations=0)

    def init(self, position, rng_key, data=None):
        return sgmcmc.State(position, (), (), (), sgmcmc.types.ClockState(jnp.asarray(0)))

    def draw(self, rng_key, state):
        return jax.random.normal(rng_key, state.position.shape)

    def drive(self, noise, state, batch):
        spread = jnp.where(state.clock.count < 500, 1.0, 0.5)
        x, one = 0.9 * state.position + spread * noise, jnp.ones(())
        clock = state.clock._replace(count=state.clock.count + 1)
        return state._replace(position=x, clock=clock), sgmcmc.Info(
            x, one, one, one, one, one, True
        )


def test_a_kernel_that_changes_by_itself_is_refused():
    with pytest.raises(ValueError, match="changes with the step"):
        stationary_law(Fading(), jnp.zeros(1))


DATA = (estimators.STIFFNESS, estimators.CENTRES)


def one_example_each():
    """The four batches of one example of `estimators`."""
    rows = [tuple(jnp.asarray(x[i : i + 1]) for x in DATA) for i in range(4)]
    return [sgmcmc.Batch(data, jnp.array([i])) for i, data in enumerate(rows)]


@pytest.mark.parametrize(
    ("gradient", "stream", "right"),
    [
        (gradients.svrg(4), "reshuffled", 1.0540),
        (gradients.svrg(8), "symmetric", 1.0538),
        (gradients.svrg(4), "with_replacement", 1.0557),
        (gradients.saga(), "with_replacement", 1.0744),
        (gradients.control_variate(jnp.array([0.5])), "reshuffled", 1.0480),
    ],
    ids=["svrg", "svrg-symmetric", "svrg-drawn", "saga", "control_variate"],
)
def test_memories_of_estimators(gradient, stream, right):
    """The figures of the page on estimators, by the public call, from wherever the chain begins."""
    posterior, _ = samplers.quadratics(estimators.STIFFNESS, estimators.CENTRES)
    batches = one_example_each()
    kernel = sgmcmc.sgld(posterior, 0.1, gradient=gradient)
    epochs = sweeps(stream, 4)
    laws = [
        stationary_law(kernel, jnp.array([x]), batches, data=DATA, epochs=epochs)
        for x in (0.0, 30.0)
    ]
    np.testing.assert_allclose(laws[0].covariance, right, atol=5.1e-5)
    np.testing.assert_allclose(laws[0].mean, 0.5, atol=0.02)
    np.testing.assert_allclose(laws[1].covariance, laws[0].covariance, rtol=1e-9)
    np.testing.assert_allclose(laws[1].mean, laws[0].mean, rtol=1e-9)


def test_svrg_refreshed_apart_from_its_sweeps():
    """A snapshot every three steps of sweeps of four, against the maps composed by hand."""
    own, refresh = estimators.library_steps("sgld", 0.1, "svrg")
    orders = sweeps("cyclic", 4)[0] * 3
    state = np.zeros((3, 3))
    state[-1, -1] = 1.0
    for _ in range(300):
        draws = np.zeros((3, 3))
        for t, i in enumerate(orders):
            if t % 3 == 0:
                state = refresh[0] @ state @ refresh[0].T
            state = own[i][0] @ state @ own[i][0].T + own[i][1]
            draws = draws + state / len(orders)
    posterior, _ = samplers.quadratics(estimators.STIFFNESS, estimators.CENTRES)
    batches = one_example_each()
    kernel = sgmcmc.sgld(posterior, 0.1, gradient=gradients.svrg(3))
    law = stationary_law(kernel, jnp.zeros(1), batches, data=DATA, epochs=sweeps("cyclic", 4))
    np.testing.assert_allclose(law.mean, draws[0, -1], rtol=1e-10)
    np.testing.assert_allclose(law.covariance, draws[0, 0] - draws[0, -1] ** 2, rtol=1e-10)


REFUSED = {
    "psgld": (lambda target: sgmcmc.psgld(target, 0.1), "a count"),
    "averaged": (lambda target: sgmcmc.sgld(target, 0.1, gradient=gradients.averaged()), "a count"),
    "running_variance": (
        lambda target: sgmcmc.sghmc(target, 0.1, noise_estimate=gradients.running_variance()),
        "a count",
    ),
    "sgnht": (lambda target: sgmcmc.sgnht(target, 0.1), "not affine"),
    "samadams": (lambda target: sgmcmc.samadams(target, 0.1), "follows the gradient"),
    "sa_sgld": (lambda target: sgmcmc.sa_sgld(target, 0.1), "follows the gradient"),
    "sggmc": (lambda target: sgmcmc.sggmc(target, 0.1, 2), "standard normal"),
    "replica_exchange": (
        lambda target: sgmcmc.replica_exchange(sgmcmc.sgld(target, 0.1), (1, 2), swap_every=1),
        "standard normal",
    ),
    "gibbs_posterior": (
        lambda target: sgmcmc.local.gibbs_posterior(
            sgmcmc.local.local_entropy(sgmcmc.sgld(target, 0.1), 1.0), 0.1
        ),
        "standard normals",
    ),
    "untuned": (lambda target: sgmcmc.sgld(target, None), "got None"),
    "all weigh 0": (
        lambda target: sgmcmc.sgld(target, Weightless(clocks.as_rate(0.1, "step_size"), 1)),
        "weighs 0",
    ),
}


class Weightless(InTurn):
    """A fixed step whose draws do not count."""

    def tick(self, state):
        h, nothing = self.step_size(state.count), jnp.zeros(())
        return h, nothing, state._replace(count=state.count + 1)


@pytest.mark.parametrize("name", REFUSED)
def test_kernels_without_an_affine_step_are_refused(name):
    """A ValueError that says why, and no law."""
    make, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        stationary_law(make(samplers.harmonic()), jnp.zeros(1))


def test_periods_without_a_common_factor_are_refused():
    """Rounds of millions of steps are named, not computed."""
    clock = clocks.cyclical(0.5, num_cycles=1, total_steps=99_991)
    kernel = sgmcmc.sgld(samplers.harmonic(), clock, temperature=clocks.periodic(in_turn, 9_973))
    with pytest.raises(ValueError, match="997,210,243 steps"):
        stationary_law(kernel, jnp.zeros(1))


def test_bad_arguments_are_named():
    """No batches, integer parameters and missing data are errors that name the argument."""
    with pytest.raises(ValueError, match="batches: got an empty list"):
        stationary_law(sgmcmc.baoab(samplers.harmonic(), 0.1), jnp.zeros(1), [])
    with pytest.raises(TypeError, match="position"):
        stationary_law(sgmcmc.baoab(samplers.harmonic(), 0.1), jnp.zeros(1, int))
    posterior, _ = samplers.quadratics([1.0], [0.0])
    with pytest.raises(ValueError, match="data: got None"):
        stationary_law(sgmcmc.baoab(posterior, 0.1), jnp.zeros(1))


def test_arithmetic_in_single_precision_is_refused():
    """Code that rounds to float32 inside cannot be judged to ten digits."""
    rounded = sgmcmc.Posterior.from_log_density(Partial(_rounded))
    with pytest.raises(ValueError, match="keep float64"):
        stationary_law(sgmcmc.baoab(rounded, 0.5), jnp.zeros(1))


def test_the_example_of_the_docstring():
    """The example in the docstring prints what it says."""
    assert doctest.testmod(sys.modules[stationary_law.__module__]).failed == 0


def _quartic(x):
    return -jnp.sum(x**4) / 4


def _rounded(x):
    return -0.5 * jnp.sum(x.astype(jnp.float32) ** 2)
