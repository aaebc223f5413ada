"""Every choice crossed with every other: each combination has the oracle's law, or is refused.

The rows of `crossing.crossed` hold every pair of choices: kernels, streams of batches that do
not divide the data, estimators, metrics, noise, schedules, powers, pulls.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import diagnostics
from sgmcmc.diagnostics.laws._affine import Affine, Refresh, stationary_moments
from sgmcmc.streams._source import data_and_stream
from tests.laws import crossing, recursion

ROWS = crossing.crossed()
# For `stationary_law` as it is called, whose programs are dear: one row of each estimator, stream
# and schedule, and a word that is turned.
CALLED = [
    crossing.Row(kernel, stream, estimator, "dense", "fast", schedule, "0.5", "once")
    for kernel, stream, estimator, schedule in (
        ("sgld", "cyclic", "control_variate", "alternating"),
        ("sgld", "with_replacement", "saga", "own clock"),
        ("BAOAB", "reshuffled", "svrg", "cyclical"),
    )
]


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
    pairs = (itertools.chain.from_iterable(steps) for steps in (got, wanted))
    for one, other in zip(*pairs, strict=True):
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


@pytest.mark.parametrize("row", ROWS, ids=names)
def test_moments_are_those_of_the_recursion(row):
    """What `stationary_law` makes of maps, epochs, refreshes, periods and weights."""
    steps = crossing.oracle_steps(row, crossing.epochs_of(row.stream)[1])
    steps, matrix = recursion.reduced(steps, recursion.refresh(row.estimator, crossing.N))
    fields = [[_affine(step) for step in phase] for phase in steps]
    stacked = Affine(
        *(np.array([[step[k] for step in phase] for phase in fields]) for k in range(7))
    )
    refresh = None
    if matrix is not None:
        refresh = Refresh(matrix[:-1, :-1], matrix[:-1, -1], crossing.SVRG_EVERY)
    got = stationary_moments(stacked, crossing.epochs_of(row.stream)[2], refresh)
    mean, covariance = law_of(row)
    np.testing.assert_allclose(got.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got.covariance, covariance, rtol=0, atol=1e-11)
    assert got.spectral_radius < 1


def _affine(step):
    """The fields of `Affine`."""
    roots = [_root(step.spread[:-1, :-1]), _root(step.record_spread)]
    maps = [step.matrix[:-1], step.record]
    (a, b, c), (record_a, record_b, record_c) = (
        (m[:, :-1], root, m[:, -1]) for m, root in zip(maps, roots, strict=True)
    )
    return a, b, c, record_a, record_b, record_c, step.weight


def _root(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


@pytest.mark.parametrize("row", CALLED, ids=names)
def test_stationary_law_is_that_of_the_recursion(row):
    """The whole of it, by the public call, from a start away from the mode."""
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
    size = None if row.stream == "full" else crossing.SIZE
    with pytest.raises((TypeError, ValueError)):
        sgmcmc.sample(
            jax.random.key(0), crossing.kernel(row), jnp.zeros(recursion.D), crossing.DATA,
            batch_size=size, stream=row.stream, num_chains=1, num_burnin=1, num_samples=1,
            progress=False,
        )  # fmt: skip


@functools.cache
def law_of(row):
    return crossing.law(row, crossing.oracle_steps(row, crossing.epochs_of(row.stream)[1]))
