"""`summary(run)`: have the chains mixed, and how well are means known?"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from sgmcmc.diagnostics._draws import Draws, read
from sgmcmc.diagnostics.convergence import _rows as rows
from sgmcmc.diagnostics.convergence._statistics import kish_efficiency, statistics
from sgmcmc.types import PyTree

ROWS_SHOWN = 12

CELL = 11

HEADERS = {"ess_per_second": "ess/s", "ess_per_gradient": "ess/grad"}


@dataclass(frozen=True, eq=False)
class Summary:
    """One row a quantity.

    Attributes:
        names: of the rows, as `0/weight[3,5]` or `prediction[7]`.
        table: column name -> (rows,) array: mean, sd, mcse, ess_bulk, ess_tail, rhat, and,
            where the run knows them, ess_per_second and ess_per_gradient (bulk ESS over
            seconds of sampling, and over gradient evaluations of all chains, burn-in
            included).
        notes: dropped chains, rows left out, unequal weights, quantities without an R̂.
        num_chains, num_draws: what the figures rest on.
    """

    names: tuple[str, ...]
    table: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
    num_chains: int
    num_draws: int

    def __repr__(self) -> str:
        width = max(8, *(len(name) for name in self._shown()))
        lines = [f"Summary of {self.num_chains} chains × {self.num_draws} draws", ""]
        lines.append(" " * width + "".join(f"{h:>{CELL}}" for h in self._headers()))
        for row, name in enumerate(self._shown()):
            cells = "".join(f"{_text(v[row]):>{CELL}}" for v in self.table.values())
            lines.append(f"{name:<{width}}{cells}")
        return "\n".join([*lines, "", *self._footer()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in ["", *self._headers()])
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th>"
            + "".join(f"<td>{_text(v[row])}</td>" for v in self.table.values())
            + "</tr>"
            for row, name in enumerate(self._shown())
        )
        title = f"Summary of {self.num_chains} chains × {self.num_draws} draws"
        footer = "<br>".join(html.escape(line) for line in self._footer())
        return (
            f"<p>{title}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<p>{footer}</p>"
        )

    def _headers(self) -> list[str]:
        return [HEADERS.get(column, column) for column in self.table]

    def _shown(self) -> tuple[str, ...]:
        return self.names[:ROWS_SHOWN]

    def _footer(self) -> list[str]:
        lines = []
        if len(self.names) > ROWS_SHOWN:
            lines.append(f"… {len(self.names) - ROWS_SHOWN} more rows in .table")
        for column, worst, share in (
            ("rhat", np.nanargmax, 0.95),
            ("ess_bulk", np.nanargmin, 0.05),
        ):
            values = self.table[column]
            if np.any(np.isfinite(values)):
                at = worst(values)
                lines.append(
                    f"worst {column}: {values[at]:.4g} ({self.names[at]}); "
                    f"{share:.0%} quantile {np.nanquantile(values, share):.4g}"
                )
        return [*lines, *(f"note: {note}" for note in self.notes)]


def summary(
    run: Any,
    var_names: Iterable[str] | None = None,
    *,
    functions: Mapping[str, Callable[[PyTree], Any]] | None = None,
    predict: Callable[[PyTree, Any], Any] | None = None,
    x: Any = None,
    y: Any = None,
    max_rows: int | None = 1000,
) -> Summary:
    """Mean, sd, MCSE, ESS and R̂ of parameters, of functions of them, and of predictions.

    The weights of a network are not identified (units can be swapped), so its chains are
    judged by its predictions on held-out points and by functions such as |θ|².

    Args:
        run: a `Run` or an ArviZ DataTree. Draws with unequal weights are weighted;
            stopped chains are dropped, and the result says so.
        var_names: leaves of the parameters to list, as "0/weight", or "0" for all below it.
            Default: all of them, or none where `functions` or `predict` is given.
        functions: name -> `params -> array`.
        predict: `(params, x) -> logits (m, k)` or `(mean, scale)` or values (m,). Rows are
            class probabilities (that of the class y alone where `y` is given), or means.
        x: m held-out inputs, a pytree of arrays with that leading axis.
        y: integer labels (m,), optional.
        max_rows: the most rows of each of the three kinds; default 1000 (about 3 ms each),
            None: no limit. Beyond it an evenly spaced subset is taken, and `notes` says so.

    Raises:
        TypeError: `run` is neither a Run nor a DataTree.
        ValueError: an unknown name, `predict` without `x`, or fewer than four draws.

    Examples:
        >>> class Run:
        ...     draws = np.random.default_rng(0).normal(size=(4, 500, 2))
        ...     weights = np.ones((4, 500))
        >>> bool(summary(Run).table["rhat"].max() < 1.02)
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
        parts.append(rows.predictions(draws, predict, x, y, max_rows))
    listed = rows.join(parts)

    table = statistics(listed.values, draws.weights)
    if draws.wall_time:
        table["ess_per_second"] = table["ess_bulk"] / draws.wall_time
    if draws.gradient_evaluations:
        table["ess_per_gradient"] = table["ess_bulk"] / draws.gradient_evaluations
    for column in table.values():
        column.setflags(write=False)
    num_chains, num_draws = draws.weights.shape
    return Summary(
        listed.names,
        MappingProxyType(table),
        (*draws.notes, *listed.notes, *_weight_notes(draws), *_value_notes(listed.values)),
        num_chains,
        num_draws,
    )


def _weight_notes(draws: Draws) -> list[str]:
    if np.all(draws.weights == draws.weights.flat[0]):
        return []
    share = kish_efficiency(draws.weights)
    return [f"weighted draws, Kish efficiency {share:.2f}; ESS and MCSE are those of w(f − f̄)/w̄"]


def _value_notes(values: np.ndarray) -> list[str]:
    finite = np.isfinite(values).all(axis=(0, 1))
    constant = finite & (np.ptp(values, axis=(0, 1)) == 0)
    notes = []
    if not finite.all():
        notes.append(f"{int((~finite).sum())} quantities have draws that are not finite: NaN")
    if constant.any():
        notes.append(f"{int(constant.sum())} quantities never change: no R̂")
    return notes


def _text(value: float) -> str:
    return f"{value:.4g}"
