"""The compiled loop of `fit`: some steps of an optax transformation on minibatches.

How many steps is an argument, so that a fit has one trace however it is cut up. Step t takes
its batch and its key from key and counter alone: where chunks end changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import batches
from sgmcmc.posterior import Posterior, leading_axis
from sgmcmc.streams import Stream
from sgmcmc.types import Array, Batch, Key, PyTree

# Losses that a chunk has room for.
CAPACITY = 2**14


class Loss(eqx.Module):
    """The mean loss of a batch."""

    function: Any
    fixed: PyTree
    random: bool = eqx.field(static=True)

    def __call__(self, moving: PyTree, batch: Batch | None, key: Key) -> Array:
        params = eqx.combine(moving, self.fixed)
        if isinstance(self.function, Posterior):
            return self.function.potential(params, batch) / (self.function.data_size or 1)
        given = () if batch is None else (batch.data,)
        values = jnp.asarray(self.function(params, *given, *((key,) if self.random else ())))
        n = None if batch is None else leading_axis(batch.data)
        if values.shape not in ((), (n,)):
            allowed = "()" if n is None else f"(), or (n,) = ({n},)"
            raise ValueError(f"loss: got shape {values.shape}; expected {allowed}")
        if values.ndim == 0 or batch is None:
            return values
        if batch.mask is None:
            return jnp.mean(values)
        mask = batch.mask.astype(values.dtype)
        return jnp.sum(values * mask) / jnp.sum(mask)


class Inputs(NamedTuple):
    """What a chunk reads: arrays are arguments of the jitted function, the rest is static."""

    loss: Loss
    optimiser: Any
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
        return jax.vmap if self.replicated else batches.plain


class Carry(NamedTuple):
    """What a chunk changes; its buffers are donated."""

    params: PyTree
    state: PyTree
    order: Array


@eqx.filter_jit
def start(inputs: Inputs, params: PyTree) -> Carry:
    room = inputs.over(lambda key: batches.room(inputs.source, key))(inputs.batch_key)
    return Carry(params, inputs.optimiser.init(params), room)


@eqx.filter_jit(donate="all-except-first")
def advance(given: tuple[Inputs, Array, Array], carry: Carry) -> tuple[Carry, Array, Array]:
    """Some steps from `start` on: the carry, the losses, and how many steps were made.

    The first loss that is not finite ends it.
    """
    import optax

    inputs, start, steps = given
    update = optax.with_extra_args_support(inputs.optimiser).update

    def gradient(params: PyTree, batch: Batch | None, key: Key, t: Array) -> Any:
        return jax.value_and_grad(inputs.loss)(params, batch, jax.random.fold_in(key, t))

    def step(carry: Carry, t: Array) -> tuple[Carry, Array]:
        order, batch, axis = batches.following(
            inputs.source, inputs.batch_key, t, carry.order, inputs.over
        )
        values, gradients = inputs.over(gradient, in_axes=(0, axis, 0, None))(
            carry.params, batch, inputs.loss_key, t
        )
        updates, state = update(gradients, carry.state, carry.params, value=jnp.mean(values))
        return Carry(optax.apply_updates(carry.params, updates), state, order), values

    shape = jax.eval_shape(step, carry, start)[1]
    losses = jnp.zeros((CAPACITY, *shape.shape), shape.dtype)

    def wanted(loop: tuple[Carry, Array, Array, Array]) -> Array:
        return (loop[2] < steps) & loop[3]

    def one(loop: tuple[Carry, Array, Array, Array]) -> tuple[Carry, Array, Array, Array]:
        carry, losses, made, _ = loop
        carry, values = step(carry, start + made)
        return carry, losses.at[made].set(values), made + 1, jnp.all(jnp.isfinite(values))

    begin = (carry, losses, jnp.zeros((), jnp.int32), jnp.asarray(True))
    carry, losses, made, _ = jax.lax.while_loop(wanted, one, begin)
    return carry, losses, made
