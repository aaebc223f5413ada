"""The runtime checker of shapes and dtypes, by jaxtyping and beartype, of what is annotated so.

Only annotations with a shape are checked: what users hand in is checked by the library itself,
whose errors are under test.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from beartype import beartype

SHAPED = ("Float[", "Int[", "Bool[", "Num[", "Shaped[", "UInt32[")


def shapes(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with those of its annotations checked that have a shape."""
    kept = {
        name: note
        for name, note in function.__annotations__.items()
        if str(note).startswith(SHAPED)
        or any(f" {s}" in str(note) or f"[{s}" in str(note) for s in SHAPED)
    }
    if not kept:
        return function
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    functools.update_wrapper(copy, function)
    del copy.__wrapped__
    copy.__kwdefaults__, copy.__annotations__ = function.__kwdefaults__, kept
    checked: Callable[..., Any] = beartype(copy)
    return checked
