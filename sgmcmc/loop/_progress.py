"""Progress: a bar in terminals and notebooks, plain lines elsewhere, nothing if unwanted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


class Progress:
    """Shows steps done, steps a second, temperature, and how many chains are finite.

    Args:
        total: steps of the run; None where they are not known beforehand.
        shown: False shows nothing at all.
        file: where to write; default standard error.
        name: what is going on.
    """

    def __init__(
        self, total: int | None, shown: bool, file: Any = None, name: str = "sampling"
    ) -> None:
        self._name = name
        self._total, self._done = total, 0
        self._file = sys.stderr if file is None else file
        self._began = time.perf_counter()
        self._next_line = 0.1
        self._bar: Any = None
        self._lines = False
        # A process may have no standard error, or one that is closed.
        if shown and self._file is not None:
            self._attempt(self._open)

    def update(self, steps: int, facts: str, share: float | None = None) -> None:
        """Add `steps`; `facts` is what to say beside them.

        `share`: how much of the run is done, where that is not known from its steps.
        """
        self._done += steps
        if share is not None:
            facts = f"{min(share, 1):.0%} of the time, {facts}"
        elif self._total:
            share = self._done / self._total
        self._attempt(lambda: self._show(steps, facts, share))

    def close(self) -> None:
        self._attempt(lambda: None if self._bar is None else self._bar.close())

    def _attempt(self, action: Callable[[], None]) -> None:
        """A run outlives the place that its progress is written to."""
        try:
            action()
        except (OSError, ValueError):
            self._bar, self._lines = None, False

    def _open(self) -> None:
        notebook = _in_notebook()
        if notebook or self._file.isatty():
            # Chunks last long enough: every one is drawn.
            options = {"total": self._total, "mininterval": 0, "unit": " steps"}
            file = None if notebook else self._file
            self._bar = _bar_class(notebook)(file=file, desc=self._name, **options)
        else:
            self._lines = True

    def _show(self, steps: int, facts: str, share: float | None) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(facts, refresh=False)
            self._bar.update(steps)
        elif self._lines and share is not None and share >= self._next_line:
            while self._next_line <= share:
                self._next_line += 0.1
            rate = self._done / (time.perf_counter() - self._began)
            of_all = "" if self._total is None else f" of {self._total:,}"
            line = f"{self._name}: {self._done:,}{of_all} steps, {rate:,.0f} steps/s, {facts}"
            print(line, file=self._file, flush=True)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    ipython = shell.get_ipython() if shell is not None else None
    return type(ipython).__name__ == "ZMQInteractiveShell"


def _bar_class(notebook: bool) -> Any:
    # Without ipywidgets tqdm's notebook bar only warns.
    if notebook and find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm
    else:
        from tqdm.std import tqdm
    return tqdm
