"""Minibatches and order: the exact bias of every word under every order of the batches.

    make study NAME=sms_slopes [ARGS=--small]

Four quadratic minibatches, γ = T = 1, target N(.5, 1). The stationary law of a record at a
random step of a sweep is computed without sampling, by `diagnostics.stationary_law`. Compared
digit by digit with figures that were computed elsewhere, from the formulas alone; and the
orders between h = .025 and .0125 with what symmetric minibatch splitting (arXiv 2410.19780)
and the convergence bottleneck (arXiv 2106.16200) lead one to expect. Writes
results/sms_slopes.json and results/sms_slopes.png.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _study import Given, Outcome, Study

import sgmcmc
from sgmcmc.diagnostics import stationary_law, sweeps

STUDY = Study(__file__, __doc__, small="UBU and BAOAB×2 only", estimate=("20 seconds", "1 minute"))

STIFFNESS, CENTRES = (0.1, 0.4, 0.2, 0.3), (-1.0, 0.5, 2.0, 0.0)
STEPS = (0.2, 0.1, 0.05, 0.025, 0.0125)
STREAMS = {"full": None, "wr": "with_replacement", "rr": "reshuffled", "cyclic": "cyclic",
           "SMS": "symmetric"}  # fmt: skip

# Word, stream, bias of the variance at STEPS, and of the mean at h = .1, as printed.
# "BAOAB×2": two gradients of one batch a step. BAOAB shares its gradient between steps, so
# that its positions are AOAB's, and has AOAB's figures.
PRINTED = """
UBU full         -6.660e-3 -1.666e-3 -4.166e-4 -1.042e-4 -2.604e-5  0
UBU wr           +6.894e-2 +3.572e-2 +1.818e-2 +9.169e-3 +4.605e-3  0
UBU rr           -4.846e-3 -2.159e-3 -6.796e-4 -1.887e-4 -4.960e-5  -2.09e-6
UBU cyclic       -8.899e-3 -2.257e-3 -5.660e-4 -1.416e-4 -3.541e-5  +3.15e-4
UBU SMS          -6.560e-3 -2.858e-3 -8.044e-4 -2.066e-4 -5.198e-5  -2.63e-6
BAOAB full       0 0 0 0 0  0
BAOAB×2 wr       +7.737e-2 +3.786e-2 +1.872e-2 +9.304e-3 +4.639e-3  0
BAOAB×2 rr       +3.579e-3 -8.700e-6 -1.389e-4 -5.334e-5 -1.575e-5  -4.88e-7
BAOAB×2 SMS      +1.785e-3 -7.102e-4 -2.638e-4 -7.125e-5 -1.813e-5  -8.49e-7
AOAB wr          +7.655e-2 +3.750e-2 +1.861e-2 +9.275e-3 +4.631e-3  0
AOAB rr          +2.080e-3 -4.778e-4 -2.621e-4 -8.447e-5 -2.356e-5  -2.09e-6
AOAB SMS         +3.933e-4 -1.178e-3 -3.869e-4 -1.024e-4 -2.593e-5  -2.64e-6
BAOAB wr         +7.655e-2 +3.750e-2 +1.861e-2 +9.275e-3 +4.631e-3  0
BAOAB rr         +2.080e-3 -4.778e-4 -2.621e-4 -8.447e-5 -2.356e-5  -2.09e-6
BAOAB SMS        +3.933e-4 -1.178e-3 -3.869e-4 -1.024e-4 -2.593e-5  -2.64e-6
QUICSORT wr      +7.655e-2 +3.767e-2 +1.867e-2 +9.294e-3 +4.636e-3  0
QUICSORT rr      +3.015e-3 -1.655e-4 -1.798e-4 -6.370e-5 -1.835e-5  -9.71e-7
QUICSORT SMS     +1.278e-3 -8.640e-4 -3.046e-4 -8.161e-5 -2.073e-5  -1.39e-6
Euler wr         +3.665e-1 +1.570e-1 +7.318e-2 +3.538e-2 +1.740e-2  0
Euler SMS        +2.694e-1 +1.136e-1 +5.313e-2 +2.576e-2 +1.269e-2  -2.27e-7
SGLD wr          +1.977e-1 +9.255e-2 +4.485e-2 +2.208e-2 +1.096e-2  0
SGLD rr          +1.290e-1 +5.243e-2 +2.314e-2 +1.079e-2 +5.199e-3  -1.43e-4
SGLD SMS         +1.344e-1 +5.350e-2 +2.332e-2 +1.082e-2 +5.202e-3  -1.40e-4
LM wr            +8.409e-2 +3.936e-2 +1.907e-2 +9.391e-3 +4.660e-3  0
LM rr            +1.510e-2 -7.97e-4 -2.633e-3 -1.899e-3 -1.099e-3  -1.43e-4
LM SMS           +2.050e-2 +2.73e-4 -2.462e-3 -1.875e-3 -1.095e-3  -1.40e-4
"""
# Rows with no figures printed elsewhere: their orders alone are asked for. Reshuffled, two terms
# of order h² and opposite sign nearly cancel, and some of these words show their order later:
# theirs is taken between the FINER steps.
UNPRINTED = [(word, stream) for word in ("OBABO", "BABO", "BUB", "SORT", "ShOULD")
             for stream in ("full", "wr", "rr", "SMS")] + [("QUICSORT", "full")]  # fmt: skip
FINER = (0.003125, 0.0015625)
SMALL = ("UBU", "BAOAB×2")


class Row(NamedTuple):
    """A word under a stream, with its printed figures as text, so that their digits count."""

    word: str
    stream: str
    printed: tuple[str, ...] = ()
    printed_mean: str | None = None

    @property
    def name(self) -> str:
        return f"{self.word} {self.stream}"


def rows() -> list[Row]:
    """All rows of the table."""
    lines = [line.split() for line in PRINTED.strip().splitlines()]
    printed = [Row(line[0], line[1], tuple(line[2:7]), line[7]) for line in lines]
    return printed + [Row(word, stream) for word, stream in UNPRINTED]


def make(word: str, posterior: sgmcmc.Posterior, h: float) -> sgmcmc.Kernel:
    """The kernel of a word of the table."""
    named = {
        "Euler": sgmcmc.euler_maruyama,
        "SGLD": sgmcmc.sgld,
        "LM": sgmcmc.leimkuhler_matthews,
        "SORT": sgmcmc.sort,
        "ShOULD": sgmcmc.should,
        "QUICSORT": sgmcmc.quicsort,
    }
    if word in named:
        return named[word](posterior, h)
    spelled, _, twice = word.partition("×")
    return sgmcmc.langevin(posterior, h, word=spelled, reuse_gradient=not twice)


def bias(word: str, stream: str, h: float) -> tuple[float, float]:
    """Bias of variance and mean of x under the stream, exactly."""
    posterior = sgmcmc.Posterior(log_likelihood, log_prior, data_size=len(STIFFNESS))
    k, m = jnp.asarray(STIFFNESS), jnp.asarray(CENTRES)
    if stream == "full":
        law = stationary_law(make(word, posterior, h), jnp.zeros(1), [sgmcmc.Batch((k, m))])
    else:
        batches = [sgmcmc.Batch((k[i : i + 1], m[i : i + 1])) for i in range(len(STIFFNESS))]
        epochs = sweeps(STREAMS[stream], len(batches))
        law = stationary_law(make(word, posterior, h), jnp.zeros(1), batches, epochs=epochs)
    return float(law.covariance[0, 0]) - 1.0, float(law.mean[0]) - 0.5


def log_likelihood(x, examples):
    k, m = examples
    return -0.5 * k * (x[0] - m) ** 2


def log_prior(x):
    return 0.0 * jnp.sum(x)


def order(row: Row, variance: list[float]) -> float:
    """The order that the row is judged by, between two steps of which one is half the other."""
    if not row.printed and row.stream == "rr":
        return slope([bias(row.word, row.stream, h)[0] for h in FINER])
    return slope(variance)


def slope(biases: list[float]) -> float:
    """The order seen between the last two steps; nan where the bias is but rounding."""
    if abs(biases[-1]) < 1e-12:
        return float("nan")
    return float(np.log2(abs(biases[-2] / biases[-1])))


def asked(row: Row) -> tuple[float, float] | None:
    """The range that the slope must lie in."""
    if row.word in ("SORT", "ShOULD") and row.stream == "full":
        return 3.9, 4.1
    if row.name == "QUICSORT full":
        return 2.6, 3.1  # it changes its sign near h = .09 and tends to 3 from below
    if row.name == "BAOAB full":
        return None  # exact
    if row.word == "LM" and row.stream != "wr":
        return 0.75, 1.0
    if row.word in ("Euler", "SGLD"):
        return 1.0, 1.1
    return {"full": (1.95, 2.05), "wr": (0.98, 1.03), "rr": (1.7, 2.2), "cyclic": (1.95, 2.05),
            "SMS": (1.95, 2.05)}[row.stream]  # fmt: skip


def agrees(value: float, printed: str) -> bool:
    """Whether `value` rounds to the printed digits; a printed 0 means below 1e-9."""
    if float(printed) == 0:
        return abs(value) < 1e-9
    digits = len(printed.lstrip("+-").split("e")[0].replace(".", "")) - 1
    unit = 10.0 ** (int(printed.split("e")[1]) - digits)
    return abs(value - float(printed)) <= 0.505 * unit


def missed(row: Row, variance: list[float], mean: float, seen: float) -> list[str]:
    """What of the row's figures is not reached, in words."""
    out = []
    for h, value, printed in zip(STEPS, variance, row.printed, strict=False):
        if not agrees(value, printed):
            out.append(f"{row.name}: variance bias at h={h} is {value:+.4e}, printed {printed}")
    if row.printed_mean is not None and not agrees(mean, row.printed_mean):
        out.append(f"{row.name}: mean bias at h=.1 is {mean:+.3e}, printed {row.printed_mean}")
    limits = asked(row)
    if limits is not None and not limits[0] <= seen <= limits[1]:
        out.append(f"{row.name}: slope {seen:.3f}, asked {limits[0]} to {limits[1]}")
    return out


def table(results: dict[str, dict]) -> str:
    """The table, ours above what is printed elsewhere."""
    head = f"{'word, stream':16}" + "".join(f"{h:>12g}" for h in STEPS)
    lines = [head + f"{'slope':>8}{'asked':>12}{'mean, h=.1':>12}"]
    for name, result in results.items():
        numbers = "".join(f"{value:>+12.3e}" for value in result["variance_bias"])
        limits = "–".join(f"{x:g}" for x in result["asked"]) if result["asked"] else ""
        lines.append(
            f"{name:16}{numbers}{result['slope']:>8.3f}{limits:>12}{result['mean_bias']:>+12.2e}"
        )
        if result["printed"]:
            printed = "".join(f"{text:>12}" for text in result["printed"])
            lines.append(f"{'  printed':16}{printed}{'':20}{result['printed_mean']:>12}")
    return "\n".join(lines)


def draw(results: dict[str, dict], path: Path) -> None:
    """|bias| against h, one panel a stream."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, len(STREAMS), sharey=True)
    words = list(dict.fromkeys(name.split()[0] for name in results))
    for axis, stream in zip(axes, STREAMS, strict=True):
        for i, word in enumerate(words):
            result = results.get(f"{word} {stream}")
            if result and max(map(abs, result["variance_bias"])) > 1e-9:
                marks = {"color": f"C{i % 10}", "marker": "os^v"[i // 10], "markersize": 3}
                axis.loglog(STEPS, np.abs(result["variance_bias"]), label=word, **marks)
        for order in (1, 2):
            axis.loglog(STEPS, 0.3 * np.array(STEPS) ** order, "k:", linewidth=0.8)
        axis.set(title=stream, xlabel="h (dotted: orders 1 and 2)", ylim=(1e-8, 1))
        axis.set_xticks(STEPS, [f"{h:g}" for h in STEPS], fontsize=7)
        axis.set_xticks([], minor=True)
    axes[0].set_ylabel("|bias of the variance|")
    handles = {
        label: h for a in axes for h, label in zip(*a.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=150)


def measure(given: Given) -> Outcome:
    chosen = [row for row in rows() if not given.small or row.word in SMALL]
    results, misses = {}, []
    for i, row in enumerate(chosen):
        print(f"[{i + 1}/{len(chosen)}] {row.name}", file=sys.stderr)
        pairs = [bias(row.word, row.stream, h) for h in STEPS]
        variance, mean = [v for v, _ in pairs], pairs[1][1]
        seen = order(row, variance)
        misses += missed(row, variance, mean, seen)
        results[row.name] = {
            "variance_bias": variance,
            "slope": seen,
            "asked": asked(row),
            "mean_bias": mean,
            "printed": row.printed,
            "printed_mean": row.printed_mean,
        }
    print(table(results))
    print(f"slopes between {STEPS[-2]} and {STEPS[-1]}; rr without printed figures: {FINER}")
    figures = sum(len(row.printed) + (row.printed_mean is not None) for row in chosen)
    print(f"{figures} printed figures")
    record = {
        "steps": STEPS,
        "rows": {n: {**r, "slope": r["slope"] if r["slope"] == r["slope"] else None}
                 for n, r in results.items()},
        "seed": None,
    }  # fmt: skip
    return Outcome(record, misses, functools.partial(draw, results))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    raise SystemExit(STUDY.main(measure))
