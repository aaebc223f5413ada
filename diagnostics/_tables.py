"""How a record that holds a table shows itself: a title, at most 12 rows, and lines below."""

from __future__ import annotations

import abc
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

if TYPE_CHECKING:
    import pandas

ROWS_SHOWN = 12


def frame(
    columns: Mapping[str, ArrayLike | Sequence[float | str]], index: Sequence[str] | None = None
) -> pandas.DataFrame:
    """A `pandas.DataFrame`; pandas is loaded here, not by `import sgmcmc`."""
    import pandas

    return pandas.DataFrame(dict(columns), index=index)


class Tabular(abc.ABC):
    """A record with a `table`, whose text and HTML are the table's own."""

    table: pandas.DataFrame

    @abc.abstractmethod
    def _title(self) -> str: ...

    @abc.abstractmethod
    def _lines(self) -> Iterable[str]:
        """Lines below the table: worst rows, notes."""

    def _columns(self) -> list[str]:
        """The columns that are shown; all of them are in `table`."""
        return list(self.table)

    def _footer(self) -> list[str]:
        rest = len(self.table) - ROWS_SHOWN
        return [*([f"… {rest} more rows in .table"] if rest > 0 else []), *self._lines()]

    def __repr__(self) -> str:
        shown = self.table[self._columns()]
        text = shown.to_string(max_rows=ROWS_SHOWN, float_format=number)
        below = ["", *footer] if (footer := self._footer()) else []
        return "\n".join([self._title(), "", text, *below])

    def _repr_html_(self) -> str:
        shown = self.table[self._columns()]
        body = shown.to_html(max_rows=ROWS_SHOWN, float_format=number, border=0)
        title, *footer = (html.escape(line) for line in [self._title(), *self._footer()])
        below = f"<p>{'<br>'.join(footer)}</p>" if footer else ""
        return f"<p>{title}</p>{body}{below}"


def number(value: float) -> str:
    """Four significant digits, for show; tables hold what was computed."""
    return f"{value:.4g}"


def worst(table: pandas.DataFrame, column: str, distance: ArrayLike) -> tuple[str, float]:
    """(row, value) of the column where `distance` is largest; NaN is beyond any number."""
    far = np.asarray(distance, float)
    at = int(np.argmax(np.where(np.isnan(far), np.inf, far)))
    return str(table.index[at]), float(table[column].iloc[at])
