"""What diagnostics read from a `Run` or an ArviZ object, and functions of many draws."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc.sampling._evaluate import BLOCK_BYTES as BLOCK_BYTES
from sgmcmc.sampling._evaluate import evaluate as evaluate
from sgmcmc.types import PyTree

if TYPE_CHECKING:
    from xarray import DataTree

    from sgmcmc.sampling import Resampled, Run

# What diagnostics take: a run, or an ArviZ DataTree (InferenceData of ArviZ before 1.0).
RunLike: TypeAlias = "Run | Resampled | DataTree"


class Draws(NamedTuple):
    """The draws of the chains that finished.

    Attributes:
        values: pytree of NumPy arrays [chain, draw, …].
        weights: [chain, draw], float64; 1 where every draw counts alike.
        stopped: {chain: step} of chains that were dropped because they diverged; the step
            is None where it is unknown.
        wall_time: seconds of sampling, or None.
        gradient_evaluations: of all chains together, burn-in included, or None.
        notes: chains that were dropped, and the step size that was chosen, in words.
    """

    values: PyTree
    weights: np.ndarray
    stopped: dict[int, int | None]
    wall_time: float | None
    gradient_evaluations: float | None
    notes: tuple[str, ...]

    def flat(self) -> tuple[PyTree, np.ndarray]:
        """Draws [chain · draw, …] of positive weight, and their weights, which sum to 1."""
        weights = self.weights.reshape(-1)
        kept = weights > 0
        values = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), self.values)
        if not kept.all():
            values = jax.tree.map(lambda v: v[kept], values)
        return values, weights[kept] / weights.sum()


def read(run: RunLike) -> Draws:
    """The draws of `run`, stopped chains dropped.

    Args:
        run: a `sgmcmc.Run` (or any object with `draws` and `weights`, such as a few modes
            as [chain, 1, …]), or an ArviZ DataTree or InferenceData with the group `posterior`
            and, where draws are weighted, `sample_stats/weight`. The draws of these are a
            dictionary of the variables; its attributes `sampling_time` (seconds) and
            `gradient_evaluations` are read where they are there.

    Raises:
        TypeError: `run` is neither.
        ValueError: weights of another shape, negative or infinite, or no chain left.
    """
    names = ("draws", "weights", "stopped", "wall_time", "gradient_evaluations", "tuning")
    given = {name: getattr(run, name, None) for name in names}
    stopped: dict[int, int | None] = dict(given["stopped"] or {})
    wall_time, evaluations = given["wall_time"], given["gradient_evaluations"]
    values, weights = given["draws"], given["weights"]
    if values is None or weights is None:
        values, weights, wall_time, evaluations = _from_arviz(run)
    checks.on_host("diagnostics", values, weights)
    values = jax.tree.map(np.asarray, values)
    leaves = jax.tree.leaves(values)
    if not leaves:
        raise ValueError("run: it holds no draws")
    shape = leaves[0].shape[:2]
    weights = np.ones(shape) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != shape or not np.all((weights >= 0) & np.isfinite(weights)):
        raise ValueError(
            f"run: weights of shape {weights.shape}; expected [chain, draw] = {shape}, all finite "
            "and ≥ 0"
        )
    # A chain that stopped has weight 0 from there on; a file may have lost the record of it.
    for chain in np.flatnonzero(weights[:, -1] == 0):
        if any(not np.all(np.isfinite(leaf[chain, -1])) for leaf in leaves):
            stopped.setdefault(int(chain), None)
    kept = np.array([chain not in stopped for chain in range(shape[0])])
    if not kept.any() or weights[kept].sum() <= 0:
        raise ValueError(f"run: no chain with draws is left; stopped: {_listed(stopped)}")
    notes: tuple[str, ...] = ()
    if stopped:
        values, weights = jax.tree.map(lambda v: v[kept], values), weights[kept]
        notes = (f"dropped {len(stopped)} of {shape[0]} chains, stopped: {_listed(stopped)}",)
    if given["tuning"] is not None:
        notes = (*notes, f"tuned: {given['tuning']}")
    return Draws(values, weights, stopped, _number(wall_time), _number(evaluations), notes)


def _from_arviz(tree: Any) -> tuple[dict[str, np.ndarray], Any, Any, Any]:
    try:
        posterior = tree["posterior"]
        variables = {str(name): posterior[name] for name in posterior.data_vars}
    except (TypeError, KeyError, AttributeError, IndexError):
        raise TypeError(
            f"run: got {type(tree).__name__}; expected a sgmcmc.Run or an ArviZ DataTree "
            "with the group 'posterior'"
        ) from None
    values = {n: v.transpose("chain", "draw", ...).values for n, v in variables.items()}
    weights = None
    with contextlib.suppress(KeyError):
        weights = tree["sample_stats"]["weight"].transpose("chain", "draw").values
    attributes: Mapping[str, Any] = {**getattr(tree, "attrs", {}), **posterior.attrs}
    return (
        values,
        weights,
        attributes.get("sampling_time"),
        attributes.get("gradient_evaluations"),
    )


def _listed(stopped: Mapping[int, int | None]) -> str:
    """Stopped chains as notes and errors have them: "chain 1 at step 40, chain 3"."""
    return ", ".join(
        f"chain {chain}" + ("" if step is None else f" at step {step}")
        for chain, step in sorted(stopped.items())
    )


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
