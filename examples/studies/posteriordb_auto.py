"""Automatic steps on minibatches against the reference draws of posteriordb's linear regressions.

    make study NAME=posteriordb_auto [ARGS="--small --data FOLDER"]

`baoab(posterior, step_size=None, friction="auto")` from the mode, batches of ⌊N/10⌋ examples under
the default stream, 4 chains, everything else by default, but for the metric, the inverse Hessian
at the mode, without which collinear predictors do not mix, and for thinning: 20 steps a draw,
since 1,000 draws of one step each know a standard deviation to 8% only. Asked: of all parameters,
as posteriordb names them, 95% have a mean within 0.1 standard deviations of the reference's and a
standard deviation within 10%. Needs the data sets: SGMCMC_DATA names the folder with posteriordb/
in it. Writes results/posteriordb_auto.json, from which a run that was interrupted goes on, and
results/posteriordb_auto.png.
"""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

import jax
import numpy as np
from _study import FRESH, Given, Outcome, Rows, Study, data_folder
from parts.posteriordb_regressions import REGRESSIONS

import sgmcmc
from sgmcmc import metrics, models
from sgmcmc.diagnostics import compare_to_reference
from sgmcmc.models import posteriordb

STUDY = Study(
    __file__, __doc__, small="three posteriors", estimate=("2 minutes", "15 minutes"),
    options={**FRESH, "--data": {"type": Path, "help": "default: $SGMCMC_DATA/posteriordb"}},
)  # fmt: skip

SEED, THINNING = 20241, 20
LIMITS = {"mean": 0.1, "sd": 0.1, "share": 0.95}
SMALL = ("earnings-earn_height", "kidiq-kidscore_momhs", "mesquite-logmesquite_logva")


def measure(given: Given) -> Outcome:
    folder = given.options.data or data_folder("posteriordb") / "posteriordb"
    head = {"limits": LIMITS, "seed": SEED, "thinning": THINNING, "versions": STUDY.versions()}
    rows = Rows(given.json, head, "posteriors", given.options.fresh)
    names = SMALL if given.small else tuple(REGRESSIONS)
    made = {}
    for at, name in enumerate(names):
        said = f"[{at + 1}/{len(names)}] {name}"
        made[name] = rows.get(name, sample, folder, name, at, said=said)
    print(table(made))
    good, number = (sum(row[part] for row in made.values()) for part in ("good", "number"))
    print(f"{good} of {number} parameters, {good / number:.1%}; {LIMITS['share']:.0%} asked")
    missed = [] if good >= LIMITS["share"] * number else [f"{good} of {number} parameters"]
    return Outcome(rows.record(), missed, functools.partial(draw, made))


def sample(folder: Path, name: str, at: int) -> dict:
    """One run, compared: what is kept of it."""
    started = time.perf_counter()
    problem = REGRESSIONS[name](json.loads((folder / f"{name}.data.json").read_text("utf-8")))
    size = problem.posterior.data_size
    with jax.enable_x64(True):
        mode, covariance = models.laplace(
            jax.random.key(SEED), problem.posterior, problem.params, problem.data
        )
    mode = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), mode)
    kernel = sgmcmc.baoab(
        problem.posterior, step_size=None, friction="auto", metric=metrics.dense(covariance)
    )
    run = sgmcmc.sample(
        jax.random.fold_in(jax.random.key(SEED), at), kernel, mode, problem.data,
        batch_size=size // 10, thinning=THINNING, progress=False,
    )  # fmt: skip
    reference = posteriordb.reference_draws(folder, name)
    comparison = compare_to_reference(run, reference, problem.transform).table
    error, ratio, both, r_hat = (
        np.asarray(comparison[column], float)
        for column in ("mean_error", "sd_ratio", "mean_error_mcse", "r_hat")
    )
    good = (np.abs(error) <= LIMITS["mean"]) & (np.abs(ratio - 1) <= LIMITS["sd"])
    return {
        "size": size,
        "asked": run.config["requested_batch_size"],
        "batch": run.config["batch_size"],
        "step": run.tuning.step_size,
        "reason": run.tuning.reason,
        "good": int(np.sum(good)),
        "number": len(good),
        "mean_error": error.tolist(),
        "sd_ratio": ratio.tolist(),
        "mcse": float(max(np.max(both), np.max(np.asarray(comparison["sd_ratio_mcse"], float)))),
        "r_hat": float(np.max(r_hat)),
        "seconds": round(time.perf_counter() - started, 1),
    }


def table(made: dict[str, dict]) -> str:
    """One row a posterior, in the page's own form."""
    lines = [
        "| posterior | N | ⌊N/10⌋ | n | h | decided by | within | error/sd | sd ratio | ± | R̂ |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in made.items():
        worst = max(row["mean_error"], key=abs)
        low, high = min(row["sd_ratio"]), max(row["sd_ratio"])
        lines.append(
            f"| `{name}` | {row['size']} | {row['asked']} | {row['batch']} | {row['step']:.3f} | "
            f"{row['reason']} | {row['good']} of {row['number']} | {worst:+.3f} | "
            f"{low:.3f}–{high:.3f} | {row['mcse']:.3f} | {row['r_hat']:.3f} |".replace("-0.", "−0.")
        )
    return "\n".join(lines)


def draw(made: dict[str, dict], path: Path) -> None:
    """Every parameter: sd ratio against mean error."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(5.0, 4.0), layout="constrained")
    panel = figure.subplots()
    panel.add_patch(Rectangle((-0.1, 0.9), 0.2, 0.2, fill=False, linestyle=":"))
    for name, row in made.items():
        panel.plot(row["mean_error"], row["sd_ratio"], ".", label=name.split("-")[1])
    panel.set(xlabel="mean error / sd", ylabel="sd ratio")
    panel.legend(fontsize="xx-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
