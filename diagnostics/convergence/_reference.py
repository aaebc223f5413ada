"""`compare_to_reference(run, draws)`: are means and scales those of a long reference run?

For a scalar f with mean m and standard deviation s, of the run and (ref) of the reference,

    mean error = (m − m_ref)/s_ref,      sd ratio = s/s_ref,

each with its Monte Carlo standard error: those of both means, and by the delta method those of
both standard deviations, se(s) = se(mean of (f − m)²)/(2s). All are ArviZ's for autocorrelated
draws, with the run's weights (`sgmcmc.diagnostics.statistics`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from sgmcmc import _tree as trees
from sgmcmc.diagnostics._draws import Draws, RunLike, read
from sgmcmc.diagnostics._tables import Tabular, frame, number, worst
from sgmcmc.diagnostics.convergence import _rows as rows
from sgmcmc.diagnostics.convergence._statistics import statistics
from sgmcmc.types import PyTree

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class ReferenceComparison(Tabular):
    """One row a scalar of the reference.

    Attributes:
        table: `pandas.DataFrame`, its index the scalars, as `beta[0]` (from 0), its columns
            mean, sd, reference_mean, reference_sd; mean_error (m − m_ref)/s_ref and sd_ratio
            s/s_ref, with mean_error_mcse and sd_ratio_mcse, their Monte Carlo standard errors;
            r_hat of the run, without which an MCSE means little. Not rounded.
        notes: dropped chains, variables of the run without a reference.
        num_chains, num_samples: of the run.
    """

    table: pandas.DataFrame
    notes: tuple[str, ...]
    num_chains: int
    num_samples: int

    @property
    def worst(self) -> dict[str, tuple[str, float]]:
        """{column: (row, value)} of each column's worst row.

        That is the furthest from 0 (mean_error), from 1 (sd_ratio, on the log scale), or the
        largest (both MCSEs); a NaN is worse than any number.
        """
        with np.errstate(divide="ignore"):
            distance = {
                "mean_error": np.abs(self.table["mean_error"]),
                "sd_ratio": np.abs(np.log(self.table["sd_ratio"])),
                "mean_error_mcse": self.table["mean_error_mcse"],
                "sd_ratio_mcse": self.table["sd_ratio_mcse"],
            }
        return {column: worst(self.table, column, far) for column, far in distance.items()}

    def passed(
        self,
        mean: float = 0.1,
        sd: tuple[float, float] = (0.9, 1.1),
        mcse: float | None = None,
    ) -> bool:
        """Whether every |mean error| ≤ `mean` and every sd ratio is within `sd`, ends included.

        Args:
            mean: in standard deviations of the reference.
            sd: least and largest ratio.
            mcse: the most that either Monte Carlo error may be, for a verdict that is not
                chance; None (default): any.
        """
        table = self.table
        good = np.abs(table["mean_error"]) <= mean
        good &= (table["sd_ratio"] >= sd[0]) & (table["sd_ratio"] <= sd[1])
        if mcse is not None:
            good &= (table["mean_error_mcse"] <= mcse) & (table["sd_ratio_mcse"] <= mcse)
        return bool(good.all())

    def to_dict(self) -> dict[str, dict[str, float]]:
        """{row: {column: value}}, plain floats, ready for JSON."""
        return self.table.to_dict("index")

    def _title(self) -> str:
        return f"{self.num_chains} chains × {self.num_samples} draws against a reference"

    def _columns(self) -> list[str]:
        return ["mean_error", "mean_error_mcse", "sd_ratio", "sd_ratio_mcse", "r_hat"]

    def _lines(self) -> list[str]:
        lines = []
        for column in ("mean_error", "sd_ratio"):
            name, value = self.worst[column]
            lines.append(f"worst {column}: {number(value)} ({name})")
        return [*lines, *(f"note: {note}" for note in self.notes)]


def compare_to_reference(
    run: RunLike,
    draws: Mapping[str, ArrayLike],
    transform: Callable[[PyTree], Mapping[str, ArrayLike]] | None = None,
) -> ReferenceComparison:
    """Means and standard deviations of a run beside those of reference draws.

    Args:
        run: a `Run` or an ArviZ DataTree. Draws with unequal weights are weighted; stopped
            chains are dropped, and the result says so.
        draws: {name: array [draw, …] or [chain, draw, …]} of the reference, draws of equal
            weight. The error of its means and scales counts too; chains are worth naming
            where its draws are autocorrelated.
        transform: `params -> {name: array}`, from the parameters that were sampled to the
            reference's, called on every draw; None: the names are those of the run's leaves,
            "theta" where its draws are one array.

    Raises:
        TypeError: `run`, `draws` or what `transform` returns is of another kind.
        ValueError: a name of the reference is missing in the run, or its array has another
            shape than the run's value, holds numbers that are not finite, or never changes;
            `draws` is empty; fewer than four draws a chain.

    Examples:
        >>> class Run:
        ...     draws = {"x": np.random.default_rng(0).normal(size=(4, 1000))}
        ...     weights = np.ones((4, 1000))
        >>> reference = {"x": np.random.default_rng(1).normal(size=4000)}
        >>> compare_to_reference(Run, reference).passed()
        True
    """
    if not isinstance(draws, Mapping):
        raise TypeError(f"draws: got {type(draws).__name__}; expected {{name: array}}")
    if not draws:
        raise ValueError("draws: got an empty mapping; expected {name: array}")
    sampled = read(run)
    values = _values(sampled, transform)
    names: list[str] = []
    ours, theirs = [], []
    for name, array in draws.items():
        reference = _reference(name, array, values)
        listed = rows.entries({name: values[name]})
        names += listed.names
        ours.append(_moments(listed.values, sampled.weights))
        theirs.append(_moments(rows.entries({name: reference}).values, None))
    table = _table(*(np.concatenate(part, axis=1) for part in (ours, theirs)))
    unused = [name for name in values if name not in draws]
    notes = (f"not in the reference: {', '.join(unused)}",) if unused else ()
    num_chains, num_samples = sampled.weights.shape
    return ReferenceComparison(
        frame(table, names), (*sampled.notes, *notes), num_chains, num_samples
    )


def _values(
    draws: Draws, transform: Callable[[PyTree], Mapping[str, ArrayLike]] | None
) -> dict[str, np.ndarray]:
    """The run's values by name, [chain, draw, …]."""
    if transform is None:
        return rows.named(draws.values, "theta")
    transformed = rows.all_draws(draws, trees.as_callable(transform, "transform"))
    if not isinstance(transformed, Mapping):
        raise TypeError(
            f"transform: it returned {type(transformed).__name__}; expected {{name: array}}"
        )
    return rows.named(dict(transformed), "theta")


def _reference(name: str, array: ArrayLike, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The reference's draws of `name`, checked, as [chain, draw, …]."""
    if name not in values:
        raise ValueError(f"draws: the run has no {name!r}; it has {', '.join(values)}")
    array, shape = np.asarray(array), values[name].shape[2:]
    given = array.shape
    if array.dtype.kind not in "fiub":
        raise TypeError(f"draws: {name} is {array.dtype}; expected numbers")
    if array.ndim == len(shape) + 1:
        array = array[None]
    if array.ndim != len(shape) + 2 or array.shape[2:] != shape:
        expected = ", ".join(("draw", *(str(n) for n in shape)))
        raise ValueError(
            f"draws: {name} has shape {given}; expected [{expected}] or [chain, {expected}], "
            f"since the run's value of {name} has shape {shape}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"draws: {name} has values that are not finite")
    if array.shape[1] < 4:
        raise ValueError(f"draws: {name} has {array.shape[1]} draws a chain; expected at least 4")
    if (np.ptp(array, axis=(0, 1)) == 0).any():
        raise ValueError(f"draws: {name} has an entry that never changes: no scale to compare by")
    return array


def _moments(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """(5, rows): mean, sd, the standard error of each, R̂, of [chain, draw, row]."""
    found = statistics(values, weights)
    return np.stack([found[name] for name in ("mean", "sd", "mcse_mean", "mcse_sd", "r_hat")])


def _table(ours: np.ndarray, theirs: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of `ReferenceComparison.table`, from (5, rows) of `_moments` of each side."""
    mean, sd, mean_se, sd_se, r_hat = ours
    mean_ref, sd_ref, mean_se_ref, sd_se_ref, _ = theirs
    ratio = sd / sd_ref
    return {
        "mean": mean,
        "sd": sd,
        "reference_mean": mean_ref,
        "reference_sd": sd_ref,
        "mean_error": (mean - mean_ref) / sd_ref,
        "mean_error_mcse": np.hypot(mean_se, mean_se_ref) / sd_ref,
        "sd_ratio": ratio,
        "sd_ratio_mcse": np.hypot(sd_se, ratio * sd_se_ref) / sd_ref,
        "r_hat": r_hat,
    }
