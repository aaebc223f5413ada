"""The host loop: chunk lengths by the clock, Ctrl-C, and what is kept on any error."""

import os
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from sgmcmc.loop import _driver as driver
from sgmcmc.loop._driver import AbstractJob, Facts, drive, watching


class Sleeper(AbstractJob[tuple]):
    """Steps of a given length; its result says what was made."""

    name, kept_as = "sleeping", "slept"

    def __init__(self, total=30, seconds=0.0, fails_at=None, error=RuntimeError):
        self.total, self.seconds = total, seconds
        self.fails_at, self.error = fails_at, error
        self.carry, self.steps = jnp.zeros(2), 0
        self.begun, self.chunks, self.times, self.looks = False, [], [], []

    def begin(self):
        self.begun = True

    def finished(self):
        return self.steps >= self.total

    def advance(self, wanted):
        steps = min(wanted, self.total - self.steps)
        if self.fails_at is not None and self.steps + steps > self.fails_at:
            raise self.error("no")
        time.sleep(steps * self.seconds)
        self.chunks.append(steps)
        self.steps += steps
        return steps

    def took(self, seconds):
        self.times.append(seconds)

    def facts(self):
        return Facts("asleep")

    def between(self):
        self.looks.append(self.steps)

    def result(self, interrupted):
        return self.steps, interrupted


def test_chunks_grow_tenfold_at_most_and_follow_the_clock(monkeypatch):
    """1, 10, 100, … steps while they are quick, then about a chunk's time of them."""
    monkeypatch.setattr(driver, "CHUNK_SECONDS", 0.1)
    # A clock of the test's own, which the load of the machine does not touch.
    now = [0.0]
    monkeypatch.setattr(driver.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + 1e-6 + seconds))
    quick = Sleeper(total=11_000)
    assert drive(quick, None, progress=False) == (11_000, False)
    assert quick.chunks[:4] == [1, 10, 100, 1000]
    slow = Sleeper(total=40, seconds=0.02)
    drive(slow, None, progress=False)
    assert slow.chunks[0] == 1
    assert all(steps <= 5 for steps in slow.chunks)
    assert quick.begun
    assert quick.compile_time >= 0
    assert len(slow.times) == len(slow.chunks)
    assert sum(slow.times) >= 40 * 0.02


def test_chunks_of_a_given_length():
    """`chunk_steps` is their length, and `between` is called before the first and after each."""
    job = Sleeper(total=10)
    assert drive(job, 4, progress=False) == (10, False)
    assert job.chunks == [4, 4, 2]
    assert job.looks == [0, 4, 8, 10]


def test_ctrl_c_ends_it_after_the_chunk():
    """The handler is the usual one again; a second Ctrl-C is an error that carries the result."""
    handler = signal.getsignal(signal.SIGINT)

    def press(times):
        def on_chunk(job):
            if job.steps == 4:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)

        return on_chunk

    with watching(press(1)):
        assert drive(Sleeper(), 2, progress=False) == (4, True)
    assert signal.getsignal(signal.SIGINT) is handler
    with watching(press(2)), pytest.raises(KeyboardInterrupt) as caught:
        drive(Sleeper(), 2, progress=False)
    assert caught.value.slept == (4, True)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.fixture
def sigint():
    """The handler of Ctrl-C is the test's own business, and put back."""
    usual = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, usual)


def press_at(*steps):
    return watching(lambda job: signal.raise_signal(signal.SIGINT) if job.steps in steps else None)


def test_a_process_that_ignores_ctrl_c_goes_on(sigint):
    """`trap '' INT`, or a background job: the handler is SIG_IGN, and stays."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with press_at(4, 6):
        assert drive(Sleeper(), 2, progress=False) == (30, False)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch):
    """It could not be put back: `signal.signal` takes no None."""
    monkeypatch.setattr(driver.signal, "getsignal", lambda number: None)
    monkeypatch.setattr(driver.signal, "signal", None)
    assert drive(Sleeper(), 2, progress=False) == (30, False)


def test_a_handler_of_ones_own(sigint):
    """It sees the second press, and one that was set on the way stays set."""
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    with watching_twice():
        assert drive(Sleeper(), 2, progress=False) == (4, True)
    assert seen == [signal.SIGINT]

    def own(job):
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    with watching(own):
        drive(Sleeper(), 2, progress=False)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def watching_twice():
    """Two presses after four steps."""

    def press(job):
        if job.steps == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    return watching(press)


def test_an_error_of_the_result_carries_it():
    """What comes after the last chunk is protected too, and what cannot be kept hides no error."""

    class Unsure(Sleeper):
        def result(self, interrupted):
            if not interrupted:
                raise ValueError("mine")
            return self.steps, interrupted

    with pytest.raises(ValueError, match="mine") as caught:
        drive(Unsure(), 10, progress=False)
    assert caught.value.slept == (30, True)

    class Lost(Sleeper):
        def kept(self):
            raise OSError("the device is gone")

    with pytest.raises(RuntimeError, match="no") as caught:
        drive(Lost(fails_at=7), 3, progress=False)
    assert not hasattr(caught.value, "slept")


def test_within_another_job_the_inner_one_ends_with_it():
    """One press ends both, two raise through both, and each error carries the outer's result."""
    inner = []

    def nested(presses):
        def look(job):
            if job.steps == 4 and not inner:
                inner.append(None)
                with watching_twice() if presses == 2 else press_at(4):
                    inner.append(drive(Sleeper(), 2, progress=False))

        return watching(look)

    with nested(1):
        assert drive(Sleeper(), 2, progress=False) == (4, True)
    assert inner.pop() == (4, True)
    inner.clear()
    with nested(2), pytest.raises(KeyboardInterrupt) as caught:
        drive(Sleeper(), 2, progress=False)
    assert caught.value.slept == (4, True)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_any_error_carries_what_was_made(error):
    """Of a chunk, of `between` or of a watcher; with a note that says where to look."""
    with pytest.raises(error) as caught:
        drive(Sleeper(fails_at=7, error=error), 3, progress=False)
    assert caught.value.slept == (6, True)
    assert caught.value.__notes__ == ["What was made so far is in this error's `.slept`."]


def test_outside_of_the_main_thread():
    """There are no signals there; the work is done all the same, and watchers are not shared."""
    made, seen = [], []
    with watching(lambda job: seen.append(job.steps)):
        thread = threading.Thread(target=lambda: made.append(drive(Sleeper(), 10, progress=False)))
        thread.start()
        thread.join()
    assert made == [(30, False)]
    assert not seen


def test_a_watcher_sees_the_job_and_is_let_go():
    """Before the first chunk and after each, only within its context."""
    seen = []
    with watching(lambda job: seen.append((job.name, job.steps))):
        drive(Sleeper(total=4), 2, progress=False)
    drive(Sleeper(total=4), 2, progress=False)
    assert seen == [("sleeping", 0), ("sleeping", 2), ("sleeping", 4)]


def test_a_carry_is_lost_with_any_of_its_buffers():
    job = Sleeper()
    assert not job.carry_is_lost()
    job.carry.delete()
    assert job.carry_is_lost()
