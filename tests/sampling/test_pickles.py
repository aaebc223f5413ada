"""Runs and the errors that carry them go between processes, and are copied."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc.loop._driver import watching
from tests.compare import assert_same_bits, assert_same_tree
from tests.problems import regression

PROBLEM = regression()
# A function that cannot be pickled, as users have them.
KERNEL = sgmcmc.baoab(
    sgmcmc.Posterior(
        lambda params, batch: PROBLEM.posterior.log_likelihood(params, batch),
        PROBLEM.posterior.log_prior,
        data_size=len(PROBLEM.data),
    ),
    0.01,
)


def run(num_samples=6, **options):
    return sgmcmc.sample(
        jax.random.key(2), KERNEL, PROBLEM.start, PROBLEM.data, batch_size=5, num_chains=2,
        num_burnin=3, num_samples=num_samples, chunk_steps=4, progress=False, **options,
    )  # fmt: skip


def test_a_run_is_pickled_as_it_is_saved():
    """The same bits; code and data do not travel, and it goes on with those that are given."""
    made = run()
    other = pickle.loads(pickle.dumps(made))
    assert_same_bits(other, made)
    assert (other.config, other.versions) == (made.config, made.versions)
    with pytest.raises(ValueError, match="kernel: got None"):
        other.resume(2)
    longer = other.resume(2, kernel=KERNEL, data=PROBLEM.data, progress=False)
    assert_same_bits(longer, run(8))


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_goes_on_by_itself(how):
    """In one process nothing has to be given anew."""
    made = run()
    other = how(made)
    assert_same_bits(other, made)
    assert (other.draws["w"] is made.draws["w"]) == (how is copy.copy)
    assert_same_bits(other.resume(2, progress=False), made.resume(2, progress=False))


def diverging(key=0):
    """A chain that leaves the finite numbers after some draws; for other processes too."""
    posterior = sgmcmc.Posterior.from_log_density(lambda x: jnp.sum(x**4))
    return sgmcmc.sample(
        jax.random.key(key), sgmcmc.sgld(posterior, 0.05), jnp.ones(2), num_chains=2, num_burnin=0,
        num_samples=100, chunk_steps=2, progress=False,
    )  # fmt: skip


def test_the_error_of_a_chain_that_diverged():
    """Message, notes, and the run with its draws."""
    with pytest.raises(sgmcmc.NonFiniteError) as caught:
        diverging()
    caught.value.add_note("the third of five")
    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error) is sgmcmc.NonFiniteError
    assert str(error) == str(caught.value)
    assert error.__notes__ == ["the third of five"]
    assert error.run.num_samples > 0
    assert_same_bits(error.run, caught.value.run)


def test_any_error_that_carries_a_run():
    """A second Ctrl-C's too."""

    def press(job):
        if job.steps == 7:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with watching(press), pytest.raises(KeyboardInterrupt) as caught:
        run()
    error = pickle.loads(pickle.dumps(caught.value))
    assert_same_bits(error.run, caught.value.run)
    longer = error.run.resume(kernel=KERNEL, data=PROBLEM.data, progress=False)
    assert_same_bits(longer, run())


def test_draws_in_containers_that_cannot_be_pickled():
    """They come as {path: array}: a class of a function's, which no other process finds."""

    class Mine(NamedTuple):
        w: object

    made = run(collect=lambda params: Mine(params["w"]))
    other = pickle.loads(pickle.dumps(made))
    assert list(other.draws) == ["w"]
    np.testing.assert_array_equal(other.draws["w"], made.draws.w)
    assert_same_tree(other.info, made.info)
    assert isinstance(copy.deepcopy(made).draws, Mine)


@pytest.mark.integration
def test_a_pool_outlives_a_job_that_diverges(tmp_path):
    """The parent sees the error with its message; jobs before and after give their results."""
    script = tmp_path / "pool.py"
    script.write_text(
        textwrap.dedent(
            """
            import concurrent.futures, multiprocessing, operator, sys
            import sgmcmc
            from tests.sampling.test_pickles import diverging

            if __name__ == "__main__":
                spawn = multiprocessing.get_context("spawn")
                with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
                    jobs = [pool.submit(operator.add, 1, 2), pool.submit(diverging),
                            pool.submit(operator.add, 3, 4)]
                    try:
                        jobs[1].result()
                    except sgmcmc.NonFiniteError as error:
                        print(error.run.num_samples > 0, "is not finite" in str(error))
                    print(jobs[0].result(), jobs[2].result())
            """
        )
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["True True", "3 7"], done.stderr
