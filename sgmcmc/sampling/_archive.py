"""Runs on disk: what `Run.save` writes and `load` reads, whole or not at all, without pickle.

The file is a `.npz`: array i of each tree under `<tree>/<i>`, and one entry of JSON with the
rest, trees' containers included. Dicts, lists and tuples come back as they were; other
containers come back as ordered dicts of their fields, in the order of their leaves.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc.types import PyTree

FORMAT = "sgmcmc-run-3"

_HEADER = "header.json"

# What a file of this format has.
_CONTENTS = ("draws", "weights", "info", "reduced", "carry", "position")
_FIELDS = (
    "config", "versions", "stopped", "counter", "fingerprint", "plain_position",
    "gradient_evaluations", "tuning", "times",
)  # fmt: skip


def write(path: str | Path, trees: dict[str, PyTree], header: dict[str, Any]) -> Path:
    """Write `trees` of arrays and a JSON-able `header` to `path`, replacing it at the end."""
    path = Path(path).expanduser()
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


class _OtherFormat(ValueError):
    """A run in a format that is not read here."""


def read(path: str | Path) -> tuple[dict[str, PyTree], dict[str, Any]]:
    """The trees and the header of a file that `write` made; the file is only read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged, of another format, or not one of ours.
    """
    path = Path(path).expanduser()
    try:
        # np.load checks each entry's checksum as it reads.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            entries = {name: archive[name] for name in archive.files}
        document = json.loads(entries[_HEADER].tobytes().decode())
        if document["format"] != FORMAT:
            raise _OtherFormat(
                f"path: {path.name} is a run in the format {document['format']!r}; this version "
                f"reads {FORMAT!r} only. Read it with the version of sgmcmc that saved it, or "
                "draw it again"
            )
        absent = {*_CONTENTS, *_FIELDS} - {*document["trees"], *document["header"]}
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
    except (FileNotFoundError, PermissionError, MemoryError, _OtherFormat):
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
