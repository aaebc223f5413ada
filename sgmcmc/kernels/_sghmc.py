"""SGHMC's noise with that of the gradient taken off: less is injected, the sum is right.

One kick of size h with gradient noise of variance V adds h²V to the momentum's. The friction
step therefore adds 2γTh − h²V̂ alone, V̂ an estimate of V for each coordinate: given, or
estimated from the gradients of the steps before,

    V̂ ← β V̂ + (1 − β) (g_k − g_{k−1})²/2,

after its use, so that V̂ never knows of the batch whose noise it stands for. Differences of
successive gradients hold the movement of the true gradient to O(h²) only.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant
from sgmcmc.gradients._base import Estimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.gradients._noise_variance import Given, RunningVariance, given
from sgmcmc.kernels._splitting import Phase, SplittingKernel, build, extend
from sgmcmc.kernels._words import spell
from sgmcmc.metrics._base import Metric
from sgmcmc.metrics._constant import Diagonal, Identity, identity
from sgmcmc.types import Array, Info, Key, PyTree, State


def sghmc(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
    noise_estimate: Any = None,
) -> SplittingKernel:
    """SGHMC (Chen, Fox and Guestrin 2014, arXiv 1402.4102), a fresh batch each step.

        p ← (1 − hγ) p − h ∇U + √(2γTh − h²V̂) ξ,   θ ← θ + h M⁻¹ p

    Symplectic Euler with Euler's friction: order 1, stable to h √k < 1.236 at γ = 1.

    Args:
        noise_estimate: V̂, an estimate of the variance of ∇U's noise in each coordinate,
            whose heat is then not injected again: None (default) for 0, numbers (one, or a
            pytree like the parameters), or `gradients.running_variance()`. Where h V̂ > 2γT it
            is clipped, and `Info.clipped` says in how many coordinates.
        posterior, step_size, friction, temperature, metric, gradient, noise: see
            `sgmcmc.kernels`.

    Raises:
        ValueError: h V̂ > 2γT for numbers known here; a dense metric with `noise_estimate`.
    """
    kernel = build(
        posterior,
        step_size,
        spell("GFBA", order=1),
        name="sghmc",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
    return kernel if noise_estimate is None else compensate(kernel, noise_estimate)


class CompensatedKernel(SplittingKernel):
    """SGHMC whose injected noise is less by that of the gradient; V̂'s memory is `extra`."""

    noise_estimate: Given | RunningVariance

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state; see `SplittingKernel.init`."""
        state = super().init(position, rng_key, data)
        self.noise_estimate.check(state.position)
        return state._replace(extra=self.noise_estimate.init(state.position))

    def drive(self, noise: Array, state: State, batch: Any) -> tuple[State, Info]:
        """One step; `Info.clipped` is the share of coordinates with V̂ above what fits."""
        following, info = super().drive(noise, state, batch)
        dt, count = self.clock.tick(state.clock)[0], state.clock.count
        assert self.friction is not None
        budget = 2 * self.friction(count) * self.temperature(count)
        leaves = jax.tree.leaves(self._kick_variance(state.extra, state.position, dt))
        above = jnp.stack([jnp.sum(v > budget * dt) for v in leaves])
        return following, info._replace(clipped=jnp.sum(above) / trees.size(state.position))

    def _apply(
        self, letter: str, fraction: float, row: int, phase: Phase, noise: Array, pace: Any
    ) -> Phase:
        if letter != "F":
            return super()._apply(letter, fraction, row, phase, noise, pace)
        t = fraction * pace.dt
        injected = 2 * pace.friction * pace.temperature * t
        spare = self._kick_variance(phase.extra, phase.position, t)
        normals = noises.to_tree(noise[row], phase.position)

        def rub(p: Array, v: Array, z: Array) -> Array:
            amplitude = jnp.sqrt(jnp.maximum(injected - v, 0.0))
            return ((1 - pace.friction * t) * p + amplitude * z).astype(p.dtype)

        momentum = jax.tree.map(rub, phase.momentum, spare, normals)
        # Only now: the gradient of this step must not be in this step's estimate.
        following = self.noise_estimate.update(phase.extra, phase.gradient)
        return phase._replace(momentum=momentum, extra=following)

    def _kick_variance(self, memory: PyTree, position: PyTree, t: Array) -> PyTree:
        """t² times V̂ of the whitened gradient."""
        variance = self.noise_estimate.estimate(memory, position)
        return trees.scale(t**2, self.metric.to_momentum(self.metric.to_momentum(variance)))


def compensate(kernel: SplittingKernel, noise_estimate: Any) -> CompensatedKernel:
    """`sghmc` with V̂ taken off its noise.

    Raises:
        ValueError: V̂ is negative or not finite, or (where all numbers are known) h V̂ > 2γT
            somewhere; the metric is dense.
        TypeError: V̂ is neither numbers nor `running_variance()`.
    """
    if not isinstance(kernel.metric, Identity | Diagonal):
        raise ValueError(
            f"metric: got {type(kernel.metric).__name__.lower()}; noise_estimate is one number "
            "for each coordinate and allows identity or diagonal"
        )
    if not isinstance(noise_estimate, RunningVariance):
        noise_estimate = given(noise_estimate)
        _require_room(kernel, noise_estimate)
    return extend(kernel, CompensatedKernel, noise_estimate=noise_estimate)


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


def _whitened(given: Given, metric: Any) -> list[Array]:
    """Leaves of the variance of L ∇U, L the metric's diagonal factor."""
    scale = getattr(metric, "scale", jnp.ones(()))
    if isinstance(scale, jax.Array) and scale.ndim == 0:
        return [scale**2 * v for v in jax.tree.leaves(given.variance)]
    if given._is_scalar():
        return [s**2 * given.variance for s in jax.tree.leaves(scale)]
    checks.require_same_structure(given.variance, scale, "noise_estimate", "the metric's scale")
    return jax.tree.leaves(jax.tree.map(lambda s, v: s**2 * v, scale, given.variance))
