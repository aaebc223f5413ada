"""Runs on disk: what `Run.save` writes and `load` reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from sgmcmc import describe, stores
from sgmcmc.execution import Continuation
from sgmcmc.run import Run
from sgmcmc.tuning import Tuning
from sgmcmc.types import Info, PyTree

_CONTENTS = ("draws", "weights", "info", "reduced", "carry", "position")
_HEADER = (
    "config", "versions", "stopped", "counter", "fingerprint", "plain_position",
    "gradient_evaluations", "times",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Saved:
    """A loaded run's continuation: the carry's arrays, and what they belong to."""

    leaves: list[np.ndarray]
    counter: int
    fingerprint: str
    position: PyTree
    plain_position: bool


def save(run: Run, path: str | Path) -> Path:
    """Write a run to one file; see `Run.save`."""
    rest = run.continuation if isinstance(run.continuation, Saved) else _freeze(run.continuation)
    info = {k: v for k, v in run.info._asdict().items() if isinstance(v, np.ndarray)}
    contents = {
        "draws": run.draws,
        "weights": run.weights,
        "info": info,
        "reduced": run.reduced,
        "carry": rest.leaves,
        "position": rest.position,
    }
    header = {
        "config": run.config,
        "versions": run.versions,
        "stopped": {str(chain): step for chain, step in run.stopped.items()},
        "counter": rest.counter,
        "fingerprint": rest.fingerprint,
        "plain_position": rest.plain_position,
        "gradient_evaluations": run.gradient_evaluations,
        "tuning": None if run.tuning is None else run.tuning._asdict(),
        "times": [run.compile_time, run.burnin_time, run.wall_time],
    }
    return stores.write(path, contents, header)


def load(path: str | Path) -> Run:
    """A run that `Run.save` wrote. Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or foreign; it is left as it is.
    """
    contents, header = stores.read(path, _CONTENTS, _HEADER)
    absent = {"position": (), "weight": (), "acceptance": None}
    times = dict(zip(("compile_time", "burnin_time", "wall_time"), header["times"], strict=True))
    saved = Saved(
        contents["carry"],
        header["counter"],
        header["fingerprint"],
        contents["position"],
        header["plain_position"],
    )
    return Run(
        draws=contents["draws"],
        weights=contents["weights"],
        info=Info(**{**absent, **contents["info"]}),
        reduced=contents["reduced"],
        config=header["config"],
        versions=header["versions"],
        stopped={int(chain): step for chain, step in header["stopped"].items()},
        num_steps=header["counter"],
        gradient_evaluations=header["gradient_evaluations"],
        tuning=None if header.get("tuning") is None else Tuning(**header["tuning"]),
        continuation=saved,
        **times,
    )


def _freeze(continuation: Continuation | None) -> Saved:
    if continuation is None:  # it broke off: there are draws, but no way on
        return Saved([], 0, "", (), True)
    carry = jax.tree.map(np.asarray, continuation.carry)
    position = carry.state.position
    return Saved(
        leaves=jax.tree.leaves(carry),
        counter=continuation.counter,
        fingerprint=describe.fingerprint(continuation.inputs.kernel),
        position=position,
        plain_position=not stores.has_own_containers(stores.containers(position)),
    )
