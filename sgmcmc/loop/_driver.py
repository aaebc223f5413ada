"""The host loop: chunk after chunk, of a length by the clock, until the work is done.

Ctrl-C lets a chunk finish, and whatever breaks the loop off, what was made is kept.
"""

from __future__ import annotations

import contextlib
import contextvars
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax

from sgmcmc.loop._progress import Progress
from sgmcmc.types import PyTree

# Long enough to hide the host's work, short enough for Ctrl-C and the progress bar.
CHUNK_SECONDS = 0.5

Result = TypeVar("Result")


class Facts(NamedTuple):
    """What the progress bar says; `share` is done of the work where steps do not tell."""

    text: str
    share: float | None = None


class AbstractJob(ABC, Generic[Result]):
    """Work that is made chunk by chunk: what `drive` asks of it.

    Attributes:
        name: what is going on, for the progress bar.
        kept_as: the name under which an error that breaks it off carries its result.
        total: steps to make; None where that is not known beforehand.
        steps: made so far.
        carry: what a chunk takes and gives back; its buffers are donated.
        compile_time: seconds that `begin` took.
    """

    name: str
    kept_as: str
    total: int | None
    steps: int
    carry: PyTree
    compile_time: float = 0.0

    @abstractmethod
    def begin(self) -> None:
        """Compile, by a chunk of no step."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether there is nothing more to do."""

    @abstractmethod
    def advance(self, wanted: int) -> int:
        """Make a chunk of about `wanted` steps; how many it has made.

        `carry` is replaced when the chunk is there, and not before: an error within leaves
        the one whose buffers are gone.
        """

    @abstractmethod
    def took(self, seconds: float) -> None:
        """Keep count of the time of the last chunk."""

    @abstractmethod
    def facts(self) -> Facts:
        """For the progress bar, after a chunk."""

    @abstractmethod
    def result(self, interrupted: bool) -> Result:
        """The result so far, complete or not."""

    def between(self) -> None:
        """Called before the first chunk and after each."""
        return

    def carry_is_lost(self) -> bool:
        """Whether a chunk that broke off has taken the carry with it."""
        return any(x.is_deleted() for x in jax.tree.leaves(self.carry))


OnChunk = Callable[[AbstractJob[Any]], None]
_on_chunk: contextvars.ContextVar[OnChunk | None] = contextvars.ContextVar("on_chunk", default=None)


@contextlib.contextmanager
def watching(on_chunk: OnChunk) -> Iterator[None]:
    """Within it, `on_chunk(job)` is called before the first chunk of each job and after each.

    What it raises breaks the job off, as an error of its own would.
    """
    token = _on_chunk.set(on_chunk)
    try:
        yield
    finally:
        _on_chunk.reset(token)


def drive(job: AbstractJob[Result], chunk_steps: int | None, progress: bool) -> Result:
    """Make chunks until the job is finished or Ctrl-C is pressed.

    Args:
        job: the work.
        chunk_steps: steps of a chunk; None: about `CHUNK_SECONDS` of them.
        progress: whether to show it.

    Raises:
        BaseException: whatever breaks off a chunk; what was made until then is its attribute
            `job.kept_as`.
    """
    began = time.perf_counter()
    job.begin()
    job.compile_time = time.perf_counter() - began
    bar = Progress(job.total, progress, name=job.name)
    wanted, on_chunk = chunk_steps or 1, _on_chunk.get()
    try:
        with _interrupts() as pressed:
            _look(job, on_chunk)
            while not job.finished() and not pressed:
                began = time.perf_counter()
                steps = job.advance(wanted)
                seconds = time.perf_counter() - began
                job.took(seconds)
                if chunk_steps is None:
                    # At most ten times the last, since a first chunk's rate says little.
                    wanted = int(min(10 * wanted, max(1.0, CHUNK_SECONDS * steps / seconds)))
                bar.update(steps, *job.facts())
                _look(job, on_chunk)
    except BaseException as error:
        # Whatever it was (a second Ctrl-C, memory, a user's function), what was made is not lost.
        setattr(error, job.kept_as, job.result(True))
        error.add_note(f"What was made so far is in this error's `.{job.kept_as}`.")
        raise
    finally:
        bar.close()
    return job.result(bool(pressed) and not job.finished())


def _look(job: AbstractJob[Any], on_chunk: OnChunk | None) -> None:
    job.between()
    if on_chunk is not None:
        on_chunk(job)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[bool]]:
    """A list that is no longer empty once Ctrl-C was pressed; a second one is the usual one."""
    pressed: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    usual = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, usual)
