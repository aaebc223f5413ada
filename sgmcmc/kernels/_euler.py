"""Euler's schemes and their kin: short lists of sub-steps, which are no words of exact flows.

Their letters, in whitened coordinates as those of `_flows`:

    E   θ ← θ − t G ∇U + √(2tT) L ξ                    overdamped Euler
    M   θ ← θ − t G ∇U + √(tT/2) L (ξ_k + ξ_{k+1})     Leimkuhler and Matthews
    F   r ← (1 − γt) r + √(2γTt) ξ                     Euler's friction
"""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Friction, ScalarOrSchedule
from sgmcmc.clocks._base import StepSize
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._flows import AbstractFlow, Drift, Kick, Oscillator, Pace, Phase
from sgmcmc.kernels._splitting import SplittingKernel, build
from sgmcmc.kernels._words import spell, table
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import identity
from sgmcmc.types import Array, Key, NoiseKind, PyTree


class EulerStep(AbstractFlow):
    """E: θ − t G ∇U + √(2tT) L ξ."""

    letter: ClassVar[str] = "E"
    normals: ClassVar[int] = 1
    moves: ClassVar[bool] = True
    reads_gradient: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        normals = noises.to_tree(rows[0], phase.position)
        return phase._replace(
            position=overdamped_euler(
                phase.position, phase.gradient, normals, t, pace.temperature, pace.metric
            )
        )

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        x, p, last = before
        return x - t * g + np.sqrt(2 * t) * normals[0], p, last


class MatthewsStep(AbstractFlow):
    """M: θ − t G ∇U + √(tT/2) L (ξ_k + ξ_{k+1}); `State.extra["last"]` holds ξ_k.

    Under `noise="fast"` ξ_k is kept as random words.
    """

    noise: NoiseKind = eqx.field(static=True)

    letter: ClassVar[str] = "M"
    normals: ClassVar[int] = 1
    moves: ClassVar[bool] = True
    reads_gradient: ClassVar[bool] = True
    # ξ_k is a noise that the position is correlated with.
    swaps: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    def init(self, position: PyTree, friction: Array, key: Key) -> dict[str, PyTree]:
        return {"last": noises.draw(key, position, 1, self.noise)[0]}

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        last, row = phase.extra["last"], rows[0]
        pair = (noises.to_tree(last, phase.position), noises.to_tree(row, phase.position))
        position = leimkuhler_matthews_step(
            phase.position, phase.gradient, pair, t, pace.temperature, pace.metric
        )
        # Words are kept as words; numbers given to a kernel of words stay numbers.
        words = jnp.uint32 in (row.dtype, last.dtype)
        kept = row if words else row.astype(last.dtype)
        return phase._replace(position=position, extra={**phase.extra, "last": kept})

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        x, p, last = before
        return x - t * g + np.sqrt(t / 2) * (last + normals[0]), p, normals[0]


class EulerFriction(AbstractFlow):
    """F: (1 − γt) r + √(2γTt) ξ."""

    letter: ClassVar[str] = "F"
    normals: ClassVar[int] = 1
    rubs: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        normals = noises.to_tree(rows[0], phase.position)
        momentum = euler_friction(phase.momentum, normals, t, pace.friction, pace.temperature)
        return phase._replace(momentum=momentum)

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        x, p, last = before
        return x, (1 - friction * t) * p + np.sqrt(2 * friction * t) * normals[0], last


UNDERDAMPED = table(Drift(), Kick(), EulerFriction())


def overdamped_euler(
    position: PyTree,
    gradient: PyTree,
    noise: PyTree,
    t: Array,
    temperature: Array,
    metric: AbstractMetric,
) -> PyTree:
    """E: the new position."""
    amplitude = jnp.sqrt(2 * t * temperature)
    force = trees.scale(-t, metric.to_momentum(gradient))
    return trees.add(position, metric.to_position(trees.axpy(amplitude, noise, force)))


def leimkuhler_matthews_step(
    position: PyTree,
    gradient: PyTree,
    noise: tuple[PyTree, PyTree],
    t: Array,
    temperature: Array,
    metric: AbstractMetric,
) -> PyTree:
    """M: the new position; `noise` is (the last, the new)."""
    amplitude = jnp.sqrt(t * temperature / 2)
    force = trees.scale(-t, metric.to_momentum(gradient))
    shift = trees.axpy(amplitude, trees.add(*noise), force)
    return trees.add(position, metric.to_position(shift))


def euler_friction(
    momentum: PyTree, noise: PyTree, t: Array, friction: Array, temperature: Array
) -> PyTree:
    """F: the new momentum."""
    amplitude = jnp.sqrt(2 * friction * temperature * t)
    return trees.axpy(amplitude, noise, trees.scale(1 - friction * t, momentum))


def sgld(
    posterior: Posterior,
    step_size: StepSize,
    *,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """SGLD (Welling and Teh 2011): θ ← θ − h ∇U + √(2hT) ξ, their ε = 2h.

    Order 1; on Gaussians ⟨x²⟩ = T/(k (1 − hk/2)), stable for h k < 2. With a metric G,
    θ ← θ − h G ∇U + √(2hT) G^{1/2} ξ.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GE", 1, table(EulerStep())),
        name="sgld",
        friction=None,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def leimkuhler_matthews(
    posterior: Posterior,
    step_size: StepSize,
    *,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """Leimkuhler and Matthews (2013, eq. 1.4): θ ← θ − h ∇U + √(hT/2) (ξ_k + ξ_{k+1}).

    Overdamped at the price of SGLD, stationary order 2 and exact on Gaussians with full
    gradients; with minibatches it is of order 1 under every stream.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GM", 2, table(MatthewsStep(noise))),
        name="leimkuhler_matthews",
        friction=None,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def euler_maruyama(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """Explicit Euler of the underdamped equation, θ with the old p. For comparison only.

        θ ← θ + h M⁻¹ p,   p ← (1 − hγ) p − h ∇U(θ_old) + √(2γTh) ξ

    Order 1 with the largest error of all: at h = .2 a Gaussian's variance is 26% too large.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GAFB", 1, UNDERDAMPED),
        name="euler_maruyama",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def symplectic_euler(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """Symplectic Euler with Euler's friction, one gradient a step.

        p ← (1 − hγ) p − h ∇U + √(2γTh) ξ,   θ ← θ + h M⁻¹ p

    The integrator inside `sghmc`, under the name that numerical analysis gives it: the two
    kernels make the same steps. Order 1 (momenta; positions on Gaussians 2), stable to
    h √k < 1.236 at γ = 1.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GFBA", 1, UNDERDAMPED),
        name="symplectic_euler",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
