"""Samplers on an adaptive clock: ZBAOABZ, SA-SGLD, and any word with the letter Z.

A step is as long as the clock says when it begins, dt = ψ(ζ) Δτ, and a draw weighs the ψ(ζ)
that belongs to it. Which one does, matters by an order: with ZBAOABZ it is ψ after the
closing Z, with the overdamped scheme that of the step which is about to leave the position
(arXiv 2504.18911; 2511.11666). All averages of this library use the weights.
"""

from __future__ import annotations

from typing import Any

import jax

from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc.clocks._adaptive import AdaptiveClock, as_adaptive, nominal
from sgmcmc.gradients._base import Estimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels import _flows as substeps
from sgmcmc.kernels._splitting import Phase, SplittingKernel, build, extend
from sgmcmc.kernels._words import plan, spell
from sgmcmc.metrics._base import Metric
from sgmcmc.metrics._constant import Identity, identity
from sgmcmc.types import Array, Key, PyTree, State


class AdaptiveKernel(SplittingKernel):
    """A word with the letter Z; ζ is the clock's memory. See `samadams`, `sa_sgld`."""

    clock: AdaptiveClock

    def __check_init__(self) -> None:
        if self.clock.per_leaf and self.friction is not None:
            raise ValueError(
                "step_size: a clock per leaf is for sa_sgld alone; allowed: per_leaf=False"
            )

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state, with ζ where the clock starts."""
        state = super().init(position, rng_key, data)
        self.clock.check(state.position)
        return state._replace(clock=self.clock.begin(state.position))

    def _time(self, state: State, end: Phase) -> tuple[Array, Array]:
        step, share = nominal(self.clock, state.clock.count)
        weight = self.clock.weight(end.memory)
        # Overdamped, the draw is the position that the step is about to leave.
        factor = weight if self.friction is None else self.clock.weight(state.clock.memory)
        return factor * step, weight * share

    def _apply(
        self, letter: str, fraction: float, row: int, phase: Phase, noise: Array, pace: Any
    ) -> Phase:
        if letter == "Z":
            moved = self.clock.flow(phase.memory, phase.gradient, fraction * pace.dt)
            return phase._replace(memory=moved)
        if self.clock.per_leaf:
            return self._euler_of_leaves(phase, noise[row], fraction, pace)
        # ζ changes under Z alone, so that one step's letters share its dt, and what follows
        # Z belongs to the next.
        rescaled = pace._replace(dt=self.clock.factor(phase.memory) * pace.dt)
        return super()._apply(letter, fraction, row, phase, noise, rescaled)

    def _euler_of_leaves(self, phase: Phase, noise: Array, fraction: float, pace: Any) -> Phase:
        def euler(x: Array, g: Array, z: Array, factor: Array) -> Array:
            t = fraction * pace.dt * factor
            moved: Array = substeps.overdamped_euler(x, g, z, t, pace.temperature, self.metric)
            return moved

        normals = noises.to_tree(noise, phase.position)
        factors = self.clock.factor(phase.memory)
        position = jax.tree.map(euler, phase.position, phase.gradient, normals, factors)
        return phase._replace(position=position)


def samadams(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """SamAdams (Leimkuhler, Lohmann and Whalley 2025, arXiv 2504.18911), the word ZBAOABZ.

    Langevin dynamics whose step follows the gradient, at one gradient a step. Weighted
    averages are of order 2 in Δτ, unweighted ones wrong at any Δτ. `run.info.time` has the
    steps that were made.

    Args:
        step_size: Δτ, a number, a schedule or None (`sample` chooses it) for `clocks.samadams`
            with its defaults, or that clock itself: `clocks.samadams(0.01, alpha=10.0)`.
        posterior, friction, temperature, metric, gradient, noise: see `sgmcmc.kernels`.

    Raises:
        TypeError: another kind of clock.
    """
    return build(
        posterior,
        as_adaptive(step_size),
        plan("ZBAOABZ"),
        name="samadams",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
        kind=AdaptiveKernel,
    )


def sa_sghmc(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """SA-SGHMC: the word ZBAOABZ, by the name that the papers on networks know it by.

    It makes `samadams`' steps, number for number. Written with a learning rate ℓ and a
    momentum decay β in the place of step and friction, Δτ = √(ℓ/N) and γ = (1 − β)/Δτ
    (`sgmcmc.convert`).

    Arguments: see `sgmcmc.samadams`.
    """
    kernel = samadams(
        posterior,
        step_size,
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
    return extend(kernel, AdaptiveKernel, name="sa_sghmc")


def sa_sgld(
    posterior: Posterior,
    step_size: Any,
    *,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """SA-SGLD (arXiv 2511.11666): SGLD whose step follows the gradient.

        ζ ← e^{−αΔτ} ζ + (1 − e^{−αΔτ}) g(∇U(θ))/α,   dt = ψ(ζ) Δτ,
        θ ← θ − dt ∇U(θ) + √(2T dt) ξ

    The draw is the θ at which the gradient was taken, its weight ψ(ζ), that of the step which
    leaves it: with this pair weighted averages are of order 1 in Δτ, small in its constant.

    Args:
        step_size: Δτ, a number or a schedule for `clocks.samadams` with its defaults, or
            that clock itself.
        posterior, temperature, metric, gradient, noise: see `sgmcmc.kernels`.

    Raises:
        TypeError: another kind of clock.
        ValueError: a metric other than the identity with `per_leaf`.
    """
    clock = as_adaptive(step_size)
    if clock.per_leaf and not isinstance(metric, Identity):
        raise ValueError(f"metric: got {type(metric).__name__.lower()}; per_leaf allows identity")
    return build(
        posterior,
        clock,
        spell("GZE", order=1, recorded="Z"),
        name="sa_sgld",
        friction=None,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
        kind=AdaptiveKernel,
    )
