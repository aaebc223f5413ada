"""Every choice crossed with every other: each combination has the oracle's law, or is refused.

The rows of `crossing.crossed` hold every pair of choices: kernels, streams of batches that do
not divide the data, estimators, metrics, noise, schedules, powers, pulls.
"""

from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import diagnostics
from sgmcmc.streams._source import data_and_stream
from tests.laws import crossing, recursion

ROWS = crossing.crossed()
# For the whole of `stationary_law`, whose programs are dear: all that an epoch and a round know of.
ROUNDS = crossing.crossed(
    kernel=("sgld", "BAOAB"), metric=("dense",), noise=("fast",), power=("0.5",), local=("once",)
)  # fmt: skip


def names(row):
    return "-".join(row)


@pytest.mark.parametrize("row", ROWS, ids=names)
def test_steps_are_those_of_the_formulas(row):
    """Maps, noise, records and weights of every phase and batch, and that `sample` takes them."""
    made, batches, _ = crossing.epochs_of(row.stream)
    kernel = crossing.kernel(row)
    size = None if row.stream == "full" else crossing.SIZE
    data_and_stream(kernel.posterior, crossing.DATA, row.stream, size, kernel.traits.batches)
    got, wanted = crossing.library_steps(row, made), crossing.oracle_steps(row, batches)
    for one, other in zip(chain.from_iterable(got), chain.from_iterable(wanted), strict=True):
        for field, value in one._asdict().items():
            np.testing.assert_allclose(value, getattr(other, field), atol=1e-11, err_msg=field)


@pytest.mark.parametrize("row", ROWS, ids=names)
def test_noise_of_batches_does_not_cool(row):
    """No variance is more than 5% below that of the same scheme under gradients of all data.

    Batches heat, as README and docs say; what cools is a compensation for noise that is not there.
    The variance to be taken off is given, and more than what svrg's and saga's noise has.
    """
    everything = row._replace(
        stream="full", estimator="full", kernel=row.kernel.replace("compensated", "sghmc")
    )
    _, covariance = law_of(row)
    _, quiet = law_of(everything)
    assert np.min(np.linalg.eigvals(np.linalg.solve(quiet, covariance)).real) > 0.95


@pytest.mark.parametrize("row", ROUNDS, ids=names)
def test_stationary_law_is_that_of_the_recursion(row):
    """Streams, estimators with and without memory, clocks and schedules, in one call."""
    made, _, epochs = crossing.epochs_of(row.stream)
    data = jax.tree.map(jnp.asarray, crossing.DATA)
    law = diagnostics.stationary_law(
        crossing.kernel(row), np.full(recursion.D, 3.0), made, data=data, epochs=epochs
    )
    mean, covariance = law_of(row)
    np.testing.assert_allclose(law.mean, mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(law.covariance, covariance, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pair", sorted(crossing.REFUSED), ids=lambda pair: "-".join(sum(pair, ())))
def test_what_does_not_go_together_is_refused(pair):
    """By the kernel's function, or by `sample` before anything runs."""
    usual = crossing.Row("BAOAB", "with_replacement", "minibatch", "identity", *ROWS[0][4:])
    row = usual._replace(**dict(pair))
    if ("stream", "full") not in pair and row.estimator == "full":
        assert row.kernel == "compensated" or row.stream != "full"
    size = None if row.stream == "full" else crossing.SIZE
    with pytest.raises((TypeError, ValueError)):
        sgmcmc.sample(
            jax.random.key(0), crossing.kernel(row), jnp.zeros(recursion.D), crossing.DATA,
            batch_size=size, stream=row.stream, num_chains=1, num_burnin=1, num_samples=1,
            progress=False,
        )  # fmt: skip


def law_of(row):
    return crossing.law(row, crossing.oracle_steps(row, crossing.epochs_of(row.stream)[1]))
