"""A running mean of minibatch gradients: Adam's, in the place of an unbiased estimate."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from sgmcmc import _tree as trees
from sgmcmc._checks import check_range
from sgmcmc._posterior import Posterior
from sgmcmc.gradients._base import AbstractEstimator, EstimatorTraits
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.types import Array, Batch, PyTree


def averaged(decay: float | Array = 0.9) -> Averaged:
    """**Biased**, for comparison: a running mean of the minibatch gradients, as Adam has it.

        m ← β m + (1 − β) g,   estimate m/(1 − β^k) after k gradients

    With `psgld(metric=metrics.rmsprop(gamma=False))` it is Adam-style SGLD. The mean lags
    behind the position, which acts as a momentum that nothing balances: on U = k x²/2 with
    exact gradients sgld's variance is, for hk ≪ 1, T/k (1 + hk/2 · (1 + β)/(1 − β)) to first
    order in h.

    Args:
        decay: β in [0, 1), the weight of the *old* mean; default 0.9, and 0 is `minibatch()`.

    Raises:
        ValueError: `decay` out of range.
    """
    number = jnp.asarray(decay, dtype=float)
    check_range(number, "decay", above_zero=False, below=1.0)
    return Averaged(number, minibatch())


class Memory(NamedTuple):
    """m, a pytree like θ in float32 at least, and () int32 k, the gradients in it."""

    mean: PyTree
    seen: Array


class Averaged(AbstractEstimator):
    """m ← β m + (1 − β) g, divided by 1 − β^k; see `gradients.averaged`.

    `each` is the estimator of g, one without memory.
    """

    decay: Array
    each: AbstractEstimator

    traits: ClassVar[EstimatorTraits] = EstimatorTraits("averaged", remembers=True)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> Memory:
        return Memory(trees.wide(trees.zeros_like(position)), jnp.zeros((), jnp.int32))

    def estimate(
        self, posterior: Posterior, position: PyTree, batch: Batch | None, state: Memory
    ) -> tuple[Float[Array, ""], PyTree, Memory]:
        energy, gradient, _ = self.each.estimate(posterior, position, batch, ())
        mean = trees.axpy(1 - self.decay, gradient, trees.scale(self.decay, state.mean))
        seen = state.seen + 1
        # Adam's correction for a mean that began at zero.
        estimate = trees.scale(1 / (1 - jax.lax.pow(self.decay, seen)), mean)
        return energy, trees.rounded(estimate, gradient), Memory(mean, seen)
