"""The jitted chunk: some steps of all chains, with every draw that falls into them.

Everything that varies from chunk to chunk is an argument, trip counts included, so that
burn-in and sampling share one trace. Step t of chain c draws its numbers from
fold_in(fold_in(noise key, c), t); what is rare (an epoch's permutation) is a `cond` on the
one shared counter, outside the chains' vmap. Where chunks end changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from sgmcmc import _tree as trees
from sgmcmc.kernels._base import AbstractKernel
from sgmcmc.loop._chain import take_step
from sgmcmc.streams import _source as batches
from sgmcmc.streams import _streams as streams
from sgmcmc.types import Array, Info, Key, PyTree, State


class Program(NamedTuple):
    """What is static in a run: the shape of its loop."""

    stream: streams.Stream
    data_size: int
    batch_size: int
    num_parameters: int
    capacity: int
    vmapped: bool
    devices: int
    protect: bool


class Keys(NamedTuple):
    """One noise key and one stream key for each chain, [chain]."""

    noise: Key
    stream: Key


class Inputs(NamedTuple):
    """What a chunk reads: arrays are arguments of the jitted function, the rest is static."""

    program: Program
    kernel: AbstractKernel
    data: PyTree
    keys: Keys
    collect: Callable[[PyTree], PyTree] | None
    reducers: PyTree


class Carry(NamedTuple):
    """What a chunk changes, with a leading chain axis.

    A chunk gets new buffers for it, and its old ones stay as they are until the new are there:
    what breaks in has twice the memory of one carry to go on from.

    `failed` is the first step, counted from 0, whose result was not finite; −1 for none.
    `elapsed` is the physical time since the end of the burn-in, and what rounding has
    taken from it. `accepted` is the sum of the acceptance over steps that are no draw, which
    the burn-in of a step that was chosen is judged by; 0 for kernels without.
    """

    state: State
    order: Array
    failed: Array
    elapsed: tuple[Array, Array]
    reduced: PyTree
    accepted: Array


class Span(NamedTuple):
    """The part of the run that one chunk covers, as scalars: int32, int32, int32, bool.

    `num_draws` times `steps_per_draw` steps from `start` on; the last step of each group
    is a draw if `record`.
    """

    start: Array
    num_draws: Array
    steps_per_draw: Array
    record: Array


class Piece(NamedTuple):
    """What one chunk makes: groups of steps, and whether each ends in a draw."""

    num_draws: int
    steps_per_draw: int
    record: bool

    @property
    def steps(self) -> int:
        return self.num_draws * self.steps_per_draw

    def from_step(self, start: int) -> Span:
        """The span that begins at step `start`."""
        number = lambda x: jnp.asarray(x, jnp.int32)  # noqa: E731
        return Span(
            number(start),
            number(self.num_draws),
            number(self.steps_per_draw),
            jnp.asarray(self.record),
        )


# A chunk of no step: it compiles, and says what shapes a draw has.
NO_STEP = Piece(0, 1, False)


class Recorded(NamedTuple):
    """One draw of each chain, or, with a leading axis, a chunk's."""

    values: PyTree
    info: Info


def run_chunk(inputs: Inputs, span: Span, carry: Carry) -> tuple[Carry, Recorded]:
    """Advance all chains by one chunk; draws come as [chain, slot, …]."""
    return _chunk((inputs, span), carry)


@eqx.filter_jit
def _chunk(given: tuple[Inputs, Span], carry: Carry) -> tuple[Carry, Recorded]:
    inputs, span = given
    program = inputs.program
    advance = _advance_group if program.vmapped else _advance_in_turn
    if program.devices == 1:
        return advance(inputs, span, carry)
    arrays, static = eqx.partition(inputs, eqx.is_array)
    chains, shared = PartitionSpec("chains"), PartitionSpec()
    specs = jax.tree.map(lambda _: shared, arrays)
    specs = specs._replace(keys=jax.tree.map(lambda _: chains, arrays.keys))
    mesh = Mesh(np.asarray(jax.devices()[: program.devices]), ("chains",))

    def on_device(arrays: Inputs, span: Span, carry: Carry) -> tuple[Carry, Recorded]:
        return advance(eqx.combine(arrays, static), span, carry)

    sharded = shard_map(on_device, mesh, (specs, shared, chains), (chains, chains))
    return sharded(arrays, span, carry)


def shard_map(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    """`jax.shard_map`, without the check of what varies, which a `cond` in a loop defeats."""
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def _advance_in_turn(inputs: Inputs, span: Span, carry: Carry) -> tuple[Carry, Recorded]:
    """Whole chains one after another: each keeps its parameters in the cache."""

    def one(args: tuple[Keys, Carry]) -> tuple[Carry, Recorded]:
        keys, chain = args
        return _advance(inputs._replace(keys=keys), span, chain, batches.no_vmap)

    return jax.lax.map(one, (inputs.keys, carry))


def _advance_group(inputs: Inputs, span: Span, carry: Carry) -> tuple[Carry, Recorded]:
    """All chains step by step together."""
    carry, recorded = _advance(inputs, span, carry, jax.vmap)
    return carry, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), recorded)


def _advance(
    inputs: Inputs, span: Span, carry: Carry, over_chains: Callable[..., Any]
) -> tuple[Carry, Recorded]:
    """The loop itself; `over_chains` is `jax.vmap`, or nothing for a chain by itself."""
    program, kernel, keys = inputs.program, inputs.kernel, inputs.keys
    source = kernel.source(program.stream, program.batch_size, inputs.data)

    def step(t: Array, state: State, order: Array) -> tuple[State, Array, Info]:
        return take_step(kernel, source, keys.noise, keys.stream, t, state, order, over_chains)

    def unseen(t: Array, loop: _Loop) -> _Loop:
        # What nobody reads of `info` is not computed: norms cost a tenth of a step.
        state, order, info = step(t, loop.state, loop.order)
        failed = _first_failure(loop.failed, t, jnp.isfinite(info.energy))
        accepted = loop.accepted
        if info.acceptance is not None:
            accepted = accepted + info.acceptance.astype(accepted.dtype)
        return _Loop(state, order, failed, _add_time(loop.elapsed, info.time), accepted)

    def one_draw(i: Array, group: tuple[_Loop, PyTree, Recorded]) -> tuple[Any, ...]:
        first = span.start + i * span.steps_per_draw
        last = first + span.steps_per_draw - 1
        loop, reduced, recorded = group
        # Steps that are no draw all run the one program, wherever a chunk may end, and
        # draws the other: two compilations of a step need not round alike.
        loop = jax.lax.fori_loop(first, jnp.where(span.record, last, last + 1), unseen, loop)

        def draw(_: Array, group: tuple[_Loop, PyTree, Recorded]) -> tuple[Any, ...]:
            loop, reduced, recorded = group
            state, order, info = step(last, loop.state, loop.order)
            finite = info.finite & over_chains(trees.all_finite)(info.position)
            elapsed = _add_time(loop.elapsed, info.time)
            failed = _first_failure(loop.failed, last, finite)
            loop = _Loop(state, order, failed, elapsed, loop.accepted)
            # A chain that has failed adds nothing more, unless the run ignores failures.
            counts = (loop.failed < 0) | ~jnp.asarray(program.protect)
            fold = lambda r, p, w, c: _fold(inputs.reducers, r, p, w, c)  # noqa: E731
            reduced = over_chains(fold)(reduced, info.position, info.weight, counts)
            values = keep(info._replace(finite=finite, elapsed=elapsed[0]))
            return loop, reduced, jax.tree.map(lambda to, x: to.at[i].set(x), recorded, values)

        # A loop of one turn or none: unlike a `cond`, it leaves the buffers where they are.
        return jax.lax.fori_loop(0, jnp.where(span.record, 1, 0), draw, (loop, reduced, recorded))

    def keep(info: Info) -> Recorded:
        values = () if inputs.collect is None else over_chains(inputs.collect)(info.position)
        return Recorded(values, info._replace(position=()))

    loop = _Loop(carry.state, carry.order, carry.failed, carry.elapsed, carry.accepted)

    def recorded_now() -> Recorded:
        info = step(span.start, loop.state, loop.order)[2]
        return keep(info._replace(elapsed=loop.elapsed[0]))

    shapes = jax.eval_shape(recorded_now)
    buffers = jax.tree.map(lambda s: jnp.zeros((program.capacity, *s.shape), s.dtype), shapes)
    loop, reduced, recorded = jax.lax.fori_loop(
        0, span.num_draws, one_draw, (loop, carry.reduced, buffers)
    )
    state, order, failed, elapsed, accepted = loop
    return Carry(state, order, failed, elapsed, reduced, accepted), recorded


class _Loop(NamedTuple):
    """The innermost carry."""

    state: State
    order: Array
    failed: Array
    elapsed: tuple[Array, Array]
    accepted: Array


def _add_time(elapsed: tuple[Array, Array], time: Array) -> tuple[Array, Array]:
    """Kahan's sum: short steps are not lost beside a long time."""
    total, lost = elapsed
    wanted = time.astype(total.dtype) - lost
    longer = total + wanted
    return longer, (longer - total) - wanted


def _first_failure(failed: Array, t: Array, finite: Array) -> Array:
    return jnp.where((failed < 0) & ~finite, t, failed)


def _fold(reducers: PyTree, states: PyTree, position: PyTree, weight: Array, counts: Array) -> Any:
    """Fold one draw into every reducer, or leave them as they are."""
    folded = {name: r.update(states[name], position, weight) for name, r in reducers.items()}
    return jax.tree.map(lambda new, old: jnp.where(counts, new, old), folded, states)
