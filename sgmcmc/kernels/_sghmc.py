"""SGHMC, whose injected noise is less by what the gradient's own noise adds.

One kick of size h with gradient noise of variance V adds h²V to the momentum's. The friction
step therefore adds 2γTh − h²V̂ alone, V̂ an estimate of V for each coordinate, given, or
`gradients.running_variance`. That holds for kicks whose errors are independent: those of a sweep
cancel, and their heat, which never comes, must not be taken off.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant, Friction, ScalarOrSchedule
from sgmcmc.clocks._base import StepSize
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.gradients._noise_variance import Given, RunningVariance, given
from sgmcmc.kernels._euler import UNDERDAMPED, EulerFriction
from sgmcmc.kernels._flows import AbstractFlow, Oscillator, Pace, Phase
from sgmcmc.kernels._splitting import SplittingKernel, build
from sgmcmc.kernels._words import spell, table
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import Diagonal, Identity, identity
from sgmcmc.types import Array, Batches, Key, NoiseKind, PyTree


def sghmc(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
    noise_estimate: PyTree | RunningVariance = None,
) -> SplittingKernel:
    """SGHMC (Chen, Fox and Guestrin 2014, arXiv 1402.4102), a fresh batch each step.

        p ← (1 − hγ) p − h ∇U + √(2γTh − h²V̂) ξ,   θ ← θ + h M⁻¹ p

    With a `noise_estimate` batches are drawn with replacement, then its default stream: V̂ is
    taken off for noise drawn anew every step, sweeps are refused, and so are all data beside
    numbers. Symplectic Euler with Euler's friction: order 1, stable to h √k < 1.236 at γ = 1.

    Args:
        noise_estimate: V̂, an estimate of the variance of ∇U's noise in each coordinate,
            whose heat is then not injected again: None (default) for 0, numbers (one, or a
            pytree like the parameters), or `gradients.running_variance()`, which finds next to
            nothing where all data are used. Where h V̂ > 2γT it is clipped, and `Info.clipped`
            says in how many coordinates.
        posterior, step_size, friction, temperature, metric, gradient, noise: see
            `sgmcmc.kernels`.

    Raises:
        ValueError: h V̂ > 2γT for numbers known here; a dense metric with `noise_estimate`;
            numbers above 0 with `gradients.full()`.
    """
    flows = UNDERDAMPED
    if noise_estimate is not None:
        flows = flows | table(CompensatedFriction(_estimate(noise_estimate, metric)))
    kernel = build(
        posterior,
        step_size,
        spell("GFBA", 1, flows),
        name="sghmc",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
    for flow in kernel.flows.values():
        if isinstance(flow, CompensatedFriction) and isinstance(flow.estimate, Given):
            _require_room(kernel, flow.estimate)
    return kernel


class CompensatedFriction(AbstractFlow):
    """F: (1 − γt) r + √(2γTt − t²V̂) ξ; `State.extra["noise_estimate"]` is V̂'s memory.

    Gradients of a fall are no noise, and so large that V̂ would leave nothing to inject for long
    after. Halfway through a burn-in, at the step `anew`, a V̂ that is learnt begins anew, with the
    plain mean of what it sees until its memory is full; 0: never.
    """

    estimate: Given | RunningVariance
    anew: Array = eqx.field(default_factory=lambda: jnp.zeros((), jnp.int32))

    letter: ClassVar[str] = "F"
    normals: ClassVar[int] = 1
    # V̂ is learnt from the gradient that the step has just taken.
    reads_gradient: ClassVar[bool] = True
    rubs: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    @property
    def batches(self) -> Batches:
        return self.estimate.batches

    def init(self, position: PyTree, friction: Array, key: Key) -> dict[str, PyTree]:
        self.estimate.check(position)
        return {"noise_estimate": self.estimate.init(position)}

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        injected = 2 * pace.friction * pace.temperature * t
        memory = phase.extra["noise_estimate"]
        spare = self._kick_variance(memory, phase.position, t, pace)
        normals = noises.to_tree(rows[0], phase.position)

        def rub(p: Array, v: Array, z: Array) -> Array:
            amplitude = jnp.sqrt(jnp.maximum(injected - v, 0.0))
            return ((1 - pace.friction * t) * p + amplitude * z).astype(p.dtype)

        momentum = jax.tree.map(rub, phase.momentum, spare, normals)
        # Only now: the gradient of this step must not be in this step's estimate.
        since = pace.step - self.anew
        seen = (self.anew > 0) & (since >= 0)
        least = jnp.where(seen, 1 / (1 + jnp.maximum(since, 0)).astype(pace.dt.dtype), 0.0)
        following = self.estimate.update(memory, phase.gradient, least)
        return phase._replace(momentum=momentum, extra={**phase.extra, "noise_estimate": following})

    def for_burnin(self, num_burnin: int) -> Self:
        return dataclasses.replace(self, anew=jnp.asarray(num_burnin // 2, jnp.int32))

    def report(self, phase: Phase, pace: Pace) -> dict[str, Array]:
        """`clipped`: the share of coordinates with h V̂ > 2γT."""
        budget = 2 * pace.friction * pace.temperature
        memory = phase.extra["noise_estimate"]
        leaves = jax.tree.leaves(self._kick_variance(memory, phase.position, pace.dt, pace))
        above = jnp.stack([jnp.sum(v > budget * pace.dt) for v in leaves])
        return {"clipped": jnp.sum(above) / trees.size(phase.position)}

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        """That of Euler's friction, whose heat V̂ stands for a part of."""
        return EulerFriction().oscillate(before, t, g, normals, friction)

    def _kick_variance(self, memory: PyTree, position: PyTree, t: Array, pace: Pace) -> PyTree:
        """t² times V̂ of the whitened gradient."""
        variance = self.estimate.estimate(memory, position)
        return trees.scale(t**2, pace.metric.to_momentum(pace.metric.to_momentum(variance)))


def _estimate(noise_estimate: PyTree, metric: object) -> Given | RunningVariance:
    """The checked V̂ of `sghmc(noise_estimate=…)`, one number for each coordinate.

    Raises:
        ValueError: V̂ is negative or not finite; the metric is dense.
        TypeError: V̂ is neither numbers nor `running_variance()`.
    """
    if not isinstance(metric, Identity | Diagonal):
        raise ValueError(
            f"metric: got {type(metric).__name__.lower()}; noise_estimate is one number "
            "for each coordinate and allows identity or diagonal"
        )
    return noise_estimate if isinstance(noise_estimate, RunningVariance) else given(noise_estimate)


def _require_room(kernel: SplittingKernel, estimate: Given) -> None:
    """Raise a ValueError if h V̂ > 2γT, where the numbers stand still and are known."""
    rates = [kernel.clock.step_size, kernel.friction, kernel.temperature]
    numbers = [rate.value for rate in rates if isinstance(rate, Constant)]
    variance = _whitened(estimate, kernel.metric)
    unknown = any(isinstance(x, jax.core.Tracer) for x in [*numbers, *variance])
    if len(numbers) < 3 or unknown or any(x.ndim for x in numbers):
        return
    h, friction, temperature = (float(x) for x in numbers)
    spent = h * max(float(jnp.max(v)) for v in variance)
    budget = 2 * friction * temperature
    # Equal in real numbers must not fail for rounding.
    if spent > budget * (1 + 1e-6):
        raise ValueError(
            f"noise_estimate: h V̂ = {spent:g} > 2γT = {budget:g}: the gradient's noise alone is "
            "too hot; allowed: a smaller step_size or V̂, or more friction"
        )


def _whitened(given: Given, metric: object) -> list[Array]:
    """Leaves of the variance of L ∇U, L the metric's diagonal factor."""
    scale = metric.scale if isinstance(metric, Diagonal) else jnp.ones(())
    if isinstance(scale, jax.Array) and scale.ndim == 0:
        return [scale**2 * v for v in jax.tree.leaves(given.variance)]
    if given.is_scalar:
        return [s**2 * given.variance for s in jax.tree.leaves(scale)]
    checks.require_same_structure(given.variance, scale, "noise_estimate", "the metric's scale")
    return jax.tree.leaves(jax.tree.map(lambda s, v: s**2 * v, scale, given.variance))
