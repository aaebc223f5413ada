"""Networks for the convergence bottleneck: chains on UCI sets against a reference by HMC."""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import sgmcmc
from sgmcmc.diagnostics import predictive_distance, statistics
from sgmcmc.models import mlp

WORDS = ("obabo", "baoab", "aboba", "ubu", "bub", "babo")
THIRD = ("sort", "should", "quicsort")
UNDERDAMPED = ("euler_maruyama", "symplectic_euler", *WORDS, *THIRD)
SEED = 0
# A spread counts where it is this many standard errors from 0; beyond SATURATED the law is so
# much wider than the target that no power of h is to be expected of it.
SIGNIFICANT, SATURATED = 3.0, 0.6


class Plan(NamedTuple):
    """How a stream's chains are run: `burnin` and `time` a chain, in the dynamics' own units."""

    chains: int
    burnin: float
    time: float
    steps: tuple[float, ...]


class Problem(NamedTuple):
    """A data set, its likelihood, and what is run on it.

    Batches are the nearest to 64 that cut the rows evenly: 7 of 65; 10 of 63 and one of 61.
    Chains start from draws of the reference. With minibatches that is far from their own law:
    at first they heat up, and only then find the wider regions that they stay in.
    """

    name: str
    noise_scale: float  # of the standardised response, fixed
    friction: float
    batch_size: int
    warm: tuple[int, float, float, int]  # BAOAB from He's starts: chains, friction, step, steps
    hmc: tuple[float, int, int]  # step size, leapfrog steps a draw, draws
    spacing: float  # time between draws
    plans: dict[str, Plan]


PROBLEMS = (
    Problem(
        "boston", 0.3, 5.0, 65, (16, 5.0, 0.002, 15_000), (0.0015, 130, 250), 0.05,
        {"full": Plan(16, 0.5, 1.0, (0.0024, 0.002, 0.0016, 0.00125, 0.001)),
         "reshuffled": Plan(8, 3.0, 4.0, (0.001, 0.0007, 0.0005, 0.00035, 0.00025)),
         "with_replacement": Plan(8, 3.0, 4.0, (0.0005, 0.00025, 0.000125, 0.00008, 0.00005))},
    ),
    Problem(
        "energy", 0.1, 40.0, 63, (16, 10.0, 0.0004, 40_000), (0.0004, 200, 250), 0.02,
        {"full": Plan(16, 0.2, 0.4, (0.0005, 0.0004, 0.0003, 0.00024, 0.0002)),
         "reshuffled": Plan(8, 0.6, 1.0, (0.0002, 0.00014, 0.0001, 0.00007, 0.00005))},
    ),
)  # fmt: skip
SMALL = PROBLEMS[0]._replace(
    warm=(4, 5.0, 0.002, 1_000), hmc=(0.001, 50, 20),
    plans={"reshuffled": Plan(4, 0.1, 0.2, (0.001, 0.0005))},
)  # fmt: skip


class Cell(NamedTuple):
    """One set of chains."""

    integrator: str
    stream: str
    step: float


def cells(problem: Problem) -> list[Cell]:
    """What is run on a data set; with replacement, one scheme of order 2 and one of order 3."""
    few = problem == SMALL
    chosen = {"full": UNDERDAMPED,
              "reshuffled": ("baoab", "sort") if few else UNDERDAMPED,
              "with_replacement": ("baoab", "sort")}  # fmt: skip
    return [Cell(integrator, stream, h) for stream, plan in problem.plans.items()
            for integrator in chosen[stream] for h in plan.steps]  # fmt: skip


class Split(NamedTuple):
    """Split 0 of a UCI set, standardised by its training rows."""

    x: np.ndarray
    y: np.ndarray
    every_x: np.ndarray  # training rows, then test rows


def load(name: str, folder: Path) -> Split:
    with np.load(folder / "uci" / f"{name}.npz") as file:
        x, y = file["X"], file["y"]
        train, test = file["train_idx"][0], file["test_idx"][0]
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    y = (y - y[train].mean()) / y[train].std()
    every = np.concatenate([x[train], x[test]])
    return Split(*(np.asarray(a, np.float32) for a in (x[train], y[train], every)))


class Setting(NamedTuple):
    """What all chains on a data set share."""

    problem: Problem
    split: Split
    posterior: sgmcmc.Posterior
    init: Callable[..., Any]
    predictions: Callable[[Any], Any]


def setting(problem: Problem, folder: Path) -> Setting:
    split = load(problem.name, folder)
    sizes = (split.x.shape[1], 50, 1)
    model = mlp(sizes, likelihood="gaussian", noise_scale=problem.noise_scale)
    return Setting(problem, split, model.posterior(data_size=len(split.x)), model.init,
                   lambda params: model.predict(params, split.every_x)[0])  # fmt: skip


def reference(at: Setting, path: Path) -> tuple[np.ndarray, Any, dict[str, float]]:
    """Predictions [chain, draw, m] of HMC, the chains' last positions, and what is to be said.

    BAOAB brings the chains to the posterior, HMC with its Metropolis test draws from it.
    """
    import blackjax

    structure = jax.tree.structure(at.init(jax.random.key(0)))
    if not path.exists():
        data, problem = (at.split.x, at.split.y), at.problem
        chains, friction, step, steps = problem.warm
        common = {"num_chains": chains, "progress": False}
        kernel = sgmcmc.baoab(at.posterior, step, friction=friction)
        warm = sgmcmc.sample(jax.random.key(SEED), kernel, at.init, data, stream="full",
                             num_burnin=steps, num_samples=1, **common)  # fmt: skip
        ends = [jax.tree.map(lambda leaf, i=i: leaf[i, -1], warm.draws) for i in range(chains)]
        following = iter(ends)
        step, leapfrogs, draws = problem.hmc
        size = sum(leaf.size for leaf in jax.tree.leaves(ends[0]))

        def log_density(params: Any) -> Any:
            return -at.posterior.potential(params, data)

        hmc = blackjax.hmc(log_density, step, jnp.ones(size), num_integration_steps=leapfrogs)
        run = sgmcmc.sample(jax.random.key(SEED + 1),
                            sgmcmc.from_blackjax(hmc, gradient_evaluations=leapfrogs),
                            lambda key: next(following),
                            num_burnin=draws // 4, num_samples=draws,
                            collect=lambda p: (at.predictions(p), p), **common)  # fmt: skip
        values, positions = run.draws
        leaves = [leaf[:, -1] for leaf in jax.tree.leaves(positions)]
        np.savez(path, values=values, acceptance=run.info.acceptance.mean(),
                 **{f"leaf{i}": leaf for i, leaf in enumerate(leaves)})  # fmt: skip
    with np.load(path) as file:
        values, acceptance = file["values"], float(file["acceptance"])
        leaves = [file[f"leaf{i}"] for i in range(len(file.files) - 2)]
    rhat = statistics(values)["r_hat"]
    half = len(values) // 2
    itself = predictive_distance(values[:half], values[half:])
    said = {"acceptance": acceptance, "rhat_median": float(np.median(rhat)),
            "rhat_95": float(np.quantile(rhat, 0.95)), "rhat_max": float(rhat.max()),
            "half_against_half": itself._asdict()}  # fmt: skip
    return values, jax.tree.unflatten(structure, leaves), said


def measure(at: Setting, cell: Cell, start: Any, target: np.ndarray) -> dict[str, Any]:
    """Run a cell's chains from draws of the reference, and compare."""
    problem, began = at.problem, time.perf_counter()
    plan = problem.plans[cell.stream]
    start = jax.tree.map(lambda leaf: leaf[: plan.chains], start)
    kernel = getattr(sgmcmc, cell.integrator)(at.posterior, cell.step, friction=problem.friction)
    key = jax.random.key(zlib.crc32(f"{SEED} {problem.name} {cell}".encode()))
    try:
        run = sgmcmc.sample(
            key, kernel, start, (at.split.x, at.split.y),
            batch_size=None if cell.stream == "full" else problem.batch_size,
            stream=cell.stream, num_chains=plan.chains,
            num_burnin=round(plan.burnin / cell.step),
            num_samples=round(plan.time / problem.spacing),
            thinning=max(1, round(problem.spacing / cell.step)),
            collect=at.predictions, progress=False,
        )  # fmt: skip
    except sgmcmc.NonFiniteError as error:
        return {"diverged": min(error.run.stopped.values(), default=0)}
    found = predictive_distance(run.draws, target)
    early = predictive_distance(run.draws[:, : run.num_samples // 2], target)
    return {**found._asdict(), "early_spread": early.spread,
            "seconds": round(time.perf_counter() - began, 2)}  # fmt: skip


def fitted_order(rows: dict[float, dict[str, Any]]) -> tuple[float, float] | None:
    """Order of the spread in h and its standard error, where two spreads or more allow it."""
    points = [(h, row["spread"], row["spread_error"]) for h, row in rows.items()
              if "spread" in row and row["spread"] < SATURATED and is_seen(row)]  # fmt: skip
    if len(points) < 2:
        return None
    h, spread, error = np.array(points).T
    x, weight = np.log(h), (spread / error) ** 2
    x = x - np.average(x, weights=weight)
    information = np.sum(weight * x**2)
    return float(np.sum(weight * x * np.log(spread)) / information), float(information**-0.5)


def network_part(problem: Problem, folder: Path, cache: Path) -> dict[str, Any]:
    """All cells of a data set, those that are there already read from the cache."""
    at = setting(problem, folder)
    # Other settings, other files: what was made under them is not mixed up with this.
    stem = f"{problem.name}-{zlib.crc32(repr((SEED, problem)).encode()):08x}"
    cache.mkdir(parents=True, exist_ok=True)
    values, start, said = reference(at, cache / f"{stem}.npz")
    path = cache / f"{stem}.json"
    done = json.loads(path.read_text("utf-8")) if path.exists() else {}
    todo = cells(problem)
    for i, cell in enumerate(todo):
        name = f"{cell.integrator} {cell.stream} {cell.step:g}"
        if name not in done:
            done[name] = measure(at, cell, start, values)
            path.write_text(json.dumps(done, indent=1), "utf-8")
        print(f"(b) {problem.name} [{i + 1}/{len(todo)}] {name}: {words(done[name])}",
              file=sys.stderr)  # fmt: skip
    rows = {}
    for stream, plan in problem.plans.items():
        for integrator in dict.fromkeys(c.integrator for c in todo if c.stream == stream):
            row = {h: done[f"{integrator} {stream} {h:g}"] for h in plan.steps}
            rows[f"{integrator} {stream}"] = {"cells": row, "order": fitted_order(row)}
    if problem != SMALL:
        for label, members in (("order_2", WORDS), ("order_3", THIRD)):
            means = {stream: pooled(rows, members, stream) for stream in ("full", "reshuffled")}
            rows |= {f"{label} {stream}": {"cells": mean, "order": fitted_order(mean)}
                     for stream, mean in means.items()}  # fmt: skip
    return {"problem": problem._asdict(), "reference": said, "rows": rows}


def pooled(rows: dict[str, Any], members: tuple[str, ...], stream: str) -> dict[float, Any]:
    """Plain means of integrators' spreads at each step where none diverged.

    Their errors are taken as independent, though the starts and the reference are shared.
    """
    out = {}
    for h in rows[f"{members[0]} {stream}"]["cells"]:
        several = [rows[f"{member} {stream}"]["cells"][h] for member in members]
        if all("spread" in cell for cell in several):
            errors = np.array([cell["spread_error"] for cell in several])
            out[h] = {"spread": float(np.mean([cell["spread"] for cell in several])),
                      "spread_error": float(np.sqrt(np.sum(errors**2)) / len(errors))}  # fmt: skip
    return out


def network_misses(found: dict[str, Any]) -> list[str]:
    """What is asked of a data set, in the words of what is not reached.

    Reshuffled, third-order schemes have between 2/3 and 3/2 of the second-order ones' spread at
    each step where both are seen. At such steps that were run with full gradients too, these
    leave each scheme at most a fifth of the second-order ones' reshuffled spread.
    """
    name, rows, misses = found["problem"]["name"], found["rows"], []
    second, third = (pooled(rows, members, "reshuffled") for members in (WORDS, THIRD))
    seen = [h for h in second if h in third and is_seen(second[h]) and is_seen(third[h])]
    if len(seen) < 2:
        misses.append(f"{name}: reshuffled, spreads are seen at {len(seen)} steps, asked 2")
    for h in seen:
        share = third[h]["spread"] / second[h]["spread"]
        if not 2 / 3 <= share <= 3 / 2:
            misses.append(f"{name}: at {h:g} order 3 has {share:.2f} of order 2's spread")
    for h in set(rows["baoab full"]["cells"]) & set(seen):
        for integrator in (*WORDS, *THIRD):
            cell = rows[f"{integrator} full"]["cells"][h]
            if abs(cell.get("spread", np.inf)) > 0.2 * second[h]["spread"]:
                misses.append(f"{name}: {integrator} full at {h:g}: {words(cell)}")
    return misses


def is_seen(cell: dict[str, Any]) -> bool:
    return bool(cell["spread"] > SIGNIFICANT * cell["spread_error"])


def words(cell: dict[str, Any]) -> str:
    """A cell in a few characters."""
    if "diverged" in cell:
        return "diverged"
    return f"{cell['spread']:+.3f} ± {cell['spread_error']:.3f}"
