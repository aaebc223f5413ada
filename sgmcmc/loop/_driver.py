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
from types import MethodType
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
        carry: what a chunk takes and gives back; the one of the last finished chunk.
        compile_time: seconds that `begin` took.
        pressed: whether Ctrl-C was.
        handed: the result that was returned, or that an error carries; None before.
    """

    name: str
    kept_as: str
    total: int | None
    steps: int
    carry: PyTree
    compile_time: float = 0.0
    pressed: bool = False
    handed: Result | None = None

    @abstractmethod
    def begin(self) -> None:
        """Compile, by a chunk of no step."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether there is nothing more to do."""

    @abstractmethod
    def advance(self, wanted: int) -> int:
        """Make a chunk of about `wanted` steps; how many it has made.

        Where the job stands, steps and carry and what was made, is replaced by one assignment
        at the end: an error at any place within leaves the end of the chunk before.
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

    def kept(self) -> Result | None:
        """The result so far, for an error: without what cannot be made. None before `begin`."""
        return self.result(True)

    def failure(self, result: Result) -> Exception | None:
        """The error to raise in the place of a result; None where it is to be returned."""
        return None

    def between(self) -> None:
        """Called before the first chunk and after each."""
        return

    def carry_is_lost(self) -> bool:
        """Whether buffers of the carry were deleted."""
        return any(x.is_deleted() for x in jax.tree.leaves(self.carry))


OnChunk = Callable[[AbstractJob[Any]], None]
_on_chunk: contextvars.ContextVar[OnChunk | None] = contextvars.ContextVar("on_chunk", default=None)
_ends_all: contextvars.ContextVar[bool] = contextvars.ContextVar("ends_all", default=False)


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


@contextlib.contextmanager
def ctrl_c_ends_all() -> Iterator[None]:
    """Within it Ctrl-C ends `sample` and `fit` with a `KeyboardInterrupt`.

    By themselves they return what was made so far, and a program that makes several runs in turn
    would go on with the next. What was made is in the error's `.run`, or `.fitted`.
    """
    token = _ends_all.set(True)
    try:
        yield
    finally:
        _ends_all.reset(token)


def ends_all() -> bool:
    """Whether this is within `ctrl_c_ends_all`."""
    return _ends_all.get()


def keep(error: BaseException, job: AbstractJob[Any]) -> None:
    """Let an error that broke a job off carry what was made, as its `job.kept_as`."""
    has = vars(error).get(job.kept_as)
    if has is not None and has is job.handed:
        return
    if job.handed is None:
        # The error that broke it off is the one to see, not one of what it left behind.
        with contextlib.suppress(Exception):
            job.handed = job.kept()
    if job.handed is not None:
        vars(error)[job.kept_as] = job.handed
        error.add_note(f"What was made so far is in this error's `.{job.kept_as}`.")


def drive(job: AbstractJob[Result], chunk_steps: int | None, progress: bool) -> Result:
    """Make chunks until the job is finished or Ctrl-C is pressed.

    Args:
        job: the work.
        chunk_steps: steps of a chunk; None: about `CHUNK_SECONDS` of them.
        progress: whether to show it.

    Raises:
        BaseException: whatever breaks off a chunk, or the making of the result; what was made
            until then is its attribute `job.kept_as`.
    """
    began = time.perf_counter()
    job.begin()
    job.compile_time = time.perf_counter() - began
    presses = Presses()
    try:
        with presses:
            return _kept_result(job, chunk_steps, progress, presses)
    except BaseException as error:
        # Once more, for an error that broke into the keeping, or the putting back, itself.
        presses.put_back()
        keep(error, job)
        raise


def _kept_result(
    job: AbstractJob[Result], chunk_steps: int | None, progress: bool, presses: Presses
) -> Result:
    """`_result`, whose errors carry what was made; no press breaks into that."""
    try:
        return _result(job, chunk_steps, progress, presses)
    except BaseException as error:
        keep(error, job)
        raise


def _result(
    job: AbstractJob[Result], chunk_steps: int | None, progress: bool, presses: Presses
) -> Result:
    _make_chunks(job, chunk_steps, progress, presses)
    job.pressed = presses.pressed > 0
    if job.pressed and ends_all():
        raise KeyboardInterrupt
    with presses.raising():
        result = job.result(job.pressed and not job.finished())
        error = job.failure(result)
    job.handed = result
    if error is not None:
        raise error
    return result


def _make_chunks(
    job: AbstractJob[Any], chunk_steps: int | None, progress: bool, presses: Presses
) -> None:
    bar = Progress(job.total, progress, name=job.name)
    wanted, on_chunk = chunk_steps or 1, _on_chunk.get()
    try:
        _look(job, on_chunk, presses)
        while not job.finished() and not presses.pressed:
            began = time.perf_counter()
            with presses.raising():
                steps = job.advance(wanted)
            seconds = time.perf_counter() - began
            job.took(seconds)
            if chunk_steps is None:
                # At most ten times the last, since a first chunk's rate says little.
                wanted = int(min(10 * wanted, max(1.0, CHUNK_SECONDS * steps / seconds)))
            bar.update(steps, *job.facts())
            _look(job, on_chunk, presses)
    finally:
        bar.close()


def _look(job: AbstractJob[Any], on_chunk: OnChunk | None, presses: Presses) -> None:
    with presses.raising():
        job.between()
        if on_chunk is not None:
            on_chunk(job)


class Presses:
    """What Ctrl-C does while a job is driven: the first press is noted, a second is the usual one.

    The second one breaks off chunks, users' functions and results under way, and nothing else:
    not what puts the made in safety. One within another's block (a fit in an evaluation, a cell
    of a sweep) ends with that one, and tells it of every press. A process that ignores Ctrl-C, or
    whose handler is not Python's and could not be put back, goes on as it did.

    Attributes:
        pressed: how often it was.
    """

    def __init__(self) -> None:
        self.pressed, self._raises = 0, False
        self._usual: Any = None

    def __enter__(self) -> Presses:
        if threading.current_thread() is threading.main_thread():
            usual = signal.getsignal(signal.SIGINT)
            if usual is not None and usual is not signal.SIG_IGN:
                self._usual = usual
                outer = self._outer()
                if outer is not None:
                    self.pressed = outer.pressed
                with contextlib.suppress(ValueError):  # not in the main interpreter
                    signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        self.put_back()

    def put_back(self) -> None:
        """The usual handler again, unless somebody has set another on the way."""
        if self._usual is not None and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, self._usual)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Where a second press is the usual one."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _handle(self, number: int, frame: Any) -> None:
        usual = self._noted()
        if self.pressed < 2 or not self._raises:
            return
        self._raises = False
        if callable(usual):
            usual(number, frame)
        else:  # the system's own, which ends the process
            signal.signal(signal.SIGINT, usual)
            signal.raise_signal(signal.SIGINT)

    def _noted(self) -> Any:
        """Count a press, in all blocks around this one too; the handler before the outermost."""
        self.pressed += 1
        outer = self._outer()
        return self._usual if outer is None else outer._noted()

    def _outer(self) -> Presses | None:
        """The block around this one, whose handler was the usual one."""
        owner = self._usual.__self__ if isinstance(self._usual, MethodType) else None
        return owner if isinstance(owner, Presses) else None
