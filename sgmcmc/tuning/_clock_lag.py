"""What an adaptive clock adds to the error of its word, on one oscillator.

The clock reads the gradient where a step begins, and follows it 1/α later; what is left of the
stiffest mode's swing in ζ makes steps of different lengths at different places of that swing, and
heats or cools the mode. There is no formula that holds for all α, ψ and words: the mode is
simulated by itself, with all other directions as a constant part of the monitor,

    g = E[g] (1 − φ + φ (∂U)²/(λT))^{s/2},   φ = λT/E|∇U|²,

and the ⟨x²⟩ of its weighted draws compared with that of the word at a fixed step.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant
from sgmcmc.clocks._adaptive import AdaptiveClock
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._euler import EulerStep
from sgmcmc.kernels._flows import AbstractFlow
from sgmcmc.kernels._samadams import EulerStepOfLeaves
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import Flows
from sgmcmc.loop._chain import ChainKeys, fold
from sgmcmc.metrics._constant import identity
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._rules import RULES
from sgmcmc.types import Array, Info, Key, State


class ModeDensity(eqx.Module):
    """−λx²/2."""

    curvature: Array

    def __call__(self, x: Array) -> Array:
        return -0.5 * jnp.sum(self.curvature * x**2)


class ModeMonitor(eqx.Module):
    """g = E[g] (1 − φ + φ (∂U)²/(λT))^{s/2}, the monitor of one mode among all others.

    Attributes:
        level: E[g].
        share: φ.
        square: λT.
        exponent: s.
    """

    level: Array
    share: Array
    square: Array
    exponent: Array

    def __call__(self, gradient: Array) -> Array:
        relative = 1 - self.share + self.share * jnp.sum(gradient**2) / self.square
        return self.level * relative ** (self.exponent / 2)


def mode_kernel(
    kernel: SplittingKernel, clock: AdaptiveClock, curvature: float, level: float, share: float
) -> SplittingKernel:
    """The kernel's word and clock on the stiffest mode alone, at Δτ = 1.

    Args:
        kernel: untuned or not, and settled.
        clock: its numbers.
        curvature: λ.
        level: E[g].
        share: φ.
    """
    number = lambda x: jnp.asarray(x, dtype=float)  # noqa: E731
    temperature = kernel.temperature(jnp.zeros((), jnp.int32))
    square = number(curvature) * temperature
    monitor = ModeMonitor(number(level), number(share), square, clock.exponent)
    paced = dataclasses.replace(
        clock, step_size=Constant(number(1.0)), scale=None, start=number(level) / clock.alpha,
        monitor=monitor, per_leaf=False,
    )  # fmt: skip
    return dataclasses.replace(
        kernel, clock=paced, flows=without_leaves(kernel.flows), metric=identity(),
        posterior=Posterior.from_log_density(ModeDensity(number(curvature))),
        gradient=minibatch(), noise="gaussian",
    )  # fmt: skip


def without_leaves(flows: Flows) -> dict[str, AbstractFlow]:
    """The flows, with one step for all leaves in the place of one for each."""
    return {
        letter: EulerStep() if isinstance(flow, EulerStepOfLeaves) else flow
        for letter, flow in flows.items()
    }


def paced_at(kernel: SplittingKernel, step_size: float, friction: float | None) -> SplittingKernel:
    """`mode_kernel`'s kernel at a step Δτ and a friction; None: overdamped."""
    number = jnp.asarray(step_size, dtype=float)
    made = eqx.tree_at(lambda k: k.clock.step_size.value, kernel, number)
    if friction is None:
        return made
    rate = Constant(jnp.asarray(friction, dtype=float))
    return eqx.tree_at(lambda k: k.friction, made, rate)


@eqx.filter_jit
def simulated_variance(kernel: SplittingKernel, key: Key) -> Array:
    """⟨x²⟩ λ/T of weighted draws, to about 1%; chains begin at the quantiles of the mode's law."""
    temperature = kernel.temperature(jnp.zeros((), jnp.int32))
    unit = temperature / kernel.posterior.log_prior.curvature  # type: ignore[attr-defined]
    source, zero = kernel.source(streams.full(), 0, None), jnp.zeros(())

    def begin(state: State) -> tuple[Array, Array]:
        return zero, zero

    def add(t: Array, state: State, info: Info, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        squares, weights = sums
        weight = jnp.where(t >= RULES.clock_steps, info.weight, 0.0)
        return squares + weight * jnp.sum(info.position**2), weights + weight

    def chain(key: Key, quantile: Array) -> tuple[Array, Array]:
        keys, start = ChainKeys(*jax.random.split(key)), jnp.sqrt(unit) * quantile[None]
        sums: tuple[Array, Array] = fold(
            kernel, source, keys, start, 2 * RULES.clock_steps, begin, add
        )[1]
        return sums

    # Short steps hardly leave their places, whose own chance would pass for the clock's doing.
    count = RULES.clock_chains
    quantiles = jax.scipy.stats.norm.ppf((jnp.arange(count) + 0.5) / count)
    squares, weights = jax.vmap(chain)(jax.random.split(key, count), quantiles)
    return jnp.sum(squares) / jnp.sum(weights) / unit
