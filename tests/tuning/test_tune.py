"""`sgmcmc.tune`: the choice of `sample` without a run, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc.tuning import Rules, Tuning

CURVATURES = np.array([1.0, 4.0, 25.0])
ROWS = np.random.default_rng(3).normal(size=(24, 3)).astype(np.float32)


def oscillators(curvatures, x):
    return -0.5 * jnp.sum(curvatures * x**2)


def tilt(x, row):
    return row @ x


def quadratic():
    return sgmcmc.Posterior.from_log_density(Partial(oscillators, jnp.asarray(CURVATURES)))


def tilted():
    prior = Partial(oscillators, jnp.asarray(CURVATURES))
    return sgmcmc.Posterior(tilt, prior, data_size=len(ROWS)), jnp.asarray(ROWS)


def scattered(key):
    return jax.random.normal(key, (3,))


def cooling(t):
    return jnp.where(t < 40, 4.0, 1.0)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda p: sgmcmc.baoab(p, None, friction="auto", temperature=cooling), {}),
        (lambda p: sgmcmc.sgld(p, None), {"stream": "with_replacement"}),
        (lambda p: sgmcmc.amagold(p, None, 2), {"stream": "with_replacement"}),
    ],
)
def test_the_choice_is_that_of_sample(make, options):
    """With the same key, from the first chain's start, at the end of the same burn-in."""
    posterior, rows = tilted()
    arguments = (make(posterior), scattered, rows)
    run = sgmcmc.sample(
        jax.random.key(5), *arguments, batch_size=6, num_chains=2, num_burnin=40, num_samples=3,
        progress=False, **options,
    )  # fmt: skip
    kernel, tuning = sgmcmc.tune(
        jax.random.key(5), *arguments, batch_size=6, num_burnin=40, **options
    )
    assert tuning == run.tuning
    assert kernel.numbers()["step_size"] == pytest.approx(tuning.step_size, rel=1e-6)
    again = sgmcmc.sample(
        jax.random.key(5), kernel, scattered, rows, batch_size=6, num_chains=2, num_burnin=40,
        num_samples=3, progress=False, **options,
    )  # fmt: skip
    np.testing.assert_array_equal(again.draws, run.draws)


def test_a_tuned_kernel_steps_by_hand_and_under_vmap():
    """Half and whole of the chosen step, side by side."""
    made, tuning = sgmcmc.tune(jax.random.key(0), sgmcmc.obabo(quadratic(), None), jnp.ones(3))
    assert isinstance(tuning, Tuning)
    state = made.init(jnp.ones(3), jax.random.key(1))

    def position(step_size):
        kernel = sgmcmc.obabo(quadratic(), step_size)
        return kernel.step(jax.random.key(2), state)[0].position

    steps = jnp.asarray([tuning.step_size / 2, tuning.step_size])
    moved = jax.vmap(position)(steps)
    np.testing.assert_allclose(moved[1], made.step(jax.random.key(2), state)[0].position, rtol=1e-5)
    assert not np.allclose(moved[0], moved[1])


def test_replicas_get_the_step_of_the_kernel_that_they_run():
    kernel = sgmcmc.replica_exchange(
        sgmcmc.baoab(quadratic(), None, friction="auto"), (1.0, 2.0), swap_every=2
    )
    made, tuning = sgmcmc.tune(jax.random.key(0), kernel, jnp.zeros(3))
    assert not made.clock.untuned
    assert float(made.inner.clock.step_size(0)) == pytest.approx(tuning.step_size)
    assert float(made.inner.friction(0)) == pytest.approx(tuning.friction)


def test_rules_are_those_in_use():
    """γ = 1/(10 h), and h at half of the limit of stability: 2/ω."""
    kernel = sgmcmc.baoab(quadratic(), None, friction="auto")
    _, tuning = sgmcmc.tune(jax.random.key(0), kernel, jnp.zeros(3))
    np.testing.assert_allclose(tuning.friction * tuning.step_size, 1 / Rules().friction_steps)
    np.testing.assert_allclose(tuning.step_size, 1 / np.sqrt(CURVATURES[-1]), rtol=0.01)
    missing = [name for name in Rules._fields if f"{name}:" not in Rules.__doc__]
    assert not missing


def test_no_nan_stands_for_what_is_to_be_chosen():
    """Under `jax_debug_nans` the same choice, to the bit; "auto" in the kernel's own words."""
    untuned = sgmcmc.baoab(quadratic(), None, friction="auto")
    _, plain = sgmcmc.tune(jax.random.key(0), untuned, jnp.zeros(3))
    with jax.debug_nans(True):
        checked = sgmcmc.baoab(quadratic(), None, friction="auto")
        _, tuning = sgmcmc.tune(jax.random.key(0), checked, jnp.zeros(3))
        sgmcmc.samadams(quadratic(), None)
    assert tuning == plain
    assert repr(checked) == "baoab(step_size=auto, friction=auto, minibatch)"


def test_bad_input():
    key, posterior = jax.random.key(0), quadratic()
    untuned, start = sgmcmc.baoab(posterior, None), jnp.zeros(3)
    with pytest.raises(TypeError, match="kernel: got int"):
        sgmcmc.tune(key, 3, start)
    with pytest.raises(ValueError, match=r"kernel: got baoab\(.*, which has its step; expected"):
        sgmcmc.tune(key, sgmcmc.baoab(posterior, 0.1), start)
    preconditioned = dataclasses.replace(
        sgmcmc.should(posterior, None), metric=sgmcmc.metrics.rmsprop()
    )
    with pytest.raises(ValueError, match="step_size: got None; it is not chosen for Should"):
        sgmcmc.tune(key, preconditioned, start)
    with pytest.raises(TypeError, match="key: got int"):
        sgmcmc.tune(0, untuned, start)
    with pytest.raises(ValueError, match="num_burnin: got -1"):
        sgmcmc.tune(key, untuned, start, num_burnin=-1)
    with pytest.raises(ValueError, match="batch_size: got 3 without data"):
        sgmcmc.tune(key, untuned, start, batch_size=3)
    with pytest.raises(ValueError, match="data: got None"):
        sgmcmc.tune(key, sgmcmc.baoab(tilted()[0], None), start)
    with pytest.raises(TypeError, match="params"):
        sgmcmc.tune(key, untuned, jnp.zeros(3, int))
