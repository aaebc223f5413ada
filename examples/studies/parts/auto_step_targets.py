"""The targets of the study `auto_step`, and how draws of each are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import sgmcmc
from parts.posteriordb_plan import at_the_mode, batch_size, eight_schools
from sgmcmc import demo, diagnostics, metrics, models
from sgmcmc.models import posteriordb

SEED = 515
CONDITIONS = (1, 100, 10_000)
DIMENSIONS = 20
DIGITS = "digits, MLP 64-64-64-10"


class Target(NamedTuple):
    """A posterior, how it is run, and `judge(run) -> numbers` of which "ess" is one.

    `prepare(target, tuning)` gives the target again, with what `judge` needs that depends on
    the chosen step.
    """

    posterior: Any
    start: Any
    data: Any
    batch_size: int | None
    stream: str
    metric: Any
    num_samples: int
    thinning: int
    judge: Callable[[Any], dict]
    prepare: Callable[[Any, dict], Any] = lambda made, tuning: made


def names(folder: Path | None) -> list[str]:
    """All targets, posteriordb's where their data are there; the dearest last."""
    found = [f"gaussian, condition {c}" for c in CONDITIONS]
    found += ["logistic, all data", "logistic, minibatches"]
    if folder is not None and (folder / "posteriordb").is_dir():
        found += reversed(posteriordb.POSTERIORS)
    return [*found, DIGITS]


def target(name: str, folder: Path | None, small: bool) -> Target:
    if name.startswith("gaussian"):
        return gaussian(int(name.split()[-1]), 500 if small else 1_000)
    if name.startswith("logistic"):
        return logistic(None if "all" in name else 50)
    if name == DIGITS:
        return digits()
    assert folder is not None
    return published(folder / "posteriordb", name)


def oscillators(curvatures, x):
    return -0.5 * jnp.sum(curvatures * x**2)


def gaussian(condition: int, draws: int) -> Target:
    """Curvatures 1 … condition, evenly in their logarithm; starts from the law itself."""
    curvatures = np.geomspace(1.0, condition, DIMENSIONS)
    scales = jnp.asarray(1 / np.sqrt(curvatures), jnp.float32)
    reference = np.random.default_rng(SEED).normal(size=(4, 5_000, DIMENSIONS))
    return Target(
        sgmcmc.Posterior.from_log_density(Partial(oscillators, jnp.asarray(curvatures))),
        Partial(scaled, scales), None, None, "full", metrics.identity(), draws,
        int(4 * np.sqrt(condition) ** 0.5), against(reference * np.asarray(scales), vector),
    )  # fmt: skip


def scaled(scales, key):
    return scales * jax.random.normal(key, scales.shape)


def vector(position):
    return {"x": position}


def against(draws: Any, transform: Callable) -> Callable[[Any], dict]:
    """The judge that compares with draws of the law, or {name: draws}."""
    reference = draws if isinstance(draws, dict) else {"x": draws}

    def judge(run: Any) -> dict:
        table = diagnostics.compare_to_reference(run, reference, transform).table
        columns = ("mean_error", "mean_error_mcse", "sd_ratio", "sd_ratio_mcse")
        summary = diagnostics.summary(run).table
        return {
            "ess": float(np.min(summary["ess_bulk"])),
            "rhat": float(np.max(summary["rhat"])),
            **{column: [float(v) for v in table[column]] for column in columns},
        }

    return judge


def logistic(batch: int | None) -> Target:
    """500 examples in ten correlated features; the reference is HMC's, on all data."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(500, 10)) @ np.linalg.cholesky(0.5 * np.eye(10) + 0.5).T
    truth = rng.normal(size=10)
    y = (rng.uniform(size=500) < 1 / (1 + np.exp(-x @ truth))).astype(np.int32)
    data = (x.astype(np.float32), y)
    model = models.logistic_regression(num_features=10)
    posterior = model.posterior(500)
    exact = sgmcmc.sample(
        jax.random.key(SEED + 2), sgmcmc.hmc(posterior, 0.08, 8), jnp.zeros(11), data,
        num_chains=4, num_burnin=200, num_samples=2_000, progress=False,
    )  # fmt: skip
    return Target(
        posterior, model.init, data, batch, "full" if batch is None else "reshuffled",
        metrics.identity(), 1_000, 10, against(np.asarray(exact.draws), vector),
    )  # fmt: skip


def published(folder: Path, name: str) -> Target:
    """One of posteriordb's: a tenth of the data a step, starts from the Gaussian at the mode."""
    problem = posteriordb.load(folder, name)
    schools = name.startswith("eight_schools")
    at = eight_schools(problem) if schools else at_the_mode(jax.random.key(SEED), problem)
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, at.centre))
    factor = jnp.asarray(np.linalg.cholesky(at.covariance), jnp.float32)
    batch = batch_size(problem)
    return Target(
        problem.posterior, lambda key: unravel(flat + factor @ jax.random.normal(key, flat.shape)),
        problem.data, batch, "full" if batch is None else "reshuffled",
        metrics.dense(at.covariance), 1_000, 10,
        against(posteriordb.reference_draws(folder, name), problem.transform),
    )  # fmt: skip


def digits() -> Target:
    """The demo's network, 256 examples a step; judged beside full batches at a short step."""
    data = demo.digits()
    model = models.mlp(demo.SIZES, likelihood="categorical", prior=demo.PRIOR_SCALE)
    posterior = model.posterior(len(data.train[0]))
    made = Target(
        posterior, model.init, data.train, 256, "reshuffled", metrics.identity(), 100, 10, dict
    )

    def scores(run: Any) -> dict:
        x, y = data.clean
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(run.draws)]
        summary = diagnostics.summary(run, predict=model.predict, x=x, y=y).table
        return {
            "norm": sum(float(np.square(leaf).sum()) for leaf in leaves)
            / sum(leaf.size for leaf in leaves),
            "nll": float(diagnostics.predictive(run, model.predict, x, y).nll),
            "ess": float(np.nanmedian(summary["ess_bulk"])),
            "rhat": float(np.nanquantile(summary["rhat"], 0.95)),
        }

    def prepare(made: Target, tuning: dict) -> Target:
        def chains(start: Any, share: float, batch: int | None, burnin: int, draws: int) -> Any:
            kernel = sgmcmc.baoab(
                posterior, share * tuning["step_size"], friction=tuning["friction"]
            )
            return sgmcmc.sample(
                jax.random.key(SEED + 2), kernel, start, data.train, batch_size=batch,
                num_chains=4, num_burnin=burnin, num_samples=draws, thinning=10, progress=False,
            )  # fmt: skip

        # All begin where the network's scale has settled, which takes longer than the rest.
        warm = chains(model.init, 0.5, 256, 3_000, 1)
        start = jax.tree.map(lambda x: jnp.asarray(x[:, -1]), warm.draws)
        exact = scores(chains(start, 0.25, None, 200, 100))

        def judge(run: Any) -> dict:
            found = scores(run)
            return {
                **found,
                "norm_ratio": found["norm"] / exact["norm"],
                "reference_norm": exact["norm"],
                "reference_nll": exact["nll"],
                "reference_rhat": exact["rhat"],
            }

        return made._replace(judge=judge, start=start)

    return made._replace(prepare=prepare)
