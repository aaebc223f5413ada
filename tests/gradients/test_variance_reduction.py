"""Control variates, SVRG and SAGA: unbiased over every batch, of the stated variance, resumable."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import sgmcmc
from sgmcmc import Batch, Posterior, gradients, streams
from sgmcmc.gradients._control_variate import SVRG
from sgmcmc.sampling import _fingerprint as fingerprints
from tests.gradients import enumeration as every

DRAWN = {
    "pairs of 6": (6, {"size": 2}),
    "pairs with replacement": (6, {"size": 2, "replaced": True}),
    "the short batch of 5": (5, {"size": 1, "padded": 1}),
}


def estimator_and_state(name, data_size):
    """An estimator in a state that belongs to another place than `every.HERE`."""
    data, target = every.examples(data_size), every.posterior(data_size)
    there = every.double(every.THERE)
    made = {
        "control_variate": lambda: gradients.control_variate(there, block_size=4),
        "svrg": lambda: gradients.svrg(3, block_size=4),
        "saga": lambda: gradients.saga(block_size=4),
    }[name]()
    state = eqx.filter_jit(made.init)(target, there, data)
    if name == "saga":
        index = jnp.array([1, 3])
        seen = Batch(jax.tree.map(lambda x: x[index], data), index)
        between = jax.tree.map(lambda x: 0.5 * x, there)
        state = eqx.filter_jit(made)(target, between, seen, state)[2]
    return made, state


def differences(name, state, data):
    """a_i: what the estimator sums over a batch, (N, d)."""
    here = every.example_gradients(every.HERE, data)
    if name == "saga":
        table = jax.vmap(lambda row: ravel_pytree(row)[0])(state.rows)
        return here - np.asarray(table)
    return here - every.example_gradients(every.THERE, data)


NAMES = ("control_variate", "svrg", "saga")


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("name", NAMES)
def test_mean_over_every_batch_is_the_full_gradient(name, drawn, x64):
    """By enumeration, with replacement and without, short batches too; the energy is plain U's."""
    data_size, options = DRAWN[drawn]
    made, state = estimator_and_state(name, data_size)
    every.check_unbiased(made, state, data_size, options)


@pytest.mark.parametrize("name", NAMES)
def test_variance_over_every_batch_is_the_formula(name, x64):
    """(N²/n) S² with replacement, times (N−n)/(N−1) without, S² of the differences."""
    data = every.examples(6)
    made, state = estimator_and_state(name, 6)
    spread = differences(name, state, data).var(axis=0)
    for replaced, factor in ((True, 1.0), (False, 4 / 5)):
        drawn = every.batches(data, 2, replaced=replaced)
        estimates = every.gradients(made, state, data, drawn)[1]
        np.testing.assert_allclose(estimates.var(axis=0), 36 / 2 * spread * factor, rtol=1e-10)


@pytest.mark.parametrize("name", ["control_variate", "svrg"])
def test_at_the_anchor_there_is_no_noise(name, x64):
    """At x* every batch gives the full gradient itself."""
    data = every.examples(6)
    made, state = estimator_and_state(name, 6)
    drawn = every.batches(data, 2)
    estimates = every.gradients(made, state, data, drawn, every.THERE)[1]
    exact = every.full_gradient(every.THERE, data)
    np.testing.assert_allclose(estimates, np.tile(exact, (15, 1)), atol=1e-12)


def test_a_share_scales_the_gradient_and_not_the_energy(x64):
    """Cyclic batches kick with their share of a step, whatever the estimator."""
    data, target = every.examples(5), every.posterior(5)
    index = jnp.array([0, 2])
    plain = Batch(jax.tree.map(lambda x: x[index], data), index)
    for name in NAMES:
        made, state = estimator_and_state(name, 5)
        here = every.double(every.HERE)
        call = eqx.filter_jit(made)
        one = call(target, here, plain, state)
        other = call(target, here, plain._replace(share=jnp.asarray(0.25)), state)
        np.testing.assert_allclose(one[0], other[0], rtol=1e-14)
        np.testing.assert_allclose(
            0.25 * ravel_pytree(one[1])[0], ravel_pytree(other[1])[0], rtol=1e-12
        )


@pytest.mark.parametrize("block_size", [1, 4, 100])
def test_blocks_change_nothing(block_size, x64):
    """The pass over all data is the same sum whatever its blocks, and so is SAGA's table."""
    data, target, here = every.examples(7), every.posterior(7), every.double(every.HERE)
    anchored = eqx.filter_jit(gradients.svrg(1, block_size=block_size).init)
    total = anchored(target, here, data).gradient
    by_hand = every.example_gradients(every.HERE, data)
    np.testing.assert_allclose(ravel_pytree(total)[0], by_hand.sum(axis=0), rtol=1e-12)
    table = eqx.filter_jit(gradients.saga(block_size=block_size).init)(target, here, data)
    flat = jax.vmap(lambda row: ravel_pytree(row)[0])(table.rows)
    np.testing.assert_allclose(flat, by_hand, rtol=1e-12)
    np.testing.assert_allclose(ravel_pytree(table.total)[0], by_hand.sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize(("stream", "data_size"), [("with_replacement", 4), ("cyclic", 5)])
def test_the_table_is_the_last_visit(stream, data_size, x64):
    """τ_i is v_i at i's last visit; repeated rows count once, padding not at all."""
    data, target = every.examples(data_size), every.posterior(data_size)
    chosen, key = streams.from_name(stream), jax.random.key(3)
    kernel = sgmcmc.sgld(target, 0.05, gradient=gradients.saga())
    state = kernel.init(every.double(every.THERE), jax.random.key(1), data)
    expected = every.example_gradients(every.THERE, data)
    step = jax.jit(lambda key, state, batch: kernel.step(key, state, batch))
    for t in range(9):
        rows = streams.rows_at(chosen, key, t, data_size, 3)
        seen = np.asarray(rows.index)[
            np.asarray(rows.mask if rows.mask is not None else [True] * 3)
        ]
        expected[seen] = every.example_gradients(state.position, data)[seen]
        batch = streams.gather(chosen, rows, data)
        state, _ = step(jax.random.fold_in(jax.random.key(2), t), state, batch)
    table = jax.vmap(lambda row: ravel_pytree(row)[0])(state.estimator.rows)
    np.testing.assert_allclose(table, expected, rtol=1e-12)
    total = ravel_pytree(state.estimator.total)[0]
    np.testing.assert_allclose(total, expected.sum(axis=0), atol=1e-12)


def test_a_step_does_not_copy_the_table():
    """The compiled loop writes its rows in place: a step costs the same whatever N."""
    data, target, estimator = every.examples(1234), every.posterior(1234), gradients.saga()
    start = jax.tree.map(jnp.float32, every.THERE)

    @jax.jit
    def steps(position, table, data):
        def one(t, carry):
            index = (t * jnp.arange(1, 6)) % 1234
            batch = Batch(jax.tree.map(lambda x: x[index], data), index)
            _, gradient, table = estimator(target, carry[0], batch, carry[1])
            return jax.tree.map(lambda x, g: x - 1e-6 * g, carry[0], gradient), table

        return jax.lax.fori_loop(0, 9, one, (position, table))

    table = jax.eval_shape(lambda: estimator.init(target, start, data))
    text = steps.lower(start, table, data).compile().as_text()
    copies = re.findall(r"f32\[1234,2\]\S* copy\(", text)
    # One before the loop, since the argument is not donated.
    assert len(copies) <= 1 + (jax.default_backend() != "cpu")


# ------------------------------------------------------------------------------ whole runs

N = 7
DATA = jax.tree.map(np.float32, jax.tree.map(np.asarray, every.examples(N)))
TARGET = every.posterior(N)
START = jax.tree.map(jnp.float32, every.THERE)
KERNELS = {
    "svrg": sgmcmc.baoab(TARGET, 0.05, gradient=gradients.svrg(3)),
    "saga": sgmcmc.sgld(TARGET, 0.01, gradient=gradients.saga()),
    "control_variate": sgmcmc.sgld(TARGET, 0.01, gradient=gradients.control_variate(START)),
}


def run(kernel, **options):
    options = {
        "batch_size": 2, "num_chains": 2, "num_burnin": 4, "num_samples": 10, "thinning": 2,
        "chain_method": "vmap", "progress": False, "stream": "with_replacement", **options,
    }  # fmt: skip
    return sgmcmc.sample(jax.random.key(4), kernel, START, DATA, **options)


def assert_same_bits(one, other):
    for a, b in ((one.draws, other.draws), (one.info, other.info)):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    ends = [jax.tree.map(np.asarray, r.continuation.carry.state.estimator) for r in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    assert one.gradient_evaluations == other.gradient_evaluations


@pytest.mark.parametrize(("name", "method"), [("svrg", "vmap"), ("saga", "map")])
def test_chunks_and_resuming_change_no_bit(name, method, tmp_path):
    """Chunks of 1, 7 and 1,000 steps, and 4 + 6 draws by memory or file, are the straight run."""
    kernel = KERNELS[name]
    straight = run(kernel, chunk_steps=1000, chain_method=method)
    for steps in (1, 7):
        assert_same_bits(run(kernel, chunk_steps=steps, chain_method=method), straight)
    first = run(kernel, num_samples=4, chunk_steps=5, chain_method=method)
    assert_same_bits(first.resume(6, progress=False), straight)
    loaded = sgmcmc.load(first.save(tmp_path / "run"))
    assert_same_bits(loaded.resume(6, kernel=kernel, data=DATA, progress=False), straight)


def test_another_estimator_is_another_kernel():
    """A loaded run is resumed by its own estimator, interval of snapshots included."""
    made = [gradients.minibatch(), gradients.svrg(3), gradients.svrg(4), gradients.saga()]
    kernels = [sgmcmc.sgld(TARGET, 0.1, gradient=g) for g in made]
    prints = {fingerprints.of_kernel(kernel)["kernel"][0] for kernel in kernels}
    assert len(prints) == 4


@pytest.mark.parametrize(
    "name",
    ["control_variate", *(pytest.param(n, marks=pytest.mark.slow) for n in ("saga", "svrg"))],
)
def test_vmapped_chains_are_chains_in_turn(name):
    """`vmap` equals `map` to rounding."""
    one, other = (run(KERNELS[name], chain_method=m) for m in ("vmap", "map"))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, one.draws, other.draws)


class Counted(SVRG):
    """Tells of each chain's snapshot."""

    def refresh(self, posterior, position, state, data):
        jax.debug.callback(lambda _: CALLS.append(1), position["b"])
        return super().refresh(posterior, position, state, data)


CALLS: list[int] = []


@pytest.mark.parametrize("method", ["vmap", pytest.param("map", marks=pytest.mark.slow)])
def test_snapshots_are_rare_and_where_the_chain_stands(method):
    """Every 4th step and at no other, the anchor becomes the position, with its full gradient."""
    kernel = sgmcmc.sgld(TARGET, 0.01, gradient=Counted(4))
    CALLS.clear()
    made = run(kernel, num_burnin=0, num_samples=11, thinning=1, chain_method=method)
    jax.effects_barrier()
    assert len(CALLS) == 2 * 2  # before steps 4 and 8, of two chains
    anchor = made.continuation.carry.state.estimator
    for leaf, draws in zip(
        jax.tree.leaves(anchor.position), jax.tree.leaves(made.draws), strict=True
    ):
        np.testing.assert_array_equal(leaf, draws[:, 7])
    for chain in range(2):
        place, total = jax.tree.map(lambda x, c=chain: x[c], (anchor.position, anchor.gradient))
        by_hand = every.example_gradients(place, DATA).sum(axis=0)
        np.testing.assert_allclose(ravel_pytree(total)[0], by_hand, rtol=1e-4, atol=1e-5)
    # 11 steps of two minibatch gradients, and two snapshots of 7/2 batches, of two chains.
    assert made.gradient_evaluations == 2 * (11 * 2 + 2 * 7 / 2)
    assert made.config["gradient"] == "svrg"


def test_bound_kernels_take_their_snapshots_too():
    """A loop that passes no batch refreshes after the same number of steps."""
    kernel = sgmcmc.sgld(TARGET, 0.01, gradient=gradients.svrg(2))
    algorithm = sgmcmc.to_blackjax(kernel, DATA, batch_size=3)
    state, step = algorithm.init(START, jax.random.key(0)), jax.jit(algorithm.step)
    anchors = []
    for t in range(3):
        before = state.position
        state, _ = step(jax.random.fold_in(jax.random.key(1), t), state)
        anchors.append(bool(jnp.all(state.state.estimator.position["w"] == before["w"])))
    assert anchors == [True, False, True]


def test_the_gradient_at_the_mode_is_computed_once_for_all_chains():
    """Nothing in it depends on the chain; a snapshot's does."""

    def begin(name):
        init = lambda position, key: KERNELS[name].init(position, key, DATA).estimator  # noqa: E731
        many = jax.tree.map(lambda x: jnp.stack([x] * 3), START)
        # `out_axes=None` is an error where a result has a chain axis.
        return jax.vmap(init, out_axes=None)(many, jax.random.split(jax.random.key(0), 3))

    by_hand = every.example_gradients(START, DATA).sum(axis=0)
    flat = ravel_pytree(begin("control_variate"))[0]
    np.testing.assert_allclose(flat, by_hand, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="out_axes"):
        begin("svrg")


def test_half_precision_sums_in_float32():
    """bfloat16 parameters keep a table in bfloat16, and their sums in float32."""
    small = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    data = jax.tree.map(jnp.bfloat16, DATA)
    saga = gradients.saga()
    table = eqx.filter_jit(saga.init)(TARGET, small, data)
    assert {x.dtype for x in jax.tree.leaves(table.rows)} == {jnp.dtype(jnp.bfloat16)}
    anchor = eqx.filter_jit(gradients.svrg(2).init)(TARGET, small, data)
    for total in (table.total, anchor.gradient):
        assert {x.dtype for x in jax.tree.leaves(total)} == {jnp.dtype(jnp.float32)}
    index = jnp.array([1, 1, 4])
    batch = Batch(jax.tree.map(lambda x: x[index], data), index)
    _, gradient, after = eqx.filter_jit(saga)(TARGET, small, batch, table)
    assert jax.tree.map(lambda x: x.dtype, (gradient, after)) == jax.tree.map(
        lambda x: x.dtype, (small, table)
    )
    exact = jax.tree.map(lambda rows: jnp.sum(rows.astype(jnp.float32), 0), after.rows)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after.total, exact)


# ---------------------------------------------------------------------------------- the mode


def linear(theta, batch):
    return -0.5 * (batch[1] - batch[0] @ theta) ** 2


def ridge(theta):
    return -0.5 * jnp.sum(theta**2)


@pytest.mark.parametrize(("batch_size", "error"), [(None, 1e-4), (5, 0.05)])
def test_find_mode_of_a_linear_regression(batch_size, error):
    """The ridge solution, closely on all data and nearly on minibatches."""
    x, y = np.sin(np.arange(60.0)).reshape(20, 3), np.cos(np.arange(20.0))
    exact = np.linalg.solve(x.T @ x + np.eye(3), x.T @ y)
    begin = jnp.zeros(3)
    found = sgmcmc.optim.find_mode(
        jax.random.key(0), Posterior(linear, ridge, data_size=20), begin,
        (np.float32(x), np.float32(y)), batch_size=batch_size, learning_rate=0.05,
    )  # fmt: skip
    np.testing.assert_allclose(found, exact, atol=error)
    np.testing.assert_array_equal(begin, 0)


def test_find_mode_without_data():
    """A density by itself has a mode too, and a schedule of the learning rate is taken as it is."""
    target = Posterior.from_log_density(lambda t: -0.5 * jnp.sum((t["a"] - 2.0) ** 2))
    found = sgmcmc.optim.find_mode(
        jax.random.key(0), target, {"a": jnp.zeros(2)}, num_steps=500,
        learning_rate=lambda t: 0.1 / (1 + t / 50),
    )  # fmt: skip
    np.testing.assert_allclose(found["a"], 2.0, atol=1e-3)


# --------------------------------------------------------------------------------- bad input


def begin_with(gradient, data=DATA, target=TARGET):
    kernel = sgmcmc.sgld(target, 0.01, gradient=gradient)
    return kernel.init(START, jax.random.key(0), data)


def step_with(batch):
    kernel = KERNELS["saga"]
    state = kernel.init(START, jax.random.key(0), DATA)
    return kernel.step(jax.random.key(1), state, batch)


def search(**options):
    return sgmcmc.optim.find_mode(jax.random.key(0), TARGET, START, DATA, **options)


WRONG_SHAPE, WRONG_NAME = {"b": START["b"], "w": jnp.zeros(3)}, {"w": START["w"]}
LOST = {**START, "b": jnp.array(jnp.nan)}
FREE = Posterior.from_log_density(every.log_prior)
BAD = {
    "mode's shape": (
        lambda: begin_with(gradients.control_variate(WRONG_SHAPE)),
        ValueError,
        r"mode: leaf w has shape \(3,\)",
    ),
    "mode's leaves": (
        lambda: begin_with(gradients.control_variate(WRONG_NAME)),
        ValueError,
        r"mode: its tree differs from that of the parameters at \['b'\]",
    ),
    "mode of integers": (
        lambda: gradients.control_variate({"w": jnp.arange(2)}),
        TypeError,
        "mode: leaf w is int32",
    ),
    "empty mode": (lambda: gradients.control_variate({}), ValueError, "mode: got a pytree without"),
    "cv without data": (
        lambda: begin_with(gradients.control_variate(START), None),
        ValueError,
        "data: got None; the `control_variate`",
    ),
    "svrg without data": (
        lambda: begin_with(gradients.svrg(2), None),
        ValueError,
        "data: got None; the `svrg`",
    ),
    "saga without data": (
        lambda: begin_with(gradients.saga(), None),
        ValueError,
        "data: got None; the `saga`",
    ),
    "data of another size": (
        lambda: begin_with(gradients.saga(), every.examples(6)),
        ValueError,
        "data: leaves 0, 1 have 6 examples",
    ),
    "no likelihood": (
        lambda: begin_with(gradients.svrg(2), None, FREE),
        ValueError,
        "gradient: `svrg` splits the gradient by examples",
    ),
    "refresh 0": (lambda: gradients.svrg(0), ValueError, "refresh_every: got 0"),
    "refresh -3": (lambda: gradients.svrg(-3), ValueError, "refresh_every: got -3"),
    "refresh 1.5": (lambda: gradients.svrg(1.5), TypeError, "refresh_every: got 1.5"),
    "block 0": (lambda: gradients.svrg(1, block_size=0), ValueError, "block_size: got 0"),
    "no memory": (lambda: gradients.saga(memory_limit=0), ValueError, "memory_limit: got 0"),
    "too large a table": (
        lambda: begin_with(gradients.saga(memory_limit=80)),
        MemoryError,
        r"memory_limit: SAGA's table of 7 examples × 3 parameters takes 84 bytes for each chain; "
        r"allowed: 80\. Raise saga\(memory_limit=\), or take svrg",
    ),
    "raw batch": (lambda: step_with(DATA), ValueError, "batch: its index is None; SAGA must know"),
    "no index": (lambda: step_with(Batch(DATA)), ValueError, "batch: its index is None"),
    "full stream": (
        lambda: run(KERNELS["saga"], stream="full", batch_size=None),
        ValueError,
        "batch: its index is None; SAGA must know",
    ),
    "sweeps": (
        lambda: run(KERNELS["saga"], stream="symmetric"),
        ValueError,
        'stream: got "symmetric" with .* Allowed: "with_replacement"',
    ),
    "one batch twice": (
        lambda: sgmcmc.langevin(
            TARGET, 0.1, word="BAOAB", reuse_gradient=False, gradient=gradients.saga()
        ),
        ValueError,
        "batches_per_step: got 1 for 2 gradients",
    ),
    "no rate": (lambda: search(learning_rate=0.0), ValueError, "learning_rate: got 0.0"),
    "a word for a rate": (lambda: search(learning_rate="a"), ValueError, "learning_rate: got 'a'"),
    "no steps": (lambda: search(num_steps=0), ValueError, "num_steps: got 0"),
    "large batch": (lambda: search(batch_size=9), ValueError, "batch_size: got 9"),
    "lost at the start": (
        lambda: sgmcmc.optim.find_mode(jax.random.key(0), TARGET, LOST, DATA, num_steps=2),
        FloatingPointError,
        "params: leaf b is not finite at the start",
    ),
    "too fast": (
        lambda: search(num_steps=5, learning_rate=3e38),
        FloatingPointError,
        "learning_rate: the search for the mode is not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    """The argument, the value and what is allowed are named."""
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


def test_a_batch_for_each_gradient_suits_saga():
    """Two gradients a step are fine with two batches a step."""
    kernel = sgmcmc.langevin(
        TARGET, 0.05, word="BAOAB", reuse_gradient=False, batches_per_step=2,
        gradient=gradients.saga(),
    )  # fmt: skip
    assert kernel.traits.gradient_evaluations == 2


def test_kernels_with_one_estimator_share_its_numbers():
    """A mode is an array leaf: another mode is no new trace."""
    kernel = KERNELS["control_variate"]
    other = dataclasses.replace(
        kernel, gradient=gradients.control_variate(jax.tree.map(lambda x: x + 1, START))
    )
    assert jax.tree.structure(kernel) == jax.tree.structure(other)
