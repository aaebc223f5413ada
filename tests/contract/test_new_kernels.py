"""What every kernel owes: `sgnht`, `psgld` and compensated `sghmc` keep the contract."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import metrics
from sgmcmc.sampling import _describe as describe

DATA = np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32)
START = {"b": jnp.zeros(()), "w": jnp.ones(2)}


def _log_likelihood(params, batch):
    return -0.5 * (batch @ params["w"] + params["b"] - 1.0) ** 2


def _log_prior(params):
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


POSTERIOR = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=24)
KERNELS = {
    "sgnht": lambda **o: sgmcmc.sgnht(POSTERIOR, 0.05, **o),
    "psgld": lambda **o: sgmcmc.psgld(POSTERIOR, 0.01, **o),
    "psgld frozen": lambda **o: sgmcmc.psgld(
        POSTERIOR, 0.01, metric=metrics.rmsprop(decay=0.9, gamma=False, freeze_after=7), **o
    ),
    "sghmc": lambda **o: sgmcmc.sghmc(
        POSTERIOR, 0.02, friction=20.0, noise_estimate=sgmcmc.gradients.running_variance(0.9), **o
    ),
}


def run(kernel, **options):
    arguments = {
        "batch_size": 6, "num_chains": 3, "num_burnin": 5, "num_samples": 12, "progress": False,
    }  # fmt: skip
    return sgmcmc.sample(jax.random.key(1), kernel, START, DATA, **{**arguments, **options})


def flat(draws):
    return np.concatenate([np.reshape(x, (*x.shape[:2], -1)) for x in draws.values()], axis=-1)


def test_a_resumed_run_is_the_straight_one(tmp_path):
    """Stopped between chunks, saved, loaded and resumed: the same bits, clipping included."""
    kernel = KERNELS["sghmc"]()
    straight = run(kernel)
    assert straight.info.clipped.shape == (3, 12)
    run(kernel, num_samples=4, chunk_steps=3).save(tmp_path / "run")
    made = sgmcmc.load(tmp_path / "run").resume(8, kernel=kernel, data=DATA, progress=False)
    np.testing.assert_array_equal(flat(made.draws), flat(straight.draws))
    np.testing.assert_array_equal(made.info.clipped, straight.info.clipped)


@pytest.mark.parametrize("name", KERNELS)
def test_the_state_is_all_and_chains_are_those_of_a_loop(name):
    """A state kept as plain arrays goes on bit for bit; `vmap` agrees with one by one."""
    kernel, batch = KERNELS[name](), jnp.asarray(DATA[:6])

    @jax.jit
    def advance(state, chain, first):
        key = jax.random.fold_in(jax.random.key(3), chain)
        for t in range(3):
            state, _ = kernel.step(jax.random.fold_in(key, first + t), state, batch)
        return state

    states, ends = [], []
    for chain in range(2):
        states.append(eqx.filter_jit(kernel.init)(START, jax.random.key(chain)))
        middle = advance(states[chain], chain, 0)
        ends.append(advance(middle, chain, 3))
        leaves, structure = jax.tree.flatten(middle)
        kept = jax.tree.unflatten(structure, [jnp.asarray(np.asarray(x)) for x in leaves])
        jax.tree.map(np.testing.assert_array_equal, advance(kept, chain, 3), ends[chain])
    both = jax.vmap(advance, (0, 0, None))
    stack = lambda *x: jnp.stack(x)  # noqa: E731
    together = both(both(jax.tree.map(stack, *states), jnp.arange(2), 0), jnp.arange(2), 3)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, together, jax.tree.map(stack, *ends))


@pytest.mark.parametrize("name", KERNELS)
def test_temperature_zero_optimises(name):
    """Without noise nothing is NaN, and 3,000 steps lead to the mode."""
    kernel = KERNELS[name](temperature=0.0)

    @jax.jit
    def end(key):
        step = lambda t, s: kernel.step(jax.random.fold_in(key, t), s, jnp.asarray(DATA))[0]  # noqa: E731
        return jax.lax.fori_loop(0, 3_000, step, kernel.init(START, key))

    position = end(jax.random.key(0)).position
    x = np.concatenate([np.ones((24, 1)), DATA], axis=1).astype(float)
    mode = np.linalg.solve(x.T @ x + np.eye(3), x.sum(axis=0))
    np.testing.assert_allclose([position["b"], *position["w"]], mode, atol=0.02)


@pytest.mark.parametrize("name", KERNELS)
def test_fast_noise_and_other_dtypes(name):
    """`noise="fast"` runs, and bfloat16 parameters stay so."""
    kernel = KERNELS[name](noise="fast")
    start = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    state = eqx.filter_jit(kernel.init)(start, jax.random.key(0))
    shapes = [x.dtype for x in jax.tree.leaves(state)]
    following, info = eqx.filter_jit(kernel.step)(jax.random.key(1), state, jnp.asarray(DATA[:6]))
    assert [x.dtype for x in jax.tree.leaves(following)] == shapes
    assert bool(info.finite)
    assert kernel.traits.gradient_evaluations == 1


def test_a_loaded_run_wants_its_own_kernel():
    """Settings that are no numbers tell kernels apart too."""
    clocks = [sgmcmc.clocks.decreasing(0.1, weights=w) for w in ("time", "equal")]
    pairs = [
        [sgmcmc.psgld(POSTERIOR, 0.1, metric=metrics.rmsprop(gamma=g)) for g in (True, False)],
        [sgmcmc.sgld(POSTERIOR, clock) for clock in clocks],
    ]
    for one, other in pairs:
        assert describe.fingerprint(one) != describe.fingerprint(other)
