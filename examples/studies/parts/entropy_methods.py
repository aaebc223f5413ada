"""What `entropy_sgd` compares: SGD, Adam, SWA and Entropy-SGD, at equal minibatch gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import diagnostics

from .entropy_problems import Problem, nll

MOMENTUM, INNER, EVALUATIONS = 0.9, 20, 12
GAMMA, GROWTH = 1e-4, 1e-3  # γ₀ and γ₁ of the published programs for MNIST
SWA_START, SWA_SHARE = 0.75, 0.2  # of the budget; of the learning rate
CONSTANT = "Entropy-SGD, η = 1"  # without the drop of the outer rate
METHODS = ("SGD", "Adam", "SWA", "Entropy-SGD", CONSTANT)
STEPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
ADAM = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def optimizer(problem: Problem, method: str, rate: float, gradients: int, key: Any) -> Any:
    """The optax transformation: cosines to 0 for SGD and Adam, the published schedules else."""
    if method == "Adam":
        return optax.adam(optax.cosine_decay_schedule(rate, gradients))
    if method == "SGD":
        schedule = optax.cosine_decay_schedule(rate, gradients)
        return optax.sgd(schedule, MOMENTUM, nesterov=True)
    if method == "SWA":
        start, epoch = int(SWA_START * gradients), -(-len(problem.train[0]) // problem.batch_size)
        schedule = sgmcmc.optim.swa_schedule(rate, SWA_SHARE * rate, start=start)
        return optax.chain(
            optax.sgd(schedule, MOMENTUM, nesterov=True),
            sgmcmc.optim.weight_average(start, epoch),
        )
    outer = gradients // INNER
    # x ← x − η (x − μ) with η = 1, and .1 for the last three fifths, as published for mnistfc.
    drop = 1.0 if method == CONSTANT else 0.1
    learning_rate = optax.piecewise_constant_schedule(1.0, {int(0.4 * outer): drop})
    return sgmcmc.optim.entropy_sgd(
        key, learning_rate, precision=sgmcmc.local.scoping(GAMMA, GROWTH), step_size=rate,
        num_steps=INNER, averaging=0.25, temperature=1e-8, momentum=MOMENTUM, absorbed=True,
    )  # fmt: skip


def scores(problem: Problem, params: Any, part: Any) -> tuple[float, float]:
    """Error in per cent and NLL on a part of the data."""
    frozen = _freeze(problem.freeze, params, problem.train[0])
    logits = np.concatenate(
        [_logits(problem.logits, params, frozen, x) for x in np.array_split(part[0], 5)]
    )
    error = 100 * float(np.mean(logits.argmax(-1) != part[1]))
    return error, float(np.mean(nll(jnp.asarray(logits), jnp.asarray(part[1]))))


@jax.jit
def _freeze(freeze: Any, params: Any, x: Any) -> Any:
    return freeze(params, x)


@jax.jit
def _logits(logits: Any, params: Any, frozen: Any, x: Any) -> Any:
    return logits(params, frozen, x)


def train(
    problem: Problem, method: str, rate: float, seed: int, curve: bool = True
) -> tuple[Any, dict[str, Any]]:
    """The network that the method ends with, and its curve and cost."""
    gradients = problem.gradients - problem.gradients % INNER
    begin_key, fit_key, noise_key = jax.random.split(jax.random.key(seed), 3)
    points = []

    def look(at: Any) -> None:
        error, value = scores(problem, at.params, problem.test)
        points.append((at.gradient_evaluations, at.wall_time, error, value))

    fitted = sgmcmc.optim.fit(
        fit_key, problem.loss, problem.init(begin_key), problem.train,
        optimizer=optimizer(problem, method, rate, gradients, noise_key),
        batch_size=problem.batch_size, num_steps=gradients, random_loss=True, progress=False,
        evaluate=look if curve else None, evaluate_every=max(1, gradients // EVALUATIONS),
    )  # fmt: skip
    return fitted.params, {
        "method": method, "rate": rate, "seed": seed, "points": points,
        "gradients": fitted.gradient_evaluations, "seconds": fitted.wall_time,
    }  # fmt: skip


def choose(problem: Problem, method: str, seed: int, part: slice) -> tuple[float, dict[str, float]]:
    """Of a part of the method's learning rates, that of the least NLL on the validation part."""
    found = {}
    for rate in (ADAM if method == "Adam" else STEPS)[part]:
        try:
            params, _ = train(problem, method, rate, seed, curve=False)
            value = scores(problem, params, problem.validation)[1]
        except FloatingPointError:
            value = float("inf")
        found[str(rate)] = value if np.isfinite(value) else float("inf")
    return float(min(found, key=lambda rate: found[rate])), found


def judged(
    problem: Problem, params: Any, seed: int, examples: int, steps: int, probes: int
) -> dict[str, Any]:
    """Scores at the end, and the Hessian of the mean training loss on a part of its data."""
    error, value = scores(problem, params, problem.test)
    x, y = problem.train
    frozen = _freeze(problem.freeze, params, x)
    posterior = sgmcmc.Posterior(
        Partial(_log_likelihood, problem.logits, frozen), _flat, data_size=len(x)
    )
    few = (jnp.asarray(x[:examples]), jnp.asarray(y[:examples]))
    found = diagnostics.spectrum(
        jax.random.key(seed), posterior, params, few,
        num_steps=steps, num_probes=probes, num_trace_probes=max(2, 4 * probes),
    )  # fmt: skip
    train_error, train_value = scores(problem, params, tuple(a[:5_000] for a in problem.train))
    return {
        "error": error, "nll": value, "train_error": train_error, "train_nll": train_value,
        "top": float(found.top[0]), "lowest": float(found.lowest), "trace": float(found.trace),
        "near_zero": {str(t): found.share_within(t)[0] for t in (1e-4, 1e-2)},
        "nodes": np.asarray(found.nodes).tolist(), "weights": np.asarray(found.weights).tolist(),
    }  # fmt: skip


def _log_likelihood(logits: Any, frozen: Any, params: Any, batch: Any) -> Any:
    return -nll(logits(params, frozen, batch[0]), batch[1])


def _flat(params: Any) -> Any:
    return jnp.zeros(())
