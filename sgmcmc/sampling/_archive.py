"""Runs on disk: what `Run.save` writes and `load` reads, whole or not at all, without pickle.

The file is a `.npz`: array i of each tree under `<tree>/<i>`, and one entry of JSON with the
rest, trees' containers included. Dicts, lists and tuples come back as they were; other
containers come back as ordered dicts of their fields, in the order of their leaves.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc.sampling import _describe as describe
from sgmcmc.sampling._execution import Continuation
from sgmcmc.sampling._run import Run
from sgmcmc.tuning._record import Tuning
from sgmcmc.types import Info, PyTree

_CONTENTS = ("draws", "weights", "info", "reduced", "carry", "position")

_FIELDS = (
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


def save_run(run: Run, path: str | Path) -> Path:
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
    return write(path, contents, header)


def load(path: str | Path) -> Run:
    """A run that `Run.save` wrote. Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or foreign; it is left as it is.
    """
    contents, header = read(path, _CONTENTS, _FIELDS)
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
        plain_position=not has_own_containers(containers(position)),
    )


FORMAT = "sgmcmc-run-2"

_HEADER = "header.json"


def write(path: str | Path, trees: dict[str, PyTree], header: dict[str, Any]) -> Path:
    """Write `trees` of arrays and a JSON-able `header` to `path`, replacing it at the end."""
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    described = {}
    for name, tree in trees.items():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
        for i, leaf in enumerate(leaves):
            # Types that NumPy does not know, bfloat16 and its kin, are kept as their bits.
            known = leaf.dtype.kind in "biufc"
            arrays[f"{name}/{i}"] = leaf if known else leaf.view(f"u{leaf.dtype.itemsize}")
        dtypes = [leaf.dtype.name for leaf in leaves]
        described[name] = {"containers": containers(tree), "dtypes": dtypes}
    text = json.dumps({"format": FORMAT, "trees": described, "header": header})
    arrays[_HEADER] = np.frombuffer(text.encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def read(
    path: str | Path, names: tuple[str, ...], fields: tuple[str, ...]
) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """The trees and the header of a file that `write` made; the file is only read.

    `names` and `fields` are the trees and the header's fields that it must have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged, or not one of ours.
    """
    path = Path(path)
    try:
        # np.load checks each entry's checksum as it reads.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
        document = json.loads(entries[_HEADER].tobytes().decode())
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}, not {FORMAT!r}")
        absent = {*names, *fields} - {*document["trees"], *document["header"]}
        if absent:
            raise ValueError(f"it has no {', '.join(sorted(absent))}")
        trees = {
            name: _rebuild(
                spec["containers"],
                iter(
                    entries[f"{name}/{i}"].view(jnp.dtype(dtype))
                    for i, dtype in enumerate(spec["dtypes"])
                ),
            )
            for name, spec in document["trees"].items()
        }
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # what a damaged file makes its readers raise is a long list
        raise ValueError(
            f"path: {path.name} is not a complete file of a sgmcmc run ({error})"
        ) from error
    return trees, document["header"]


def containers(tree: PyTree) -> Any:
    """The containers of a pytree as JSON: a leaf is 0, None is null."""
    if tree is None:
        return None
    if type(tree) is dict and all(type(key) in (str, int) for key in tree):
        # JAX flattens dicts in the order of their keys (and an OrderedDict in its own).
        return {"dict": [[key, containers(tree[key])] for key in sorted(tree)]}
    if type(tree) is list:
        return {"list": [containers(item) for item in tree]}
    if type(tree) is tuple:
        return {"tuple": [containers(item) for item in tree]}
    if jax.tree_util.all_leaves([tree]):
        return 0
    # One level: everything below the tree itself counts as a leaf, None too.
    children = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is not tree)
    named = [[jax.tree_util.keystr(path, simple=True), containers(c)] for path, c in children]
    return {"fields": named}


def has_own_containers(spec: Any) -> bool:
    """Whether a tree has containers other than dicts, lists and tuples."""
    if not isinstance(spec, dict):
        return False
    (kind, children), *_ = spec.items()
    items = children if kind in ("list", "tuple") else [child for _, child in children]
    return kind == "fields" or any(has_own_containers(item) for item in items)


def _rebuild(spec: Any, leaves: Any) -> PyTree:
    if spec is None:
        return None
    if spec == 0:
        return next(leaves)
    (kind, children), *_ = spec.items()
    if kind == "list":
        return [_rebuild(child, leaves) for child in children]
    if kind == "tuple":
        return tuple(_rebuild(child, leaves) for child in children)
    rebuilt = [(key, _rebuild(child, leaves)) for key, child in children]
    return dict(rebuilt) if kind == "dict" else OrderedDict(rebuilt)
