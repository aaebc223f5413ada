"""The batches of one step: a stream's next turn, with the epoch's order that a loop carries.

Every loop calls `next_batch`: that of `sample` and `fit`, trials of a step size, and the steps
that `to_blackjax` makes for others' loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgmcmc._checks import check_data
from sgmcmc._leaves import require_arrays
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.streams import _streams as streams
from sgmcmc.streams._streams import Stream
from sgmcmc.types import Array, Batch, Batches, Blocks, Key, PyTree


def data_and_stream(
    posterior: Posterior | None,
    data: PyTree,
    stream: str | Stream,
    batch_size: int | None,
    batches: Batches = "any",
    num_steps: int = 1,
) -> tuple[PyTree, Stream, int]:
    """Data as JAX arrays, the stream, and the batch size (0 without data).

    Args:
        posterior: the target; None: a loss or kernel that takes any data.
        data, stream, batch_size: as in `sgmcmc.sample`.
        batches: which streams the kernel or estimator bears, from its traits.
        num_steps: L, batches in a block, for "reversible".

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    chosen = streams.from_name(stream)
    if data is None:
        if posterior is not None and posterior.has_data:
            raise ValueError(
                "data: got None; this posterior has a likelihood and needs its data: "
                "sample(key, kernel, params, data)"
            )
        if batch_size is not None:
            raise ValueError(f"batch_size: got {batch_size} without data; allowed: None")
        return None, chosen, 0
    if posterior is not None and not posterior.has_data:
        raise ValueError("data: this posterior has no likelihood; allowed: None")
    require_arrays(data)
    data_size = leading_axis(data)
    check_data(data, None if posterior is None else posterior.data_size)
    if posterior is not None and posterior.check_data is not None:
        posterior.check_data(data)
    data = jax.tree.map(jnp.asarray, data)
    if batch_size is None or batches == "all data":
        if batch_size not in (None, data_size):
            raise ValueError(
                f"batch_size: got {batch_size}; allowed: None, since the `full` gradient "
                "estimator uses all data every step"
            )
        return data, streams.full(), data_size
    streams.check_batch_size(batch_size, data_size, chosen)
    if batches == "independent" and chosen.law not in ("independent", "all"):
        raise ValueError(
            f'stream: got "{chosen.name}" with a gradient estimator that remembers the examples '
            "it has seen; where a sweep leaves some for later this biases every step. Allowed: "
            '"with_replacement"'
        )
    if chosen.law == "all" and batch_size != data_size:
        raise ValueError(
            f'batch_size: got {batch_size}; allowed with stream="full": None or {data_size}'
        )
    if batches == "reversible":
        streams.require_reversible(chosen, num_steps, data_size, batch_size)
    return data, chosen, int(batch_size)


class Source(NamedTuple):
    """Where batches come from, and what a kernel asks for.

    Attributes:
        stream, batch_size: as `data_and_stream` gives them.
        data: all data; None: a target without data.
        per_step: batches a step.
        needs_data: the step is given `Blocks`, all data beside its batches.
    """

    stream: streams.Stream
    batch_size: int
    data: PyTree
    per_step: int = 1
    needs_data: bool = False

    @property
    def sizes(self) -> tuple[int, int]:
        """(N, n); both 0 without data."""
        return (0 if self.data is None else leading_axis(self.data), self.batch_size)


def no_vmap(function: Callable[..., PyTree], in_axes: PyTree = 0) -> Callable[..., PyTree]:
    """Stands in for `jax.vmap` where there is a single chain and no chain axis."""
    return function


def empty_order(source: Source, key: Key) -> Array:
    """Zeros in the shape and dtype of `stream.order`'s result, for the order that a loop carries.

    Step 0 opens an epoch and puts the first permutation in their place.
    """
    if source.data is None:
        return jnp.zeros((0,), jnp.int32)
    first = lambda key: streams.order_at(  # noqa: E731
        source.stream, key, jnp.zeros((), jnp.int32), *source.sizes
    )
    shape = jax.eval_shape(first, key)
    return jnp.zeros(shape.shape, shape.dtype)


def next_batch(
    source: Source, keys: Key, t: Array, order: Array, over_chains: Callable[..., PyTree]
) -> tuple[Array, PyTree, PyTree]:
    """(order, batch, its vmap axes) of step t; the epoch's permutation is made when t opens it.

    Args:
        source: the stream, the data, and how many batches a step takes.
        keys: the stream key, of one chain or of each.
        t: the step, counted from 0.
        order: what the step before left.
        over_chains: `jax.vmap`, or `no_vmap` for a chain by itself.
    """
    if source.data is None:
        return order, None, None
    several = source.per_step > 1 or source.needs_data
    if source.stream.law == "all":
        batch: PyTree = Batch(source.data)
        if source.needs_data:
            return order, Blocks(None, source.data), None
        if several:
            repeat = lambda x: jnp.broadcast_to(x, (source.per_step, *x.shape))  # noqa: E731
            batch = jax.tree.map(repeat, batch)
        return order, batch, None
    if not several:
        order, batch = _turn(source, keys, t, order, over_chains)
        return order, batch, 0
    first = t * source.per_step

    def one(order: Array, part: Array) -> tuple[Array, Batch]:
        return _turn(source, keys, first + part, order, over_chains)

    order, batch = jax.lax.scan(one, order, jnp.arange(source.per_step, dtype=jnp.int32))
    if over_chains is not no_vmap:
        batch = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), batch)
    if source.needs_data:
        return order, Blocks(batch, source.data), Blocks(0, None)
    return order, batch, 0


def _turn(
    source: Source, keys: Key, counter: Array, order: Array, over_chains: Callable[..., PyTree]
) -> tuple[Array, Batch]:
    """The order and the batch when `counter` batches came before."""
    stream, sizes = source.stream, source.sizes

    def prepare(key: Key) -> Array:
        return streams.order_at(stream, key, counter, *sizes)

    def pick(order: Array, key: Key) -> Batch:
        return streams.gather(stream, stream.rows(order, key, counter, *sizes), source.data)

    if stream.order is not None:
        # Outside the chains' vmap, or both branches would run at every step.
        order = jax.lax.cond(
            counter % stream.period(*sizes) == 0,
            lambda old: over_chains(prepare)(keys),
            lambda old: old,
            order,
        )
    return order, over_chains(pick)(order, keys)
