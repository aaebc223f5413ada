"""F19: on the double well too large a step diverges, and the guard says so by chain and step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from tests.laws import samplers

H = 0.4


def density(x):
    """One chain's position is a scalar."""
    return -(2 * (x**2 - 1) ** 2 + 0.5 * x)


def run(name, h, num_chains, steps, **options):
    kernel = samplers.make(name, sgmcmc.Posterior.from_log_density(density), h)
    starts = jnp.where(jnp.arange(num_chains) % 4 == 0, 0.9, -1.1).astype(jnp.float32)
    return sgmcmc.sample(
        jax.random.key(1), kernel, starts, num_chains=num_chains, num_burnin=0,
        num_samples=steps, progress=False, chain_method="vmap", **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["BAOAB", *(pytest.param(n, marks=pytest.mark.slow) for n in ("UBU", "sghmc"))]
)
def test_a_diverging_chain_raises(name):
    """At h = .4 `sample` raises an error that names chain and step and has the draws so far."""
    with pytest.raises(sgmcmc.NonFiniteError, match=r"chain \d+ is not finite from step \d+") as e:
        run(name, H, num_chains=32, steps=125)
    stopped = e.value.run.stopped
    chain = min(stopped, key=stopped.get)
    assert f"chain {chain} is not finite from step {stopped[chain]} on" in str(e.value)
    assert np.all(np.isfinite(e.value.run.draws[chain, : stopped[chain]]))
    assert not np.any(np.isfinite(e.value.run.draws[chain, stopped[chain] :]))


def test_the_other_chains_go_on():
    """With `stop_chain` all other chains finish, and stopped ones weigh nothing from there on."""
    got = run("BAOAB", H, num_chains=256, steps=16, on_nonfinite="stop_chain")
    assert 0 < len(got.stopped) < 256
    assert got.draws.shape == (256, 16)
    for chain in range(256):
        step = got.stopped.get(chain, 16)
        np.testing.assert_array_equal(got.weights[chain, :step], 1)
        np.testing.assert_array_equal(got.weights[chain, step:], 0)
        assert np.all(np.isfinite(got.draws[chain, :step]))
        assert np.all(np.isnan(got.draws[chain, step:]))
        np.testing.assert_array_equal(got.info.finite[chain, :step], True)
    # A chain that stops does not disturb its neighbours: they are those of a run that ignores it.
    ignored = run("BAOAB", H, num_chains=256, steps=16, on_nonfinite="ignore")
    whole = [chain for chain in range(256) if chain not in got.stopped]
    np.testing.assert_array_equal(got.draws[whole], ignored.draws[whole])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "h"),
    [*((word, H) for word in (*samplers.WORDS, *samplers.EULERS)), ("sgld", 0.05)],
)
def test_who_diverges(name, h):
    """In 20,000 chains over t = 50 some diverge: every word at h = .4, and SGLD at .05."""
    with pytest.raises(sgmcmc.NonFiniteError, match="is not finite from step"):
        run(name, h, num_chains=20_000, steps=1, thinning=round(50 / h))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BAOAB", "OBABO", "UBU"])
def test_who_does_not(name):
    """At h = .2 these stay finite in 1,000 chains over t = 50."""
    got = run(name, 0.2, num_chains=1_000, steps=1, thinning=250)
    assert got.stopped == {}
