"""What `sharp_priors` found: tables, what was asked of it, and the picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from parts.sharp_runs import SAMPLERS, Usable, usable

SGLD, ASKED = "SGLD", "SA-SGLD r=1"
SURVIVES, WIDER, NEAR = 5.0, 1.5, 0.01

# {step: cell} of a sampler; {sampler: cells} of a group; {(network, prior, seed): that}.
Cells = dict[float, dict[str, Any]]
Found = dict[tuple[str, str, int], dict[str, Cells]]


def nlls(cells: Cells) -> list[float]:
    return [row.get("nll", math.inf) for row in cells.values()]


def survival(cells: Cells) -> tuple[float, float | None]:
    """The largest step up to which no chain was lost, and the least at which one was."""
    last = 0.0
    for h, row in cells.items():
        if "nll" not in row:
            return last, h
        last = h
    return last, None


def ranges(cells: Cells) -> tuple[Usable, Usable] | None:
    """Usable range in the step and in realised dt; None where nothing is finite."""
    finite = {h: row for h, row in cells.items() if "nll" in row}
    if not finite:
        return None
    steps = list(cells)
    dts = np.array([row.get("dt", np.nan) for row in cells.values()])
    return usable(steps, nlls(cells)), usable(steps, nlls(cells), np.where(dts > 0, dts, 1.0))


def by_problem(found: Found) -> dict[tuple[str, str], list[dict[str, Cells]]]:
    """The seeds of each network and prior."""
    out: dict[tuple[str, str], list[dict[str, Cells]]] = {}
    for (network, prior, _), samplers in found.items():
        out.setdefault((network, prior), []).append(samplers)
    return out


def shown(one: Usable, ratio_only: bool = False) -> str:
    """The range and its ratio; ≤ and ≥ where the grid, or a lost chain, cut it."""
    cut = "≥ " if one.low_open or one.high_open else ""
    if ratio_only:
        return f"{cut}{one.ratio:.1f}"
    low, high = ("≤ " * one.low_open, "≥ " * one.high_open)
    return f"{low}{one.low:.2g} – {high}{one.high:.2g}; {cut}{one.ratio:.1f}"


def table(found: Found) -> str:
    """A row a sampler and seed, then a table a problem of all cells (means over seeds)."""
    lines = [
        "| network, prior | seed | sampler | best NLL (chains) | accuracy | at step | realised dt "
        "| usable steps; ratio | ratio in realised dt | finite to | lost from |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, prior, seed), samplers in found.items():
        for sampler, cells in samplers.items():
            last, first = survival(cells)
            lost = "–" if first is None else f"{first:g}"
            pair = ranges(cells)
            if pair is None:
                lines.append(f"| {network}, {prior} | {seed} | {sampler} | | | | | | | | {lost} |")
                continue
            at = min(cells, key=lambda h: cells[h].get("nll", math.inf))
            row = cells[at]
            spread = f"{min(row['chains']):.3f}–{max(row['chains']):.3f}"
            lines.append(
                f"| {network}, {prior} | {seed} | {sampler} | {row['nll']:.4f} ({spread}) "
                f"| {row['accuracy']:.4f} | {at:g} | {row['dt']:.2g} | {shown(pair[0])} "
                f"| {shown(pair[1], ratio_only=True)} | {last:g} | {lost} |"
            )
    for (network, prior), seeds in by_problem(found).items():
        lines += ["", f"{network}, {prior}: NLL, accuracy, realised dt; means over {len(seeds)} "
                  "seeds, or how many of them were lost", ""]  # fmt: skip
        steps = sorted({h for samplers in seeds for cells in samplers.values() for h in cells})
        lines += ["| step | " + " | ".join(SAMPLERS) + " |", "|---" * (1 + len(SAMPLERS)) + "|"]
        for h in steps:
            told = [entry([samplers[name].get(h) for samplers in seeds]) for name in SAMPLERS]
            lines.append(f"| {h:g} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def entry(rows: list[Any]) -> str:
    rows = [row for row in rows if row is not None]
    whole = [row for row in rows if "nll" in row]
    lost = f"{len(rows) - len(whole)} of {len(rows)} lost" if len(whole) < len(rows) else ""
    if not whole:
        return lost
    nll, accuracy, dt = (np.mean([row[k] for row in whole]) for k in ("nll", "accuracy", "dt"))
    return f"{nll:.3f}, {accuracy:.3f}, {dt:.2g}" + (f" ({lost})" if lost else "")


def criteria(found: Found) -> tuple[list[str], list[str]]:
    """What is to be said of SA-SGLD with r = 1 beside SGLD, and what of it is missed."""
    said, missed = [], []
    for (network, prior), seeds in by_problem(found).items():
        name = f"{network}, {prior}"
        survive, wide, wide_dt, best = [], [], [], []
        for samplers in seeds:
            first = survival(samplers[SGLD])[1]
            survive.append(math.nan if first is None else survival(samplers[ASKED])[0] / first)
            one, other = ranges(samplers[SGLD]), ranges(samplers[ASKED])
            if one is None or other is None:
                missed.append(f"{name}: no step at which SGLD or SA-SGLD is finite")
                continue
            wide.append(other[0].ratio / one[0].ratio)
            wide_dt.append(other[1].ratio / one[1].ratio)
            best.append(other[0].best - one[0].best)
        for what, values, holds, asked in (
            ("finite to, over the least step at which SGLD is lost", survive,
             lambda v: v >= SURVIVES, f"≥ {SURVIVES:g}"),
            ("usable range of Δτ, over SGLD's of h", wide, lambda v: v >= WIDER, f"≥ {WIDER:g}"),
            ("the same in realised dt", wide_dt, lambda v: True, "nothing"),
            ("best NLL less SGLD's", best, lambda v: v <= NEAR, f"≤ {NEAR:g}"),
        ):  # fmt: skip
            middle = float(np.median(values)) if values else math.nan
            each = ", ".join(f"{v:.3g}" for v in values)
            good = holds(middle)
            line = f"{name}: {what}: {middle:.3g} ({each}); asked {asked}"
            if math.isnan(middle):
                line = f"{name}: {what}: not judged, SGLD was lost at no step; asked {asked}"
            said.append(line + ("" if good else ": MISSED"))
            if not good:
                missed.append(line)
    return said, missed


def draw(found: Found, path: Path) -> None:
    """NLL against the step size, a panel a problem: each seed thin, lost chains as crosses."""
    from matplotlib.figure import Figure

    problems = by_problem(found)
    figure = Figure(figsize=(3.4 * len(problems) + 0.6, 3.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(problems), sharey=True))
    for axis, ((network, prior), seeds) in zip(axes, problems.items(), strict=True):
        for i, sampler in enumerate(SAMPLERS):
            for number, samplers in enumerate(seeds):
                cells = samplers[sampler]
                points = [(h, min(row["nll"], 3.0)) for h, row in cells.items() if "nll" in row]
                style = {"color": f"C{i}", "lw": 1, "ms": 3, "alpha": 0.8}
                label = sampler if number == 0 else None
                axis.plot(*np.reshape(points, (-1, 2)).T, "o-", label=label, **style)
                lost = [h for h, row in cells.items() if "nll" not in row]
                axis.plot(lost, [3.3 + 0.25 * i] * len(lost), "x", color=f"C{i}", ms=5)
        axis.set(xscale="log", yscale="log", title=f"{network}\n{prior}", xlabel="h or Δτ")
        axis.set_yticks([0.1, 0.2, 0.5, 1, 2, 3], ["0.1", "0.2", "0.5", "1", "2", "≥ 3"])
        axis.set_yticks([], minor=True)
        axis.grid(alpha=0.2)
    axes[0].set(ylabel="test NLL (crosses: a chain was lost)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=4)
    figure.savefig(path, dpi=100)
