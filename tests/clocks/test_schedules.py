"""Decreasing and cyclical clocks: steps, weights, phases, and runs that they do not fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from sgmcmc import clocks, reducers

POSTERIOR = sgmcmc.Posterior.from_log_density(lambda x: -0.5 * jnp.sum(x**2))


def ticks(clock, count):
    """(dt, weight) of the first `count` steps."""

    def one(state, _):
        dt, weight, state = clock.tick(state)
        return state, (dt, weight)

    dt, weight = jax.lax.scan(one, clock.init(), None, length=count)[1]
    return np.asarray(dt), np.asarray(weight)


def run(kernel, **options):
    arguments = {"num_chains": 2, "num_burnin": 0, "num_samples": 40, "progress": False}
    return sgmcmc.sample(jax.random.key(0), kernel, jnp.zeros(2), **{**arguments, **options})


def test_periods():
    """What a clock says of when it repeats itself, and that it does; None where it need not."""
    turn = clocks.periodic(lambda k: jnp.where(k == 0, 0.3, 0.1), 3)
    cycle = clocks.cyclical(0.1, num_cycles=2, total_steps=9, exploration=0.4)
    for clock, period in (
        (clocks.fixed(0.1), 1),
        (clocks.scheduled(turn), 3),
        (cycle, 5),
        (clocks.scheduled(lambda k: 0.1 / (1 + k)), None),
        (clocks.decreasing(0.1), None),
        (clocks.adaptive(0.1), None),
    ):
        assert clock.period == period
        for values in () if period is None else ticks(clock, 30):
            np.testing.assert_array_equal(values[period:], values[:-period])
    assert cycle.temperature(turn).period == 15
    assert cycle.temperature(lambda k: 1.0 + k).period is None
    dt, weight = ticks(clocks.scheduled(turn), 4)
    np.testing.assert_allclose(dt, [0.3, 0.1, 0.1, 0.3], rtol=1e-6)
    np.testing.assert_allclose(weight, [1, 1 / 3, 1 / 3, 1], rtol=1e-6)


def test_bad_periods_are_named():
    """No function, no integer, none at all."""
    with pytest.raises(TypeError, match="schedule: got float"):
        clocks.periodic(0.1, 2)
    with pytest.raises(TypeError, match="period: got 2"):
        clocks.periodic(jnp.sin, 2.5)
    with pytest.raises(ValueError, match="period: got 0"):
        clocks.periodic(jnp.sin, 0)


def test_a_polynomial_decay(x64):
    """h_k = h (1 + k/b)^−γ, Welling and Teh's a (b + k)^−γ with a = h b^γ."""
    dt, weight = ticks(clocks.decreasing(0.2, offset=3.0, power=0.6), 50)
    np.testing.assert_allclose(dt, 0.2 * 3**0.6 * (3 + np.arange(50)) ** -0.6, rtol=1e-12)
    np.testing.assert_allclose(weight, dt / 0.2, rtol=1e-12)
    _, weight = ticks(clocks.decreasing(0.2, offset=3.0, power=0.6, weights="equal"), 50)
    assert (weight == 1).all()


@pytest.mark.parametrize(("total", "cycles", "length"), [(40, 4, 10), (41, 4, 11), (7, 1, 7)])
def test_steps_of_a_cycle_sum_to_the_known_time(x64, total, cycles, length):
    """Over each cycle Σ h_k = h (L + 1)/2, L = ⌈total/C⌉, from h down to a step above 0."""
    dt, _ = ticks(clocks.cyclical(0.3, num_cycles=cycles, total_steps=total), cycles * length)
    dt = dt.reshape(cycles, length)
    np.testing.assert_allclose(dt.sum(axis=1), 0.3 * (length + 1) / 2, rtol=1e-13)
    np.testing.assert_allclose(dt[:, 0], 0.3, rtol=1e-13)
    last = 0.15 * (np.cos(np.pi * (length - 1) / length) + 1)
    np.testing.assert_allclose(dt[:, -1], last, rtol=1e-12)
    assert last > 0


def test_the_last_step_of_a_long_cycle_is_above_zero():
    """In float32 too, where cos(πr) + 1 would be 0."""
    clock = clocks.cyclical(0.3, num_cycles=1, total_steps=100_000)
    last = float(clock.step_size(jnp.int32(99_999)))
    np.testing.assert_allclose(last, 0.3 * np.sin(np.pi / 200_000) ** 2, rtol=1e-5)


@pytest.mark.parametrize("weights", ["time", "equal"])
def test_explorations_weigh_nothing(weights):
    """In the first 40% of each cycle the weight is 0, after it h_k/h or 1."""
    clock = clocks.cyclical(0.3, num_cycles=2, total_steps=20, exploration=0.4, weights=weights)
    dt, weight = ticks(clock, 20)
    explores = np.tile(np.arange(10) < 4, 2)
    assert (weight[explores] == 0).all()
    wanted = dt / 0.3 if weights == "time" else np.ones(20)
    np.testing.assert_allclose(weight[~explores], wanted[~explores], rtol=1e-6)


def test_the_temperature_of_a_cycle():
    """It is 0 while exploring and the target's while sampling, of a number or a schedule."""
    clock = clocks.cyclical(0.3, num_cycles=2, total_steps=20, exploration=0.4)
    explores = np.tile(np.arange(10) < 4, 2)
    made = jax.vmap(clock.temperature(0.7))(jnp.arange(20))
    np.testing.assert_allclose(made, np.where(explores, 0, 0.7), rtol=1e-6)
    made = jax.vmap(clock.temperature(lambda k: 1.0 + k))(jnp.arange(20))
    np.testing.assert_allclose(made, np.where(explores, 0, 1.0 + np.arange(20)))
    with pytest.raises(ValueError, match=r"temperature: got -1.0"):
        clock.temperature(-1.0)


def test_explorations_optimise():
    """With its temperature, SGLD goes straight downhill while the clock explores."""
    clock = clocks.cyclical(0.3, num_cycles=2, total_steps=20, exploration=0.4)
    kernel = sgmcmc.sgld(POSTERIOR, clock, temperature=clock.temperature())
    state, step = kernel.init(jnp.ones(2), jax.random.key(0)), eqx.filter_jit(kernel.step)
    for k in range(6):
        dt, before = float(clock.step_size(jnp.int32(k))), state.position
        state, _ = step(jax.random.key(k + 1), state)
        straight = np.allclose(state.position, (1 - dt) * before, rtol=1e-6)
        assert straight == (k < 4)


def test_cycles_do_not_know_their_number():
    """From the same state and keys, all cycles make the same steps, bit for bit."""
    clock = clocks.cyclical(0.3, num_cycles=3, total_steps=30, exploration=0.3)
    kernel = sgmcmc.baoab(POSTERIOR, clock, temperature=clock.temperature())
    ends, step = [], eqx.filter_jit(kernel.step)
    for cycle in range(3):
        state = kernel.init(jnp.ones(2), jax.random.key(0))
        state = state._replace(clock=state.clock._replace(count=jnp.int32(10 * cycle)))
        for k in range(10):
            state, info = step(jax.random.key(k + 1), state)
        ends.append((np.asarray(state.position), np.asarray(info.weight)))
    for position, weight in ends[1:]:
        np.testing.assert_array_equal(position, ends[0][0])
        np.testing.assert_array_equal(weight, ends[0][1])


def test_one_cycle_without_exploration_is_a_cosine_schedule(x64):
    """C = 1 and β = 0 give the steps and weights of optax's cosine decay, and T throughout."""
    ours = clocks.cyclical(0.3, num_cycles=1, total_steps=40)
    theirs = clocks.scheduled(optax.cosine_decay_schedule(0.3, 40))
    np.testing.assert_allclose(ticks(ours, 40), ticks(theirs, 40), rtol=1e-11)
    temperature = jax.vmap(ours.temperature(0.7))(jnp.arange(40))
    np.testing.assert_allclose(temperature, 0.7)


def test_a_run_averages_over_sampling_phases_alone():
    """Draws of explorations keep weight 0, and reducers leave them out."""
    clock = clocks.cyclical(0.3, num_cycles=4, total_steps=40, exploration=0.5)
    kernel = sgmcmc.sgld(POSTERIOR, clock, temperature=clock.temperature())
    whole = run(kernel, reducers={"mean": reducers.mean()})
    explores = np.tile(np.arange(10) < 5, 4)
    assert (whole.weights[:, explores] == 0).all()
    assert (whole.weights[:, ~explores] > 0).all()
    weighted = np.einsum("cd,cdi->i", whole.weights, whole.draws) / whole.weights.sum()
    np.testing.assert_allclose(whole.reduced["mean"], weighted, rtol=1e-5, atol=1e-6)


def test_kernels_that_differ_in_a_clock_s_numbers_share_a_trace():
    """Steps, lengths and shares are leaves."""
    makes = (
        lambda x: clocks.cyclical(x, num_cycles=int(10 * x), total_steps=90, exploration=x),
        lambda x: clocks.decreasing(x, offset=x, power=x),
    )
    for make in makes:
        assert jax.tree.structure(make(0.2)) == jax.tree.structure(make(0.3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clocks.decreasing(0.0), "initial_step: got 0.0; expected a finite number > 0"),
        (lambda: clocks.decreasing(0.1, offset=-1.0), "offset: got -1.0"),
        (lambda: clocks.decreasing(0.1, power=1.5), "power: got 1.5; .* > 0 and ≤ 1"),
        (lambda: clocks.decreasing(0.1, weights="none"), "weights: got 'none'; allowed: time"),
        (lambda: clocks.cyclical(-0.1, num_cycles=1, total_steps=9), "initial_step: got -0.1"),
        (lambda: clocks.cyclical(0.1, num_cycles=0, total_steps=9), "num_cycles: got 0"),
        (lambda: clocks.cyclical(0.1, num_cycles=1, total_steps=2.5), "total_steps: got 2.5"),
        (lambda: clocks.cyclical(0.1, num_cycles=9, total_steps=5), "num_cycles: got 9; .* 5"),
        (lambda: clocks.cyclical(0.1, num_cycles=1, total_steps=9, exploration=1.0),
         "exploration: got 1.0; .* ≥ 0 and < 1"),
    ],
)  # fmt: skip
def test_bad_clocks_are_refused(make, message):
    """Every number is checked where the clock is made."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("step_size", "options", "message"),
    [
        (lambda k: 0.1 - 0.004 * k, {}, r"step_size\(2[56]\): got -.*each of the run's 40 steps"),
        (optax.cosine_decay_schedule(0.1, 20), {"num_samples": 5, "thinning": 5},
         r"step_size\(20\): got 0.0; expected a finite number > 0"),
        (lambda k: 0.1 / (5 - k), {"num_burnin": 3, "num_samples": 10}, r"step_size\(5\): got inf"),
        (clocks.cyclical(0.1, num_cycles=2, total_steps=100), {},
         "total_steps: one cycle of the clock takes 50 steps, the run makes 40"),
        (clocks.cyclical(0.1, num_cycles=4, total_steps=40, exploration=0.5),
         {"num_samples": 4, "thinning": 10, "num_burnin": 1},
         "exploration: every draw falls into an exploration phase"),
    ],
)  # fmt: skip
def test_runs_that_a_clock_does_not_fit(step_size, options, message):
    """A step of 0 anywhere in a run, a cycle longer than it, and no draw to keep are errors."""
    with pytest.raises(ValueError, match=message):
        run(sgmcmc.sgld(POSTERIOR, step_size), **options)


def test_long_runs_are_checked_to_their_end():
    """A schedule that reaches 0 after 100,000 steps is seen before the first of them."""
    kernel = sgmcmc.sgld(POSTERIOR, lambda k: jnp.where(k < 100_000, 0.1, 0.0))
    with pytest.raises(ValueError, match=r"step_size\(100000\): got 0.0"):
        run(kernel, num_samples=100_001, collect=False)
