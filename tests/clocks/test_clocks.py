"""Clocks: dt and weight of every step, and rates checked where they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmcmc import clocks


def ticks(clock, count):
    state, made = clock.init(), []
    for _ in range(count):
        dt, weight, state = clock.tick(state)
        made.append((float(dt), float(weight)))
    return np.array(made).T, state


def test_a_fixed_step_weighs_one():
    """dt = h and the weight is exactly 1, step after step."""
    (dt, weight), state = ticks(clocks.fixed(0.3), 4)
    np.testing.assert_allclose(dt, 0.3, rtol=1e-7)
    assert (weight == 1).all()
    assert int(state.count) == 4


@pytest.mark.parametrize(
    "schedule",
    [
        lambda k: 0.5 / (1 + k) ** 0.6,
        optax.exponential_decay(0.5, 3, 0.7),
        optax.cosine_decay_schedule(0.5, 10),
        optax.constant_schedule(0.5),
    ],
)
def test_a_schedule_weighs_by_its_first_step(schedule):
    """dt = h_k and the weight is h_k/h_0, for functions and optax's schedules alike."""
    wanted = np.array([float(schedule(jnp.int32(k))) for k in range(8)])
    for clock in (clocks.scheduled(schedule), clocks.as_clock(schedule)):
        (dt, weight), _ = ticks(clock, 8)
        np.testing.assert_allclose(dt, wanted, rtol=1e-6)
        np.testing.assert_allclose(weight, wanted / wanted[0], rtol=1e-6)


def test_numbers_are_leaves_and_clocks_pass_through():
    """A step size is an array leaf, a clock is itself, a rate is taken as it is."""
    clock = clocks.fixed(0.1)
    assert clocks.as_clock(clock) is clock
    assert clocks.as_rate(clock.step_size, "step_size") is clock.step_size
    assert [x.dtype for x in jax.tree.leaves(clock)] == [jnp.float32]
    assert jax.tree.structure(clock) == jax.tree.structure(clocks.fixed(np.float64(2)))


def test_clocks_are_made_inside_jit():
    """Values unknown at trace time are not checked, and work."""
    assert float(jax.jit(lambda h: clocks.fixed(h).tick(clocks.fixed(h).init())[0])(0.25)) == 0.25


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0.0, ValueError, "step_size: got 0.0; expected a finite number > 0"),
        (-1, ValueError, "step_size: got -1.0"),
        (np.nan, ValueError, "step_size: got nan"),
        (np.array([0.1, -0.2]), ValueError, "step_size: got -0.2"),
        (lambda k: 0.0 * k, ValueError, r"step_size\(0\): got 0.0"),
        (True, TypeError, "step_size: got True; expected a number or a schedule"),
        ("0.1", TypeError, "step_size: got '0.1'"),
    ],
)
def test_bad_steps_are_refused(value, error, message):
    """A step is a finite number above zero, or a schedule that begins with one."""
    with pytest.raises(error, match=message):
        clocks.as_clock(value)


def test_rates_may_be_zero():
    """Friction and temperature may vanish; they may not be negative."""
    assert float(clocks.as_rate(0, "friction")(jnp.int32(0))) == 0
    with pytest.raises(ValueError, match=r"temperature: got -0.1.*; expected a finite number ≥ 0"):
        clocks.as_rate(-0.1, "temperature")
