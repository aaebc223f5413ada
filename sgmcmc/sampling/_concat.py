"""`concat(runs, dim)`: several runs of one kernel as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.sampling._run import Derived, Run
from sgmcmc.sampling._select import chain_origins
from sgmcmc.types import PyTree

# What may differ between runs that are joined: how each was run, and how long.
FREE = {
    *("num_chains", "num_samples", "num_burnin", "total_time", "on_nonfinite", "chunk_steps"),
    *("chain_method", "requested_chain_method", "num_devices", "requested_batch_size"),
    *("key", "key_type", "origins", "made_by"),
}  # fmt: skip


def concat(runs: Sequence[Run], dim: str = "chain") -> Run:
    """Runs of one kernel as one run, with which all diagnostics work.

    Args:
        runs: of `sample`, `load`, `Run.sel` or this function, all by the same kernel, with the
            same data, batch size, stream, thinning and shapes of draws.
        dim: "chain" (default): chains side by side, of equally many draws; "draw": the draws of
            each chain one after another, of equally many chains.

    Returns:
        A run. Times and gradients are sums; `num_steps` is the largest, along "draw" the sum;
        what reducers folded is left out; it cannot be resumed.

    Raises:
        TypeError: `runs` is no sequence of runs.
        ValueError: fewer than one run, kernels or settings that differ (by name), other
            numbers of chains or draws, or draws that are there twice: the same key and chain.
    """
    checks.choice(dim, "dim", ("chain", "draw"))
    if isinstance(runs, Run) or not isinstance(runs, Sequence):
        raise TypeError(f"runs: got {type(runs).__name__}; expected a list of runs")
    for run in runs:
        if not isinstance(run, Run):
            raise TypeError(f"runs: got {type(run).__name__} among them; expected runs")
    if not runs:
        raise ValueError("runs: got none; expected one at least")
    first, *others = runs
    for i, run in enumerate(others, 1):
        _require_like(first, run, i, dim)
    _require_no_copies(runs, dim)
    axis = 0 if dim == "chain" else 1
    join = lambda *x: np.concatenate(x, axis=axis)  # noqa: E731
    structure = jax.tree.structure(first.draws)
    leaves = [join(*x) for x in zip(*(jax.tree.leaves(r.draws) for r in runs), strict=True)]
    weights = join(*(run.weights for run in runs))
    known = [chain_origins(run) for run in runs]
    origins = (
        [o for each in known for o in each]
        if axis == 0
        else [_united(each) for each in zip(*known, strict=True)]
    )
    config = {
        **first.config,
        "num_chains": weights.shape[0],
        "num_samples": weights.shape[1],
        "origins": origins,
        "made_by": "sgmcmc.concat",
    }
    total = lambda name: sum(getattr(run, name) for run in runs)  # noqa: E731
    steps = [run.num_steps for run in runs]
    return dataclasses.replace(
        first,
        draws=jax.tree.unflatten(structure, leaves),
        weights=weights,
        info=jax.tree.map(join, *(run.info for run in runs)),
        reduced={},
        config=config,
        stopped=_stopped(runs, axis),
        num_steps=max(steps) if axis == 0 else sum(steps),
        gradient_evaluations=total("gradient_evaluations"),
        compile_time=total("compile_time"),
        burnin_time=total("burnin_time"),
        wall_time=total("wall_time"),
        tuning=first.tuning if all(run.tuning == first.tuning for run in runs) else None,
        continuation=Derived("sgmcmc.concat", first.continuation),
    )


def _require_like(first: Run, run: Run, i: int, dim: str) -> None:
    """Raise a ValueError unless `run`, the i-th, can be joined to the first."""
    for name in sorted({*first.config, *run.config} - FREE):
        here, there = first.config.get(name), run.config.get(name)
        if here != there:
            hint = "; tune once with sgmcmc.tune" if first.tuning or run.tuning else ""
            raise ValueError(
                f"runs: {name} is {here!r} of run 0 and {there!r} of run {i}; only runs of one "
                f"kernel and setting can be joined{hint}"[:300]
            )
    shapes = [
        [(name, x.shape[2:], x.dtype) for name, x in trees.named_leaves(each.draws)]
        for each in (first, run)
    ]
    kinds = [[x is None for x in each.info] for each in (first, run)]
    if shapes[0] != shapes[1] or kinds[0] != kinds[1]:
        raise ValueError(f"runs: the draws of run {i} have other names or shapes than run 0's")
    axis, what = (1, "draws") if dim == "chain" else (0, "chains")
    here, there = first.weights.shape[axis], run.weights.shape[axis]
    if here != there:
        raise ValueError(
            f"runs: run 0 has {here} {what} and run {i} has {there}; take as many of each "
            f'(run.sel), or join them with dim="{"draw" if axis == 1 else "chain"}"'
        )
    marks = [each.continuation.frozen().fingerprint for each in (first, run)]
    if all(marks) and marks[0] != marks[1]:
        raise ValueError(
            f"runs: run {i} is by another kernel than run 0 (numbers, functions or data differ); "
            "only runs of one kernel can be joined"
        )


def _require_no_copies(runs: Sequence[Run], dim: str) -> None:
    """Raise a ValueError where draws of one chain of one key would be there twice."""
    seen: dict[str, set[tuple[float, float]]] = {}
    for i, run in enumerate(runs):
        for c, origins in enumerate(chain_origins(run)):
            kept = run.weights[c] > 0
            columns = (np.asarray(x)[c][kept].tolist() for x in (run.info.elapsed, run.info.energy))
            draws = set(zip(*columns, strict=True))
            for origin in map(repr, origins):
                before = seen.setdefault(origin, set())
                if (dim == "chain" and before) or before & draws:
                    raise ValueError(
                        f"runs: chain {c} of run {i} is there already, from the same key: copies "
                        "are no independent draws. Use another key for each run; run.resume adds "
                        "draws to one"
                    )
                before |= draws


def _united(origins: tuple[list[PyTree], ...]) -> list[PyTree]:
    """All origins, each once."""
    made: list[PyTree] = []
    for each in origins:
        made += [origin for origin in each if origin not in made]
    return made


def _stopped(runs: Sequence[Run], axis: int) -> dict[int, int]:
    """{chain: step} of all runs; along "draw" the first step at which a chain stopped."""
    stopped: dict[int, int] = {}
    start = 0
    for run in runs:
        for chain, step in run.stopped.items():
            stopped.setdefault(start + chain, step)
        start += run.num_chains if axis == 0 else 0
    return stopped
