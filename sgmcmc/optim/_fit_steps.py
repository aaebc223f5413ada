"""The jitted steps of a fit: its loss, the gradients of a step's batch, and a chunk of updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.gradients._base import shared
from sgmcmc.streams import _source as batches
from sgmcmc.streams._streams import Stream
from sgmcmc.types import Array, Batch, Key, PyTree

# Losses that a chunk has room for.
CAPACITY = 2**14


class Loss(eqx.Module):
    """The mean loss of a batch."""

    function: Any
    fixed: PyTree
    random: bool = eqx.field(static=True)

    def __call__(self, moving: PyTree, batch: Batch | None, key: Key) -> Array:
        if isinstance(self.function, Posterior):
            params = eqx.combine(moving, self.fixed)
            return self.function.potential(params, batch) / (self.function.data_size or 1)
        values = self.values(moving, batch, key)
        if values.ndim == 0 or batch is None:
            return values
        if batch.mask is None:
            return jnp.mean(values)
        mask = batch.mask.astype(values.dtype)
        return jnp.sum(values * mask) / jnp.sum(mask)

    def takes_means(self, moving: PyTree, batch: Batch, key: Key) -> bool:
        """Whether the function takes the mean itself, over all rows that it is given."""
        if isinstance(self.function, Posterior):
            return False
        return jax.eval_shape(self.values, moving, batch, key).ndim == 0

    def values(self, moving: PyTree, batch: Batch | None, key: Key) -> Array:
        """What a loss that is no `Posterior` returns: () or (n,)."""
        params = eqx.combine(moving, self.fixed)
        given = () if batch is None else (batch.data,)
        values = jnp.asarray(self.function(params, *given, *((key,) if self.random else ())))
        n = None if batch is None else leading_axis(batch.data)
        if values.shape not in ((), (n,)):
            allowed = "()" if n is None else f"(), or (n,) = ({n},)"
            raise ValueError(f"loss: got shape {values.shape}; expected {allowed}")
        return values


class FitInputs(NamedTuple):
    """What a chunk reads: arrays are arguments of the jitted function, the rest is static."""

    loss: Loss
    optimizer: Any
    data: PyTree
    batch_key: Key
    loss_key: Key
    stream: Stream
    batch_size: int
    replicated: bool

    @property
    def source(self) -> batches.Source:
        return batches.Source(self.stream, self.batch_size, self.data)

    @property
    def over(self) -> Callable[..., Any]:
        return jax.vmap if self.replicated else batches.no_vmap


class FitCarry(NamedTuple):
    """What a chunk changes. It gets new buffers for it: what breaks in has the old to keep."""

    params: PyTree
    state: PyTree
    order: Array


@eqx.filter_jit
def start(inputs: FitInputs, params: PyTree) -> FitCarry:
    room = inputs.over(lambda key: batches.empty_order(inputs.source, key))(inputs.batch_key)
    return FitCarry(params, inputs.optimizer.init(params), room)


def losses_at(inputs: FitInputs, params: PyTree, batch: Batch | None, axis: Any, t: Array) -> Array:
    """The losses of step t, () or (R,), times the batch's share; arguments as `gradients_at`."""

    def one(params: PyTree, batch: Batch | None, key: Key) -> Array:
        return shared(inputs.loss(params, batch, jax.random.fold_in(key, t)), batch)

    return _at_batch(inputs, one, params, batch, axis)


def gradients_at(
    inputs: FitInputs, params: PyTree, batch: Batch | None, axis: Any, t: Array
) -> tuple[Array, Array, PyTree]:
    """The losses of step t, () or (R,); these times the batch's share, and their gradients.

    Args:
        inputs: what the chunk reads.
        params: with an axis R where there are replicas.
        batch: of step t, and so with that axis where `axis` is 0.
        axis: as `next_batch` gives it.
        t: () int32.
    """

    def one(params: PyTree, batch: Batch | None, key: Key) -> tuple[Array, Array, PyTree]:
        value, gradient = jax.value_and_grad(inputs.loss)(params, batch, jax.random.fold_in(key, t))
        return value, *shared((value, gradient), batch)

    return _at_batch(inputs, one, params, batch, axis)


def _at_batch(
    inputs: FitInputs, one: Callable[..., Any], params: PyTree, batch: Batch | None, axis: Any
) -> Any:
    """`one(params, batch, key)` over replicas, without padding where the loss is a mean."""
    over = inputs.over(one, in_axes=(0, axis, 0))
    if batch is None or batch.mask is None:
        return over(params, batch, inputs.loss_key)
    row_axis = int(inputs.replicated)
    single = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[row_axis:], x.dtype),
        (params, batch, inputs.loss_key),
    )
    if not inputs.loss.takes_means(*single):
        return over(params, batch, inputs.loss_key)
    if not inputs.stream.even:
        raise ValueError(
            f'loss: got shape () with the stream "{inputs.stream.name}", which pads its batches; '
            "such a loss counts the padding. Expected the loss of each example, of shape (n,)"
        )
    # The last row of a short batch is padding: it is cut off. All replicas are at the same turn.
    whole = batch._replace(mask=None)
    cut = lambda x: jax.lax.slice_in_dim(x, 0, x.shape[row_axis] - 1, axis=row_axis)  # noqa: E731
    short = jax.tree.map(cut, whole._replace(share=None))._replace(share=whole.share)
    return jax.lax.cond(
        jnp.all(batch.mask),
        lambda: over(params, whole, inputs.loss_key),
        lambda: over(params, short, inputs.loss_key),
    )


@eqx.filter_jit
def advance(
    given: tuple[FitInputs, Array, Array], carry: FitCarry
) -> tuple[FitCarry, Array, Array]:
    """Some steps from `start` on: the carry, the losses, and how many steps were made.

    The first loss that is not finite ends it.
    """
    import optax

    inputs, start, steps = given
    update = optax.with_extra_args_support(inputs.optimizer).update

    def step(carry: FitCarry, t: Array) -> tuple[FitCarry, Array]:
        order, batch, axis = batches.next_batch(
            inputs.source, inputs.batch_key, t, carry.order, inputs.over
        )
        values, objectives, gradients = gradients_at(inputs, carry.params, batch, axis, t)
        # Of the same batch, for optimizers that search along a line; over replicas the mean.
        mean = trees.scale(1 / values.size, gradients) if inputs.replicated else gradients

        def value_fn(params: PyTree) -> Array:
            return jnp.mean(losses_at(inputs, params, batch, axis, t))

        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic asks for it
            updates, state = update(
                gradients, carry.state, carry.params, value=jnp.mean(objectives), grad=mean,
                value_fn=value_fn,
            )  # fmt: skip
        return FitCarry(optax.apply_updates(carry.params, updates), state, order), values

    shape = jax.eval_shape(step, carry, start)[1]
    losses = jnp.zeros((CAPACITY, *shape.shape), shape.dtype)

    def wanted(loop: tuple[FitCarry, Array, Array, Array]) -> Array:
        return (loop[2] < steps) & loop[3]

    def one(loop: tuple[FitCarry, Array, Array, Array]) -> tuple[FitCarry, Array, Array, Array]:
        carry, losses, made, _ = loop
        carry, values = step(carry, start + made)
        return carry, losses.at[made].set(values), made + 1, jnp.all(jnp.isfinite(values))

    begin = (carry, losses, jnp.zeros((), jnp.int32), jnp.asarray(True))
    carry, losses, made, _ = jax.lax.while_loop(wanted, one, begin)
    return carry, losses, made
