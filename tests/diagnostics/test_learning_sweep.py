"""The sweep of a learning coefficient: its rule on exact tables, and each failure by sampling."""

import dataclasses
import functools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc.diagnostics import LearningCoefficient, learning_coefficient, learning_sweep
from sgmcmc.diagnostics.learning import _coefficient as coefficient
from sgmcmc.diagnostics.learning._sweep import judge_cells
from sgmcmc.loop._driver import watching
from tests.diagnostics.test_learning_coefficient import (
    BAOAB,
    _normal,
    _quadratic,
    exact_crossing,
    flat,
    nbeta,
)

EMPTY = LearningCoefficient(
    **dict.fromkeys((f.name for f in dataclasses.fields(LearningCoefficient)), 0.0)
    | {"per_chain": np.zeros(16), "r_hat": 1.0}
)


def cell(estimate, error=0.01, **changed):
    return dataclasses.replace(EMPTY, estimate=estimate, standard_error=error, **changed)


def table(values, steps=(1.0,), pulls=(1.0,), betas=(1.0,), batches=(None,)):
    """A sweep of given cells; numbers stand for cells of that estimate."""
    axes = {
        "step_size": steps, "precision": pulls, "inverse_temperature": betas,
        "batch_size": batches,
    }  # fmt: skip
    cells = np.empty([len(x) for x in axes.values()], object)
    for at, value in zip(np.ndindex(cells.shape), values, strict=True):
        cells[at] = value if value is None or not np.isscalar(value) else cell(value)
    return judge_cells(axes, cells)


def test_euler_bias_by_formula():
    """λ/(1 − hk/2): half the step changes it by hk/4, which is above 2% from hk = .08 on."""
    steps = (0.01, 0.02, 0.04, 0.07, 0.1, 0.2, 0.4)
    found = table([4 / (1 - h / 2) for h in steps], steps)
    words = found.table["verdict"].tolist()
    assert words == ["stable"] * 4 + ["step"] * 3
    # Where the neighbour is the half itself, the change is taken as it is: from .2 to .1.
    np.testing.assert_allclose(
        found.grid("change_step_size")[5, 0, 0, 0], (1 - 0.9 / 0.95) / 0.02, rtol=1e-6
    )


def test_localization_bias_by_formula():
    """k/(k + ρ) with k = 100: a tenth of the pull changes it by less than 5% up to ρ = 5.6."""
    pulls = (0.1, 1.0, 10.0, 100.0, 1000.0)
    found = table([2 * 100 / (100 + rho) for rho in pulls], pulls=pulls)
    assert found.table["verdict"].tolist() == ["stable"] * 2 + ["precision"] * 3
    assert found.best.estimate in found.grid("estimate")[found.stable]
    assert repr(found).startswith("LearningSweep: 2 of 5 cells are stable, λ̂ from 1.98 to 1.998")
    assert "elsewhere mostly 'precision'" in repr(found)


def test_the_other_axes():
    """Temperature and batch by the same rule; errors, and what several axes show."""
    assert table([3.0, 4.0], betas=(1.0, 2.0)).table["verdict"].tolist() == ["temperature"] * 2
    assert table([5.0, 4.0], batches=(10, 20)).table["verdict"].tolist() == ["batch"] * 2
    # The change is twice its error: not a change, but the error is too large to say.
    noisy = table([cell(4.0, 0.2), cell(4.6, 0.2)], pulls=(1.0, 2.0))
    assert noisy.table["verdict"].tolist() == ["error"] * 2
    both = table([4.0, 4.0, 6.0, 4.0], steps=(1.0, 2.0), batches=(10, 20))
    assert both.table["verdict"].tolist() == ["step", "stable", "step", "batch"]
    # 2 of 6: at half the step 17 times what is allowed, at twice the batch 7 times.
    changes = both.table[["change_step_size", "change_batch_size"]].iloc[2]
    np.testing.assert_allclose(changes, [2 / 6 / 0.02, 2 / 6 / 0.05])


def test_failures_of_single_cells():
    """Each is named first, and is no measure of its neighbours."""
    failing = {
        "lost": [None, cell(4.0, per_chain=np.array([np.nan, *np.zeros(15)]))],
        "minimum": [cell(-4.0), cell(4.0, share_below=0.2), cell(4.0, fall=3.0)],
        "escape": [cell(4.0, drift=2.0, drift_error=0.1)],
        "unsettled": [cell(4.0, drift=-2.0, drift_error=0.1), cell(4.0, r_hat=1.3)],
    }
    for word, cells in failing.items():
        for bad in cells:
            found = table([bad, 4.0, 4.01], pulls=(1.0, 2.0, 3.0))
            assert found.table["verdict"].tolist() == [word, "stable", "stable"]
            assert table([bad, 4.0], pulls=(1.0, 2.0)).table["verdict"].tolist() == [word, "alone"]
            assert table([bad, bad], pulls=(1.0, 2.0)).best is None


def sweep(log_likelihood, params, data, **options):
    posterior = sgmcmc.Posterior(log_likelihood, flat, data_size=len(data))
    return learning_sweep(jax.random.key(0), posterior, params, data, **options)


def compiled_during(action):
    names = []

    def listen(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        return action(), names
    finally:
        jax.monitoring.clear_event_listeners()


def test_a_quadratic():
    """Every cell of a sweep by SGLD is the exact value, and one program serves all of them.

    4.5 errors of 8 cells with 16 chains: missed once in 300 tries.
    """
    steps, pulls, betas = (2e-4, 2e-3), (1.0, 2.0, 100.0), (1 / np.log(1_000), 0.3)
    data = np.zeros(1_000, np.float32)
    run = functools.partial(
        sweep, Partial(_quadratic, jnp.ones(4)), jnp.zeros(4), data, batch_sizes=(1,),
        evaluation_data=data[:1], num_steps=10_000, thinning=10, num_burnin=1_000,
    )  # fmt: skip
    once = run(step_sizes=steps[:1], precisions=pulls[:1])
    assert once.table["verdict"].item() == "stable"  # one cell: no axis to look at
    (found, colder), compiled = compiled_during(
        lambda: (
            run(step_sizes=steps, precisions=pulls),
            run(step_sizes=steps[:1], precisions=pulls[:1], inverse_temperatures=betas),
        )
    )
    assert not compiled
    for swept in (found, colder):
        axes = list(swept.axes.values())
        for at in np.ndindex(swept.grid("verdict").shape):
            h, rho, beta, _ = (values[i] for values, i in zip(axes, at, strict=True))
            total = 1_000 * beta + rho
            exact = 2 * 1_000 * beta / total / (1 - h * total / 2)
            assert abs(swept.grid("estimate")[at] - exact) < 4.5 * swept.grid("standard_error")[at]
    words = found.grid("verdict")[:, :, 0, 0].tolist()
    assert words[0] == ["stable", "stable", "precision"]  # a pull of 100 costs 40%
    assert words[1][:2] == ["step"] * 2  # half of .002 changes λ̂ by hk/4, 7%
    assert colder.table["verdict"].tolist() == ["stable"] * 2
    assert found.best is found.cells[0, np.argmin(found.grid("standard_error")[0, :2, 0, 0]), 0, 0]


def test_crossings_agree_with_quadrature():
    """w₁² w₂² by BAOAB at three pulls: the values by quadrature, and ρ = 10 costs too much."""
    data = np.zeros(1_000, np.float32)
    found = sweep(
        _crossing_of_one, jnp.zeros(2), data, step_sizes=(0.01,), precisions=(0.5, 1.0, 10.0),
        batch_sizes=(1,), evaluation_data=data[:1], kernel=BAOAB, num_steps=10_000, thinning=10,
    )  # fmt: skip
    for at, rho in enumerate((0.5, 1.0, 10.0)):
        exact = exact_crossing(1, 1_000, rho)
        assert (
            abs(found.grid("estimate")[0, at, 0, 0] - exact)
            < 4 * found.grid("standard_error")[0, at, 0, 0]
        )
    assert found.grid("verdict")[0, 2, 0, 0] == "precision"


def _crossing_of_one(w, rows):
    return -(w[0] ** 2) * w[1] ** 2 * jnp.ones(rows.shape[0])


def _crater(w, rows):
    """A bowl that is flat from a distance of 2 on: chains get out over 6 nats, and stay out."""
    return -0.04 * (1 - jnp.exp(-jnp.sum(w**2) / 2)) * jnp.ones(rows.shape[0])


def test_escape():
    """A pull too weak to hold the chains: λ̂ rises along them, and the cell says so."""
    data = np.zeros(1_000, np.float32)
    found = sweep(
        _crater, jnp.zeros(3), data, step_sizes=(0.05,), precisions=(1e-3, 8.0, 10.0),
        batch_sizes=(1,), evaluation_data=data[:1], kernel=BAOAB, num_steps=2_000, num_burnin=0,
    )  # fmt: skip
    assert found.table["verdict"].iloc[0] == "escape"
    assert found.table["drift"].to_numpy()[0] > 0
    assert found.table["verdict"].iloc[1] != "escape"
    assert any("second half of the draws" in x for x in found.cells.ravel()[0].warnings)


def test_minibatch_noise():
    """Batches of 10 heat the chains, of 20 by less: the batch is what fails.

    By 21% and 10% if they were independent; sweeps over the data cancel a part of it.
    """
    y = np.random.default_rng(0).normal(size=(1_000, 3))
    posterior = sgmcmc.Posterior(_normal, flat, data_size=1_000)
    found = learning_sweep(
        jax.random.key(0), posterior, jnp.asarray(y.mean(axis=0), jnp.float32), y,
        step_sizes=(2e-4,), precisions=(1.0,), batch_sizes=(20, 10), num_steps=4_000, thinning=8,
    )  # fmt: skip
    assert found.axes["batch_size"] == (10, 20)
    assert found.table["verdict"].tolist() == ["batch"] * 2
    heat = 1 + 2e-4 / 2 * nbeta(1_000) ** 2 / np.array([10, 20]) * np.array([990, 980]) / 999
    total = nbeta(1_000) + 1
    cold = 1.5 * nbeta(1_000) / total / (1 - 1e-4 * total)
    errors = found.table["standard_error"].to_numpy()
    assert found.table["estimate"].to_numpy()[0] > cold + 3 * errors[0]
    assert (found.table["estimate"].to_numpy() < cold * heat + errors).all()


def test_unstable_steps_and_pictures():
    """A step that no chain survives is a lost cell; table and heat map have a word for each."""
    pytest.importorskip("matplotlib").use("agg")
    data = np.zeros(1_000, np.float32)
    found = sweep(
        Partial(_quadratic, jnp.ones(4)), jnp.zeros(4), data, step_sizes=(2.0, 1e-3),
        precisions=(1.0,), batch_sizes=(1,), evaluation_data=data[:1], num_steps=400,
    )  # fmt: skip
    assert found.table["verdict"].tolist() == ["alone", "lost"]
    assert np.isnan(found.table["estimate"].to_numpy()[1])
    assert found.best is None
    assert "0 of 2 cells are stable; elsewhere mostly 'alone'" in repr(found)
    assert [text.get_text().split("\n")[1] for text in found.plot().texts] == ["alone", "lost"]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"step_sizes": (0.1, -1.0)}, ValueError, "step_sizes: got -1.0; expected a finite"),
        ({"step_sizes": (None,)}, TypeError, "step_sizes: got None; expected numbers"),
        ({"precisions": 1.0}, TypeError, "precisions: got float; expected a sequence"),
        ({"precisions": ()}, ValueError, "precisions: got none"),
        ({"precisions": (1.0, 1.0)}, ValueError, "expected different values"),
        ({"inverse_temperatures": (0.0,)}, ValueError, "inverse_temperatures: got 0.0"),
        ({"batch_sizes": (0,)}, ValueError, "batch_sizes: got 0; allowed: at least 1"),
    ],
)
def test_bad_input(changed, error, message):
    """Each bad axis is named, with what is allowed."""
    data = np.zeros(10, np.float32)
    with pytest.raises(error, match=message):
        sweep(_crater, jnp.zeros(3), data, **{"step_sizes": (0.1,), "precisions": (1.0,)} | changed)


def test_bad_posteriors():
    """Too little data for 1/log n, and what is no posterior."""
    given = {"step_sizes": (0.1,), "precisions": (1.0,)}
    with pytest.raises(ValueError, match="1/log n needs n ≥ 3"):
        sweep(_crater, jnp.zeros(3), np.zeros(2), **given)
    with pytest.raises(TypeError, match="posterior: got int"):
        learning_sweep(jax.random.key(0), 3, jnp.zeros(3), np.zeros(10), **given)


def broken_sweep(press, at=800, **options):
    """Three cells of 4 · 400 steps each, `press` called as the second has made 800."""
    data, jobs = np.zeros(1_000, np.float32), []

    def watch(job):
        if job.steps == 0:
            jobs.append(job)
        if len(jobs) == 2 and job.steps == at:
            press()

    with watching(watch):
        return sweep(
            Partial(_quadratic, jnp.ones(4)), jnp.zeros(4), data, step_sizes=(1e-3,),
            precisions=(0.5, 1.0, 2.0), batch_sizes=(1,), evaluation_data=data[:1],
            num_steps=1_200, num_burnin=400, thinning=4, **options,
        ), [job.steps for job in jobs]  # fmt: skip


def press_once():
    signal.raise_signal(signal.SIGINT)


def press_twice():
    press_once()
    press_once()


@pytest.fixture
def chunks(monkeypatch):
    """Chunks of 100 steps."""
    monkeypatch.setattr(
        coefficient, "sample", functools.partial(coefficient.sample, chunk_steps=100)
    )


@pytest.mark.parametrize(("at", "made"), [(800, [1600, 800]), (0, [1600, 0]), (1600, [1600, 1600])])
def test_ctrl_c_ends_a_sweep(chunks, at, made):
    """What was done is judged, the rest is marked, and a warning says so; none of it is stable."""
    with pytest.warns(UserWarning, match=rf"Ctrl-C ended it after {1 + (at == 1600)} of 3 cells"):
        found, steps = broken_sweep(press_once, at)
    assert steps == made
    words = found.table["verdict"].tolist()
    assert words[0] != "interrupted"
    assert words[1:] == [words[1] if at == 1600 else "interrupted", "interrupted"]
    assert found.interrupted
    assert f"Ctrl-C ended it, with {words.count('interrupted')} of them to do" in repr(found)
    cell = found.cells[0, 1, 0, 0]
    assert (cell is None) == (at == 0)
    if at == 800:
        assert any("Ctrl-C ended the run after 100 of 300 draws" in x for x in cell.warnings)


def test_a_sweep_that_breaks_off_carries_its_cells(chunks):
    """A second Ctrl-C, an error, and one press in a program of several runs."""

    def fail():
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room") as memory:
        broken_sweep(fail)
    with pytest.raises(KeyboardInterrupt) as twice:
        broken_sweep(press_twice)
    with sgmcmc.loop.ctrl_c_ends_all(), pytest.raises(KeyboardInterrupt) as program:
        broken_sweep(press_once)
    for caught in (memory, twice, program):
        assert caught.value.sweep.table["verdict"].tolist()[1:] == ["interrupted"] * 2
    assert memory.value.run.num_steps == twice.value.run.num_steps == 800


def test_ctrl_c_before_there_is_an_estimate(chunks):
    """A learning coefficient says on how many draws it rests, or is none."""
    data = np.zeros(1_000, np.float32)
    posterior = sgmcmc.Posterior(Partial(_quadratic, jnp.ones(4)), flat, data_size=1_000)

    def run(at):
        with watching(lambda job: press_once() if job.steps == at else None):
            return learning_coefficient(
                jax.random.key(0), posterior, jnp.zeros(4), data, precision=1.0, step_size=1e-3,
                batch_size=1, evaluation_data=data[:1], num_steps=1_200, num_burnin=400, thinning=4,
            )  # fmt: skip

    with pytest.warns(UserWarning, match="Ctrl-C ended the run after 100 of 300 draws a chain"):
        assert run(800).trace.shape == (16, 100)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(400)
    assert caught.value.run.num_steps == 400
