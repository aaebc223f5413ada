"""The convergence bottleneck: with minibatches no integrator's rate is better than h².

    make study NAME=convergence_bottleneck [ARGS=--small]

Franzese et al. (2021, arXiv 2106.16200) state that, with minibatches, every integrator's best
rate is O(h²). Here (a) on four quadratic minibatches, exactly: the largest error of the
stationary law's moments of (θ, p); (b) on networks of 50 ReLU units for the UCI data sets boston
and energy: how far predictions spread from those of a Metropolis-corrected HMC (BlackJAX), by
`diagnostics.predictive_distance`. Part (b) reads $SGMCMC_DATA/uci, and is left out of a small
run without it. Writes results/convergence_bottleneck.json and .png; every chain set is kept
in results/convergence_bottleneck/, so that an interrupted study goes on where it was.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _study import Given, Outcome, Study, data_folder
from parts.bottleneck_networks import (
    PROBLEMS,
    SEED,
    SIGNIFICANT,
    SMALL,
    THIRD,
    UNDERDAMPED,
    network_misses,
    network_part,
    words,
)
from sms_slopes import CENTRES, STIFFNESS, log_likelihood, log_prior

import sgmcmc
from sgmcmc.diagnostics import stationary_law, sweeps

STUDY = Study(
    __file__, __doc__, small="two integrators, short chains",
    estimate=("40 seconds", "15 minutes"), packages=("blackjax",),
)  # fmt: skip

STEPS = (0.1, 0.05, 0.025, 0.0125, 0.00625)
STREAMS = ("full", "with_replacement", "reshuffled", "symmetric")
FIRST = ("euler_maruyama", "symplectic_euler", "sgld")
INTEGRATORS = (*UNDERDAMPED, "sgld", "leimkuhler_matthews")


def exact_error(integrator: str, stream: str, h: float) -> float:
    """The largest error of mean or covariance of (θ, p) over a sweep; target N(.5, 1) × N(0, 1)."""
    posterior = sgmcmc.Posterior(log_likelihood, log_prior, data_size=len(STIFFNESS))
    kernel = getattr(sgmcmc, integrator)(posterior, h)
    k, m = jnp.asarray(STIFFNESS), jnp.asarray(CENTRES)
    if stream == "full":
        law = stationary_law(kernel, jnp.zeros(1), [sgmcmc.Batch((k, m))])
    else:
        batches = [sgmcmc.Batch((k[i : i + 1], m[i : i + 1])) for i in range(len(STIFFNESS))]
        law = stationary_law(kernel, jnp.zeros(1), batches, epochs=sweeps(stream, len(batches)))
    errors = [law.mean - 0.5, law.covariance - 1]
    if law.momentum_mean.size:
        errors += [law.momentum_mean, law.momentum_covariance - 1, law.cross_covariance]
    return float(max(np.max(np.abs(error)) for error in errors))


def asked_order(integrator: str, stream: str) -> tuple[float, float]:
    """The range in which the order between the last two of STEPS must lie."""
    if stream == "with_replacement" or integrator in FIRST:
        return 0.97, 1.06
    if integrator == "leimkuhler_matthews":
        return 0.75, 1.0
    return (2.95, 3.05) if integrator in THIRD and stream == "full" else (1.95, 2.05)


def exact_part(small: bool) -> tuple[dict[str, Any], list[str]]:
    """Errors and orders of every integrator under every stream, and what is missed."""
    rows: dict[str, Any] = {}
    misses = []
    for integrator in ("baoab", "sort") if small else INTEGRATORS:
        print(f"(a) {integrator}", file=sys.stderr)
        for stream in STREAMS:
            errors = [exact_error(integrator, stream, h) for h in STEPS]
            if max(errors) < 1e-11:
                rows[f"{integrator} {stream}"] = {"errors": errors, "order": None}
                continue
            order = float(np.log2(errors[-2] / errors[-1]))
            rows[f"{integrator} {stream}"] = {"errors": errors, "order": order}
            low, high = asked_order(integrator, stream)
            if not low <= order <= high:
                misses.append(f"{integrator} {stream}: order {order:.3f}, asked {low} to {high}")
    return rows, misses


def exact_table(rows: dict[str, Any]) -> str:
    """Error at h = .025 and order between the last two of STEPS."""
    lines = [
        "(a) largest error of the moments of (θ, p) at h = 0.025, order between "
        f"{STEPS[-2]} and {STEPS[-1]}",
        f"{'':20}" + "".join(f"{stream:>22}" for stream in STREAMS),
    ]
    for integrator in dict.fromkeys(name.split()[0] for name in rows):
        line = f"{integrator:20}"
        for stream in STREAMS:
            row = rows[f"{integrator} {stream}"]
            if row["order"] is None:
                line += f"{'exact':>14}{'':8}"
            else:
                line += f"{row['errors'][2]:>14.2e}{row['order']:>8.2f}"
        lines.append(line)
    return "\n".join(lines)


def network_table(found: dict[str, Any]) -> str:
    """Spreads with their standard errors, and the order where there is one to see."""
    said, problem = found["reference"], found["problem"]
    lines = [f"(b) {problem['name']}: spread about the reference's predictions, ± standard error"]
    for stream, plan in problem["plans"].items():
        steps = plan.steps
        lines.append(f"{stream:20}" + "".join(f"{h:>17g}" for h in steps) + f"{'order':>16}")
        for name, row in found["rows"].items():
            integrator, of = name.split()
            if of == stream:
                order = row["order"]
                text = "–" if order is None else f"{order[0]:.2f} ± {order[1]:.2f}"
                cells = (row["cells"].get(h, {"diverged": 0}) for h in steps)
                numbers = "".join(f"{words(cell):>17}" for cell in cells)
                lines.append(f"{integrator:20}{numbers}{text:>16}")
    half = said["half_against_half"]
    lines.append(
        f"reference: HMC, acceptance {said['acceptance']:.3f}, R̂ of predictions, median, 95% and "
        f"largest: {said['rhat_median']:.3f}, {said['rhat_95']:.3f}, {said['rhat_max']:.3f}; half "
        f"its chains against the others: {half['spread']:+.3f} ± {half['spread_error']:.3f}. "
        f"Noise floor, {SIGNIFICANT:g} standard errors: {noise_floor(found):.3f}"
    )
    return "\n".join(lines)


def draw(exact: dict[str, Any], networks: list[dict[str, Any]], path: Path) -> None:
    """Errors against h: four streams of (a), then each data set's (b)."""
    from matplotlib.figure import Figure

    height = 3.4 * (1 + len(networks))
    figure = Figure(figsize=(13, height), layout="constrained")
    grid = figure.subplots(1 + len(networks), len(STREAMS), squeeze=False)
    integrators = dict.fromkeys(name.split()[0] for name in exact)
    marks = {name: {"color": f"C{i % 10}", "marker": "os^v"[i // 10], "markersize": 4}
             for i, name in enumerate(INTEGRATORS)}  # fmt: skip
    for axis, stream in zip(grid[0], STREAMS, strict=True):
        for name in integrators:
            row = exact[f"{name} {stream}"]
            if row["order"] is not None:
                axis.loglog(STEPS, row["errors"], label=name, **marks[name])
        guides(axis, np.array(STEPS), (1, 2, 3))
        axis.set(title=f"(a) {stream.replace('_', ' ')}", ylim=(1e-9, 1))
    grid[0, 0].set_ylabel("largest error of a moment")
    for axes, found in zip(grid[1:], networks, strict=True):
        problem, floor = found["problem"], noise_floor(found)
        for axis, stream in zip(axes, STREAMS, strict=True):
            rows = {n.split()[0]: r for n, r in found["rows"].items() if n.split()[1] == stream}
            if not rows:
                axis.set_axis_off()
                continue
            for name, row in rows.items():
                if name not in marks:
                    continue  # means of several
                points = [(h, abs(c["spread"]), c["spread_error"]) for h, c in row["cells"].items()
                          if "spread" in c]  # fmt: skip
                if points:
                    h, spread, error = np.array(points).T
                    axis.errorbar(h, spread, error, **marks[name], linewidth=1)
            axis.axhspan(0, floor, color="0.9", zorder=0)
            axis.set(xscale="log", yscale="log", ylim=(3e-3, 5),
                     title=f"(b) {problem['name']}, {stream.replace('_', ' ')}")  # fmt: skip
            steps = problem["plans"][stream].steps
            guides(axis, np.array(steps), (1, 2))
            axis.set_xticks(steps, [f"{h:g}" for h in steps], fontsize=7)
            axis.set_xticks([], minor=True)
        axes[0].set_ylabel("|spread|; grey: below the noise floor")
    for axis in grid.flat:
        axis.set_xlabel("h (dotted: integer orders)")
    handles, labels = grid[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=110)


def noise_floor(found: dict[str, Any]) -> float:
    """What a spread must exceed to be seen: some median standard errors of the best-known row."""
    errors = [[c["spread_error"] for c in row["cells"].values() if "spread" in c]
              for name, row in found["rows"].items() if not name.startswith("order_")]  # fmt: skip
    return SIGNIFICANT * min(float(np.median(e)) for e in errors if e)


def guides(axis: Any, steps: np.ndarray, orders: tuple[int, ...]) -> None:
    """Dotted lines of slopes 1, 2, … through the middle of the axis at its largest step."""
    for order in orders:
        axis.plot(steps, 0.5 * (steps / steps.max()) ** order, "k:", linewidth=0.8)


def measure(given: Given) -> Outcome:
    asked = not given.small or "SGMCMC_DATA" in os.environ
    folder = data_folder("uci/boston.npz") if asked else None
    print("Franzese et al. (2021): with minibatches every integrator's best rate is O(h²).")
    with double_precision():
        exact, misses = exact_part(given.small)
    print(exact_table(exact))
    networks = []
    for problem in [SMALL] if given.small else PROBLEMS:
        if folder is None:
            print("(b) is left out: SGMCMC_DATA is not set")
            break
        networks.append(network_part(problem, folder, given.stem))
        print(network_table(networks[-1]))
        if not given.small:
            misses += network_misses(networks[-1])
    record = {"steps": STEPS, "exact": exact, "networks": networks, "seed": SEED}
    return Outcome(record, misses, lambda path: draw(exact, networks, path))


def double_precision() -> Any:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64(True)


if __name__ == "__main__":
    sgmcmc.use_cpu_devices(2)
    raise SystemExit(STUDY.main(measure))
