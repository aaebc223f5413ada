"""What every study shares: its command line, versions, the record, going on, the exit code.

A study prints its estimated time first, writes results/<name>.json and a picture beside it,
says on stderr which of the figures that are asked it misses, and ends with exit code 1 if any.

    STUDY = Study(__file__, __doc__, small="two seeds", estimate=("1 minute", "4 minutes"))

    def measure(given: Given) -> Outcome:
        …
        return Outcome({"rows": rows}, missed, functools.partial(draw, rows))

    if __name__ == "__main__":
        raise SystemExit(STUDY.main(measure))
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from sgmcmc.loop import ctrl_c_ends_all

FRESH = {"--fresh": {"action": "store_true", "help": "forget the results so far"}}


class Given(NamedTuple):
    """What the command line says: whether small, where results go, the study's own options."""

    small: bool
    folder: Path  # of results
    stem: Path  # of this study's files in it, without an ending
    options: argparse.Namespace

    @property
    def json(self) -> Path:
        return self.stem.with_suffix(".json")


class Outcome(NamedTuple):
    """What a study found.

    `missed`: figures that are asked and not reached, in words. `draw`: given a path, it makes the
    picture there.
    """

    record: dict[str, Any]
    missed: Sequence[str]
    draw: Callable[[Path], None]


class Study(NamedTuple):
    """The command line of one study.

    `file`, `doc`: `__file__` and `__doc__`. `small`: what --small leaves. `estimate`: times of
    the small and of the full version. `options`: {flag: arguments of `add_argument`}.
    `packages`: whose versions count beside sgmcmc, jax and numpy.
    """

    file: str
    doc: str
    small: str
    estimate: tuple[str, str]
    options: Mapping[str, Mapping[str, Any]] = {}
    packages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return Path(self.file).stem

    def versions(self) -> dict[str, str]:
        return versions("sgmcmc", "jax", "numpy", *self.packages)

    def main(
        self, measure: Callable[[Given], Outcome | None], arguments: list[str] | None = None
    ) -> int:
        """Run `measure`, keep what it found, and return the exit code.

        None in the place of an `Outcome`: nothing was asked, and nothing more is to be kept.
        """
        parser = argparse.ArgumentParser(description=self.doc.splitlines()[0])
        parser.add_argument("--small", action="store_true", help=self.small)
        parser.add_argument("--output", type=Path, default=Path("results"), help="folder")
        for flag, rest in self.options.items():
            parser.add_argument(flag, **rest)
        options = parser.parse_args(arguments)
        short, long = self.estimate
        print(f"{self.name}: about {short if options.small else long} on two cores.", flush=True)
        started, stem = time.perf_counter(), options.output / self.name
        options.output.mkdir(parents=True, exist_ok=True)
        given = Given(options.small, options.output, stem, options)
        try:
            # Runs that Ctrl-C has cut short are not to be kept as if they were whole.
            with ctrl_c_ends_all():
                found = measure(given)
        except KeyboardInterrupt:
            print(f"{self.name}: interrupted; what is in {stem}* stays", file=sys.stderr)
            return 130
        if found is None:
            return 0
        seconds = round(time.perf_counter() - started, 1)
        common = {"missed": list(found.missed), "versions": self.versions(),
                  "cores": os.cpu_count(), "seconds": seconds}  # fmt: skip
        write(given.json, common | found.record)
        found.draw(stem.with_suffix(".png"))
        for line in found.missed:
            print("MISSED", line, file=sys.stderr)
        print(f"{len(found.missed)} figures missed; {seconds} s, less what was there already")
        return 1 if found.missed else 0


class Rows:
    """Named rows of one JSON file, written as they are made; the next run goes on from them.

    A file counts where it has the same `head`: versions, seed, size.
    """

    def __init__(
        self, path: Path, head: Mapping[str, Any], key: str = "rows", fresh: bool = False
    ) -> None:
        self.path, self.head, self.key = path, plain(head), key
        found = json.loads(path.read_text("utf-8")) if path.exists() and not fresh else {}
        same = {name: found.get(name) for name in self.head} == self.head
        self.rows: dict[str, Any] = found.get(key, {}) if same else {}

    def get(self, name: str, make: Callable[..., Any], *arguments: Any, said: str = "") -> Any:
        """The row of that name, `make(*arguments)` unless it is there."""
        if name not in self.rows:
            print(said or name, file=sys.stderr, flush=True)
            self.rows[name] = make(*arguments)
            self.write()
        return self.rows[name]

    def record(self, **more: Any) -> dict[str, Any]:
        return self.head | more | {self.key: self.rows}

    def write(self, **more: Any) -> None:
        write(self.path, self.record(**more))


def kept(path: Path, plan: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `path` holds, where it was made to the same plan; else `make()`, which is kept there."""
    plan = plain(plan)
    if path.exists():
        found = json.loads(path.read_text("utf-8"))
        if found.get("plan") == plan:
            return found["result"]
    result = plain(make())
    write(path, {"plan": plan, "result": result}, indent=None)
    return result


def write(path: Path, record: Any, indent: int | None = 1) -> None:
    """The record as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=indent), "utf-8")
    part.replace(path)


def plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples are lists, keys are text."""
    return json.loads(json.dumps(value))


def versions(*packages: str) -> dict[str, str]:
    """{package: version}, and Python's."""
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def data_folder(needs: str) -> Path:
    """The folder that SGMCMC_DATA names; without it, or `needs` in it, the study ends."""
    folder = os.environ.get("SGMCMC_DATA")
    if folder is None or not (Path(folder) / needs).exists():
        print(f"SGMCMC_DATA: got {folder}; it names the folder with {needs}", file=sys.stderr)
        raise SystemExit(2)
    return Path(folder)
