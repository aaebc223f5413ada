"""`total_time`: until every chain has covered it, wherever chunks end, and going on from there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior, clocks


def quartic(x):
    return -jnp.sum(x**4) / 4


POSTERIOR = Posterior.from_log_density(quartic)
ADAPTIVE = sgmcmc.sa_sgld(POSTERIOR, clocks.adaptive(0.05, shortest=0.25, longest=4.0, power=1.0))


def sample(kernel=ADAPTIVE, **options):
    options = {"num_chains": 3, "num_burnin": 20, "thinning": 2, "progress": False, **options}
    return sgmcmc.sample(jax.random.key(1), kernel, jnp.ones(1), **options)


def test_a_run_ends_when_every_chain_is_there():
    """The last draw is the first at which the slowest chain has covered the time."""
    run = sample(total_time=6.0)
    elapsed = run.info.elapsed
    assert elapsed[:, -1].min() >= 6.0
    assert elapsed[:, -2].min() < 6.0
    assert np.ptp(elapsed[:, -1]) > 0  # the chains' clocks differ
    assert np.all(np.diff(elapsed) > 0)
    assert run.config["total_time"] == 6.0
    assert run.config["num_samples"] == run.num_samples
    assert run.num_steps == 20 + 2 * run.num_samples


def test_chunks_do_not_decide_where_it_ends():
    """Chunks of 1, 7 and 1,000 steps: the same draws; and going on is going on bit for bit."""
    runs = [sample(total_time=3.0, chunk_steps=n) for n in (1, 7, 1_000)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.draws, runs[0].draws)
        np.testing.assert_array_equal(run.info.elapsed, runs[0].info.elapsed)
    longer = runs[2].resume(num_samples=5)
    straight = sample(num_samples=runs[0].num_samples + 5)
    np.testing.assert_array_equal(longer.draws, straight.draws)
    np.testing.assert_array_equal(longer.info.elapsed, straight.info.elapsed)


def test_a_fixed_step_covers_what_it_should():
    """h = .1, a draw every 2 steps: 5 units of time are 25 draws; `num_samples` cuts it short."""
    kernel = sgmcmc.sgld(POSTERIOR, 0.1)
    run = sample(kernel, total_time=4.95)
    assert run.num_samples == 25
    np.testing.assert_allclose(run.info.elapsed[:, -1], 5.0, rtol=1e-6)
    assert sample(kernel, total_time=4.95, num_samples=10).num_samples == 10


def test_short_steps_add_up_over_many():
    """Times are summed with their rounding: 200,000 steps of 1e-4 in float32, to 1e-6."""
    kernel = sgmcmc.sgld(POSTERIOR, 1e-4)
    run = sample(kernel, num_chains=1, num_burnin=0, thinning=50_000, num_samples=4)
    np.testing.assert_allclose(run.info.elapsed[0], [5.0, 10.0, 15.0, 20.0], rtol=1e-6)


def test_more_draws_than_there_was_room_for():
    """Arrays grow with the draws, and a memory error names what to do (`draws_fit`)."""
    run = sample(sgmcmc.sgld(POSTERIOR, 0.01), total_time=15.0, thinning=1)
    assert run.num_samples == 1_500
    assert np.all(np.isfinite(run.draws))


def test_saved_and_loaded(tmp_path):
    """A loaded run has its times, and goes on."""
    run = sample(total_time=2.0)
    loaded = sgmcmc.load(run.save(tmp_path / "run"))
    np.testing.assert_array_equal(loaded.info.elapsed, run.info.elapsed)
    more = loaded.resume(num_samples=3, kernel=ADAPTIVE)
    assert more.num_samples == run.num_samples + 3


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_bad_times(value):
    with pytest.raises(ValueError, match="total_time: got"):
        sample(total_time=value)
