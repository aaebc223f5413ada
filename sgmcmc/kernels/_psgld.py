"""Overdamped Langevin dynamics under a metric that changes with the position; see `psgld`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc.gradients._base import Estimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._splitting import Phase, SplittingKernel, build, extend
from sgmcmc.kernels._words import spell
from sgmcmc.metrics._base import Preconditioner
from sgmcmc.metrics._constant import identity
from sgmcmc.metrics._position_dependent import rmsprop
from sgmcmc.types import Array, Info, Key, PyTree, State


class PreconditionedKernel(SplittingKernel):
    """SGLD with G(θ) and Γ; `State.metric` holds what the preconditioner remembers."""

    metric: Preconditioner  # type: ignore[assignment]  # in the place of a constant one

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state; see `SplittingKernel.init`."""
        state = super().init(position, rng_key, data)
        return state._replace(metric=self.metric.init(state.position))

    def drive(self, noise: Array, state: State, batch: Any) -> tuple[State, Info]:
        """One step. While it lasts, the preconditioner's memory travels as `extra`."""
        following, info = super().drive(noise, state._replace(extra=state.metric), batch)
        return following._replace(metric=following.extra, extra=()), info

    def _evaluate(self, phase: Phase, batch: Any) -> Phase:
        after = super()._evaluate(phase, batch)

        def gradient_at(position: PyTree) -> PyTree:
            return self.gradient(self.posterior, position, batch, phase.estimator)[1]

        parts = self.metric.evaluate(gradient_at, phase.position, after.gradient, phase.extra)
        return after._replace(extra=parts)

    def _apply(
        self, letter: str, fraction: float, row: int, phase: Phase, noise: Array, pace: Any
    ) -> Phase:
        scale, divergence, memory = phase.extra
        normals = noises.to_tree(noise[row], phase.position)
        h, temperature = fraction * pace.dt, pace.temperature

        def move(x: Array, g: Array, metric: Array, gamma: Array, z: Array) -> Array:
            drift = temperature * gamma - metric * g
            return x + (h * drift + jnp.sqrt(2 * h * temperature * metric) * z).astype(x.dtype)

        position = jax.tree.map(move, phase.position, phase.gradient, scale, divergence, normals)
        return phase._replace(position=position, extra=memory)


def psgld(
    posterior: Posterior,
    step_size: Any,
    *,
    temperature: Any = 1.0,
    metric: Preconditioner | None = None,
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> PreconditionedKernel:
    """pSGLD (Li et al. 2016, arXiv 1512.07666), and SGLD under any diagonal metric G(θ).

        θ_i ← θ_i − h G_i ∇_i U + h T Γ_i + √(2hT G_i) ξ_i,   Γ_i = ∂G_i/∂θ_i

    Order 1 with Γ; without it the law is another one however small the step (see
    `metrics.rmsprop`). With minibatches G and ∇U come from one batch, and are correlated:
    freeze G after burn-in (`metrics.rmsprop(freeze_after=…)`) where the law must be right.

    Args:
        metric: `metrics.rmsprop()` (default) or `metrics.position_dependent(function)`.
        posterior, step_size, temperature, gradient, noise: see `sgmcmc.kernels`.

    Raises:
        TypeError: `metric` does not change with the position; `sgld` takes those that do not.
    """
    metric = rmsprop() if metric is None else metric
    if isinstance(metric, type) or not hasattr(metric, "evaluate"):
        raise TypeError(
            f"metric: got {metric!r}; expected metrics.rmsprop(...) or "
            "metrics.position_dependent(...); constant metrics are for sgmcmc.sgld"
        )
    kernel = build(
        posterior,
        step_size,
        spell("GE", order=1),
        name="psgld",
        friction=None,
        temperature=temperature,
        metric=identity(),
        gradient=gradient,
        noise=noise,
    )
    return extend(kernel, PreconditionedKernel, metric=metric)
