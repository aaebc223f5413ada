"""A running mean of minibatch gradients: Adam's, in the place of an unbiased estimate."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import trees
from sgmcmc.posterior import Posterior
from sgmcmc.types import Array, Batch, PyTree


class Memory(NamedTuple):
    """The running mean, and how many gradients are in it."""

    mean: PyTree
    seen: Array


class Averaged(eqx.Module):
    """m ← β m + (1 − β) g, divided by 1 − β^k; see `gradients.averaged`.

    `each` is the estimator of g, one without memory.
    """

    decay: Array
    each: Any
    needs_full_batch: bool = eqx.field(static=True, default=False)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> Memory:
        return Memory(trees.zeros_like(position), jnp.zeros((), jnp.int32))

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: Memory
    ) -> tuple[Array, PyTree, Memory]:
        energy, gradient, _ = self.each(posterior, position, batch, ())
        mean = trees.axpy(1 - self.decay, gradient, trees.scale(self.decay, state.mean))
        seen = state.seen + 1
        # Adam's correction for a mean that began at zero.
        estimate = trees.scale(1 / (1 - self.decay**seen), mean)
        return energy, jax.tree.map(jnp.asarray, estimate), Memory(mean, seen)
