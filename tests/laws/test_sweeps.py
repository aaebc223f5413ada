"""Exact laws over sweeps: the table of biases by word and order of the batches, to its digits."""

import importlib.util
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import streams
from sgmcmc.diagnostics import stationary_law, sweeps
from tests.laws import samplers

STUDY = Path(__file__).parents[2] / "examples" / "studies" / "sms_slopes.py"


def load_study():
    """The study's own module, whose table is the one that is published."""
    spec = importlib.util.spec_from_file_location("sms_slopes", STUDY)
    module = importlib.util.module_from_spec(spec)
    sys.modules["sms_slopes"] = module
    sys.path.insert(0, str(STUDY.parent))  # as when it is run
    spec.loader.exec_module(module)
    return module


study = load_study()
ROWS = {row.name: row for row in study.rows()}


def check_row(row):
    pairs = [study.bias(row.word, row.stream, h) for h in study.STEPS]
    variance = [v for v, _ in pairs]
    assert study.missed(row, variance, pairs[1][1], study.order(row, variance)) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if row.printed else pytest.mark.slow)
        for name, row in ROWS.items()
    ],
)
def test_table(name):
    """Every printed figure to its digits, and every slope in the range asked."""
    check_row(ROWS[name])


def test_all_streams_of_the_table_are_there():
    """156 printed figures over 26 rows, each word with replacement and symmetric at least."""
    printed = [row for row in ROWS.values() if row.printed]
    assert len(printed) == 26
    for word in ("UBU", "BAOAB×2", "BAOAB", "AOAB", "QUICSORT", "Euler", "SGLD", "LM"):
        assert {f"{word} wr", f"{word} SMS"} <= set(ROWS)


def test_symmetric_sweeps_remove_the_first_order():
    """UBU: with replacement the bias is of first order, and 80 times that of a sweep at .0125."""
    wr, sms = (study.bias("UBU", stream, 0.0125)[0] for stream in ("wr", "SMS"))
    assert wr > 80 * abs(sms)


def test_epochs_of_one_step_are_draws_with_replacement():
    """The law of `epochs` of length one is the law without `epochs`, and that of pairs too."""
    posterior, batches = samplers.quadratics(study.STIFFNESS, study.CENTRES)
    kernel = sgmcmc.baoab(posterior, 0.2)
    plain = stationary_law(kernel, jnp.zeros(1), batches)
    pairs = [(i, j) for i in range(4) for j in range(4)]
    for epochs in (sweeps("with_replacement", 4), pairs):
        law = stationary_law(kernel, jnp.zeros(1), batches, epochs=epochs)
        for one, other in zip(law, plain, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_cyclic_law_is_that_of_a_run():
    """Averages over a long run with batches in a fixed order agree with the law over a sweep."""
    posterior, batches = samplers.quadratics([0.5, 1.5], [-2.0, 2.0])
    kernel = sgmcmc.sgld(posterior, 0.3, temperature=0.0)
    law = stationary_law(kernel, jnp.zeros(1), batches, epochs=sweeps("cyclic", 2))
    state, seen = kernel.init(jnp.zeros(1), jax.random.key(0)), []
    step = eqx.filter_jit(kernel.drive)
    for t in range(200):
        state, info = step(jnp.zeros((1, 1)), state, batches[t % 2])
        seen.append(float(info.position[0]))
    np.testing.assert_allclose(law.mean[0], np.mean(seen[100:]), rtol=1e-12)
    np.testing.assert_allclose(law.covariance[0, 0], np.var(seen[100:]), rtol=1e-10)


@pytest.mark.parametrize("name", ["reshuffled", "symmetric", "cyclic"])
def test_sweeps_are_those_of_the_stream(name):
    """Every epoch that the stream makes is one of those that the law averages over."""
    check_stream(streams.from_name(name))


def check_stream(stream):
    allowed = set(sweeps(stream.name, 3))
    period = stream.period(6, 2)
    batch_of = {}
    for epoch in range(20):
        made = []
        for j in range(period):
            counter = jnp.asarray(epoch * period + j)
            rows = streams.rows_at(stream, jax.random.key(7), counter, 6, 2)
            made.append(tuple(np.asarray(rows.index).tolist()))
        distinct = list(dict.fromkeys(made))
        assert len(distinct) == 3
        assert sorted(sum(distinct, ())) == list(range(6))
        batch_of = {rows: i for i, rows in enumerate(distinct)}
        order = tuple(batch_of[rows] for rows in made)
        assert order in allowed, f"epoch {order}"


def test_sweeps_refuse_what_they_cannot_list():
    """Unknown streams, no batches and too many orders are errors with what is allowed."""
    with pytest.raises(ValueError, match="stream: got 'sorted'; allowed: with_replacement"):
        sweeps("sorted", 4)
    with pytest.raises(ValueError, match="num_batches: got 0"):
        sweeps("cyclic", 0)
    with pytest.raises(ValueError, match="at most 6"):
        sweeps("symmetric", 7)


def test_bad_epochs_are_named():
    """Epochs that are none, of several lengths, or that name no batch are refused."""
    posterior, batches = samplers.quadratics([1.0, 1.0], [0.0, 1.0])
    kernel = sgmcmc.baoab(posterior, 0.1)
    for epochs in ([], [()], [(0,), (0, 1)]):
        with pytest.raises(ValueError, match="epochs: got"):
            stationary_law(kernel, jnp.zeros(1), batches, epochs=epochs)
    with pytest.raises(ValueError, match="epochs: got the index 2; allowed: 0 to 1"):
        stationary_law(kernel, jnp.zeros(1), batches, epochs=[(0, 2)])
