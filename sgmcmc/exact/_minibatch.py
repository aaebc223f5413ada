"""AMAGOLD and SGGMC: minibatch dynamics that sample the exact law; see `sgmcmc.exact._base`."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Friction, ScalarOrSchedule
from sgmcmc.clocks._base import StepSize
from sgmcmc.exact._base import AbstractCorrectedKernel, Proposal, build
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels import _flows as flows
from sgmcmc.kernels._flows import Pace
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import identity
from sgmcmc.types import Array, Blocks, NoiseKind, PyTree, State


class Amagold(AbstractCorrectedKernel):
    """See `amagold`."""

    gradients_per_batch: ClassVar[int] = 1
    rows_beside: ClassVar[int] = 0

    def propose(self, normals: Array, state: State, pace: Pace, blocks: Blocks) -> Proposal:
        h, friction, temperature = pace.dt, pace.friction, pace.temperature
        half = h * friction / 2
        amplitude = jnp.sqrt(2 * friction * h * temperature)

        def one(carry: Proposal, batch: PyTree, row: Array, share: Array) -> Proposal:
            x, r, work, _ = carry
            gradient = self.gradient_at(x, batch, state)
            force = self.metric.to_momentum(gradient)
            # Half implicit in the friction: ((1 − b) r − h g + √(2γhT) ξ)/(1 + b), b = γh/2.
            new = trees.axpy(-h, force, trees.scale(1 - half, r))
            new = trees.axpy(amplitude, noises.to_tree(row, x), new)
            new = trees.scale(1 / (1 + half), new)
            work = work - (h / 2 * trees.dot(force, trees.add(r, new))).astype(work.dtype)
            x = flows.drift(x, new, share * h, self.metric)
            return Proposal(x, new, work, _norm(gradient, work))

        momentum = trees.wide(state.momentum)
        start = flows.drift(trees.wide(state.position), momentum, h / 2, self.metric)
        zero = jnp.zeros_like(state.extra)
        # Half drifts at the block's ends, whole ones between.
        shares = jnp.ones(self.num_steps).at[-1].set(0.5)
        begin = Proposal(start, momentum, zero, zero)
        return self.each(one, begin, normals, shares, blocks)


class Sggmc(AbstractCorrectedKernel):
    """See `sggmc`."""

    gradients_per_batch: ClassVar[int] = 2
    rows_beside: ClassVar[int] = 1

    def propose(self, normals: Array, state: State, pace: Pace, blocks: Blocks) -> Proposal:
        h, friction, temperature = pace.dt, pace.friction, pace.temperature

        def rub(r: PyTree, row: Array, share: Array | float) -> PyTree:
            standard = noises.to_tree(row, r)
            return flows.ornstein_uhlenbeck(r, standard, share * h, friction, temperature)

        def one(carry: Proposal, batch: PyTree, row: Array, share: Array) -> Proposal:
            x, r, work, _ = carry
            gradient = self.gradient_at(x, batch, state)
            new = flows.kick(r, gradient, h / 2, self.metric)
            x = flows.drift(x, new, h, self.metric)
            gradient = self.gradient_at(x, batch, state)
            new = flows.kick(new, gradient, h / 2, self.metric)
            # K(r') − K(r) as a product: the difference of two sums would lose its digits.
            gain = trees.dot(jax.tree.map(jnp.subtract, new, r), trees.add(new, r)) / 2
            work = work + gain.astype(work.dtype)
            return Proposal(x, rub(new, row, share), work, _norm(gradient, work))

        zero = jnp.zeros_like(state.extra)
        begin = Proposal(
            trees.wide(state.position), rub(trees.wide(state.momentum), normals[0], 0.5), zero, zero
        )
        # Two half O's between two steps are one whole, with one normal.
        shares = jnp.ones(self.num_steps).at[-1].set(0.5)
        return self.each(one, begin, normals[1:], shares, blocks)


def amagold(
    posterior: Posterior,
    step_size: StepSize,
    num_steps: int,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
    block_size: int = 4096,
) -> Amagold:
    """AMAGOLD (Zhang, Cooper and De Sa 2020, arXiv 2003.00193, algorithm 2), exact at any step.

    θ ← θ + (h/2) M⁻¹p; then L times, with whole drifts between,

        p' = ((1 − hγ/2) p − h g_l(θ) + √(2γhT) M^{1/2} ξ)/(1 + hγ/2),

    and θ ← θ + (h/2) M⁻¹p; W = −(h/2) Σ_l g_lᵀM⁻¹(p + p'). Their β is γ/2. L minibatch
    gradients and one energy of all data a block.

    Args:
        num_steps: L ≥ 1, steps (and batches) of a block. One step of the kernel is a block;
            schedules count blocks.
        noise: "gaussian"; "fast" is refused.
        block_size: examples evaluated at a time in the energy of all data.
        gradient: `minibatch()`, `full()` or `control_variate(mode)`; estimators that remember
            where the chain has been are refused.
        temperature: T > 0; without temperature a block that is refused once is refused for ever.
        posterior, step_size, friction, metric: see `sgmcmc.kernels`.

    Raises:
        TypeError, ValueError: the argument is named, with what was given and what is allowed.
            `sample` refuses streams whose blocks have another law when reversed.
    """
    return build(
        Amagold, "amagold", posterior, step_size, num_steps, friction, temperature, metric,
        gradient, noise, block_size,
    )  # fmt: skip


def sggmc(
    posterior: Posterior,
    step_size: StepSize,
    num_steps: int,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
    block_size: int = 4096,
) -> Sggmc:
    """SGGMC, exact OBABO (Garriga-Alonso and Fortuin 2021, arXiv 2102.01691), exact at any step.

    L steps O B A B O, each on its own batch at both kicks; W = Σ_l [K(after BAB) − K(before)],
    K = pᵀM⁻¹p/2. O leaves N(0, TM) alone and has no part in it. 2L minibatch gradients and one
    energy of all data a block.

    Arguments and errors: see `amagold`.
    """
    return build(
        Sggmc, "sggmc", posterior, step_size, num_steps, friction, temperature, metric,
        gradient, noise, block_size,
    )  # fmt: skip


def _norm(gradient: PyTree, like: Array) -> Array:
    return jnp.sqrt(trees.dot(gradient, gradient)).astype(like.dtype)
