"""Samplers on an adaptive clock: ZBAOABZ, SA-SGLD, and any word with the letter Z.

A step is as long as the clock says when it begins, dt = ψ(ζ) Δτ, and a draw weighs the ψ(ζ)
that belongs to it. Which one does, matters by an order: with ZBAOABZ it is ψ after the
closing Z, with the overdamped scheme that of the step which is about to leave the position
(arXiv 2504.18911; 2511.11666). All averages of this library use the weights.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax

from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Friction, ScalarOrSchedule
from sgmcmc.clocks._adaptive import as_adaptive
from sgmcmc.clocks._base import AbstractClock, StepSize
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._euler import EulerStep, overdamped_euler
from sgmcmc.kernels._flows import LANGEVIN, AbstractFlow, Pace, Phase
from sgmcmc.kernels._splitting import SplittingKernel, build
from sgmcmc.kernels._words import plan, spell, table
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import Identity, identity
from sgmcmc.types import Array, NoiseKind, PyTree


class ClockFlow(AbstractFlow):
    """Z: the flow of an adaptive clock's ζ, at a gradient that stands still."""

    letter: ClassVar[str] = "Z"
    reads_gradient: ClassVar[bool] = True
    shares_gradient: ClassVar[bool] = True
    adapts: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        return phase._replace(clock=pace.clock.flow(phase.clock, phase.gradient, t))


class EulerStepOfLeaves(AbstractFlow):
    """E with a step of its own for each leaf of θ; t is a pytree of () numbers like θ."""

    letter: ClassVar[str] = "E"
    normals: ClassVar[int] = 1
    moves: ClassVar[bool] = True
    reads_gradient: ClassVar[bool] = True

    def apply(self, phase: Phase, t: PyTree, rows: Array, pace: Pace) -> Phase:
        def euler(x: Array, g: Array, z: Array, step: Array) -> Array:
            moved: Array = overdamped_euler(x, g, z, step, pace.temperature, pace.metric)
            return moved

        normals = noises.to_tree(rows[0], phase.position)
        position = jax.tree.map(euler, phase.position, phase.gradient, normals, t)
        return phase._replace(position=position)


def one_clock(step_size: StepSize) -> AbstractClock:
    """The adaptive clock of a word with Z.

    Raises:
        TypeError: another kind of clock.
        ValueError: a clock for each leaf.
    """
    clock = as_adaptive(step_size)
    if clock.splits_leaves:
        raise ValueError(
            "step_size: a clock per leaf is for sa_sgld alone; allowed: per_leaf=False"
        )
    return clock


def samadams(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """SamAdams (Leimkuhler, Lohmann and Whalley 2025, arXiv 2504.18911), the word ZBAOABZ.

    Langevin dynamics whose step follows the gradient, at one gradient a step. Weighted
    averages are of order 2 in Δτ, unweighted ones wrong at any Δτ. `run.info.time` has the
    steps that were made.

    Args:
        step_size: Δτ, a number, a schedule or None (`sample` chooses it) for `clocks.adaptive`
            with its defaults, or that clock itself: `clocks.adaptive(0.01, alpha=10.0)`.
        posterior, friction, temperature, metric, gradient, noise: see `sgmcmc.kernels`.

    Raises:
        TypeError: another kind of clock.
    """
    return _zbaoabz(
        posterior,
        step_size,
        name="samadams",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def sa_sghmc(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """SA-SGHMC: the word ZBAOABZ, by the name that the papers on networks know it by.

    It makes `samadams`' steps, number for number. Written with a learning rate ℓ and a
    momentum decay β in the place of step and friction, Δτ = √(ℓ/N) and γ = (1 − β)/Δτ
    (`sgmcmc.convert`).

    Arguments: see `sgmcmc.samadams`.
    """
    return _zbaoabz(
        posterior,
        step_size,
        name="sa_sghmc",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def sa_sgld(
    posterior: Posterior,
    step_size: StepSize,
    *,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """SA-SGLD (arXiv 2511.11666): SGLD whose step follows the gradient.

        ζ ← e^{−αΔτ} ζ + (1 − e^{−αΔτ}) g(∇U(θ))/α,   dt = ψ(ζ) Δτ,
        θ ← θ − dt ∇U(θ) + √(2T dt) ξ

    The draw is the θ at which the gradient was taken, its weight ψ(ζ), that of the step which
    leaves it: with this pair weighted averages are of order 1 in Δτ, small in its constant.

    Args:
        step_size: Δτ, a number or a schedule for `clocks.adaptive` with its defaults, or
            that clock itself.
        posterior, temperature, metric, gradient, noise: see `sgmcmc.kernels`.

    Raises:
        TypeError: another kind of clock.
        ValueError: a metric other than the identity with `per_leaf`.
    """
    clock = as_adaptive(step_size)
    per_leaf = clock.splits_leaves
    if per_leaf and not isinstance(metric, Identity):
        raise ValueError(f"metric: got {type(metric).__name__.lower()}; per_leaf allows identity")
    step = EulerStepOfLeaves() if per_leaf else EulerStep()
    return build(
        posterior,
        clock,
        spell("GZE", 1, table(ClockFlow(), step), recorded="Z"),
        name="sa_sgld",
        friction=None,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def _zbaoabz(posterior: Posterior, step_size: StepSize, **options: Any) -> SplittingKernel:
    flows = table(*LANGEVIN, ClockFlow())
    return build(posterior, one_clock(step_size), plan("ZBAOABZ", flows), **options)
