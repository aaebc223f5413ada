"""Ctrl-C that lets a loop finish its chunk, so that what is made is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

# Long enough to hide the host's work, short enough for Ctrl-C and the progress bar.
CHUNK_SECONDS = 0.5


@contextlib.contextmanager
def interrupts() -> Iterator[list[bool]]:
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
