"""`sample`: the same key gives the same bits, however chunks, chains and calls are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior, metrics, reducers
from tests.compare import assert_same_bits
from tests.sampling.walk import Walk
from tests.ten_examples import (
    BAOAB,
    PARAMS,
    POSTERIOR,
    SEED,
    N,
    run,
)

SGLD_FAST = sgmcmc.sgld(POSTERIOR, 0.01, noise="fast")


@pytest.mark.parametrize(
    ("stream", "kernel", "chain_method"),
    [
        ("reshuffled", BAOAB, "vmap"),
        ("reshuffled", SGLD_FAST, "map"),
        pytest.param("symmetric", BAOAB, "map", marks=pytest.mark.slow),
        pytest.param("with_replacement", SGLD_FAST, "vmap", marks=pytest.mark.slow),
    ],
    ids=[
        "reshuffled-baoab-vmap",
        "reshuffled-fast-map",
        "symmetric-baoab-map",
        "replaced-fast-vmap",
    ],
)
def test_chunks_change_no_bit(stream, kernel, chain_method):
    """Chunks of 1, 7 and 1,000 steps, and of whatever half a second holds, give identical bits."""
    options = {"stream": stream, "chain_method": chain_method, "thinning": 3}
    runs = [
        run(kernel, chunk_steps=c, reducers={"m": reducers.mean()}, **options)
        for c in (1000, 1, 7, None)
    ]
    for other in runs[1:]:
        assert_same_bits(runs[0], other)


def test_another_key_gives_other_draws():
    """Keys matter: another seed shares no draw, and no two chains agree."""
    one, other = run(), run(key=jax.random.key(6))
    assert not np.any(one.draws["w"] == other.draws["w"])
    assert not np.any(one.draws["w"][0] == one.draws["w"][1])


def test_legacy_keys_give_the_draws_of_typed_ones():
    """A uint32 key of jax.random.PRNGKey, as JAX's or NumPy's array, is the typed key."""
    typed = run(key=jax.random.key(5))
    assert_same_bits(typed, run(key=jax.random.PRNGKey(5)))
    assert_same_bits(typed, run(key=np.asarray(jax.random.PRNGKey(5))))


def test_vmapped_chains_are_single_chains():
    """`vmap` equals `map` to rounding, and chain 0 of four is the only chain of one."""
    mapped, vmapped = (run(chain_method=m, num_chains=4) for m in ("map", "vmap"))
    single = run(chain_method="map", num_chains=1)
    for name in PARAMS:
        np.testing.assert_allclose(mapped.draws[name], vmapped.draws[name], rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(
            single.draws[name][0], mapped.draws[name][0], rtol=2e-4, atol=1e-5
        )


@pytest.mark.parametrize("thinning", [2, 4])
def test_thinning_keeps_every_kth_draw(thinning):
    """A run with thinning k is every k-th draw of the run without, bit for bit, weights too."""
    schedule = sgmcmc.sgld(POSTERIOR, decay)
    every, thinned = run(schedule), run(schedule, num_samples=12 // thinning, thinning=thinning)
    assert thinned.num_steps == every.num_steps
    for a, b in [(every.draws, thinned.draws), (every.info, thinned.info)]:
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x[:, thinning - 1 :: thinning], y), a, b
        )
    np.testing.assert_array_equal(every.weights[:, thinning - 1 :: thinning], thinned.weights)


def decay(count):
    return 0.01 / (1.0 + count) ** 0.55


def test_weights_follow_the_schedule():
    """Draw k weighs h_k/h_0 and lasts h_k, steps counted from 0 with burn-in included."""
    made = run(sgmcmc.sgld(POSTERIOR, decay))
    steps = decay(5 + np.arange(12))
    np.testing.assert_allclose(made.info.time, np.broadcast_to(steps, (2, 12)), rtol=1e-6)
    np.testing.assert_allclose(made.weights, np.broadcast_to(steps / 0.01, (2, 12)), rtol=1e-6)
    np.testing.assert_array_equal(run().weights, 1)


def test_numbers_of_a_kernel_share_one_trace():
    """Twenty step sizes, other burn-in, thinning and friction: nothing is compiled again."""
    compiled = []

    def listen(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    def grid():
        for i in range(20):
            kernel = sgmcmc.baoab(POSTERIOR, 0.001 * (i + 1), friction=0.5 + i, temperature=i / 10)
            run(kernel, num_burnin=3 + i, thinning=1 + i % 3, collect=["w"])

    # Built here: building a kernel compiles conversions of its scalars, once for each setting
    # of JAX, and those made when this file was imported were made under another.
    first = sgmcmc.baoab(POSTERIOR, 0.5, friction=2.0, temperature=0.3)
    run(first, collect=["w"]).resume(2, progress=False)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        grid()
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


def test_one_run_compiles_the_chunk_once():
    """Burn-in, sampling, a short last chunk and resuming share one trace of the loop."""
    traces = []

    def kept(params):
        traces.append(None)
        return params["w"][0]

    # A chunk's trace takes `collect` so many times, and its look at the shapes once more.
    run(collect=kept, chunk_steps=100, num_burnin=0, num_samples=1)
    shapes_only = 1
    once = len(traces) - shapes_only
    assert once >= 1
    del traces[:]
    made = run(collect=kept, chunk_steps=5, num_samples=11, thinning=2)
    made.resume(3, progress=False)
    assert len(traces) == shapes_only


def test_kernels_may_take_several_batches_a_step():
    """With batches_per_step = 2 each of a step's gradients has the next batch of the stream."""
    target = Posterior(index_likelihood, no_prior, data_size=N)
    kernel = sgmcmc.langevin(target, 1e-3, word="BAOAB", reuse_gradient=False, batches_per_step=2)
    rows = np.arange(N, dtype=np.float32)
    for method in ("vmap", "map"):
        made = sgmcmc.sample(
            jax.random.key(SEED), kernel, jnp.zeros(()), rows,
            batch_size=5, num_chains=2, num_burnin=2,
            num_samples=6, chain_method=method, chunk_steps=1, progress=False,
        )  # fmt: skip
        stream_key = jax.random.split(jax.random.key(SEED), 3)[2]
        stream = sgmcmc.streams.reshuffled()
        for chain in range(2):
            key = jax.random.fold_in(stream_key, chain)
            for draw in range(6):
                second = jnp.int32(2 * (2 + draw) + 1)
                picked = sgmcmc.streams.rows_at(stream, key, second, N, 5).index
                energy = -N / 5 * (2.0 ** np.asarray(picked)).sum()
                np.testing.assert_allclose(made.info.energy[chain, draw], energy, rtol=1e-6)


def index_likelihood(theta, batch):
    return 2.0**batch + 0 * theta


def no_prior(theta):
    return 0 * theta


def test_full_gradient_is_the_same_whichever_way_it_is_asked_for():
    """batch_size=None, stream="full" and gradients.full() all use every example every step."""
    whole = sgmcmc.baoab(POSTERIOR, 0.05, gradient=sgmcmc.gradients.full())
    blocks = sgmcmc.baoab(POSTERIOR, 0.05, gradient=sgmcmc.gradients.full(block_size=3))
    one = run(batch_size=None)
    assert_same_bits(one, run(batch_size=N, stream="full"))
    for other in (run(whole, batch_size=None), run(blocks, batch_size=None)):
        np.testing.assert_allclose(other.draws["w"], one.draws["w"], rtol=1e-4, atol=1e-5)


def test_metric_and_temperature_reach_the_loop():
    """Everything a kernel holds is an argument of the loop: T = 0 with a tiny step stands still."""
    cold = sgmcmc.sgld(
        POSTERIOR,
        1e-9,
        temperature=0.0,
        metric=metrics.diagonal({"w": jnp.ones(3), "b": jnp.ones(())}),
    )
    made = run(cold)
    np.testing.assert_allclose(made.draws["w"], np.broadcast_to(PARAMS["w"], (2, 12, 3)), rtol=1e-5)


def test_any_kernel_of_the_contract_runs():
    """The loop reads only the contract: a kernel without posterior, clock or noise kind will do."""
    made = sgmcmc.sample(
        jax.random.key(SEED), Walk(jnp.array(2.0)), jnp.zeros(2),
        num_chains=1, num_burnin=0, num_samples=4,
        progress=False,
    )  # fmt: skip
    key = jax.random.fold_in(jax.random.split(jax.random.key(SEED), 3)[1], 0)
    noise = [jax.random.normal(jax.random.fold_in(key, t), (2,)) for t in range(4)]
    np.testing.assert_allclose(made.draws[0], 2 * np.cumsum(noise, 0), rtol=1e-5)
    assert isinstance(made.draws, np.ndarray)
