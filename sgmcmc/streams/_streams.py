"""Batch streams: which examples step t sees, as a function of key and counter alone.

A stream is two functions. `order` is the rare and dear one, a permutation an epoch, which
the loop calls at an epoch's first step and carries; `rows` is the cheap one. `rows_at`
calls both, so that any step's batch can be had again from key and counter.

N examples in batches of n make K = ⌈N/n⌉ batches. Where n does not divide N the last one
is short: it is padded, and its mask says which rows count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from sgmcmc.types import Array, Batch, Key, PyTree


class Rows(NamedTuple):
    """The rows of one batch.

    Attributes:
        index: (n,) int32, in 0 … N−1.
        mask: (n,) bool, False where a row only pads a short batch; None (default): no padding.
        share: () factor on the step's gradient; None (default): 1. See `Batch.share`.
    """

    index: Int[Array, " n"]  # type: ignore[assignment]  # hides tuple.index
    mask: Bool[Array, " n"] | None = None
    share: Float[Array, ""] | None = None


Law: TypeAlias = Literal["independent", "sweep", "there and back", "fixed", "all"]


class Stream(NamedTuple):
    """A batch stream. Hashable, and static in every jitted function.

    One of your own is such a record, its functions at module level; give its `law` truly,
    since kernels, estimators and tuning go by nothing else (never by the name).
    `sgmcmc/streams/README.md` adds one in ten lines.

    Attributes:
        name: as a run's `config` and errors have it; those of this module's streams are what
            `sample(..., stream=name)` takes.
        rows: `(order, key, counter, data_size, batch_size) -> Rows`, of batch `counter` ()
            int32 counted from 0; pure JAX. Every example must be as likely as any other.
        law: of the batches: "independent": each is drawn from all examples, whatever came
            before (SAGA asks for it); "sweep": an epoch's batches cut a fresh uniform
            permutation; "there and back": such a sweep, and then the same batches backwards;
            "fixed": the same order in every epoch; "all": every step sees all examples.
        order: `(key, epoch, data_size, batch_size) -> (K n,)` int32, or None where nothing
            is prepared for an epoch.
        sweeps: how often an epoch goes through the data; an epoch is `sweeps` K steps.
    """

    name: str
    rows: Callable[[Array, Key, Array, int, int], Rows]
    law: Law
    order: Callable[[Key, Array, int, int], Array] | None = None
    sweeps: int = 1

    def period(self, data_size: int, batch_size: int) -> int:
        """Steps in an epoch."""
        return self.sweeps * num_batches(data_size, batch_size)


def with_replacement() -> Stream:
    """n rows drawn uniformly and independently every step."""
    return Stream("with_replacement", _draw_rows, "independent")


def reshuffled() -> Stream:
    """A fresh uniform permutation every epoch, cut into K batches."""
    return Stream("reshuffled", _forward_rows, "sweep", _permutation)


def symmetric() -> Stream:
    """A fresh permutation, its K batches forwards and then backwards: 2K steps.

    Symmetric minibatch splitting (arXiv 2410.19780); the batch at the turn is used twice.
    """
    return Stream("symmetric", _there_and_back_rows, "there and back", _permutation, sweeps=2)


def cyclic() -> Stream:
    """The data's own order in every epoch.

    A short last batch takes the share n_j K/N of a step, so that a sweep is unbiased.
    """
    return Stream("cyclic", _cyclic_rows, "fixed")


def full() -> Stream:
    """All N examples every step; nothing is gathered."""
    return Stream("full", _all_rows, "all")


def from_name(stream: str | Stream) -> Stream:
    """A stream, or the stream of that name.

    Raises:
        ValueError: no stream has that name.
    """
    if isinstance(stream, Stream):
        return stream
    known = [make() for make in (with_replacement, reshuffled, symmetric, cyclic, full)]
    for candidate in known:
        if candidate.name == stream:
            return candidate
    allowed = ", ".join(candidate.name for candidate in known)
    raise ValueError(f"stream: got {stream!r}; allowed: {allowed}, or a streams.Stream")


def num_batches(data_size: int, batch_size: int) -> int:
    """K = ⌈N/n⌉."""
    return -(-data_size // batch_size)


def order_at(
    stream: Stream, key: Key, counter: Array, data_size: int, batch_size: int
) -> Int[Array, " k"]:
    """`stream.order` of the epoch that step `counter` belongs to; (0,) for streams without one.

    Arguments: see `rows_at`.
    """
    if stream.order is None:
        return jnp.zeros((0,), jnp.int32)
    epoch = jnp.asarray(counter) // stream.period(data_size, batch_size)
    return stream.order(key, epoch, data_size, batch_size)


def rows_at(stream: Stream, key: Key, counter: Array, data_size: int, batch_size: int) -> Rows:
    """The rows of step `counter`, from key and counter alone.

    Args:
        stream: any.
        key: the stream's key, `jax.random.key(seed)`.
        counter: () int32, batches before this one.
        data_size: N.
        batch_size: n.
    """
    order = order_at(stream, key, counter, data_size, batch_size)
    return stream.rows(order, key, jnp.asarray(counter), data_size, batch_size)


def gather(stream: Stream, rows: Rows, data: PyTree) -> Batch:
    """The batch of `rows`; under "all" it is the data themselves, without a copy.

    Args:
        stream: whose rows they are.
        rows: n rows, all in 0 … N−1.
        data: all N examples, a pytree of arrays with a leading axis N.
    """
    if stream.law == "all":
        return Batch(data)
    # Streams only make rows in range, and the check would cost a pass over the batch.
    taken = jax.tree.map(lambda x: x.at[rows.index].get(mode="promise_in_bounds"), data)
    return Batch(taken, rows.index, rows.mask, rows.share)


def check_batch_size(batch_size: int, data_size: int, stream: Stream) -> None:
    """Raise unless the stream can make batches of that size.

    Raises:
        TypeError: not an integer.
        ValueError: below 1, or above the number of examples where none is drawn twice.
    """
    if isinstance(batch_size, bool) or not hasattr(batch_size, "__index__"):
        raise TypeError(f"batch_size: got {batch_size!r}; expected an integer")
    repeats = stream.law == "independent"
    if batch_size < 1 or (batch_size > data_size and not repeats):
        upper = "" if repeats else f" and at most {data_size}, the number of examples"
        raise ValueError(f"batch_size: got {batch_size}; allowed: at least 1{upper}")


def require_reversible(stream: Stream, num_steps: int, data_size: int, batch_size: int) -> None:
    """Raise unless blocks of `num_steps` batches have, read backwards, the law they have forwards.

    That is what a Metropolis correction of a block asks, given all that the chain's state
    depends on: which examples are still to come in an epoch may be known to the chain, the
    order in which a block takes them may not. So blocks may cut an epoch of equal batches
    into equal parts, or hold whole epochs; a there-and-back sweep must be held whole.

    Raises:
        ValueError: the stream is named, with what is allowed.
    """
    k = num_batches(data_size, batch_size)
    whole = k * batch_size == data_size
    if num_steps == 1 or stream.law in ("independent", "all"):
        return
    if stream.law == "sweep":
        if k == 1 or (whole and (k % num_steps == 0 or num_steps % k == 0)):
            return
        rule = (
            f"a num_steps that divides the epoch's K = {k} batches or is a multiple of K"
            if whole
            else f"a batch_size that divides the {data_size} examples"
        )
    elif stream.law == "there and back":
        if num_steps % (2 * k) == 0:
            return
        rule = f"a num_steps that is a multiple of the epoch's 2K = {2 * k} batches"
    elif stream.law == "fixed" and k == 1:
        return
    else:
        rule = "num_steps=1"
    raise ValueError(
        f'stream: got "{stream.name}" with num_steps={num_steps}, batch_size={batch_size} and '
        f"{data_size} examples; a block's batches would not have the same law read backwards, so "
        f'its correction would be wrong. Allowed: "with_replacement", "full", or here {rule}'
    )


def _permutation(key: Key, epoch: Array, data_size: int, batch_size: int) -> Int[Array, " k"]:
    order = jax.random.permutation(jax.random.fold_in(key, epoch), data_size).astype(jnp.int32)
    padding = num_batches(data_size, batch_size) * batch_size - data_size
    return jnp.concatenate([order, order[:padding]])


def _draw_rows(
    order: Int[Array, " k"], key: Key, counter: Int[Array, ""], data_size: int, batch_size: int
) -> Rows:
    key = jax.random.fold_in(key, counter)
    return Rows(jax.random.randint(key, (batch_size,), 0, data_size, jnp.int32))


def _forward_rows(
    order: Int[Array, " k"], key: Key, counter: Int[Array, ""], data_size: int, batch_size: int
) -> Rows:
    return _cut(order, counter % num_batches(data_size, batch_size), data_size, batch_size)


def _there_and_back_rows(
    order: Array, key: Key, counter: Array, data_size: int, batch_size: int
) -> Rows:
    k = num_batches(data_size, batch_size)
    j = counter % (2 * k)
    return _cut(order, jnp.where(j < k, j, 2 * k - 1 - j), data_size, batch_size)


def _cyclic_rows(
    order: Int[Array, " k"], key: Key, counter: Int[Array, ""], data_size: int, batch_size: int
) -> Rows:
    k = num_batches(data_size, batch_size)
    place = (counter % k) * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    if k * batch_size == data_size:
        return Rows(place)
    mask = place < data_size
    return Rows(place % data_size, mask, jnp.sum(mask).astype(float) * (k / data_size))


def _all_rows(
    order: Int[Array, " k"], key: Key, counter: Int[Array, ""], data_size: int, batch_size: int
) -> Rows:
    return Rows(jnp.arange(data_size, dtype=jnp.int32))


def _cut(order: Int[Array, " k"], j: Int[Array, ""], data_size: int, batch_size: int) -> Rows:
    """Batch j of an order whose length is K n, padding included."""
    index = jax.lax.dynamic_slice(order, (j * batch_size,), (batch_size,))
    if order.shape[0] == data_size:
        return Rows(index)
    return Rows(index, j * batch_size + jnp.arange(batch_size) < data_size)
