"""Adaptive steps: what a clock that follows the gradient gives, and what it does not.

    make study NAME=star [ARGS=--small]

(A) The star U = x² + (1 + 1000 x²) y²: fixed-step BAOAB loses chains where ZBAOABZ at a larger
mean step loses none. (B) On U = x⁴/4, which weight belongs to which draw; a double well and an
oscillator against quadrature. (C) One clock against a clock for each leaf, which is biased.
(D) The two-dimensional toys of the paper of SA-SGLD (arXiv 2511.11666): errors of SGLD, pSGLD
and SA-SGLD against the mean step that was made, at equal gradients.

Writes results/star.json, star.png and star_toys.png; every row is kept in results/star/, so
that an interrupted study goes on where it was.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _study import Given, Outcome, Study, kept
from parts.star_parts import (
    ADAPTIVE,
    FIXED,
    LINE_STEPS,
    LINES,
    STAR_EXACT,
    leaf_misses,
    leaf_rows,
    line_misses,
    line_row,
    slope,
    star_misses,
    star_order,
    star_row,
)
from parts.star_toys import METHODS, TOYS, cell, draw_toys, toy_table

STUDY = Study(
    __file__,
    __doc__,
    small="a few short rows, nothing asked",
    estimate=("30 seconds", "14 minutes"),
)

SEED = 0
# Chains and steps of the star; chains of the rows that show its order; of the quartic, time in
# units of τ; of the two blocks; of the toys, and gradients a chain.
FULL = {
    "star": (256, 100_000), "order": 2_048, "line": 262_144,
    "time": {"samadams": 150, "sa_sgld": 40}, "leaf": (8_192, 20_000), "toys": (512, 30_000),
}  # fmt: skip
SMALL = {
    "star": (64, 3_000), "order": None, "line": 4_096,
    "time": {"samadams": 20, "sa_sgld": 20}, "leaf": (256, 1_000), "toys": (64, 1_200),
}  # fmt: skip
COLUMNS = ("ψ at the end", "dt that led here", "dt of the next", "none")
ORDER_ROWS = ("Δτ=.06 α=10", "Δτ=.04 α=10", "Δτ=.03 α=10", "Δτ=.02 α=10")

Rows = dict[str, dict[str, Any]]


def make(part: str, plans: dict[str, tuple], function: Callable, folder: Path) -> Rows:
    """`function(*plan)` for each row, or what is kept of it; says how far it is."""
    rows = {}
    for i, (name, plan) in enumerate(plans.items()):
        started = time.perf_counter()
        stem = f"{part} {name}".replace(" ", "_").replace("/", "_").replace("'", "")
        path = folder / f"{stem}.json"
        rows[name] = kept(path, {"numbers": plan}, functools.partial(function, *plan))
        seconds = time.perf_counter() - started
        print(f"{part} {i + 1}/{len(plans)} {name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return rows


def all_rows(size: dict[str, Any], small: bool, folder: Path) -> dict[str, Rows]:
    """All rows of the four parts."""
    names = [f"h={h:g}" for h in FIXED] + list(ADAPTIVE)
    names = ["h=0.04", "Δτ=.04 α=10"] if small else names
    found = {"A": make("A", {n: (n, *size["star"], SEED) for n in names}, star_row, folder)}
    if size["order"]:
        plans = {n: (n, size["order"], size["star"][1], SEED + 10) for n in ORDER_ROWS}
        found["A, many chains"] = make("A, many chains", plans, star_row, folder)
    lines = {
        f"{line} {sampler} {h}": (line, sampler, h, size["line"], size["time"][sampler], SEED)
        for line in LINES
        for sampler, steps in LINE_STEPS.items()
        for h in steps
        if line == "quartic" or sampler == "samadams"
    }
    if small:
        lines = {name: lines[name] for name in ("quartic samadams 0.2", "quartic sa_sgld 0.1")}
    found["B"] = make("B", lines, line_row, folder)
    found["C"] = make("C", {"blocks": (*size["leaf"], SEED)}, leaf_rows, folder)
    toys = {
        f"{toy} {method} {h:g}": (toy, method, h, *size["toys"], SEED)
        for toy, problem in TOYS.items()
        for method in METHODS
        for h in problem.steps
    }
    if small:
        toys = {n: p for n, p in toys.items() if p[0] == "funnel" and p[2] in (0.04, 0.16)}
    found["D"] = make("D", toys, cell, folder)
    return found


def told(pair: Any, digits: int = 4) -> str:
    """A value and its standard error, in units of the value's last digit."""
    value, error = pair
    return f"{value:.{digits}f}({error * 10**digits:.0f})"


def star_table(rows: Rows) -> str:
    """Part A, as Markdown."""
    lines = ["| scheme | diverged (first at) | E[x²] weighted | E[x²] unweighted "
             "| T_conf weighted | unweighted | mean dt (1%, 50%, 99%) |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, row in rows.items():
        lost = str(row["diverged"]) + (f" ({row['first']})" if row["diverged"] else "")
        cells = [("BAOAB " if name.startswith("h") else "ZBAOABZ ") + name, lost]
        if "dt" in row:
            fixed = name.startswith("h")
            for figure in ("x2", "temperature"):
                cells.append(told(row["weighted"][figure]))
                cells.append("" if fixed else told(row["plain"][figure]))
            mean, *quantiles = row["dt"]
            spread = "" if fixed else f" ({', '.join(f'{q:.4f}' for q in quantiles)})"
            cells.append(f"{mean:.4f}{spread}")
        else:
            cells += [""] * 5
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def line_table(rows: Rows) -> str:
    """Part B, as Markdown: biases, and for the quartic the order between neighbouring steps."""
    lines = ["| | Δτ | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    before: dict[str, Any] = {}
    for name, row in rows.items():
        what, h = name.rsplit(" ", 1)
        cells = []
        for column in COLUMNS:
            pair = row["bias"].get(column)
            text = "" if pair is None else f"{pair[0]:+.5f}({pair[1] * 1e5:.0f})"
            if pair and before.get("what") == what:
                text += f", {slope(before[column], pair)[0]:.2f}"
            cells.append(text)
        lines.append(f"| {what} | {h} | " + " | ".join(cells) + " |")
        before = {"what": what, **row["bias"]}
    return "\n".join(lines)


def draw(found: dict[str, Rows], path: Path) -> None:
    """The star's bias against the mean step, and the quartic's against Δτ by pairing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind, label, mark in (("h", "weighted", "ks-"), ("Δ", "weighted", "C0o-"),
                              ("Δ", "plain", "C3o--")):  # fmt: skip
        rows = [(n, r) for n, r in found["A"].items() if n[0] == kind and "dt" in r]
        rows = [(n, r) for n, r in rows if kind == "h" or (n in ORDER_ROWS or ".01" in n)]
        if rows:
            points = np.array([(r["dt"][0], r[label]["x2"][0] / STAR_EXACT - 1,
                                r[label]["x2"][1] / STAR_EXACT) for _, r in rows])  # fmt: skip
            words = "BAOAB" if kind == "h" else f"ZBAOABZ, α = 10, {label}"
            left.errorbar(*points.T, fmt=mark, label=words.replace("plain", "unweighted"), ms=4)
            for (_, row), point in zip(rows, points, strict=True):
                if row["diverged"]:
                    left.annotate(f"{row['diverged']} lost", point[:2], fontsize=8,
                                  xytext=(4, 8), textcoords="offset points")  # fmt: skip
    left.axhline(0, color="0.7", lw=0.8)
    left.set(xlabel="mean dt", ylabel="relative bias of E[x²]", title="star, 256 chains")
    left.legend(fontsize=8)
    for i, (sampler, steps) in enumerate(LINE_STEPS.items()):
        rows = {h: found["B"].get(f"quartic {sampler} {h}") for h in steps}
        rows = {h: row for h, row in rows.items() if row}
        for column in next(iter(rows.values()))["bias"]:
            points = np.array([(h, *row["bias"][column]) for h, row in rows.items()])
            style = f"C{COLUMNS.index(column)}{'os'[i]}{'-:'[i]}"
            right.errorbar(points[:, 0], abs(points[:, 1]), points[:, 2], fmt=style,
                           label=f"{sampler}, {column}", ms=4)  # fmt: skip
    right.set(xscale="log", yscale="log", ylim=(5e-5, 1), xlabel="Δτ",
              ylabel="|bias of E[x²]|", title="U = x⁴/4, by the weight of a draw")  # fmt: skip
    ticks = sorted({h for steps in LINE_STEPS.values() for h in steps})
    right.set_xticks(ticks, [f"{h:g}" for h in ticks])
    right.set_xticks([], minor=True)
    right.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)
    draw_toys(found["D"], path.with_name("star_toys.png"))


def measure(given: Given) -> Outcome:
    size = SMALL if given.small else FULL
    found = all_rows(size, given.small, given.stem)
    for part in ("A", "A, many chains"):
        if part in found:
            print(f"({part}) exact E[x²] = {STAR_EXACT}\n" + star_table(found[part]))
    print("(B) bias of E[x²], order from the step before\n" + line_table(found["B"]))
    print("(C) E[x²], exact .71538: " + ", ".join(
        f"{name} {told(pair)}" for name, pair in found["C"]["blocks"].items()))  # fmt: skip
    print("(D) rms over four functions of error/standard deviation; † chains lost; @ mean step\n"
          + toy_table(found["D"]))  # fmt: skip
    misses = []
    if not given.small:
        many = found["A, many chains"]
        for ends in ((6, 4), (4, 2)):
            order, error = star_order(many, *ends)
            print("Star, order of the weighted bias, Δτ .0{} to .0{}: ".format(*ends)
                  + f"{order:.2f} ± {error:.2f}")  # fmt: skip
        misses = star_misses(found["A"], many) + line_misses(found["B"])
        misses += leaf_misses(found["C"]["blocks"])
    return Outcome({"parts": found, "size": size, "seed": SEED}, misses, lambda p: draw(found, p))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
