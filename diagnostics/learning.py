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
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import checks, trees
from sgmcmc.diagnostics.plots import new_axes
from sgmcmc.diagnostics.statistics import statistics
from sgmcmc.eulers import sgld
from sgmcmc.posterior import Posterior, leading_axis
from sgmcmc.rates import check_range
from sgmcmc.run import Run
from sgmcmc.sampler import sample
from sgmcmc.types import Array, Key, PyTree

# A fall of nβL along the gradient, in nats, beyond which the parameters are no minimum.
LARGEST_FALL = 0.1
# Drift: halves of the chains differ by this many standard errors and this share of λ̂.
DRIFT_ERRORS, DRIFT_SHARE = 4.0, 0.05


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LearningCoefficient:
    """What `learning_coefficient` returns.

    Attributes:
        estimate: λ̂, the mean over the chains that stayed finite.
        standard_error: of it, from the spread between those chains.
        per_chain: [chain], NaN for chains that were lost.
        rhat: split R̂ of the loss trace over the chains that were kept.
        drift: λ̂ of the draws' second half less that of the first.
        drift_error: its standard error between chains.
        trace: [chain, draw], nβ (L_n(w_t) − L_n(w*)); its mean is λ̂.
        distance: [chain, draw], ‖w_t − w*‖.
        share_below: share of the draws with L_n(w_t) < L_n(w*).
        loss: L_n(w*), in nats per example.
        gradient_norm: Euclidean norm of the gradient of nβL_n at w*.
        fall: nats by which nβL_n + the pull falls along that gradient, to second order.
        nbeta, inverse_temperature, localization, step_size: what was used; `step_size` is
            None where the kernel's own varies.
        run: the `Run`, whose draws are losses and squared distances.
    """

    estimate: float
    standard_error: float
    per_chain: np.ndarray
    rhat: float
    drift: float
    drift_error: float
    trace: np.ndarray
    distance: np.ndarray
    share_below: float
    loss: float
    gradient_norm: float
    fall: float
    nbeta: float
    inverse_temperature: float
    localization: float
    step_size: float | None
    run: Run

    def plot(self, ax: Any = None) -> Any:
        """The running mean of each chain's trace, and λ̂. Returns the matplotlib axes."""
        ax = new_axes(ax)
        length = np.arange(1, self.trace.shape[1] + 1)
        for trace in self.trace:
            ax.plot(length, np.cumsum(trace) / length, lw=0.8, alpha=0.6, color="C0")
        ax.axhline(self.estimate, color="C1", label=f"λ̂ = {self.estimate:.3g}")
        ax.set(xlabel="draws", ylabel="running λ̂ of each chain")
        ax.legend()
        return ax

    def __repr__(self) -> str:
        step = "its kernel's own" if self.step_size is None else f"{self.step_size:.3g}"
        return (
            f"LearningCoefficient {self.estimate:.4g} ± {self.standard_error:.2g} "
            f"({np.isfinite(self.per_chain).sum()} of {len(self.per_chain)} chains, "
            f"R̂ {self.rhat:.3f}, drift {self.drift:.2g} ± {self.drift_error:.2g})\n"
            f"  nβ {self.nbeta:.4g}, localization {self.localization:.3g}, step {step}, "
            f"loss {self.loss:.4g}, {self.share_below:.1%} of draws below it"
        )


def learning_coefficient(
    key: Key,
    posterior: Posterior,
    params: PyTree,
    data: PyTree,
    *,
    batch_size: int | None = None,
    num_chains: int = 16,
    num_steps: int = 2_000,
    localization: float,
    inverse_temperature: float | None = None,
    step_size: float | None = None,
    num_burnin: int | None = None,
    thinning: int | None = None,
    kernel: Callable[..., Any] = sgld,
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
        localization: ρ > 0, in 1/units², the precision of the pull to w*. It multiplies the
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
        A `LearningCoefficient`.

    Raises:
        TypeError, ValueError: bad input, by name.
        FloatingPointError: no two chains stayed finite.

    Warns:
        UserWarning: w* is no minimum; λ̂ < 0; λ̂ drifts along the chains; chains were lost.
    """
    key = checks.typed_key(key)
    _check(posterior, num_chains, num_steps, localization, inverse_temperature, data)
    n = posterior.data_size
    assert n is not None
    beta = 1 / math.log(n) if inverse_temperature is None else float(inverse_temperature)
    nbeta = n * beta
    thinning = max(1, num_steps // 1_000) if thinning is None else thinning
    num_burnin = num_steps // 2 if num_burnin is None else num_burnin
    checks.count(thinning, "thinning", least=1)
    if num_steps // thinning < 4:
        raise ValueError(
            f"num_steps: got {num_steps} with thinning {thinning}; expected at least 4 draws"
        )
    params = jax.tree.map(jnp.asarray, params)
    seen = data if evaluation_data is None else evaluation_data
    seen = jax.tree.map(jnp.asarray, seen)
    judge = Posterior(posterior.log_likelihood, _flat, data_size=leading_axis(seen))  # type: ignore[arg-type]
    sampled = Posterior(posterior.log_likelihood, _flat, data_size=n, likelihood_power=beta)  # type: ignore[arg-type]
    sampler = kernel(sampled.localized(params, localization), step_size)
    _check_temperature(sampler)
    loss, norm, fall = (
        float(x) for x in _at_start(judge, params, seen, nbeta, float(localization))
    )
    run = sample(
        key, sampler, params, data,
        batch_size=batch_size, num_chains=num_chains, num_burnin=num_burnin,
        num_samples=num_steps // thinning, thinning=thinning,
        collect=Partial(_seen, judge, seen, params), on_nonfinite="stop_chain",
        chain_method=chain_method, progress=progress,
    )  # fmt: skip
    found = _result(run, nbeta, beta, float(localization), loss, norm, fall)
    _warn(found)
    return found


def _result(
    run: Run, nbeta: float, beta: float, localization: float, loss: float, norm: float, fall: float
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
    drifts = (_means(trace[:, -half:], weights[:, -half:]) - _means(trace[:, :half], weights[:, :half]))[kept]  # fmt: skip
    root = math.sqrt(kept.sum())
    config_step = run.config.get("step_size")
    return LearningCoefficient(
        estimate=float(per_chain[kept].mean()),
        standard_error=float(per_chain[kept].std(ddof=1) / root),
        per_chain=per_chain,
        rhat=float(statistics(trace[kept], run.weights[kept])["rhat"]),
        drift=float(drifts.mean()),
        drift_error=float(drifts.std(ddof=1) / root),
        trace=trace,
        distance=np.sqrt(np.asarray(run.draws["square"], np.float64)),
        share_below=float((trace[kept] < 0).mean()),
        loss=loss,
        gradient_norm=norm,
        fall=fall,
        nbeta=nbeta,
        inverse_temperature=beta,
        localization=localization,
        step_size=config_step if isinstance(config_step, float) else None,
        run=run,
    )


def _means(trace: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means of each chain; NaN where there is no weight."""
    total = weights.sum(axis=1)
    sums = np.where(weights > 0, weights * trace, 0.0).sum(axis=1)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), np.nan)


def _seen(judge: Posterior, data: PyTree, center: PyTree, position: PyTree) -> dict[str, Array]:
    """What is kept of a draw."""
    away = jax.tree.map(jnp.subtract, position, center)
    return {"loss": _loss(judge, position, data), "square": trees.dot(away, away)}


def _loss(judge: Posterior, params: PyTree, data: PyTree) -> Array:
    """L_n, in nats per example."""
    assert judge.data_size is not None
    return -judge.log_density(params, data) / judge.data_size


def _flat(params: PyTree) -> Array:
    return jnp.zeros(())


@eqx.filter_jit
def _at_start(
    judge: Posterior, params: PyTree, data: PyTree, nbeta: float, localization: float
) -> tuple[Array, Array, Array]:
    """L_n(w*), the norm of g = ∇nβL_n there, and how far U falls along g: ‖g‖⁴/(2 gᵀ(H + ρ)g)."""
    tempered = lambda w: nbeta * _loss(judge, w, data)  # noqa: E731
    gradient, curved = jax.jvp(jax.grad(tempered), (params,), (jax.grad(tempered)(params),))
    square = trees.dot(gradient, gradient)
    bend = jnp.abs(trees.dot(gradient, curved) + localization * square)
    # Divided in two steps: a square of a square underflows in single precision.
    fall = jnp.where(square > 0, square * (square / jnp.where(bend > 0, bend, 1.0)) / 2, 0.0)
    fall = jnp.where((square > 0) & (bend == 0), jnp.inf, fall)
    return _loss(judge, params, data), jnp.sqrt(square), fall


def _warn(found: LearningCoefficient) -> None:
    """What is known to go wrong, each with its remedy."""
    lost = np.flatnonzero(~np.isfinite(found.per_chain)).tolist()
    if lost:
        _say(f"chains {lost} left the finite numbers and are left out; try a smaller step_size")
    if not found.fall <= LARGEST_FALL:
        _say(
            f"params: not at a minimum: the gradient of nβL has norm {found.gradient_norm:.3g}, "
            f"and the potential falls by {found.fall:.3g} nats along it; train longer"
        )
    if found.estimate < 0:
        _say(
            f"the estimate {found.estimate:.3g} is negative, and {found.share_below:.0%} of the "
            "draws have a lower loss than params: not a local minimum, or a step too large"
        )
    enough = np.isfinite(found.per_chain).sum() >= 4
    far = abs(found.drift) > DRIFT_ERRORS * found.drift_error
    if enough and far and abs(found.drift) > DRIFT_SHARE * abs(found.estimate):
        _say(
            f"the second half of the draws gives {found.drift:.3g} ± {found.drift_error:.2g} more "
            "than the first: a longer num_burnin, or a larger localization if chains escape"
        )


def _say(message: str) -> None:
    warnings.warn(f"learning_coefficient: {message}", UserWarning, stacklevel=4)


def _check(
    posterior: Any, num_chains: Any, num_steps: Any, localization: Any, beta: Any, data: PyTree
) -> None:
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    if posterior.log_likelihood is None or data is None:
        raise ValueError(
            "data: a learning coefficient needs a likelihood and its n examples; got a target "
            "without them"
        )
    if posterior.precision is not None or float(posterior.likelihood_power) != 1:
        raise ValueError(
            "posterior: it is localised or has a likelihood_power other than 1; pass it plain, "
            "with localization= and inverse_temperature= here"
        )
    checks.count(num_chains, "num_chains", least=2)
    checks.count(num_steps, "num_steps", least=4)
    check_range(localization, "localization", above_zero=True)
    if beta is not None:
        check_range(beta, "inverse_temperature", above_zero=True)
    elif posterior.data_size is not None and posterior.data_size < 3:
        raise ValueError(
            f"inverse_temperature: got None with n = {posterior.data_size}; 1/log n needs n ≥ 3"
        )


def _check_temperature(sampler: Any) -> None:
    checks.require_kernel(sampler)
    value = getattr(getattr(sampler, "temperature", None), "value", 1.0)
    if float(value) != 1:
        raise ValueError(
            f"kernel: got one at temperature {float(value):g}; allowed: 1, the temperature is "
            "in inverse_temperature"
        )
