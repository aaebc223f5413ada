"""Where a local learning coefficient is stable: a grid of estimates, and what fails beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

import dataclasses
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc._checks import check_range
from sgmcmc._posterior import Posterior
from sgmcmc.diagnostics._plots import new_axes
from sgmcmc.diagnostics._tables import Tabular, frame
from sgmcmc.diagnostics.learning._coefficient import Asked, measure
from sgmcmc.diagnostics.learning._record import (
    LARGEST_FALL,
    LARGEST_SHARE_BELOW,
    LearningCoefficient,
    chains_apart,
    drifts,
)
from sgmcmc.loop._driver import Presses, ends_all
from sgmcmc.types import Key, PyTree

if TYPE_CHECKING:
    import pandas

# What changes in turn, what its failure is called, and the direction in which its bias falls.
AXES = ("step_size", "precision", "inverse_temperature", "batch_size")

FAILURES = ("step", "precision", "temperature", "batch")

BIAS_FALLS = (-1, -1, 1, 1)

# Changes that are allowed, as shares of λ̂ (of the step: when it is halved), or in errors.
CHANGES, ERRORS = (0.02, 0.05, 0.05, 0.05), 3.0

LARGEST_ERROR, LARGEST_R_HAT = 0.025, 1.1

# What the table takes from a cell's `LearningCoefficient`.
FIELDS = ("estimate", "standard_error", "r_hat", "drift", "share_below")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LearningSweep(Tabular):
    """What `learning_sweep` returns.

    A cell's verdict is the first of these that applies:

    - "interrupted": Ctrl-C came before the cell was done, or before its turn.
    - "lost": chains were lost, or are far from the others: the step is unstable.
    - "minimum": λ̂ < 0, more than 5% of the draws below L_n(w*), or a gradient: w* is none.
    - "escape": λ̂ rises along the chains. "unsettled": it falls, or split R̂ is above 1.1.
    - "step", "precision", "temperature", "batch": λ̂ changes along that axis by more than 5%
      (2% for half the step, the bias taken as linear) and by more than 3 errors. Of several, the
      one whose change is the largest, beside what is allowed.
    - "error": the standard error is above 2.5% of λ̂.
    - "alone": no cell beside it, along an axis, got past the first three.
    - "stable": none of these.

    Changes are against the next cell on the side where bias falls: the smaller h or ρ, the
    larger β or batch; at the grid's end, or where that one failed by itself, the cell on the
    other side. An axis of one value is not looked at.

    Attributes:
        table: `pandas.DataFrame`, a row a cell, its index the cell's step_size, precision,
            inverse_temperature and batch_size ("all" where that is None), ascending. Its
            columns: estimate, standard_error, r_hat, drift, share_below (NaN where a cell has
            none); verdict, one of the words above; change_step_size and so on, changes along
            each axis over what is allowed (NaN: not looked at). Not rounded.
        axes: {argument: its values, ascending}.
        cells: each cell's `LearningCoefficient`, or None:
            [step, precision, temperature, batch].
        interrupted: whether Ctrl-C, or an error that it is in, ended it early.
    """

    table: pandas.DataFrame
    axes: dict[str, tuple[Any, ...]]
    cells: np.ndarray
    interrupted: bool = False

    def grid(self, column: str) -> np.ndarray:
        """A column of the table as [step, precision, temperature, batch]."""
        return self.table[column].to_numpy().reshape(self.cells.shape)

    @property
    def stable(self) -> np.ndarray:
        """Where the verdict is "stable": [step, precision, temperature, batch]."""
        return self.grid("verdict") == "stable"

    @property
    def best(self) -> LearningCoefficient | None:
        """Of the stable cells the one of the smallest standard error; None where there is none."""
        if not self.stable.any():
            return None
        errors = np.where(self.stable, self.grid("standard_error"), np.inf)
        best: LearningCoefficient = self.cells[np.unravel_index(np.argmin(errors), errors.shape)]
        return best

    def plot(
        self, ax: Axes | None = None, *, inverse_temperature: int = -1, batch_size: int = -1
    ) -> Axes:
        """λ̂ over step and precision, each cell with its error and its verdict.

        `inverse_temperature` and `batch_size` are positions on their axes. Returns the
        matplotlib axes.
        """
        ax = new_axes(ax)
        seen = np.s_[:, :, inverse_temperature, batch_size]
        values, errors, verdicts = (
            self.grid(column)[seen] for column in ("estimate", "standard_error", "verdict")
        )
        ax.imshow(np.ma.masked_invalid(values), aspect="auto", origin="lower", cmap="viridis")
        for at in np.ndindex(values.shape):
            text = f"{values[at]:.3g} ± {errors[at]:.1g}\n{verdicts[at]}"
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
            weight = "bold" if verdicts[at] == "stable" else "normal"
            ax.text(
                at[1], at[0], text, ha="center", va="center", fontsize=7, weight=weight, bbox=box
            )
        steps, pulls = self.axes["step_size"], self.axes["precision"]
        ax.set_xticks(range(len(pulls)), [f"{x:.3g}" for x in pulls])
        ax.set_yticks(range(len(steps)), [f"{x:.3g}" for x in steps])
        ax.set(xlabel="precision ρ", ylabel="step_size h")
        return ax

    def _title(self) -> str:
        verdict = self.table["verdict"]
        others = verdict[verdict != "stable"]
        values = self.table["estimate"][verdict == "stable"]
        said = f"LearningSweep: {len(values)} of {len(verdict)} cells are stable"
        if len(values):
            said += f", λ̂ from {values.min():.4g} to {values.max():.4g}"
        if self.interrupted:
            said += f"; Ctrl-C ended it, with {(verdict == 'interrupted').sum()} of them to do"
        return said + (f"; elsewhere mostly {others.mode()[0]!r}" if len(others) else "")

    def _columns(self) -> list[str]:
        return [*FIELDS, "verdict"]

    def _lines(self) -> list[str]:
        return []


def learning_sweep(
    key: Key,
    posterior: Posterior,
    params: PyTree,
    data: PyTree,
    *,
    step_sizes: Sequence[float],
    precisions: Sequence[float],
    inverse_temperatures: Sequence[float] | None = None,
    batch_sizes: Sequence[int | None] = (None,),
    **options: Any,
) -> LearningSweep:
    """`learning_coefficient` over a grid, and where on it λ̂ is stable.

    Each cell has its own key. Steps, precisions and temperatures share one compiled program;
    each batch size has its own.

    Args:
        key, posterior, params, data: as in `learning_coefficient`.
        step_sizes: values of h > 0. A ladder of halves, (h, h/2, h/4), shows Euler's bias
            best: it is proportional to h, and so halves from one cell to the next.
        precisions: values of ρ > 0, in 1/units².
        inverse_temperatures: values of β > 0; default 1/log n alone.
        batch_sizes: examples a step, None: all the data (default). A size and its double show
            minibatch noise, which heats chains in proportion to 1/batch size.
        options: what else `learning_coefficient` takes.

    Returns:
        A `LearningSweep`. What single estimates warn of is in its cells' `warnings`. Ctrl-C ends
        it: the cells that were done by then have their verdicts, the others "interrupted".

    Raises:
        TypeError, ValueError: bad input, by name.
        BaseException: whatever else breaks it off, Ctrl-C while a cell is compiled too, has the
            cells that were done in its `.sweep`.

    Warns:
        UserWarning: Ctrl-C ended it.
    """
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    if inverse_temperatures is None:
        if posterior.data_size is None or posterior.data_size < 3:
            raise ValueError(
                f"inverse_temperatures: got None with n = {posterior.data_size}; 1/log n needs "
                "n ≥ 3"
            )
        inverse_temperatures = (1 / math.log(posterior.data_size),)
    given = (step_sizes, precisions, inverse_temperatures, batch_sizes)
    axes = {name: _values(name, values) for name, values in zip(AXES, given, strict=True)}
    shape = tuple(len(values) for values in axes.values())
    cells, done = np.full(shape, None, object), 0
    key = checks.typed_key(key)
    places = zip(np.ndindex(shape), itertools.product(*axes.values()), strict=True)
    with Presses() as presses, presses.raising():
        for i, (at, values) in enumerate(places):
            one = jax.random.fold_in(key, i)
            try:
                asked = Asked(**dict(zip(AXES, values, strict=True)), **options)
                cells[at] = measure(one, posterior, params, data, asked)
            except FloatingPointError:
                pass  # the cell is "lost"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and presses.pressed == 1:
                    break  # by the first press, which came before the cell had draws
                if done:
                    _carry(error, judge_cells(axes, cells, done))
                raise
            made: Any = cells[at]
            whole = made is not None and not made.run.interrupted
            done += whole or not presses.pressed
            if presses.pressed:
                break
    swept = judge_cells(axes, cells, done)
    if presses.pressed and ends_all():
        raise _carry(KeyboardInterrupt(), swept)
    if swept.interrupted:
        warnings.warn(
            f"learning_sweep: Ctrl-C ended it after {done} of {cells.size} cells",
            UserWarning,
            stacklevel=2,
        )
    return swept


def _carry(error: BaseException, swept: LearningSweep) -> BaseException:
    vars(error)["sweep"] = swept
    error.add_note("The cells that were done are in this error's `.sweep`.")
    return error


def judge_cells(
    axes: dict[str, tuple[Any, ...]], cells: np.ndarray, done: int | None = None
) -> LearningSweep:
    """The verdicts on a grid of estimates, of which the first `done` count; see `LearningSweep`."""
    done = cells.size if done is None else done
    fields = {
        name: np.array(
            [math.nan if c is None else getattr(c, name) for c in cells.ravel()]
        ).reshape(cells.shape)
        for name in FIELDS
    }
    failures = [_own_failure(c) for c in cells.ravel()[:done]]
    failures += ["interrupted"] * (cells.size - done)
    own = np.array(failures, object).reshape(cells.shape)
    change = np.full((len(AXES), *cells.shape), np.nan)
    for at in np.ndindex(cells.shape):
        for axis, values in enumerate(axes.values()):
            beside = _beside(at, axis, own == "")
            if own[at] == "" and beside is not None:
                share = 1.0
                if AXES[axis] == "step_size":
                    h, other = values[at[axis]], values[beside[axis]]
                    share = h / 2 / abs(h - other)
                moved = abs(fields["estimate"][at] - fields["estimate"][beside]) * share
                error = share * math.hypot(*(fields["standard_error"][x] for x in (at, beside)))
                change[(axis, *at)] = moved / max(
                    CHANGES[axis] * abs(fields["estimate"][at]), ERRORS * error, 1e-30
                )
    looked_at = np.array([n > 1 for n in cells.shape])
    verdict = np.full(cells.shape, "", object)
    for at in np.ndindex(cells.shape):
        verdict[at] = own[at] or _verdict(
            change[(slice(None), *at)],
            looked_at,
            fields["standard_error"][at] / abs(fields["estimate"][at]),
        )
    columns = fields | {"verdict": verdict}
    columns |= {f"change_{name}": values for name, values in zip(AXES, change, strict=True)}
    labels = [["all" if v is None else v for v in values] for values in axes.values()]
    places = zip(AXES, zip(*itertools.product(*labels), strict=True), strict=True)
    columns = dict(places) | {name: values.ravel() for name, values in columns.items()}
    return LearningSweep(
        frame(columns).set_index(list(AXES)), axes, cells, interrupted=done < cells.size
    )


def _own_failure(found: LearningCoefficient | None) -> str:
    """The verdict by the cell alone: "lost", "minimum", "escape", "unsettled"; else empty."""
    if found is None or not np.isfinite(found.per_chain).all() or chains_apart(found.per_chain):
        return "lost"
    below = found.share_below > LARGEST_SHARE_BELOW
    if found.estimate < 0 or below or not found.fall <= LARGEST_FALL:
        return "minimum"
    if drifts(found):
        return "escape" if found.drift > 0 else "unsettled"
    return "" if found.r_hat <= LARGEST_R_HAT else "unsettled"


def _beside(at: tuple[int, ...], axis: int, sound: np.ndarray) -> tuple[int, ...] | None:
    """The cell to compare with along an axis; None where there is no sound one."""
    for direction in (BIAS_FALLS[axis], -BIAS_FALLS[axis]):
        place = at[axis] + direction
        beside = (*at[:axis], place, *at[axis + 1 :])
        if 0 <= place < sound.shape[axis] and sound[beside]:
            return beside
    return None


def _verdict(change: np.ndarray, looked_at: np.ndarray, error: float) -> str:
    """A sound cell's verdict.

    `change`: along each axis, over what is allowed; `looked_at`: axes of several values;
    `error`: the standard error over λ̂.
    """
    if np.nanmax(np.append(change, 0.0)) > 1:
        return FAILURES[int(np.nanargmax(change))]
    if error > LARGEST_ERROR:
        return "error"
    return "alone" if np.isnan(change[looked_at]).any() else "stable"


def _values(name: str, values: Any) -> tuple[Any, ...]:
    """The values of the axis `name`, checked, different and ascending; None, all data, last."""
    plural = name + ("es" if name.endswith("x") else "s")
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{plural}: got {type(values).__name__}; expected a sequence of numbers")
    if len(values) == 0:
        raise ValueError(f"{plural}: got none; expected one value at least")
    for value in values:
        if name == "batch_size":
            if value is not None:
                checks.count(value, plural, least=1)
        elif isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise TypeError(f"{plural}: got {value!r}; expected numbers")
        else:
            check_range(value, plural, above_zero=True)
    if len(set(values)) < len(values):
        raise ValueError(f"{plural}: got {list(values)}; expected different values")
    # All the data is the largest batch.
    convert = (lambda v: v) if name == "batch_size" else float
    return tuple(sorted(map(convert, values), key=lambda v: math.inf if v is None else v))
