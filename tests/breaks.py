"""An exception at any place of the library's own code, as a signal's handler may raise one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any


class Break(BaseException):
    """Nobody but the test catches it."""


def fail() -> None:
    """Raise a `Break`."""
    raise Break


@contextmanager
def at_event(
    modules: list[ModuleType], place: int, action: Callable[[], None] = fail, kind: str = "line"
) -> Iterator[list[tuple[str, int]]]:
    """Within it `action` is called at the place-th line, or opcode, that runs in the modules.

    Gives the list, which grows, of the file and the line of each so far.
    """
    files = {module.__file__ for module in modules}
    seen: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = kind == "opcode"
        if event == kind:
            seen.append((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == place + 1:
                action()
        return trace

    before = sys.gettrace()
    # What is collected of an earlier break would run lines of its own in the middle of this one.
    gc.disable()
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)
        gc.enable()


def each_line_once(seen: list[tuple[str, int]]) -> list[int]:
    """Of every line that ran, one place in the middle of those at which it did."""
    places: dict[tuple[str, int], list[int]] = {}
    for place, line in enumerate(seen):
        places.setdefault(line, []).append(place)
    return sorted(found[len(found) // 2] for found in places.values())
