"""The local learning coefficient: how fast a loss rises about a minimum, as a number.

    λ̂(w*) = nβ (E[L_n(w)] − L_n(w*)),    w ~ exp(−nβ L_n(w) − (ρ/2)‖w − w*‖²),    β = 1/log n

L_n is the mean negative log likelihood of n examples (Lau et al., arXiv 2308.12108). A regular
minimum in d dimensions has λ = d/2, a degenerate one less. The potential is a localised
posterior with likelihood power β and a flat prior, and any sampler of this library draws from it.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import check_range
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.diagnostics.convergence._statistics import statistics
from sgmcmc.diagnostics.learning._record import LearningCoefficient, complaints
from sgmcmc.kernels import _base as base
from sgmcmc.kernels._base import AbstractKernel
from sgmcmc.kernels._euler import sgld
from sgmcmc.sampling._run import Run
from sgmcmc.sampling._sample import sample
from sgmcmc.types import Array, Key, PyTree

# Two for each half of a chain.
FEWEST_DRAWS = 4


def learning_coefficient(
    key: Key,
    posterior: Posterior,
    params: PyTree,
    data: PyTree,
    *,
    batch_size: int | None = None,
    num_chains: int = 16,
    num_steps: int = 2_000,
    precision: float,
    inverse_temperature: float | None = None,
    step_size: float | None = None,
    num_burnin: int | None = None,
    thinning: int | None = None,
    kernel: Callable[..., AbstractKernel] = sgld,
    evaluation_data: PyTree = None,
    chain_method: str = "auto",
    progress: bool = False,
) -> LearningCoefficient:
    """The local learning coefficient λ̂ at a minimum, with its error and what may be wrong.

    Args:
        key: `jax.random.key(seed)`.
        posterior: whose `log_likelihood` and `data_size` n are used. Its prior is left out:
            weight decay is no localisation, and moves the minimum.
        params: w*, a minimum of L_n; never changed. All chains begin here.
        data: all n examples.
        batch_size: examples a step; None: all of them. Minibatch noise heats the chains by
            about h nβ² Var(∇ℓ)/batch_size: check with twice the batch.
        num_chains: ≥ 2; the error is that between chains.
        num_steps: of each chain, after the burn-in.
        precision: ρ > 0, in 1/units², the precision of the pull to w*. It multiplies the
            squared distance alone, not by nβ. Large values pull λ̂ down, small ones let
            chains escape.
        inverse_temperature: β > 0; default 1/log n, with n the size of the *data*, not of a
            batch.
        step_size: h > 0 of w ← w − h ∇U + √(2h) ξ (half of devinterp's `lr`); None: `sample`
            chooses it, with up to 5% of Euler's bias on the stiffest direction.
        num_burnin: steps before; default half of `num_steps`.
        thinning: steps between two evaluations of L_n; default 1 in 1,000 of `num_steps`.
        kernel: `kernel(posterior, step_size) -> sampler`, at temperature 1: `sgmcmc.sgld`
            (default), or `functools.partial(sgmcmc.baoab, friction=…)`.
        evaluation_data: examples on which both L_n(w) and L_n(w*) are evaluated; default all.
        chain_method, progress: as in `sgmcmc.sample`.

    Returns:
        A `LearningCoefficient`. Ctrl-C ends the run early; the estimate is that of the draws made
        so far, and a warning says how many.

    Raises:
        TypeError, ValueError: bad input, by name.
        FloatingPointError: no two chains stayed finite (`NonFiniteError`: none did).
        KeyboardInterrupt: Ctrl-C came before there were four draws; the run is in its `.run`.

    Warns:
        UserWarning: w* is no minimum; λ̂ < 0, or many draws have a lower loss than w*; λ̂ drifts
            along the chains; chains were lost, or are far from the others; Ctrl-C.
    """
    found = measure(
        key, posterior, params, data,
        Asked(
            precision, batch_size, num_chains, num_steps, inverse_temperature, step_size,
            num_burnin, thinning, kernel, evaluation_data, chain_method, progress,
        ),
    )  # fmt: skip
    for message in found.warnings:
        warnings.warn(f"learning_coefficient: {message}", UserWarning, stacklevel=2)
    return found


class Asked(NamedTuple):
    """What was asked of `learning_coefficient` beside key, posterior, w* and data; see there."""

    precision: float
    batch_size: int | None = None
    num_chains: int = 16
    num_steps: int = 2_000
    inverse_temperature: float | None = None
    step_size: float | None = None
    num_burnin: int | None = None
    thinning: int | None = None
    kernel: Callable[..., AbstractKernel] = sgld
    evaluation_data: PyTree = None
    chain_method: str = "auto"
    progress: bool = False


def measure(
    key: Key, posterior: Posterior, params: PyTree, data: PyTree, asked: Asked
) -> LearningCoefficient:
    """`learning_coefficient`, which puts its warnings into the record and issues none."""
    checks.on_host("learning_coefficient", key, posterior, params, data)
    key = checks.typed_key(key)
    _check(posterior, asked, data)
    n, precision, num_steps = posterior.data_size, asked.precision, asked.num_steps
    assert n is not None
    given = asked.inverse_temperature
    beta = 1 / math.log(n) if given is None else float(given)
    nbeta = n * beta
    thinning = max(1, num_steps // 1_000) if asked.thinning is None else asked.thinning
    num_burnin = num_steps // 2 if asked.num_burnin is None else asked.num_burnin
    checks.count(thinning, "thinning", least=1)
    if num_steps // thinning < FEWEST_DRAWS:
        raise ValueError(
            f"num_steps: got {num_steps} with thinning {thinning}; expected at least "
            f"{FEWEST_DRAWS} draws"
        )
    params = checks.as_arrays(params, "params")
    seen = data if asked.evaluation_data is None else asked.evaluation_data
    seen = checks.as_arrays(seen, "data" if asked.evaluation_data is None else "evaluation_data")
    # The types do not know that it is there: `_check` has refused a posterior without one.
    judge = Posterior(posterior.log_likelihood, _flat, data_size=leading_axis(seen))
    sampled = Posterior(
        posterior.log_likelihood,
        _flat,
        data_size=n,
        likelihood_power=beta,
        check_data=posterior.check_data,
    )
    sampler = asked.kernel(sampled.localized(params, precision), asked.step_size)
    _check_temperature(sampler)
    loss, norm, fall = (
        # Arrays, so that other numbers are not compiled anew.
        float(x)
        for x in _at_start(judge, params, seen, jnp.asarray(nbeta), jnp.asarray(precision))
    )
    run = sample(
        key, sampler, params, data,
        batch_size=asked.batch_size, num_chains=asked.num_chains, num_burnin=num_burnin,
        num_samples=num_steps // thinning, thinning=thinning,
        collect=Partial(_seen, judge, seen, params), on_nonfinite="stop_chain",
        chain_method=asked.chain_method, progress=asked.progress,
    )  # fmt: skip
    if run.interrupted and run.num_samples < FEWEST_DRAWS:
        error = KeyboardInterrupt(f"after {run.num_samples} draws, which give no estimate")
        vars(error)["run"] = run
        raise error
    found = _result(run, nbeta, beta, float(precision), loss, norm, fall)
    return dataclasses.replace(found, warnings=complaints(found))


def _result(
    run: Run, nbeta: float, beta: float, precision: float, loss: float, norm: float, fall: float
) -> LearningCoefficient:
    trace = nbeta * (np.asarray(run.draws["loss"], np.float64) - loss)
    kept = np.asarray(np.isfinite(trace).all(axis=1))
    if kept.sum() < 2:
        raise FloatingPointError(
            f"step_size: {kept.sum()} of {len(kept)} chains stayed finite, and two are needed; "
            "try a smaller one"
        )
    weights = np.where(kept[:, None], run.weights, 0.0)
    per_chain = np.where(kept, _means(trace, weights), np.nan)
    half = trace.shape[1] // 2
    late = _means(trace[kept, -half:], weights[kept, -half:])
    drifts = late - _means(trace[kept, :half], weights[kept, :half])
    root = math.sqrt(kept.sum())
    config_step = run.config.get("step_size")
    return LearningCoefficient(
        estimate=float(per_chain[kept].mean()),
        standard_error=float(per_chain[kept].std(ddof=1) / root),
        per_chain=per_chain,
        r_hat=float(statistics(trace[kept], run.weights[kept])["r_hat"]),
        drift=float(drifts.mean()),
        drift_error=float(drifts.std(ddof=1) / root),
        trace=trace,
        distance=np.sqrt(np.asarray(run.draws["square"], np.float64)),
        share_below=float(np.average(trace[kept] < 0, weights=weights[kept])),
        loss=loss,
        gradient_norm=norm,
        fall=fall,
        nbeta=nbeta,
        inverse_temperature=beta,
        precision=precision,
        step_size=config_step if isinstance(config_step, float) else None,
        run=run,
    )


def _means(trace: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means of each chain; NaN where there is no weight."""
    total = weights.sum(axis=1)
    sums = np.where(weights > 0, weights * trace, 0.0).sum(axis=1)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)


def _seen(judge: Posterior, data: PyTree, center: PyTree, position: PyTree) -> dict[str, Array]:
    """A draw's loss L_n(w), () nats per example, and its ‖w − w*‖², ()."""
    away = jax.tree.map(jnp.subtract, position, center)
    return {"loss": _loss(judge, position, data), "square": trees.dot(away, away)}


def _loss(judge: Posterior, params: PyTree, data: PyTree) -> Array:
    """L_n, in nats per example."""
    assert judge.data_size is not None
    return -judge.log_density(params, data) / judge.data_size


def _flat(params: PyTree) -> Array:
    """A flat log prior: log p = 0."""
    return jnp.zeros(())


@eqx.filter_jit
def _at_start(
    judge: Posterior, params: PyTree, data: PyTree, nbeta: Array, precision: Array
) -> tuple[Array, Array, Array]:
    """L_n(w*), the norm of g = ∇nβL_n there, and how far U falls along g: ‖g‖⁴/(2 gᵀ(H + ρ)g)."""
    tempered = lambda w: nbeta * _loss(judge, w, data)  # noqa: E731
    gradient, curved = jax.jvp(jax.grad(tempered), (params,), (jax.grad(tempered)(params),))
    square = trees.dot(gradient, gradient)
    bend = jnp.abs(trees.dot(gradient, curved) + precision * square)
    # Divided in two steps: a square of a square underflows in single precision.
    fall = jnp.where(square > 0, square * (square / jnp.where(bend > 0, bend, 1.0)) / 2, 0.0)
    fall = jnp.where((square > 0) & (bend == 0), jnp.inf, fall)
    return _loss(judge, params, data), jnp.sqrt(square), fall


def _check(posterior: object, asked: Asked, data: PyTree) -> None:
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    if not posterior.has_data or data is None:
        raise ValueError(
            "data: a learning coefficient needs a likelihood and its n examples; got a target "
            "without them"
        )
    if posterior.precision is not None or float(posterior.likelihood_power) != 1:
        raise ValueError(
            "posterior: it is localised or has a likelihood_power other than 1; pass it plain, "
            "with precision= and inverse_temperature= here"
        )
    checks.count(asked.num_chains, "num_chains", least=2)
    checks.count(asked.num_steps, "num_steps", least=4)
    check_range(asked.precision, "precision", above_zero=True)
    if asked.inverse_temperature is not None:
        check_range(asked.inverse_temperature, "inverse_temperature", above_zero=True)
    elif posterior.data_size is not None and posterior.data_size < 3:
        raise ValueError(
            f"inverse_temperature: got None with n = {posterior.data_size}; 1/log n needs n ≥ 3"
        )


def _check_temperature(sampler: AbstractKernel) -> None:
    base.require_kernel(sampler)
    value = sampler.numbers().get("temperature", 1.0)
    if value != 1:
        raise ValueError(
            f"kernel: got one at temperature {value}; allowed: 1, the temperature is "
            "in inverse_temperature"
        )
