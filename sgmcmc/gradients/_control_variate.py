"""Gradients as differences to a point whose full gradient is known: control variates, SVRG.

    g = ∇U₀(x) + Σ_all v_i(x*) + (N/n) Σ_B (v_i(x) − v_i(x*)),     v_i = −λ ∇ log p(y_i | x_i, θ)

Whatever x* is, g is unbiased; what is left of the batch's noise is that of the differences,
which vanish as x comes near x*. Each call costs two minibatch gradients.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import at_least_one, check_data
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.gradients._base import AbstractEstimator, EstimatorTraits, shared
from sgmcmc.types import Array, Batch, PyTree

BLOCK_SIZE = 4096


def control_variate(mode: PyTree, *, block_size: int = BLOCK_SIZE) -> ControlVariate:
    """Control variates about a fixed point x* (Baker, Fearnhead, Fox and Nemeth 2019).

        g = ∇U₀(x) + Σ_all v_i(x*) + (N/n) Σ_B (v_i(x) − v_i(x*)),     arXiv 1706.05439

    Unbiased about any x*; where the posterior is narrow around it, the noise of a batch is
    that of the small differences. Costs two minibatch gradients a step, one pass over the
    data at the start for all chains together, and two copies of the parameters.

    Args:
        mode: x*, a pytree like the parameters; `sgmcmc.optim.find_mode` finds one.
        block_size: examples evaluated at a time in the pass over the data.

    Raises:
        TypeError, ValueError: `mode` is no pytree of floating arrays, or, once the parameters
            are known, is not of their structure (the leaf is named); `data` is missing.
    """
    checks.require_floating(mode, "mode")
    at_least_one(block_size, "block_size")
    return ControlVariate(checks.as_arrays(mode, "mode"), block_size)


def svrg(refresh_every: int, *, block_size: int = BLOCK_SIZE) -> SVRG:
    """SVRG-LD (Dubey et al. 2016): control variates about a snapshot of each chain.

    The snapshot x* is taken anew every `refresh_every` steps (Dubey, Reddi, Póczos, Smola, Xing
    and Williamson, "Variance reduction in stochastic gradient Langevin dynamics"). Costs two
    minibatch gradients a step, one pass over the data of each chain at the start and at each
    refresh, and two copies of the parameters. No mode is needed, and many modes do no harm.
    Usual values of `refresh_every` are one or two epochs.

    Args:
        refresh_every: m ≥ 1, steps between two snapshots.
        block_size: examples evaluated at a time in a pass over the data.

    Raises:
        TypeError, ValueError: `refresh_every` is no integer ≥ 1; later, `data` is missing.
    """
    at_least_one(refresh_every, "refresh_every")
    at_least_one(block_size, "block_size")
    return SVRG(int(refresh_every), block_size)


class Anchor(NamedTuple):
    """A point x*, and Σ_all v_i(x*) in float32 at least."""

    position: PyTree
    gradient: PyTree


class ControlVariate(AbstractEstimator):
    """Control variates about a fixed point; its state is the full gradient there."""

    mode: PyTree
    block_size: int = eqx.field(static=True, default=BLOCK_SIZE)

    traits: ClassVar[EstimatorTraits] = EstimatorTraits("control_variate", evaluations=2)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree:
        require_data(posterior, data, self.traits.name)
        checks.require_same_structure(self.mode, position, "mode", "the parameters")
        # None of its arguments has a chain axis, so that `vmap` computes it once for all chains.
        return data_gradient(posterior, self._mode_like(position), data, self.block_size)

    def estimate(
        self, posterior: Posterior, position: PyTree, batch: Batch | None, state: PyTree
    ) -> tuple[Float[Array, ""], PyTree, PyTree]:
        anchor = Anchor(self._mode_like(position), state)
        return (*anchored_gradient(posterior, position, batch, anchor), state)

    def _mode_like(self, position: PyTree) -> PyTree:
        return jax.tree.map(lambda m, x: jnp.asarray(m, x.dtype), self.mode, position)


class SVRG(AbstractEstimator):
    """Control variates about a snapshot of each chain, which the loop has refreshed."""

    refresh_every: int = eqx.field(static=True)
    block_size: int = eqx.field(static=True, default=BLOCK_SIZE)

    @property
    def traits(self) -> EstimatorTraits:
        return EstimatorTraits(
            "svrg", evaluations=2, remembers=True, refresh_every=self.refresh_every
        )

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> Anchor:
        require_data(posterior, data, self.traits.name)
        return Anchor(position, data_gradient(posterior, position, data, self.block_size))

    def refresh(
        self, posterior: Posterior, position: PyTree, state: Anchor, data: PyTree
    ) -> Anchor:
        """A new snapshot at `position`: one pass over the data."""
        return self.init(posterior, position, data)

    def estimate(
        self, posterior: Posterior, position: PyTree, batch: Batch | None, state: Anchor
    ) -> tuple[Float[Array, ""], PyTree, Anchor]:
        return (*anchored_gradient(posterior, position, batch, state), state)


def anchored_gradient(
    posterior: Posterior, position: PyTree, batch: Batch | None, anchor: Anchor
) -> tuple[Array, PyTree]:
    """The plain estimate of U, and ∇U estimated from the differences to the anchor."""
    energy, here = posterior.potential_and_gradient(position, batch)
    there = jax.grad(posterior.data_potential)(anchor.position, batch)

    def correct(h: Array, t: Array, total: Array) -> Array:
        return (total + (h.astype(total.dtype) - t.astype(total.dtype))).astype(h.dtype)

    gradient = jax.tree.map(correct, here, there, anchor.gradient)
    return energy, shared(gradient, batch)


def data_gradient(posterior: Posterior, position: PyTree, data: PyTree, block_size: int) -> PyTree:
    """Σ_all v_i, `block_size` examples at a time, summed in float32 at least."""
    gradient_of = jax.grad(lambda theta, rows: jnp.sum(posterior.example_potentials(theta, rows)))

    def add(total: PyTree, rows: PyTree) -> PyTree:
        return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, gradient_of(position, rows))

    def add_block(block: Array, total: PyTree) -> PyTree:
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, block * block_size, block_size)  # noqa: E731
        return add(total, jax.tree.map(cut, data))

    wide = lambda x: jnp.zeros(x.shape, trees.common_dtype(x.dtype, jnp.float32))  # noqa: E731
    total = jax.tree.map(wide, position)
    blocks, rest = divmod(leading_axis(data), block_size)
    if blocks:
        total = jax.lax.fori_loop(0, blocks, add_block, total)
    if rest:
        total = add(total, jax.tree.map(lambda x: x[blocks * block_size :], data))
    return total


def require_data(posterior: Posterior, data: PyTree, name: str) -> None:
    """Raise a ValueError unless `data` are all the data of a posterior that has a likelihood."""
    if not posterior.has_data:
        raise ValueError(
            f"gradient: `{name}` splits the gradient by examples, and this posterior has no data "
            "and no likelihood; allowed: minibatch, full"
        )
    if data is None:
        raise ValueError(
            f"data: got None; the `{name}` gradient estimator begins with a pass over all data: "
            "init(position, key, data)"
        )
    check_data(data, posterior.data_size)
    checks.require_in_range(data, "data")
