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
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant
from sgmcmc.clocks._adaptive import AdaptiveClock
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._euler import EulerStep
from sgmcmc.kernels._samadams import EulerStepOfLeaves
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.metrics._constant import identity
from sgmcmc.types import Array, Key

OSCILLATORS, STEPS = 8192, 400


class Mode(eqx.Module):
    """−λx²/2."""

    curvature: Array

    def __call__(self, x: Array) -> Array:
        return -0.5 * jnp.sum(self.curvature * x**2)


class Share(eqx.Module):
    """The monitor of the mode among all others; see the module."""

    level: Array
    share: Array
    square: Array
    exponent: Array

    def __call__(self, gradient: Array) -> Array:
        relative = 1 - self.share + self.share * jnp.sum(gradient**2) / self.square
        return self.level * relative ** (self.exponent / 2)


def oscillator(
    kernel: SplittingKernel, clock: AdaptiveClock, curvature: float, level: float, share: float
) -> SplittingKernel:
    """The kernel's word and clock on the stiffest mode alone.

    Args:
        kernel: untuned or not, with constant temperature.
        clock: its numbers.
        curvature: λ.
        level: E[g].
        share: φ.
    """
    number = lambda x: jnp.asarray(x, dtype=float)  # noqa: E731
    temperature = kernel.temperature(jnp.zeros((), jnp.int32))
    monitor = Share(number(level), number(share), number(curvature) * temperature, clock.exponent)
    paced = dataclasses.replace(
        clock, step_size=Constant(number(1.0)), scale=None, start=number(level) / clock.alpha,
        monitor=monitor, per_leaf=False,
    )  # fmt: skip
    flows = {
        letter: EulerStep() if isinstance(flow, EulerStepOfLeaves) else flow
        for letter, flow in kernel.flows.items()
    }
    return dataclasses.replace(
        kernel, clock=paced, flows=flows, metric=identity(), gradient=minibatch(),
        posterior=Posterior.from_log_density(Mode(number(curvature))), noise="gaussian",
    )  # fmt: skip


def at(kernel: SplittingKernel, step_size: float, friction: float | None) -> SplittingKernel:
    """`oscillator`'s kernel at a step Δτ and a friction."""
    number = jnp.asarray(step_size, dtype=float)
    made = eqx.tree_at(lambda k: k.clock.step_size.value, kernel, number)
    if friction is None:
        return made
    rate = Constant(jnp.asarray(friction, dtype=float))
    return eqx.tree_at(lambda k: k.friction, made, rate)


@eqx.filter_jit
def variance(kernel: SplittingKernel, key: Key) -> Array:
    """⟨x²⟩ λ/T of weighted draws, to about 1%; chains begin at the quantiles of the mode's law."""
    temperature = kernel.temperature(jnp.zeros((), jnp.int32))
    unit = temperature / kernel.posterior.log_prior.curvature  # type: ignore[attr-defined]

    def one(key: Key, quantile: Array) -> tuple[Array, Array]:
        state_key, steps_key = jax.random.split(key)
        state = kernel.init(jnp.sqrt(unit) * quantile[None], state_key)

        def step(t: Array, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            state, total, weights = carry
            state, info = kernel.step(jax.random.fold_in(steps_key, t), state)
            weight = jnp.where(t >= STEPS, info.weight, 0.0)
            return state, total + weight * jnp.sum(info.position**2), weights + weight

        zero = jnp.zeros(())
        return jax.lax.fori_loop(0, 2 * STEPS, step, (state, zero, zero))[1:]

    # Short steps hardly leave their places, whose own chance would pass for the clock's doing.
    levels = (jnp.arange(OSCILLATORS) + 0.5) / OSCILLATORS
    quantiles = jax.scipy.stats.norm.ppf(levels)
    totals, weights = jax.vmap(one)(jax.random.split(key, OSCILLATORS), quantiles)
    return jnp.sum(totals) / jnp.sum(weights) / unit
