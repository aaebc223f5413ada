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
from parts import auto_step_networks as networks
from parts.posteriordb_plan import at_the_mode, batch_size, eight_schools
from sgmcmc import diagnostics, metrics, models
from sgmcmc.models import posteriordb

SEED = 515
CONDITIONS = (1, 100, 10_000)
DIMENSIONS = 20
DIRECTIONS = "direction"


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
    return [*found, *networks.names(folder)]


def target(name: str, folder: Path | None, small: bool) -> Target:
    if name.startswith("gaussian"):
        return gaussian(int(name.split()[-1]), 500 if small else 1_000)
    if name.startswith("logistic"):
        return logistic(None if "all" in name else 50)
    if name in networks.names(folder):
        return Target(*networks.network(name, folder, SEED))
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
        int(4 * condition**0.375), against(reference * np.asarray(scales), vector),
    )  # fmt: skip


def scaled(scales, key):
    return scales * jax.random.normal(key, scales.shape)


def vector(position):
    return {"x": position}


def against(draws: Any, transform: Callable) -> Callable[[Any], dict]:
    """The judge that compares with draws of the law, or {name: draws}.

    Besides the parameters it looks at the principal directions of the reference's correlation:
    along the stiffest of them, of which single parameters show little, noise heats most.
    """
    reference = draws if isinstance(draws, dict) else {"x": draws}
    flat = np.concatenate(
        [np.asarray(d).reshape(*np.shape(d)[:2], -1) for d in reference.values()], axis=-1
    )
    centre, scale = np.mean(flat, axis=(0, 1)), np.std(flat, axis=(0, 1))
    along = np.linalg.eigh(np.corrcoef(flat.reshape(-1, flat.shape[-1]).T))[1]
    names = list(reference)

    def with_directions(position: Any) -> dict:
        values = transform(position)
        vector = jnp.concatenate([jnp.ravel(values[name]) for name in names])
        return {**values, DIRECTIONS: (vector - centre) / scale @ along}

    def judge(run: Any) -> dict:
        found = diagnostics.compare_to_reference(
            run, {**reference, DIRECTIONS: (flat - centre) / scale @ along}, with_directions
        )
        summary = diagnostics.summary(run).table
        columns = ("mean_error", "mean_error_mcse", "sd_ratio", "sd_ratio_mcse")
        return {
            "ess": float(np.min(summary["ess_bulk"])),
            "rhat": float(np.max(summary["r_hat"])),
            "names": list(found.table.index),
            **{column: [float(v) for v in found.table[column]] for column in columns},
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
        jax.random.key(SEED + 2), sgmcmc.hmc(posterior, 0.08, 16), jnp.zeros(11), data,
        num_chains=4, num_burnin=200, num_samples=5_000, progress=False,
    )  # fmt: skip
    return Target(
        posterior, model.init, data, batch, "full" if batch is None else "reshuffled",
        metrics.identity(), 2_000, 10, against(np.asarray(exact.draws), vector),
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
        metrics.dense(at.covariance), 2_000, 10,
        against(posteriordb.reference_draws(folder, name), problem.transform),
    )  # fmt: skip
