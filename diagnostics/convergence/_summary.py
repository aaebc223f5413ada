"""`summary(run)`: have the chains mixed, and how well are means known?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from sgmcmc.diagnostics._draws import Draws, RunLike, read
from sgmcmc.diagnostics._tables import Tabular, frame, number, worst
from sgmcmc.diagnostics.convergence import _rows as rows
from sgmcmc.diagnostics.convergence._statistics import kish_efficiency, statistics
from sgmcmc.types import Array, PyTree

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Summary(Tabular):
    """One row a quantity.

    Attributes:
        table: `pandas.DataFrame`, its index the quantities, as `0/weight[3,5]` or
            `prediction[7]`, its columns by ArviZ's names: mean, sd, ess_bulk, ess_tail, r_hat,
            mcse_mean, mcse_sd; and, where the run knows them, ess_per_second and
            ess_per_gradient (bulk ESS over seconds of sampling, and over gradient evaluations
            of all chains, burn-in included). Not rounded.
        notes: dropped chains, rows left out, unequal weights, quantities without an R̂.
        num_chains, num_samples: what the figures rest on.
    """

    table: pandas.DataFrame
    notes: tuple[str, ...]
    num_chains: int
    num_samples: int

    def _title(self) -> str:
        return f"Summary of {self.num_chains} chains × {self.num_samples} draws"

    def _lines(self) -> list[str]:
        lines = []
        for column, sign, share in (("r_hat", 1, 0.95), ("ess_bulk", -1, 0.05)):
            known = self.table[np.isfinite(self.table[column])]
            if len(known):
                name, value = worst(known, column, sign * known[column])
                quantile = known[column].quantile(share)
                lines.append(
                    f"worst {column}: {number(value)} ({name}); "
                    f"{share:.0%} quantile {number(quantile)}"
                )
        return [*lines, *(f"note: {note}" for note in self.notes)]


def summary(
    run: RunLike,
    var_names: Iterable[str] | None = None,
    *,
    functions: Mapping[str, Callable[[PyTree], Array]] | None = None,
    predict: Callable[[PyTree, PyTree], Array] | None = None,
    x: PyTree = None,
    y: ArrayLike | None = None,
    kind: str | None = None,
    max_rows: int | None = 1000,
) -> Summary:
    """Mean, sd, ESS, R̂ and MCSE of parameters, of functions of them, and of predictions.

    The weights of a network are not identified (units can be swapped), so its chains are
    judged by its predictions on held-out points and by functions such as |θ|².

    Args:
        run: a `Run` or an ArviZ DataTree. Draws with unequal weights are weighted;
            stopped chains are dropped, and the result says so.
        var_names: leaves of the parameters to list, as "0/weight", or "0" for all below it.
            Default: all of them, or none where `functions` or `predict` is given.
        functions: name -> `params -> array`.
        predict: `(params, x) -> logits (m, k)` or `(mean, scale)` or values (m,). Rows are
            class probabilities (that of the class y alone where `y` is given), or means. A
            two-axis array is taken for logits, and `notes` says so where there is no `y`.
        x: m held-out inputs, a pytree of arrays with that leading axis.
        y: integer labels (m,), optional.
        kind: None (default); "values": rows are what `predict` returns, of any shape; "logits":
            (m,) or (m, 1) too is a logit, of class 1 with probability σ(logit).
        max_rows: the most rows of each of the three kinds; default 1000 (about 3 ms each),
            None: no limit. Beyond it an evenly spaced subset is taken, and `notes` says so.

    Raises:
        TypeError: `run` is neither a Run nor a DataTree.
        ValueError: an unknown name, `predict` without `x`, fewer than four draws, or predictions
            (m, 1) without a `kind`: values or logits?

    Examples:
        >>> class Run:
        ...     draws = np.random.default_rng(0).normal(size=(4, 500, 2))
        ...     weights = np.ones((4, 500))
        >>> bool(summary(Run).table["r_hat"].max() < 1.02)
        True
    """
    draws = read(run)
    if (predict is None) != (x is None):
        raise ValueError("predict, x: give both or neither")
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows: got {max_rows}; expected an integer ≥ 1, or None")
    parts = []
    if var_names is not None or (not functions and predict is None):
        parts.append(rows.parameters(draws, var_names, max_rows))
    if functions:
        parts.append(rows.functions(draws, functions, max_rows))
    if predict is not None:
        parts.append(rows.predictions(draws, predict, x, y, max_rows, kind))
    listed = rows.join(parts)

    table = statistics(listed.values, draws.weights)
    if draws.wall_time:
        table["ess_per_second"] = table["ess_bulk"] / draws.wall_time
    if draws.gradient_evaluations:
        table["ess_per_gradient"] = table["ess_bulk"] / draws.gradient_evaluations
    num_chains, num_samples = draws.weights.shape
    return Summary(
        frame(table, listed.names),
        (*draws.notes, *listed.notes, *_weight_notes(draws), *_value_notes(listed.values)),
        num_chains,
        num_samples,
    )


def _weight_notes(draws: Draws) -> list[str]:
    if np.all(draws.weights == draws.weights.flat[0]):
        return []
    share = kish_efficiency(draws.weights)
    return [
        f"weighted draws, Kish efficiency {share:.2f}; ESS and MCSE are those of weighted means"
    ]


def _value_notes(values: np.ndarray) -> list[str]:
    finite = np.isfinite(values).all(axis=(0, 1))
    constant = finite & (np.ptp(values, axis=(0, 1)) == 0)
    notes = []
    if not finite.all():
        notes.append(f"{int((~finite).sum())} quantities have draws that are not finite: NaN")
    if constant.any():
        notes.append(f"{int(constant.sum())} quantities never change: no R̂")
    return notes
