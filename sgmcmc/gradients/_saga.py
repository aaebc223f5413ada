"""SAGA: each example's gradient as it was when the example was last seen.

    g = ∇U₀(x) + Σ_all τ_i + (N/n) Σ_B (v_i(x) − τ_i),     then τ_i ← v_i(x) for i in B,

with v_i = −λ ∇ log p(y_i | x_i, θ). The table is changed after its use: a τ that knew the
batch would make g biased. So would batches that know the table, as those of a sweep do: what
is still to come is what was not seen for longest.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from sgmcmc import _tree as trees
from sgmcmc._checks import at_least_one
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.gradients._base import AbstractEstimator, EstimatorTraits, shared
from sgmcmc.gradients._control_variate import require_data
from sgmcmc.types import Array, Batch, PyTree


def saga(*, memory_limit: int = 2**30, block_size: int = 256) -> SAGA:
    """SAGA-LD (Dubey et al. 2016): each example's gradient as it was at its last visit.

        g = ∇U₀(x) + Σ_all τ_i + (N/n) Σ_B (v_i(x) − τ_i),     then τ_i ← v_i(x) for i in B

    One gradient a step, example by example; one pass over the data of each chain at the
    start; and for each chain a table of N × d numbers, d the number of parameters.

    Unbiased given the past where each batch is drawn from all examples alike, and so only
    with `stream="with_replacement"`, then the default of `sample`: in a sweep the examples
    still to come are those with the oldest entries, and the chain cools by O(h).

    Args:
        memory_limit: bytes that the table of one chain may take; default 1 GiB.
        block_size: examples evaluated at a time in the first pass.

    Raises:
        ValueError: an argument is below 1; later, `data` is missing, batches come in sweeps,
            or a batch comes without its index, as under `stream="full"`.
        MemoryError: the table would take more than `memory_limit`.
    """
    at_least_one(memory_limit, "memory_limit")
    at_least_one(block_size, "block_size")
    return SAGA(int(memory_limit), block_size)


class Table(NamedTuple):
    """τ, each leaf (N, …) in the parameters' dtype, and Σ_all τ_i in float32 at least."""

    rows: PyTree
    total: PyTree


class SAGA(AbstractEstimator):
    """The estimator; its state is the table. Every call must bring a fresh batch."""

    memory_limit: int = eqx.field(static=True)
    block_size: int = eqx.field(static=True)

    traits: ClassVar[EstimatorTraits] = EstimatorTraits(
        "saga", batches="independent", remembers=True
    )

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> Table:
        """τ_i = v_i at `position`: one pass over the data.

        Raises:
            MemoryError: the table of one chain would take more than `memory_limit` bytes.
        """
        require_data(posterior, data, self.traits.name)
        self._require_room(leading_axis(data), position)
        one = lambda example: _example(posterior, position, example)[1]  # noqa: E731
        rows = jax.lax.map(one, data, batch_size=min(self.block_size, leading_axis(data)))
        return Table(rows, jax.tree.map(_total, rows))

    def estimate(
        self, posterior: Posterior, position: PyTree, batch: Batch | None, state: Table
    ) -> tuple[Float[Array, ""], PyTree, Table]:
        batch, index = _indexed(batch)
        assert posterior.data_size is not None
        prior_energy, prior_gradient = jax.value_and_grad(posterior.prior_potential)(position)
        one = lambda example: _example(posterior, position, example)  # noqa: E731
        energies, new = jax.vmap(one)(batch.data)
        mask = jnp.ones(index.shape, bool) if batch.mask is None else batch.mask
        counts = mask.astype(energies.dtype)
        factor = posterior.data_size / jnp.sum(counts)
        energy = prior_energy + factor * jnp.sum(counts * energies)
        old = jax.tree.map(lambda rows: rows[index], state.rows)
        changes = jax.tree.map(_difference, new, old)

        def correct(prior: Array, total: Array, change: Array) -> Array:
            noisy = factor.astype(total.dtype) * _sum(counts, change)
            return (prior.astype(total.dtype) + total + noisy).astype(prior.dtype)

        gradient = jax.tree.map(correct, prior_gradient, state.total, changes)
        return energy, shared(gradient, batch), _visited(state, index, mask, new, old, changes)

    def _require_room(self, data_size: int, position: PyTree) -> None:
        needed = data_size * trees.num_bytes(position)
        if needed > self.memory_limit:
            raise MemoryError(
                f"memory_limit: SAGA's table of {data_size:,} examples × "
                f"{trees.size(position):,} parameters takes {needed:,} bytes for each chain; "
                f"allowed: {self.memory_limit:,}. Raise saga(memory_limit=), or take svrg(), "
                "which keeps two copies of the parameters"
            )


def _example(posterior: Posterior, position: PyTree, example: PyTree) -> tuple[Array, PyTree]:
    """−λ log p of one example, without a leading axis, and its gradient v_i."""
    alone = jax.tree.map(lambda x: x[None], example)
    potential = lambda theta: posterior.example_potentials(theta, alone)[0]  # noqa: E731
    energy, gradient = jax.value_and_grad(potential)(position)
    return energy, jax.tree.map(_stored, gradient)


def _indexed(batch: Batch | None) -> tuple[Batch, Array]:
    """The batch and its index (n,); a ValueError where it has none."""
    if batch is None or batch.index is None:
        raise ValueError(
            "batch: its index is None; SAGA must know which examples it is given. Pass "
            'Batch(data, index), or to `sample` a batch_size and a stream other than "full" '
            "(with all data every step use gradients.full())"
        )
    return batch, batch.index


def _visited(
    state: Table, index: Array, mask: Array, new: PyTree, old: PyTree, changes: PyTree
) -> Table:
    """The table once the batch's examples have their new gradients."""
    rows = jax.tree.leaves(state.rows)[0].shape[0]
    # An example that was drawn twice changes the sum once, and padding changes nothing.
    index = jnp.where(mask, index, rows)
    order = jnp.argsort(index)
    first = jnp.concatenate([jnp.ones(1, bool), jnp.diff(index[order]) > 0])
    first = jnp.zeros(index.shape, bool).at[order].set(first) & (index < rows)
    place = jnp.where(first, index, rows)

    def write(table: Array, value: Array, before: Array) -> Array:
        # Rows that are not first go nowhere; that they are `before` makes the writing wait
        # for the reading, without which the compiler copies the table every step.
        kept = first.reshape((-1,) + (1,) * (value.ndim - 1))
        return table.at[place].set(jnp.where(kept, value, before), mode="drop")

    def add(total: Array, change: Array) -> Array:
        return total + _sum(first.astype(total.dtype), change)

    return Table(jax.tree.map(write, state.rows, new, old), jax.tree.map(add, state.total, changes))


def _stored(value: Array) -> Array:
    """`value` rounded to its dtype, as in the table: compilers may carry more digits in a sum."""
    kind = jnp.finfo(value.dtype)
    return jax.lax.reduce_precision(value, kind.nexp, kind.nmant)


def _difference(new: Array, old: Array) -> Array:
    wide = trees.common_dtype(new.dtype, jnp.float32)
    return new.astype(wide) - old.astype(wide)


def _sum(weights: Float[Array, " n"], rows: Float[Array, "n ..."]) -> Float[Array, ...]:
    """Σ_i weights_i rows_i."""
    # A product and a sum, since a matrix product of float32 may round to bfloat16 or TF32.
    shape = (-1,) + (1,) * (rows.ndim - 1)
    return jnp.sum(weights.astype(rows.dtype).reshape(shape) * rows, axis=0)


def _total(rows: Float[Array, "n ..."]) -> Float[Array, ...]:
    return jnp.sum(rows, axis=0, dtype=trees.common_dtype(rows.dtype, jnp.float32))
