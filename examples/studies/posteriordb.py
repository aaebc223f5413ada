"""Minibatch samplers against the reference draws of five posteriors of posteriordb.

    make study NAME=posteriordb [ARGS="--small --data FOLDER"]

Every sampler runs with minibatches of a tenth of the data (all of it where there are fewer
than 100 examples), 16 chains, under a dense metric: the inverse Hessian at the mode. Asked of
every parameter of the published draws: |mean error| ≤ 0.1 of a standard deviation and a ratio
of standard deviations within 0.9–1.1, with Monte Carlo errors of at most 0.03 in both. Step
sizes come from the samplers' bias formulas and the gradient noise at the mode
(parts/posteriordb_plan.py); nothing is chosen by the reference draws. Needs the data sets:
SGMCMC_DATA names the folder with posteriordb/ in it. Writes results/posteriordb.json, from
which a run that was interrupted goes on, and results/posteriordb.png.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _study import FRESH, Given, Outcome, Rows, Study, data_folder, plain
from jax.flatten_util import ravel_pytree
from parts.posteriordb_plan import Geometry, Plan, at_the_mode, eight_schools, plan

import sgmcmc
from sgmcmc import gradients, metrics
from sgmcmc.diagnostics import compare_to_reference
from sgmcmc.models import Problem, posteriordb

STUDY = Study(
    __file__, __doc__, small="two posteriors, three runs", estimate=("1 minute", "12 minutes"),
    options={**FRESH, "--data": {"type": Path, "help": "default: $SGMCMC_DATA/posteriordb"}},
)  # fmt: skip

SEED = 20240
NUM_CHAINS, NUM_DRAWS = 16, 1_000
LIMITS = {"mean": 0.1, "sd": (0.9, 1.1), "mcse": 0.03}
SMALL = {"kidiq-kidscore_interaction": ("sgld + control variates", "baoab + SMS"),
         "eight_schools-eight_schools_noncentered": ("baoab + SMS",)}  # fmt: skip


def measure(given: Given) -> Outcome:
    folder = given.options.data or data_folder("posteriordb") / "posteriordb"
    chosen = SMALL if given.small else {name: tuple(SAMPLERS) for name in posteriordb.POSTERIORS}
    number = sum(map(len, chosen.values()))
    head = {"limits": LIMITS, "seed": SEED, "chains": NUM_CHAINS, "draws": NUM_DRAWS,
            "versions": STUDY.versions()}  # fmt: skip
    rows = Rows(given.json, head, "runs", given.options.fresh)
    results: dict[str, dict] = {}
    for name, samplers in chosen.items():
        problem = posteriordb.load(folder, name)
        at = geometry(name, problem)
        reference = posteriordb.reference_draws(folder, name)
        for sampler in samplers:
            label = f"{name} / {sampler}"
            settings = plan(sampler, problem, at, NUM_CHAINS, NUM_DRAWS)
            if rows.rows.get(label, {}).get("plan") != plain(settings._asdict()):
                rows.rows.pop(label, None)
            said = f"[{len(results) + 1}/{number}] {label}: {described(settings)}"
            results[label] = rows.get(
                label, sample, sampler, problem, at, settings, reference, said=said
            )
    print(table(results))
    misses = [line for label, made in results.items() for line in missed(label, made)]
    scalars = sum(len(made["comparison"]) for made in results.values())
    seconds = sum(made["seconds"] for made in results.values())
    print(f"{number} runs, {scalars} parameters compared; {seconds:.0f} s of sampling")
    return Outcome(rows.record(), misses, functools.partial(draw, results))


def geometry(name: str, problem: Problem) -> Geometry:
    if name.startswith("eight_schools"):
        return eight_schools(problem)
    return at_the_mode(jax.random.key(SEED), problem)


def described(settings: Plan) -> str:
    friction = "" if settings.friction is None else f", γ {settings.friction:g}"
    rows = "all data" if settings.batch_size is None else f"n {settings.batch_size}"
    return f"h {settings.step_size:g}{friction}, {settings.num_steps} steps, {rows}"


def make_kernel(sampler: str, problem: Problem, at: Geometry, settings: Plan) -> sgmcmc.Kernel:
    """The kernel of this name; with all data every step, its own full gradient."""
    named, estimator = SAMPLERS[sampler]
    gradient = gradients.full() if settings.batch_size is None else estimator(at)
    options = {} if settings.friction is None else {"friction": settings.friction}
    metric = metrics.dense(at.covariance)
    return named(problem.posterior, settings.step_size, metric=metric, gradient=gradient, **options)


SAMPLERS: dict[str, tuple[Callable, Callable]] = {
    "sgld + control variates": (sgmcmc.sgld, lambda at: gradients.control_variate(at.centre)),
    "baoab + SMS": (sgmcmc.baoab, lambda at: gradients.minibatch()),
    "ubu + SAGA": (sgmcmc.ubu, lambda at: gradients.saga()),
    "obabo + SVRG": (sgmcmc.obabo, lambda at: gradients.svrg(10)),
    "sgnht": (sgmcmc.sgnht, lambda at: gradients.minibatch()),
}


def sample(
    sampler: str, problem: Problem, at: Geometry, settings: Plan, reference: dict[str, np.ndarray]
) -> dict:
    """One run, compared: what is kept of it."""
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, at.centre))
    factor = jnp.asarray(np.linalg.cholesky(at.covariance), jnp.float32)

    def init(key: Any) -> Any:
        return unravel(flat + factor @ jax.random.normal(key, flat.shape))

    started = time.perf_counter()
    kernel = make_kernel(sampler, problem, at, settings)
    run = sgmcmc.sample(
        jax.random.key(SEED + 2),
        kernel,
        init,
        problem.data,
        batch_size=settings.batch_size,
        stream=settings.stream,
        num_chains=NUM_CHAINS,
        num_burnin=settings.num_steps // 10,
        num_samples=NUM_DRAWS,
        thinning=settings.num_steps // NUM_DRAWS,
        chain_method="vmap",
    )
    comparison = compare_to_reference(run, reference, problem.transform)
    size = problem.posterior.data_size
    return {
        "plan": settings._asdict(),
        "geometry": {k: v for k, v in at._asdict().items() if isinstance(v, float)},
        "minibatch_gradients": run.gradient_evaluations,
        "passes_per_chain": run.gradient_evaluations / NUM_CHAINS
        * (settings.batch_size or size) / size,
        "worst": comparison.worst,
        "rhat": float(np.max(comparison.table["r_hat"])),
        "passed": comparison.passed(**LIMITS),
        "comparison": comparison.to_dict(),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def missed(label: str, made: dict) -> list[str]:
    """What is not reached, in words."""
    out = []
    low, high = LIMITS["sd"]
    for name, row in made["comparison"].items():
        if not abs(row["mean_error"]) <= LIMITS["mean"]:
            out.append(f"{label}: mean error of {name} is {row['mean_error']:+.3f} sd")
        if not low <= row["sd_ratio"] <= high:
            out.append(f"{label}: sd ratio of {name} is {row['sd_ratio']:.3f}")
        if not max(row["mean_error_mcse"], row["sd_ratio_mcse"]) <= LIMITS["mcse"]:
            out.append(f"{label}: the Monte Carlo error of {name} is above {LIMITS['mcse']}")
    return out


def table(results: dict[str, dict]) -> str:
    """One row a run: the worst of all its parameters."""
    lines = [
        f"{'posterior':16}{'sampler':25}{'h':>8}{'γ':>4}{'gradients':>12}{'passes':>8}"
        f"{'error/sd':>10}{'sd ratio':>10}{'±':>7}{'R̂':>7}{'s':>6}"
    ]
    for label, made in results.items():
        name, sampler = label.split(" / ")
        settings, worst = made["plan"], made["worst"]
        mcse = max(worst["mean_error_mcse"][1], worst["sd_ratio_mcse"][1])
        friction = "" if settings["friction"] is None else f"{settings['friction']:g}"
        lines.append(
            f"{name.split('-')[0]:16}{sampler:25}{settings['step_size']:>8g}{friction:>4}"
            f"{made['minibatch_gradients']:>12,.0f}{made['passes_per_chain']:>8,.0f}"
            f"{worst['mean_error'][1]:>+10.3f}{worst['sd_ratio'][1]:>10.3f}{mcse:>7.3f}"
            f"{made['rhat']:>7.3f}{made['seconds']:>6.0f}"
        )
    return "\n".join(lines)


def draw(results: dict[str, dict], path: Path) -> None:
    """Every parameter: sd ratio against mean error, one panel a posterior."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    names = list(dict.fromkeys(label.split(" / ")[0] for label in results))
    figure = Figure(figsize=(3.2 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharex=True, sharey=True)[0]
    for panel, name in zip(panels, names, strict=True):
        low, high = LIMITS["sd"]
        box = Rectangle((-0.1, low), 0.2, high - low, fill=False, linestyle=":")
        panel.add_patch(box)
        for i, sampler in enumerate(SAMPLERS):
            made = results.get(f"{name} / {sampler}")
            if made:
                rows = made["comparison"].values()
                panel.plot([r["mean_error"] for r in rows], [r["sd_ratio"] for r in rows],
                           "osd^v"[i], markersize=4, label=sampler)  # fmt: skip
        panel.set(title=name.split("-")[0], xlabel="mean error / sd")
    panels[0].set_ylabel("sd ratio")
    handles = {
        label: h for a in panels for h, label in zip(*a.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
