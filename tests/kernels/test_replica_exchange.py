"""Replica exchange as a kernel: the contract, what a swap carries along, and bad input."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import gradients, reducers
from sgmcmc.kernels._replica_exchange import ReplicaExchange
from sgmcmc.models import gaussian

SIZE = 24
DATA = np.random.default_rng(0).normal(size=(SIZE, 2)).astype(np.float32)
START = {"b": jnp.zeros(()), "w": jnp.ones(2)}
LADDER = (1.0, 1.5, 2.0)


def _log_likelihood(params, batch):
    return -0.5 * (batch @ params["w"] + params["b"] - 1.0) ** 2


def _log_prior(params):
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


POSTERIOR = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=SIZE)
STILL = sgmcmc.Posterior.from_log_density(_log_prior)


def make(inner=None, ladder=LADDER, swap_every=2, **options):
    inner = sgmcmc.baoab(POSTERIOR, 0.05) if inner is None else inner
    return sgmcmc.replica_exchange(inner, ladder, swap_every=swap_every, **options)


def run(kernel, **options):
    arguments = {
        "batch_size": 6, "num_chains": 3, "num_burnin": 5, "num_samples": 12, "progress": False,
    }  # fmt: skip
    return sgmcmc.sample(jax.random.key(1), kernel, START, DATA, **{**arguments, **options})


class Always(ReplicaExchange):
    """Accepts every swap that it tries."""

    def _partners(self, measured, uniforms, count):
        return super()._partners(measured, -jnp.ones_like(uniforms), count)


def always(kernel):
    return Always(**{f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel)})


def batches(count):
    """`count` batches of 6 rows, with a leading axis."""
    index = jnp.arange(6 * count).reshape(count, 6) % SIZE
    return sgmcmc.Batch(jnp.asarray(DATA)[index], index)


@eqx.filter_jit
def begin(kernel, start=START):
    """The first state."""
    return kernel.init(start, jax.random.key(100), jnp.asarray(DATA))


@eqx.filter_jit
def _step(kernel, key, state, batch):
    return kernel.step(key, state, batch)


def steps(kernel, count, state, batch):
    """States and infos of `count` steps."""
    made = []
    for t in range(count):
        state, info = _step(kernel, jax.random.key(t), state, batch)
        made.append((state, info))
    return made


INNER = {
    "baoab": lambda: sgmcmc.baoab(POSTERIOR, 0.05),
    "obabo fast": lambda: sgmcmc.obabo(POSTERIOR, 0.05, noise="fast"),
    "psgld": lambda: sgmcmc.psgld(POSTERIOR, 0.01),
    "sgnht": lambda: sgmcmc.sgnht(POSTERIOR, 0.05),
    "two batches": lambda: sgmcmc.langevin(
        POSTERIOR, 0.05, word="BAOAB", reuse_gradient=False, batches_per_step=2
    ),
    "full": lambda: sgmcmc.baoab(POSTERIOR, 0.05, gradient=gradients.full()),
}


@pytest.mark.parametrize("name", INNER)
def test_a_step_is_its_draw_driven(name):
    """`step` draws its numbers one by one, `draw` all at once: the same step."""
    kernel = make(INNER[name]())
    full = name == "full"
    batch = sgmcmc.Batch(jnp.asarray(DATA)) if full else batches(kernel.traits.batches_per_step)

    @eqx.filter_jit
    def both(kernel, key):
        state = kernel.init(START, jax.random.fold_in(key, 0), jnp.asarray(DATA))
        drawn = kernel.draw(jax.random.fold_in(key, 1), state)
        driven = kernel.drive(drawn, state, batch)
        return driven, kernel.step(jax.random.fold_in(key, 1), state, batch)

    driven, stepped = both(kernel, jax.random.key(0))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), driven, stepped
    )
    state, info = driven
    assert bool(info.finite)
    assert 0 <= float(info.acceptance) <= 1
    step = float(kernel.inner.clock.step_size.value)
    np.testing.assert_allclose([info.time, info.weight], [2 * step, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(info.position["w"], state.position["w"])


def test_neighbours_take_turns():
    """All swaps accepted: pairs (0, 1), (2, 3) at even steps, (1, 2) at odd ones; two always."""
    orders, target = [], gaussian(np.zeros(2), 1.0).posterior()
    for ladder in ((1.0, 2.0, 3.0, 4.0), (1.0, 2.0)):
        kernel = always(make(sgmcmc.sgld(target, 0.1), ladder, swap_every=1))
        made = steps(kernel, 3, begin(kernel, jnp.ones(2)), None)
        orders.append([np.asarray(s.extra.order).tolist() for s, _ in made])
    assert orders[0] == [[1, 0, 3, 2], [1, 3, 0, 2], [3, 1, 2, 0]]
    assert orders[1] == [[1, 0], [0, 1], [1, 0]]


def test_a_swap_changes_temperatures_and_nothing_else():
    """A replica keeps position, snapshot and last gradient; its momentum is rescaled."""
    inner = sgmcmc.aboba(POSTERIOR, 0.05, gradient=gradients.svrg(4))
    kernel = make(inner, (1.0, 4.0), record="all")
    state = begin(kernel)
    batch = batches(kernel.traits.batches_per_step)
    never = make(inner, (1.0, 4.0), energy_variance=1e9, record="all")
    ((swapped, one),) = steps(always(kernel), 1, state, batch)
    ((kept, other),) = steps(never, 1, state, batch)
    assert np.asarray(swapped.extra.order).tolist() == [1, 0]
    assert np.asarray(kept.extra.order).tolist() == [0, 1]
    before, after = kept.extra.states, swapped.extra.states
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)  # noqa: E731
    jax.tree.map(same, before._replace(momentum=()), after._replace(momentum=()))
    factor = np.array([2.0, 0.5], np.float32)
    jax.tree.map(
        lambda a, b: same(a * factor.reshape((2,) + (1,) * (a.ndim - 1)), b),
        before.momentum, after.momentum,
    )  # fmt: skip
    jax.tree.map(lambda a, b: same(a[::-1], b), other.position, one.position)
    np.testing.assert_allclose(swapped.position["w"], one.position["w"][0])
    np.testing.assert_allclose(other.energy, _energy(other.position, 0, batch), rtol=1e-5)
    np.testing.assert_allclose(one.energy, _energy(one.position, 0, batch), rtol=1e-5)


def _energy(positions, k, batch):
    """On the swap's batch, the last."""
    last = jax.tree.map(lambda x: x[-1], batch)
    return POSTERIOR.potential(jax.tree.map(lambda x: x[k], positions), last)


def test_a_thermostat_stays_with_its_temperature():
    """ξ is the cold one's before and after, whichever replica that is."""
    kernel = make(sgmcmc.sgnht(POSTERIOR, 0.05), (1.0, 4.0))
    state = begin(kernel)
    batch = batches(kernel.traits.batches_per_step)
    ((swapped, _),) = steps(always(kernel), 1, state, batch)
    never = make(sgmcmc.sgnht(POSTERIOR, 0.05), (1.0, 4.0), energy_variance=1e9)
    ((kept, _),) = steps(never, 1, state, batch)
    by_temperature = swapped.extra.states.extra["thermostat"][swapped.extra.order]
    before = kept.extra.states.extra["thermostat"]
    np.testing.assert_allclose(by_temperature, before, rtol=1e-6)
    assert float(by_temperature[0, 0]) != float(by_temperature[1, 0])


def test_without_correction_is_a_known_variance_of_nothing():
    """`correct=False` and `energy_variance=0` make the same steps; the correction makes others."""
    chances = []
    for options in ({"correct": False}, {"energy_variance": 0.0}, {"energy_variance": 1e4}):
        kernel = make(ladder=(1.0, 4.0), **options)
        state = begin(kernel)
        made = steps(kernel, 3, state, batches(kernel.traits.batches_per_step))
        chances.append([float(info.acceptance) for _, info in made])
    assert chances[0] == chances[1]
    assert chances[2] == [0.0] * 3
    assert min(chances[0]) > 0


def test_a_run_records_the_cold_replica_or_all():
    """ "cold" is the first of "all"; reducers and selections see the same axis as the draws."""
    cold = run(make(swap_every=1))
    every = run(make(swap_every=1, record="all"), reducers={"mean": reducers.mean()})
    assert cold.draws["w"].shape == (3, 12, 2)
    assert every.draws["w"].shape == (3, 12, 3, 2)
    np.testing.assert_array_equal(every.draws["w"][:, :, 0], cold.draws["w"])
    means = every.reduced["mean"]["w"]
    np.testing.assert_allclose(means, every.draws["w"].mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    assert cold.info.acceptance.shape == (3, 12)
    assert cold.config["sampler"] == "replica_exchange(baoab)"
    assert cold.config["temperature"] == 1.0
    # Three replicas of a gradient, and three energies of a third each, in 17 steps.
    np.testing.assert_allclose(cold.gradient_evaluations, 3 * 17 * (3 + 1))


def test_costs_with_snapshots():
    """SVRG: two gradients a step; each replica's snapshot is 4 batches, taken anew 5 times."""
    inner = sgmcmc.baoab(POSTERIOR, 0.05, gradient=gradients.svrg(3))
    expected = 17 * 3 * (2 + 1 / 3) + 5 * 3 * 4
    made = run(make(inner, swap_every=1))
    np.testing.assert_allclose(made.gradient_evaluations, 3 * expected)


def test_kernels_that_differ_in_numbers_share_a_trace():
    """Other temperatures, steps and variances are arguments; a grid of ladders is a vmap."""
    traces = []

    @eqx.filter_jit
    def first(kernel, key):
        traces.append(1)
        state = kernel.init(jnp.ones(2), key)
        return kernel.step(jax.random.fold_in(key, 1), state)[1].position

    target = gaussian(np.zeros(2), 1.0).posterior()

    def one(step, ladder, variance):
        return sgmcmc.replica_exchange(
            sgmcmc.baoab(target, step), ladder, swap_every=3, energy_variance=variance
        )

    first(one(0.1, (1.0, 2.0), 0.0), jax.random.key(0))
    last = first(one(0.2, (0.5, 5.0), 1.0), jax.random.key(0))
    assert len(traces) == 1
    grid = jnp.array([[1.0, 2.0], [0.5, 5.0]])
    key = jax.random.key(0)
    both = jax.vmap(lambda ladder: first(one(0.2, ladder, 1.0), key))(grid)
    np.testing.assert_allclose(both[1], last, rtol=1e-5)


def test_a_hot_replica_that_diverges_is_reported():
    """Not finite anywhere: the step says so, and the cold replica is not swapped for it."""
    kernel = make(swap_every=1, ladder=(1.0, 2.0))
    state = begin(kernel)
    position = state.extra.states.position
    position = {**position, "w": position["w"].at[1].set(jnp.nan)}
    replicas = state.extra._replace(states=state.extra.states._replace(position=position))
    ((after, info),) = steps(kernel, 1, state._replace(extra=replicas), batches(2))
    assert not bool(info.finite)
    assert not np.isfinite(info.energy)
    assert np.asarray(after.extra.order).tolist() == [0, 1]
    assert np.all(np.isfinite(info.position["w"]))


def test_full_gradients_have_exact_energies():
    """Under `full` one batch serves all steps, and no variance is taken off."""
    kernel = make(sgmcmc.baoab(POSTERIOR, 0.05, gradient=gradients.full(block_size=7)))
    assert kernel.traits.batches_per_step == 1
    positions = {"b": jnp.arange(3.0), "w": jnp.ones((3, 2))}
    measured = kernel.measure(positions, sgmcmc.Batch(jnp.asarray(DATA)))
    assert np.all(np.asarray(measured.noise.variance) == 0)
    direct = [POSTERIOR.potential({**START, "b": jnp.asarray(b)}, DATA) for b in (0.0, 1.0, 2.0)]
    np.testing.assert_allclose(measured.energies, direct, rtol=1e-5)


def test_a_step_costs_what_it_counts():
    """Compiled, the gradients of a step are R · swap_every, none of them computed twice."""
    width = 64
    wide = sgmcmc.Posterior.from_log_density(_wide)

    def flops(kernel, start):
        state = begin(kernel, start)
        step = eqx.filter_jit(kernel.step).lower(jax.random.key(1), state).compile()
        return step.compiled.cost_analysis()["flops"]

    start = jnp.ones((width, width))
    inner = sgmcmc.baoab(wide, 0.01)
    exchange = sgmcmc.replica_exchange(inner, (1.0, 2.0), swap_every=1)
    ratio = flops(exchange, start) / flops(inner, start)
    assert ratio < 1.25 * exchange.traits.gradient_evaluations / inner.traits.gradient_evaluations


def _wide(x):
    for _ in range(4):
        x = x @ x / 64
    return -jnp.sum(x**2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ladder": (1.0,)}, ValueError, "one chain has nobody to swap with"),
        ({"ladder": 1.0}, ValueError, "temperatures: got 1.0; expected two at least"),
        ({"ladder": (2.0, 1.0)}, ValueError, "temperatures: got .*; allowed: increasing"),
        ({"ladder": (1.0, 1.0)}, ValueError, "temperatures: got .*; allowed: increasing"),
        ({"ladder": (0.0, 1.0)}, ValueError, "temperatures: got 0.0; expected a finite number > 0"),
        ({"ladder": (1.0, np.inf)}, ValueError, "temperatures: got inf"),
        ({"swap_every": 0}, ValueError, "swap_every: got 0; allowed: at least 1"),
        ({"swap_every": 2.5}, TypeError, "swap_every: got 2.5; expected an integer"),
        ({"energy_variance": -1.0}, ValueError, "energy_variance: got -1.0"),
        ({"energy_variance": "batch"}, ValueError, "energy_variance: got 'batch'; allowed"),
        ({"record": "hot"}, ValueError, "record: got 'hot'; allowed: cold, all"),
        ({"correct": 1}, TypeError, "correct: got 1"),
        ({"inner": STILL}, TypeError, "kernel: got Posterior"),
        ({"inner": make()}, TypeError, "kernel: got ReplicaExchange"),
        (
            {"inner": sgmcmc.baoab(STILL, 0.1, temperature=lambda t: 1.0)},
            TypeError,
            "kernel: its temperature is a schedule",
        ),
        ({"inner": sgmcmc.leimkuhler_matthews(STILL, 0.1)}, ValueError, "got leimkuhler_matthews"),
        ({"inner": sgmcmc.sort(STILL, 0.1)}, ValueError, "kernel: got sort"),
        (
            {"inner": sgmcmc.sgld(POSTERIOR, 0.1, gradient=gradients.svrg(5))},
            ValueError,
            "swap_every: got 2 with an estimator refreshed every 5 steps; allowed: a divisor of 5",
        ),
    ],
)
def test_bad_input_is_refused(change, error, message):
    """Each error names the argument, what was given and what is allowed."""
    with pytest.raises(error, match=message):
        make(**change)


def test_a_clock_is_checked_in_the_replicas_steps():
    """A cycle of 30 steps fits into 17 steps of two each, not into 10."""
    clock = sgmcmc.clocks.cyclical(0.05, num_cycles=1, total_steps=30)
    kernel = make(sgmcmc.sgld(POSTERIOR, clock))
    kernel.clock.check_run(5, 12, 1)
    with pytest.raises(ValueError, match="one cycle of the clock takes 30 steps"):
        run(kernel, num_burnin=0, num_samples=10)


def test_several_batches_of_all_data():
    """Under stream="full" each of a step's two batches is all data, as the one of a step is."""
    draws = []
    for count in (1, 2):
        kernel = sgmcmc.langevin(
            POSTERIOR, 0.05, word="BAOAB", reuse_gradient=False, batches_per_step=count
        )
        draws.append(run(kernel, batch_size=None, num_samples=4).draws["w"])
    np.testing.assert_allclose(draws[0], draws[1], rtol=1e-5)
