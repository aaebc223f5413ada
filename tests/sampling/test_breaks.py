"""Whatever breaks in, wherever: what was made is kept, and the rest can follow bit for bit."""

import signal

import jax
import numpy as np
import pytest

import sgmcmc
from sgmcmc import reducers
from sgmcmc.loop import _driver as driver
from sgmcmc.loop._driver import drive, watching
from sgmcmc.sampling import _draws as draws
from sgmcmc.sampling import _job as jobs
from sgmcmc.sampling import _plan as plan
from sgmcmc.sampling._continuation import prepare
from sgmcmc.sampling._inputs import Request
from sgmcmc.sampling._job import Sampling
from sgmcmc.sampling._plan import Settings
from tests.breaks import Break, at_event, each_line_once
from tests.compare import assert_same_bits, assert_same_tree
from tests.problems import regression

MODULES = [driver, jobs, draws, plan]
PROBLEM = regression()
KERNEL = sgmcmc.baoab(PROBLEM.posterior, 0.01)
SETTINGS = Settings(2, 3, 6, 2, "raise", 4, "vmap")
REDUCERS = {"mean": reducers.mean()}


def request(settings=SETTINGS, **options):
    given = {"collect": True, "reducers": REDUCERS, **options}
    return Request(
        jax.random.key(2), KERNEL, PROBLEM.start, PROBLEM.data, 5, "reshuffled", settings, **given
    )


@pytest.fixture(scope="module")
def live():
    """At step 0, prepared once; a run never changes what it begins from."""
    return prepare(request())


@pytest.fixture(scope="module")
def straight(live):
    return drive(Sampling(live, None), 4, False)


def assert_goes_on_to(straight, broken):
    """`resume()` completes it exactly; one that is complete lacks reduced values at most."""
    if broken.interrupted:
        assert_same_bits(broken.resume(progress=False), straight)
        return
    assert_same_tree(broken.draws, straight.draws)
    assert_same_tree(broken.info, straight.info)
    assert broken.num_steps == straight.num_steps
    for name in broken.reduced:
        assert_same_tree(broken.reduced[name], straight.reduced[name])


def events(live, kind):
    # The first one traces what is compiled for this test, whose settings are its own.
    for job in (Sampling(live, None), Sampling(live, None)):
        with at_event(MODULES, -1, kind=kind) as seen:
            drive(job, 4, False)
    return seen


@pytest.mark.parametrize("kind", ["line", "opcode"])
def test_an_exception_at_any_place(live, straight, kind):
    """At every line of the host's loop in turn, and every 97th opcode: chunks, then the result.

    A carry that is ahead of its counter, or draws of either, repeat or skip steps; one that a
    chunk has taken with it leaves no way on.
    """
    partial, seen, handler = 0, events(live, kind), signal.getsignal(signal.SIGINT)
    for place in each_line_once(seen) if kind == "line" else range(0, len(seen), 97):
        job = Sampling(live, None)
        with pytest.raises(Break) as caught, at_event(MODULES, place, kind=kind):
            drive(job, 4, False)
        assert signal.getsignal(signal.SIGINT) is handler
        broken = vars(caught.value).get("run")
        if broken is None:
            assert job.steps == 0  # it broke off before there was anything
            continue
        partial += 0 < broken.num_samples < 6
        assert broken.num_steps == 3 + 2 * broken.num_samples or broken.num_samples == 0
        assert_goes_on_to(straight, broken)
    assert partial >= 3


def test_a_second_ctrl_c_at_any_place(live, straight):
    """It raises where work is under way, and is held where what was made is put in safety."""
    handler, raised = signal.getsignal(signal.SIGINT), 0

    def press():
        signal.raise_signal(signal.SIGINT)

    def first(job):
        if job.steps == 7:
            press()

    for place in range(1_500, len(events(live, "opcode")), 151):
        with watching(first), at_event(MODULES, place, press, "opcode"):
            try:
                broken = drive(Sampling(live, None), 4, False)
            except KeyboardInterrupt as error:
                broken, raised = error.run, raised + 1
        assert signal.getsignal(signal.SIGINT) is handler
        assert_goes_on_to(straight, broken)
    assert raised >= 1


@pytest.mark.parametrize("chunk", [0, 2])
def test_a_memory_error_while_draws_are_stored(live, straight, monkeypatch, chunk):
    """A chunk whose draws are not there was not made: neither counter nor chains moved."""
    write, chunks = draws.DrawnArrays.write, []

    def full(self, recorded, made, num_draws):
        chunks.append(made)
        if len(chunks) == chunk + 1:
            self._allocate(recorded, made)
            raise MemoryError("no room")
        write(self, recorded, made, num_draws)

    monkeypatch.setattr(draws.DrawnArrays, "write", full)
    with pytest.raises(MemoryError, match="no room") as caught:
        drive(Sampling(live, None), 4, False)
    monkeypatch.undo()
    broken = caught.value.run
    assert broken.num_samples == max(0, 2 * chunk)
    assert_goes_on_to(straight, broken)


def test_no_room_for_a_total_time(monkeypatch):
    """Arrays that cannot grow end the run at the chunk before, until there is room."""
    timed = SETTINGS._replace(num_samples=100, total_time=0.5, chunk_steps=6)
    monkeypatch.setattr(jobs, "ROOM", 4)
    live = prepare(request(timed))
    straight = drive(Sampling(live, None), 6, False)
    assert straight.num_samples == 25  # of two steps of .01 each
    monkeypatch.setattr(draws, "free_memory", lambda: 2_500)
    with pytest.raises(MemoryError, match="bytes") as caught:
        drive(Sampling(live, None), 6, False)
    monkeypatch.setattr(draws, "free_memory", lambda: None)
    assert 0 < caught.value.run.num_samples < 25
    assert_same_bits(caught.value.run.resume(progress=False), straight)


class Failing:
    """A reducer whose result cannot be made."""

    def __init__(self, error):
        self.error = error

    def init(self, position):
        return ()

    def update(self, state, position, weight):
        return ()

    def result(self, states):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_reducer_whose_result_raises(error, straight):
    """All draws are in the error's `.run`, and what the other reducers made."""
    given = {"first": Failing(error), **REDUCERS}
    with pytest.raises(type(error)) as caught:
        drive(Sampling(prepare(request(reducers=given)), None), 4, False)
    broken = caught.value.run
    assert not broken.interrupted
    assert set(broken.reduced) == {"mean"}
    assert_goes_on_to(straight, broken)


def test_a_program_of_several_runs(live, straight):
    """Within `ctrl_c_ends_all` Ctrl-C is an error, in the last chunk too, with what was made."""
    for steps in (7, 15):

        def press(job, steps=steps):
            if job.steps == steps:
                signal.raise_signal(signal.SIGINT)

        with watching(press):
            assert drive(Sampling(live, None), 4, False).interrupted == (steps < 15)
        with (
            pytest.raises(KeyboardInterrupt) as caught,
            watching(press),
            sgmcmc.loop.ctrl_c_ends_all(),
        ):
            drive(Sampling(live, None), 4, False)
        assert caught.value.run.num_steps == steps
        assert_goes_on_to(straight, caught.value.run)


def test_ctrl_c_in_a_run_within_another(live):
    """A run that is made while another is watched ends with that one."""
    inner = []

    def nested(job):
        if job.steps == 7 and not inner:
            inner.append(None)

            def press(job):
                signal.raise_signal(signal.SIGINT) if job.steps == 3 else None

            with watching(press):
                inner.append(drive(Sampling(live, None), 4, False))

    with watching(nested):
        outer = drive(Sampling(live, None), 4, False)
    assert [inner[1].num_steps, outer.num_steps] == [3, 7]


def test_what_a_run_begins_from_is_not_kept(live):
    """One carry besides that of the chunk under way: the first is let go of."""
    first = jax.tree.leaves(prepare(request()).carry)[0]
    assert not first.is_deleted()
    job = Sampling(live, None)
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(job.live.carry))
    drive(job, 4, False)
    assert np.isfinite(jax.tree.leaves(live.carry.state.position)[0]).all()
