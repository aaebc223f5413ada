"""A chain inside jit: the fold against the draws of `sample`, and against itself under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import gradients, streams
from sgmcmc.loop._chain import ChainKeys, fold

DATA = np.sin(np.arange(22, dtype=np.float32)).reshape(11, 2)
STEPS = 12


def log_likelihood(theta, x):
    return -0.5 * jnp.sum((x - theta) ** 2, axis=-1)


def log_prior(theta):
    return -0.5 * jnp.sum(theta**2)


POSTERIOR = sgmcmc.Posterior(log_likelihood, log_prior, data_size=len(DATA))


def gaussian(theta):
    return -0.5 * jnp.sum(theta**2)


def nothing(state):
    return ()


def positions(t, state, info, total):
    return total.at[t].set(info.position)


def room(state):
    return jnp.zeros((STEPS, *state.position.shape))


@pytest.mark.parametrize("stream", ["reshuffled", "with_replacement", "full"])
@pytest.mark.parametrize(
    "gradient", [gradients.minibatch(), gradients.svrg(5)], ids=lambda g: g.traits.name
)
def test_fold_is_the_loop_of_sample(stream, gradient):
    """With the keys of a chain of `sample`, a fold visits its draws, over epochs and refreshes."""
    kernel = sgmcmc.baoab(POSTERIOR, 0.1, gradient=gradient)
    size = len(DATA) if stream == "full" else 3
    key = jax.random.key(3)
    run = sgmcmc.sample(
        key, kernel, jnp.zeros(2), DATA, batch_size=size, stream=stream, num_chains=1,
        num_burnin=0, num_samples=STEPS, progress=False,
    )  # fmt: skip
    key = jax.random.clone(key)
    init, noise, batches = jax.random.split(key, 3)
    momentum = jax.random.split(jax.random.fold_in(init, 0))[1]
    keys = ChainKeys(momentum, jax.random.fold_in(noise, 0), jax.random.fold_in(batches, 0))
    source = kernel.source(streams.from_name(stream), size, jnp.asarray(DATA))

    @jax.jit
    def chain(kernel, source_data, keys):
        made = source._replace(data=source_data)
        return fold(kernel, made, keys, jnp.zeros(2), STEPS, room, positions)

    state, visited = chain(kernel, source.data, keys)
    np.testing.assert_allclose(visited, run.draws[0], rtol=1e-6, atol=1e-7)
    assert int(state.clock.count) == STEPS


def test_fold_counts_steps_and_hands_on_what_a_step_returned():
    """`update` sees t = 0, 1, …, the state after the step and what the step reported."""

    def seen(t, state, info, total):
        steps, agree, finite = total
        same = jnp.all(state.position == info.position)
        return steps + t, agree & same, finite & info.finite

    def begin(state):
        return jnp.zeros((), jnp.int32), jnp.asarray(True), jnp.asarray(True)

    kernel = sgmcmc.sgld(sgmcmc.Posterior.from_log_density(gaussian), 0.1)
    keys = ChainKeys(*jax.random.split(jax.random.key(0)))
    source = kernel.source(streams.full(), 0, None)
    chain = jax.jit(lambda keys: fold(kernel, source, keys, jnp.zeros(2), STEPS, begin, seen)[1])
    steps, agree, finite = chain(keys)
    assert (int(steps), bool(agree), bool(finite)) == (sum(range(STEPS)), True, True)


def test_folds_side_by_side_are_folds_one_by_one():
    """Under vmap each chain is the one of its own keys, refreshes and epochs included."""
    kernel = sgmcmc.sgld(POSTERIOR, 0.01, gradient=gradients.svrg(5))
    source = kernel.source(streams.reshuffled(), 3, jnp.asarray(DATA))

    @jax.jit
    def chain(key):
        keys = ChainKeys(*jax.random.split(key, 3))
        return fold(kernel, source, keys, jnp.zeros(2), STEPS, room, positions)[1]

    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.jit(jax.vmap(chain))(keys)
    apart = [chain(key) for key in jax.random.clone(keys)]
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-6, atol=1e-7)
