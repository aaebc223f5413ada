"""The batches of one step: a stream's next turn, with the epoch's order that a loop carries.

Every loop calls `next_batch`: that of `sample` and `fit`, trials of a step size, and the steps
that `to_blackjax` makes for others' loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgmcmc._checks import as_arrays, check_data
from sgmcmc._leaves import require_arrays
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.streams import _streams as streams
from sgmcmc.streams._streams import Rows, Stream
from sgmcmc.types import Array, Batch, Batches, Blocks, Key, PyTree

# Folded into a stream's key for batches drawn apart from it; counters stay below 2³¹.
APART = 2**32 - 1


def data_and_stream(
    posterior: Posterior | None,
    data: PyTree,
    stream: str | Stream | None,
    batch_size: int | None,
    batches: Batches = "any",
    num_steps: int = 1,
    name: str = "this loop",
) -> tuple[PyTree, Stream, int]:
    """Data as JAX arrays, the stream, and the batch size that was asked for (0 without data).

    Args:
        posterior: the target; None: a loss or kernel that takes any data.
        data, stream, batch_size: as in `sgmcmc.sample`.
        batches: which streams the kernel or estimator bears, from its traits.
        num_steps: L, batches of the stream that a step takes.
        name: the kernel's, for errors.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    chosen = default_stream(batches) if stream is None else streams.from_name(stream)
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
    data = as_arrays(data, "data")
    if batch_size is None or batches == "all data":
        if batch_size not in (None, data_size):
            raise ValueError(
                f"batch_size: got {batch_size}; allowed: None, since the `full` gradient "
                "estimator uses all data every step"
            )
        require_borne(streams.full(), batches, num_steps, name, data_size, data_size)
        return data, streams.full(), data_size
    streams.check_batch_size(batch_size, data_size, chosen)
    if chosen.law == "all" and batch_size != data_size:
        raise ValueError(
            f'batch_size: got {batch_size}; allowed with stream="full": None or {data_size}'
        )
    require_borne(chosen, batches, num_steps, name, data_size, batch_size)
    return data, chosen, int(batch_size)


def default_stream(batches: Batches) -> Stream:
    """What `stream=None` stands for: the stream that a kernel asks for, by its traits."""
    independent = batches in ("independent", "noisy")
    return streams.with_replacement() if independent else streams.reshuffled()


def require_borne(
    stream: Stream, batches: Batches, num_steps: int, name: str, data_size: int, batch_size: int
) -> None:
    """Raise a ValueError unless a kernel is right under the stream, by its law and nothing else.

    Args:
        stream: the batches.
        batches: what the kernel bears.
        num_steps: L, batches of the stream that a step takes. In a fixed order of K, with a common
            factor of L and K, each place in a step would see a part of the data alone, and places
            play different parts.
        name: the kernel's.
        data_size, batch_size: N and n.
    """
    if batches == "reversible":
        streams.require_reversible(stream, num_steps, data_size, batch_size)
        return
    period = stream.period(data_size, batch_size)
    whole = stream.law == "all" or (
        stream.law != "independent" and streams.num_batches(data_size, batch_size) == 1
    )
    if whole and batches == "noisy":
        raise ValueError(
            f"batch_size: got all {data_size} examples a step; {name} takes the known noise of "
            "minibatch gradients off its own, and these have none: its law would be too cold. "
            f"Allowed: a batch_size below {data_size}, or noise_estimate=None"
        )
    if batches in ("independent", "noisy") and not (whole or stream.law == "independent"):
        raise ValueError(
            f'stream: got "{stream.name}" with {name}, which remembers the examples that it has '
            "seen, or reckons with noise drawn anew every step; a sweep's batches depend on those "
            'before, and its law would be wrong. Allowed: "with_replacement", which is its default'
        )
    common = math.gcd(num_steps, period)
    if stream.law == "fixed" and common > 1:
        raise ValueError(
            f'stream: got "{stream.name}", {period} batches in turn, with {name}, which takes '
            f"{num_steps} a step: by the common factor {common} each place in a step sees a part "
            "of the data alone. Allowed: a batch_size for a number of batches without one, or "
            '"reshuffled"'
        )


class Source(NamedTuple):
    """Where batches come from, and what a kernel asks for.

    Attributes:
        stream, batch_size: as `data_and_stream` gives them.
        data: all data; None: a target without data.
        per_step: batches a step.
        apart: examples that are drawn apart from the stream, in the last batch and as many more
            as that takes: with replacement, independent of it and of all before; or all the data
            once, where those batches have room for them. 0: none.
        needs_data: the step is given `Blocks`, all data beside its batches.
    """

    stream: streams.Stream
    batch_size: int
    data: PyTree
    per_step: int = 1
    needs_data: bool = False
    apart: int = 0

    @property
    def sizes(self) -> tuple[int, int]:
        """(N, n); both 0 without data."""
        return (0 if self.data is None else leading_axis(self.data), self.batch_size)

    @property
    def width(self) -> int:
        """Rows of a batch; 0 without data."""
        return 0 if self.data is None else self.stream.width(*self.sizes)

    @property
    def in_turn(self) -> int:
        """Batches of the stream in a step."""
        return self.per_step - (self.apart > 0)

    @property
    def num_apart(self) -> int:
        """Batches drawn apart in a step."""
        return -(-min(self.apart, self.sizes[0]) // self.width)


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

    def one(order: Array, part: Array) -> tuple[Array, Batch]:
        return _part(source, keys, t, part, order, over_chains)

    order, batch = jax.lax.scan(
        one, order, jnp.arange(source.in_turn + source.num_apart, dtype=jnp.int32)
    )
    if over_chains is not no_vmap:
        batch = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), batch)
    if source.needs_data:
        return order, Blocks(batch, source.data), Blocks(0, None)
    return order, batch, 0


def _part(
    source: Source,
    keys: Key,
    t: Array,
    part: Array,
    order: Array,
    over_chains: Callable[..., PyTree],
) -> tuple[Array, Batch]:
    """The order and batch `part` of step t: the stream's in turn, and then those apart from it."""
    counter = t * source.in_turn + part
    if not source.apart:
        return _turn(source, keys, counter, order, over_chains)
    return _turn(source, keys, counter, order, over_chains, (t, part - source.in_turn))


def _turn(
    source: Source,
    keys: Key,
    counter: Array,
    order: Array,
    over_chains: Callable[..., PyTree],
    apart: tuple[Array, Array] | None = None,
) -> tuple[Array, Batch]:
    """The order and the batch when `counter` batches came before.

    `apart`: the step, and the number in it of a batch that is drawn apart from the stream instead;
    of the stream's own batches that is below 0.
    """
    stream, sizes = source.stream, source.sizes

    def prepare(key: Key) -> Array:
        return streams.order_at(stream, key, counter, *sizes)

    def pick(order: Array, key: Key) -> Batch:
        rows = stream.rows(order, key, counter, *sizes)
        if apart is not None:
            # The rows are chosen and not the batches, so that each example is copied once.
            rows = _either(apart[1] >= 0, _rows_apart(source, key, *apart), rows)
        return streams.gather(stream, rows, source.data)

    if stream.order is not None:
        # Outside the chains' vmap, or both branches would run at every step.
        opens = counter % stream.period(*sizes) == 0
        order = jax.lax.cond(
            opens if apart is None else opens & (apart[1] < 0),
            lambda old: over_chains(prepare)(keys),
            lambda old: old,
            order,
        )
    return order, over_chains(pick)(order, keys)


def _rows_apart(source: Source, key: Key, t: Array, number: Array) -> Rows:
    """w rows drawn with replacement by numbers of their own, or the next w of all N once."""
    data_size, width = source.sizes[0], source.width
    room = source.num_apart * width
    if room >= data_size:
        place = number * width + jnp.arange(width, dtype=jnp.int32)
        return Rows(place % data_size, None if room == data_size else place < data_size)
    own = jax.random.fold_in(jax.random.fold_in(key, APART), number)
    return streams.rows_at(streams.with_replacement(), own, t, data_size, width)


def _either(first: Array, one: Rows, other: Rows) -> Rows:
    """`one` where `first`, a () bool, else `other`; what only one of them has is 1 in the other."""
    pick = lambda x, y: jnp.where(first, x, y)  # noqa: E731
    mask, share = None, None
    if one.mask is not None or other.mask is not None:
        masks = (jnp.ones(r.index.shape, bool) if r.mask is None else r.mask for r in (one, other))
        mask = pick(*masks)
    if one.share is not None or other.share is not None:
        shares = (jnp.ones(()) if r.share is None else r.share for r in (one, other))
        share = pick(*shares)
    return Rows(pick(one.index, other.index), mask, share)
