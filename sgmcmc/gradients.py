"""Gradient estimators: unbiased, stateful, unaware of integrators.

An estimator is called as `estimator(posterior, position, batch, state)` and returns the
potential, its gradient and its own next state. `needs_full_batch` tells the loop to hand
it all data every step.
"""

from __future__ import annotations

from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import trees
from sgmcmc.posterior import Posterior, leading_axis
from sgmcmc.types import Array, Batch, PyTree


class Estimator(Protocol):
    """What a gradient estimator offers."""

    needs_full_batch: bool

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree: ...

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]: ...


class Minibatch(eqx.Module):
    """∇U with N/n times the batch's sum; its variance is (N²/n) S² with replacement and
    (N²/n) S² (N−n)/(N−1) without, S² the variance of the examples' gradients.
    """

    needs_full_batch: bool = eqx.field(static=True, default=False)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree:
        return ()

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]:
        energy, gradient = posterior.potential_and_gradient(position, batch)
        if isinstance(batch, Batch) and batch.share is not None:
            gradient = trees.scale(batch.share, gradient)
        return energy, gradient, state


class Full(eqx.Module):
    """∇U over all data every step, `block_size` examples at a time."""

    block_size: int | None = eqx.field(static=True, default=None)
    needs_full_batch: bool = eqx.field(static=True, default=True)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree:
        if posterior.log_likelihood is not None and data is None:
            raise ValueError("data: got None; the `full` gradient estimator needs all data")
        return ()

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]:
        if posterior.log_likelihood is None:
            energy, gradient = posterior.potential_and_gradient(position)
            return energy, gradient, state
        data = batch.data if isinstance(batch, Batch) else batch
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
    """The plain minibatch estimator, the default."""
    return Minibatch()


def full(block_size: int | None = None) -> Full:
    """The exact gradient, every step.

    Args:
        block_size: examples evaluated at a time, which bounds the memory; None: all at once.
    """
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size: got {block_size}; expected an integer ≥ 1 or None")
    return Full(block_size)


def _negative_log_density(
    position: PyTree, posterior: Posterior, data: PyTree, block_size: int
) -> Array:
    return jnp.negative(posterior.log_density(position, data, block_size=block_size))
