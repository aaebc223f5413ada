"""∇U by a minibatch, the default, and by all data."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.gradients._base import AbstractEstimator, EstimatorTraits, shared
from sgmcmc.types import Array, Batch, PyTree


class Minibatch(AbstractEstimator):
    """∇U with N/n times the batch's sum.

    Its variance is (N²/n) S² with replacement and (N²/n) S² (N−n)/(N−1) without, S² the
    variance of the examples' gradients.
    """

    traits: ClassVar[EstimatorTraits] = EstimatorTraits("minibatch")

    def estimate(
        self, posterior: Posterior, position: PyTree, batch: Batch | None, state: PyTree
    ) -> tuple[Float[Array, ""], PyTree, PyTree]:
        energy, gradient = posterior.potential_and_gradient(position, batch)
        return energy, shared(gradient, batch), state


class Full(AbstractEstimator):
    """∇U over all data every step, `block_size` examples at a time."""

    block_size: int | None = eqx.field(static=True, default=None)

    @property
    def traits(self) -> EstimatorTraits:
        return EstimatorTraits("full", batches="all data", block_size=self.block_size)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree:
        if posterior.has_data and data is None:
            raise ValueError("data: got None; the `full` gradient estimator needs all data")
        return ()

    def estimate(
        self, posterior: Posterior, position: PyTree, batch: Batch | None, state: PyTree
    ) -> tuple[Float[Array, ""], PyTree, PyTree]:
        if not posterior.has_data:
            energy, gradient = posterior.potential_and_gradient(position)
            return energy, gradient, state
        data = None if batch is None else batch.data
        if data is None or leading_axis(data) != posterior.data_size:
            raise ValueError(
                f"data: the `full` gradient estimator got {data and leading_axis(data)} of "
                f"{posterior.data_size} examples"
            )
        if self.block_size is None:
            energy, gradient = posterior.potential_and_gradient(position, batch)
            return energy, gradient, state
        energy, gradient = jax.value_and_grad(_negative_log_density)(
            position, posterior, data, self.block_size
        )
        return energy, gradient, state


def minibatch() -> Minibatch:
    """The plain minibatch estimator, the default: ∇U₀ + (N/n) Σ_B v_i, unbiased, one gradient."""
    return Minibatch()


def full(block_size: int | None = None) -> Full:
    """The exact gradient, every step; `sample` then hands all data to every step.

    Args:
        block_size: examples evaluated at a time, which bounds the memory; None (default): all
            at once.

    Raises:
        ValueError: `block_size` < 1; later, `data` is missing or is not all N examples.
    """
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size: got {block_size}; expected an integer ≥ 1 or None")
    return Full(block_size)


def _negative_log_density(
    position: PyTree, posterior: Posterior, data: PyTree, block_size: int
) -> Array:
    return jnp.negative(posterior.log_density(position, data, block_size=block_size))
