"""Overdamped Langevin dynamics under a metric that changes with the position; see `psgld`."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import ScalarOrSchedule
from sgmcmc.clocks._base import StepSize
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._flows import AbstractFlow, Pace, Phase
from sgmcmc.kernels._splitting import SplittingKernel, build
from sgmcmc.kernels._words import spell, table
from sgmcmc.metrics._base import AbstractPreconditioner
from sgmcmc.metrics._position_dependent import rmsprop
from sgmcmc.types import Array, NoiseKind


class PreconditionedStep(AbstractFlow):
    """E: θ_i − t G_i ∇_i U + t T Γ_i + √(2tT G_i) ξ_i, with G and Γ of the gradient's batch."""

    letter: ClassVar[str] = "E"
    normals: ClassVar[int] = 1
    moves: ClassVar[bool] = True
    reads_gradient: ClassVar[bool] = True
    any_metric: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        scale, divergence, memory = phase.metric
        normals = noises.to_tree(rows[0], phase.position)
        temperature = pace.temperature

        def move(x: Array, g: Array, metric: Array, gamma: Array, z: Array) -> Array:
            drift = temperature * gamma - metric * g
            return x + (t * drift + jnp.sqrt(2 * t * temperature * metric) * z).astype(x.dtype)

        position = jax.tree.map(move, phase.position, phase.gradient, scale, divergence, normals)
        return phase._replace(position=position, metric=memory)


def psgld(
    posterior: Posterior,
    step_size: StepSize,
    *,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractPreconditioner | None = None,
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
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
    if not isinstance(metric, AbstractPreconditioner):
        raise TypeError(
            f"metric: got {trees.told(metric)}; expected metrics.rmsprop(...) or "
            "metrics.position_dependent(...); constant metrics are for sgmcmc.sgld"
        )
    return build(
        posterior,
        step_size,
        spell("GE", 1, table(PreconditionedStep())),
        name="psgld",
        friction=None,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
