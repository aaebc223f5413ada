"""Chains to be stepped from outside: those of `sample`, chunk for chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import loop

DATA = np.sin(np.arange(22, dtype=np.float32)).reshape(11, 2)


def log_likelihood(theta, x):
    return -0.5 * jnp.sum((x - theta) ** 2, axis=-1)


def log_prior(theta):
    return -0.5 * jnp.sum(theta**2)


KERNEL = sgmcmc.sgld(sgmcmc.Posterior(log_likelihood, log_prior, data_size=11), 0.01)


@pytest.mark.parametrize("method", ["vmap", "map"])
def test_they_are_the_chains_of_sample(method):
    """After 4 and 7 steps the positions are draws 4 and 7 of `sample`, bit for bit."""
    given = {"batch_size": 3, "num_chains": 2, "chain_method": method}
    run = sgmcmc.sample(
        jax.random.key(0), KERNEL, jnp.zeros(2), DATA, num_burnin=0, num_samples=7, thinning=1,
        progress=False, **given,
    )  # fmt: skip
    begun = loop.chains(jax.random.key(0), KERNEL, jnp.zeros(2), DATA, **given)
    early = loop.advance(begun, 4)
    late = loop.advance(early, 3)
    # The chains that were given can be stepped again.
    again = loop.advance(early, 3)
    assert (begun.steps, early.steps, late.steps, late.method) == (0, 4, 7, method)
    for chains in (early, late, again):
        expected = run.draws[:, chains.steps - 1]
        np.testing.assert_allclose(chains.carry.state.position, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(late.carry.state.position, again.carry.state.position)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"num_chains": 0}, ValueError, "num_chains: got 0"),
        ({"kernel": 3}, TypeError, "kernel: got int"),
        ({"data": None}, ValueError, "data: got None"),
        ({"chain_method": "pmap"}, ValueError, "chain_method: got 'pmap'"),
        ({"stream": "sorted"}, ValueError, "stream: got 'sorted'"),
    ],
)
def test_bad_input(changed, error, message):
    """Each is named, with what is allowed."""
    given = {"kernel": KERNEL, "params": jnp.zeros(2), "data": DATA, "batch_size": 3, **changed}
    with pytest.raises(error, match=message):
        loop.chains(jax.random.key(0), **given)


@pytest.mark.parametrize("num_steps", [0, 1.5])
def test_steps_are_positive_integers(num_steps):
    begun = loop.chains(jax.random.key(0), KERNEL, jnp.zeros(2), DATA, batch_size=3)
    with pytest.raises((ValueError, TypeError), match="num_steps: got"):
        loop.advance(begun, num_steps)
