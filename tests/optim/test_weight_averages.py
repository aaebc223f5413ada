"""SWA: its schedule, its average in an optax loop, and what averaging does to SGD's noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc

RATE, LENGTH = 0.05, 100


def test_the_printed_schedule():
    """Row S1, with steps that are epochs and with seven steps an epoch."""
    printed = {0: 0.05, 80: 0.05, 81: 0.049689, 100: 0.037888, 120: 0.025466, 144: 0.010559,
               145: 0.01, 160: 0.01, 400: 0.01}  # fmt: skip
    plain = sgmcmc.optim.swa_schedule(0.05, 0.01, start=161)
    finer = sgmcmc.optim.swa_schedule(0.05, 0.01, start=161, steps_per_epoch=7)
    for epoch, rate in printed.items():
        assert float(plain(epoch)) == pytest.approx(rate, abs=1e-6)
        assert float(finer(7 * epoch)) == pytest.approx(rate, abs=1e-6)
        assert float(finer(jnp.int32(7 * epoch + 6))) == pytest.approx(rate, abs=1e-6)
    # Plain SGD: over the whole budget down to a hundredth.
    sgd = sgmcmc.optim.swa_schedule(0.05, start=200)
    assert [float(sgd(e)) for e in (0, 100, 140, 180, 199)] == pytest.approx(
        [0.05, 0.05, 0.05 * (1 - 0.99 / 2), 0.0005, 0.0005], abs=1e-8
    )


def test_cycles():
    """Both shapes: ends, middles, and the same in every cycle."""
    saw = sgmcmc.optim.cyclical_schedule(0.1, 0.02, period=4)
    assert [float(saw(i)) for i in range(6)] == pytest.approx([0.08, 0.06, 0.04, 0.02, 0.08, 0.06])
    triangle = sgmcmc.optim.cyclical_schedule(0.1, 0.02, period=4, shape="triangle")
    assert [float(triangle(i)) for i in range(5)] == pytest.approx([0.06, 0.02, 0.06, 0.1, 0.06])
    joined = optax.join_schedules([optax.constant_schedule(0.5), saw], [3])
    assert [float(joined(i)) for i in (2, 3, 6)] == pytest.approx([0.5, 0.08, 0.02])


def train(start, noise, optimizer):
    """Positions of x ← x − rate (x + ξ) and the last state, in one scan."""

    def step(carry, xi):
        x, state = carry
        updates, state = optimizer.update(x + xi, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    (_, state), path = jax.lax.scan(step, (start, optimizer.init(start)), noise)
    return path, state


@pytest.mark.parametrize(("start", "period"), [(1, 1), (10, 7), (30, 30), (100, 1)])
def test_the_mean_is_that_of_the_chosen_steps(start, period, x64):
    noise = jax.random.normal(jax.random.key(0), (LENGTH, 3))
    optimizer = optax.chain(
        optax.sgd(RATE, momentum=0.9), sgmcmc.optim.weight_average(start, period)
    )
    path, state = jax.jit(lambda n: train(jnp.ones(3), n, optimizer))(noise)
    chosen = path[start - 1 :: period]
    np.testing.assert_allclose(state[-1].average, chosen.mean(axis=0), rtol=1e-12)
    assert int(state[-1].number) == len(chosen)


def test_before_the_start_it_is_the_parameters():
    optimizer = optax.chain(optax.sgd(RATE), sgmcmc.optim.weight_average(50, 1))
    path, state = train(jnp.ones(3), jnp.zeros((20, 3)), optimizer)
    np.testing.assert_array_equal(state[-1].average, path[-1])
    assert int(state[-1].number) == 0


def test_epochs():
    """B batches an epoch: (B·161, B·c) is the rule "e ≥ 161 and c divides e − 161"."""
    batches, start, cycle = 3, 5, 2
    optimizer = sgmcmc.optim.weight_average(batches * start, batches * cycle)
    state, x = optimizer.init(jnp.zeros(())), jnp.zeros(())
    taken = []
    for step in range(1, 10 * batches + 1):
        before = int(state.number)
        _, state = optimizer.update(jnp.ones(()), state, x)
        x = x + 1
        if int(state.number) > before:
            taken.append(step / batches)
    assert taken == [5, 7, 9]


def test_the_noise_of_the_mean(x64):
    """Row S2: the last iterate's variance and the mean's, by the exact linear map of the noise."""
    optimizer = optax.chain(optax.sgd(RATE), sgmcmc.optim.weight_average(1, 1))

    def ends(given):
        path, state = train(given[0], given[1:], optimizer)
        return jnp.stack([path[-1], state[-1].average])

    jacobian = np.asarray(jax.jacobian(ends)(jnp.zeros(LENGTH + 1)))
    stationary = RATE**2 / (1 - (1 - RATE) ** 2)
    variances = np.array([stationary, *np.ones(LENGTH)])
    last, mean = (jacobian**2) @ variances
    assert last == pytest.approx(0.025641, abs=1e-6)
    assert mean == pytest.approx(0.008063, abs=1e-6)


def test_the_noise_of_the_mean_by_sampling():
    """Row S2 by 20,000 runs of float32: a variance within 3%, which is three standard errors."""
    optimizer = optax.chain(optax.sgd(RATE), sgmcmc.optim.weight_average(201, 1))
    noise = jax.random.normal(jax.random.key(1), (300, 20_000))
    path, state = jax.jit(lambda n: train(jnp.zeros(20_000), n, optimizer))(noise)
    assert float(path[-1].var()) == pytest.approx(0.025641, rel=0.03)
    assert float(state[-1].average.var()) == pytest.approx(0.008063, rel=0.03)


def test_low_precision():
    """bfloat16 parameters have a float32 mean, of what they were after rounding."""
    optimizer = optax.chain(optax.sgd(0.1), sgmcmc.optim.weight_average(1, 1))
    x = jnp.asarray([1.0, 2.0], jnp.bfloat16)
    state, seen = optimizer.init(x), []
    for _ in range(5):
        updates, state = optimizer.update(x, state, x)
        x = optax.apply_updates(x, updates)
        seen.append(np.asarray(x, np.float64))
    average = state[-1].average
    assert average.dtype == jnp.float32
    np.testing.assert_allclose(average, np.mean(seen, axis=0), rtol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="start: got 0; allowed: at least 1"):
        sgmcmc.optim.weight_average(0, 1)
    with pytest.raises(TypeError, match=r"period: got 1\.5; expected an integer"):
        sgmcmc.optim.weight_average(1, 1.5)
    optimizer = sgmcmc.optim.weight_average(1, 1)
    with pytest.raises(ValueError, match="params: got None"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    with pytest.raises(TypeError, match="params: leaf counts is int32"):
        optimizer.init({"counts": jnp.ones(2, jnp.int32)})
    with pytest.raises(ValueError, match=r"swa_learning_rate: got 0\.1; expected .* ≤ 0\.05"):
        sgmcmc.optim.swa_schedule(0.05, 0.1, start=10)
    with pytest.raises(ValueError, match="learning_rate: got 0"):
        sgmcmc.optim.swa_schedule(0.0, start=10)
    with pytest.raises(ValueError, match="start: got 0"):
        sgmcmc.optim.swa_schedule(0.05, start=0)
    with pytest.raises(ValueError, match="period: got 5; a triangle's is even"):
        sgmcmc.optim.cyclical_schedule(0.1, 0.01, period=5, shape="triangle")
    with pytest.raises(ValueError, match="shape: got 'cosine'; allowed: sawtooth, triangle"):
        sgmcmc.optim.cyclical_schedule(0.1, 0.01, period=5, shape="cosine")


def test_a_mean_far_from_zero_keeps_moving():
    """Parameters 1e5 standard deviations from 0: the mean of 20,000 of them to float32's last
    place, where updates of less than half of one would be lost."""
    optimizer = sgmcmc.optim.weight_average(1, 1)
    noise = np.random.default_rng(0).normal(size=20_000)
    path = jnp.asarray(1e5 + noise, jnp.float32)

    def step(state, x):
        return optimizer.update(jnp.zeros(()), state, x)[1], None

    state, _ = jax.lax.scan(step, optimizer.init(path[0]), path)
    exact = np.asarray(path, np.float64).mean()
    assert abs(float(state.average) - exact) <= np.spacing(np.float32(1e5))
