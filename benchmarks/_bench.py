"""What every benchmark shares: its command line, the machine, the record, parts run alone."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from examples.studies._study import versions, write


class Bench(NamedTuple):
    """The command line of one benchmark.

    `json`: the record's name in results/. `rounds`, `steps`: defaults; `quick`: steps of
    --quick, in two rounds. `options`: {flag: arguments of `add_argument`}.
    """

    doc: str
    json: str
    rounds: int
    steps: int
    quick: int
    options: Mapping[str, Mapping[str, Any]] = {}

    def main(self, measure: Callable[[argparse.Namespace], dict[str, Any] | None]) -> int:
        """Run `measure`, keep what it found with the machine, and return the exit code.

        None in the place of a record: a part, run alone, has printed its own.
        """
        parser = argparse.ArgumentParser(description=self.doc)
        parser.add_argument("--rounds", type=int, default=self.rounds)
        parser.add_argument("--steps", type=int, default=self.steps)
        parser.add_argument("--quick", action="store_true", help="few rounds: does it run at all?")
        parser.add_argument("--json", type=Path, default=Path("results") / self.json)
        for flag, rest in self.options.items():
            parser.add_argument(flag, **rest)
        given = parser.parse_args()
        if given.quick:
            given.rounds, given.steps = 2, self.quick
        found = measure(given)
        if found is None:
            return 0
        write(given.json, {"machine": machine(), **found}, indent=2)
        print(f"{machine()}\nwritten to {given.json}")
        return 0


def machine() -> dict[str, Any]:
    return {
        **versions("jax", "optax", "numpy"),
        "cores": os.cpu_count(),
        "processor": platform.machine(),
    }


def alone(module: str, *arguments: Any) -> Any:
    """What `python -m module arguments…`, a process of its own, prints as JSON at the end."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def spread(row: Mapping[str, float], width: int) -> str:
    """Median and quartiles of a row, in `width` places and more."""
    quartiles = f"{row['lower']:.2f}–{row['upper']:.2f}"
    return f"{row['median']:>{width}.2f}{quartiles:>14}"


def num_bytes(tree: Any) -> int:
    """Of a pytree of arrays."""
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
