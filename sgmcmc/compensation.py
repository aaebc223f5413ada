"""SGHMC's noise with that of the gradient taken off: less is injected, the sum is right.

One kick of size h with gradient noise of variance V adds h²V to the momentum's. The friction
step therefore adds 2γTh − h²V̂ alone, V̂ an estimate of V for each coordinate: given, or
estimated from the gradients of the steps before,

    V̂ ← β V̂ + (1 − β) (g_k − g_{k−1})²/2,

after its use, so that V̂ never knows of the batch whose noise it stands for. Differences of
successive gradients hold the movement of the true gradient to O(h²) only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import noise as noises
from sgmcmc import trees
from sgmcmc.clocks import Constant
from sgmcmc.metrics import Diagonal, Identity
from sgmcmc.rates import check_range
from sgmcmc.splitting import Phase, SplittingKernel, extend
from sgmcmc.types import Array, Info, Key, PyTree, State


class Given(eqx.Module):
    """V̂ as the user knows it: one number, or a pytree like the parameters."""

    variance: PyTree

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless V̂ is a scalar or fits `position`, leaf by leaf."""
        if not self._is_scalar():
            trees.require_same_structure(
                self.variance, position, "noise_estimate", "the parameters"
            )

    def init(self, position: PyTree) -> PyTree:
        return ()

    def estimate(self, memory: PyTree, position: PyTree) -> PyTree:
        """V̂, like `position`."""
        if self._is_scalar():
            return jax.tree.map(lambda x: jnp.full_like(x, self.variance), position)
        return jax.tree.map(lambda v, x: v.astype(x.dtype), self.variance, position)

    def update(self, memory: PyTree, gradient: PyTree) -> PyTree:
        return memory

    def _is_scalar(self) -> bool:
        return isinstance(self.variance, jax.Array) and self.variance.ndim == 0


class Memory(NamedTuple):
    """V̂, the last gradient, and the gradients seen."""

    variance: PyTree
    gradient: PyTree
    seen: Array


class RunningVariance(eqx.Module):
    """V̂ from the differences of successive gradients; see `running_variance`."""

    decay: Array

    def check(self, position: PyTree) -> None:
        pass

    def init(self, position: PyTree) -> Memory:
        zero = trees.zeros_like(position)
        return Memory(zero, zero, jnp.zeros((), jnp.int32))

    def estimate(self, memory: Memory, position: PyTree) -> PyTree:
        """V̂, like `position`; 0 until two gradients have been seen."""
        return memory.variance

    def update(self, memory: Memory, gradient: PyTree) -> Memory:
        # The first difference is the estimate, the later ones are averaged in.
        share = jnp.where(memory.seen == 1, 1.0, 1 - self.decay)
        share = jnp.where(memory.seen == 0, 0.0, share)

        def average(v: Array, g: Array, last: Array) -> Array:
            return v + share.astype(v.dtype) * ((g - last) ** 2 / 2 - v)

        variance = jax.tree.map(average, memory.variance, gradient, memory.gradient)
        return Memory(variance, gradient, memory.seen + 1)


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


def running_variance(decay: float | Array = 0.99) -> RunningVariance:
    """V̂ for `sghmc(noise_estimate=…)`, estimated as the chain goes.

    Args:
        decay: β in [0, 1): a memory of about 1/(1 − β) steps. It keeps two more copies of
            the parameters.

    Raises:
        ValueError: `decay` out of range.
    """
    number = jnp.asarray(decay, dtype=float)
    check_range(number, "decay", above_zero=False, below=1.0)
    return RunningVariance(number)


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
        noise_estimate = _given(noise_estimate)
        _require_room(kernel, noise_estimate)
    return extend(kernel, CompensatedKernel, noise_estimate=noise_estimate)


def _given(estimate: Any) -> Given:
    try:
        variance = jax.tree.map(lambda v: jnp.asarray(v, dtype=float), estimate)
    except (TypeError, ValueError):
        variance = None
    if not jax.tree.leaves(variance):
        raise TypeError(
            f"noise_estimate: got {estimate!r}; expected None, numbers ≥ 0 (one, or a pytree "
            "like the parameters), or sgmcmc.running_variance()"
        )
    for path, leaf in trees.named_leaves(variance):
        if isinstance(leaf, jax.core.Tracer):
            continue
        values = np.asarray(leaf, dtype=np.float64)
        if not np.all((values >= 0) & np.isfinite(values)):
            raise ValueError(f"noise_estimate: {path} must be finite and ≥ 0, got {leaf}")
    return Given(variance)


def _require_room(kernel: SplittingKernel, given: Given) -> None:
    """Raise a ValueError if h V̂ > 2γT, where the numbers stand still and are known."""
    rates = [kernel.clock.step_size, kernel.friction, kernel.temperature]
    numbers = [rate.value for rate in rates if isinstance(rate, Constant)]
    variance = _whitened(given, kernel.metric)
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
    trees.require_same_structure(given.variance, scale, "noise_estimate", "the metric's scale")
    return jax.tree.leaves(jax.tree.map(lambda s, v: s**2 * v, scale, given.variance))
