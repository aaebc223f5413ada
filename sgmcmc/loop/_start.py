"""Where chains start: the keys that each draws from, first positions, and the first carry."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior, batch_shape
from sgmcmc._tree import leading_axis
from sgmcmc.kernels._base import AbstractKernel, require_kernel
from sgmcmc.loop._chunk import Carry, Inputs, Keys, Piece, Program, run_chunk
from sgmcmc.loop._devices import choose_method
from sgmcmc.streams._source import data_and_stream, empty_order
from sgmcmc.streams._streams import Stream
from sgmcmc.types import Key, PyTree


class Chains(NamedTuple):
    """Chains of the library's own loop: what they read, and where they stand.

    Attributes:
        inputs: the kernel, the data, the keys of each chain, and what is static.
        carry: `carry.state` is the kernel's `State` with a leading chain axis.
        steps: made so far by each chain.
        method: the `chain_method` that was chosen.
    """

    inputs: Inputs
    carry: Carry
    steps: int
    method: str


def chains(
    key: Key,
    kernel: AbstractKernel,
    params: PyTree | Callable[[Key], PyTree],
    data: PyTree = None,
    *,
    batch_size: int | None = None,
    stream: str | Stream | None = None,
    num_chains: int = 1,
    chain_method: str = "auto",
) -> Chains:
    """The chains of `sgmcmc.sample` at their start, to be stepped by `advance`, timed or looked at.

    Args:
        key, kernel, params, data, batch_size, stream, num_chains, chain_method: as in `sample`;
            the same key gives the same steps.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    checks.on_host("chains", key, kernel, params, data)
    num_chains = checks.count(num_chains, "num_chains", least=1)
    start = placed(key, kernel, params, data, batch_size, stream, num_chains)
    collect = Partial(whole)
    draw = kept(start, collect)
    return begun(start, chain_method, collect, draw, {}, protect=True)


def advance(chains: Chains, num_steps: int) -> Chains:
    """`num_steps` more steps, as one chunk whose last step makes a draw.

    The first call compiles; any other number of steps shares its trace. `chains` can be used
    again.

    Raises:
        TypeError, ValueError: `num_steps` is no integer ≥ 1.
    """
    num_steps = checks.count(num_steps, "num_steps", least=1)
    span = Piece(1, num_steps, True).from_step(chains.steps)
    carry, _ = run_chunk(chains.inputs, span, chains.carry)
    return chains._replace(carry=carry, steps=chains.steps + num_steps)


class Start(NamedTuple):
    """What `sample` was given to start from, checked: see `placed`.

    Attributes:
        kernel, data, stream, batch_size: as `data_and_stream` gives them.
        position: first positions, new arrays with a leading chain axis.
        template: one chain's.
        momentum_keys: of each chain's `init`, [chain].
        keys: of each chain's steps.
    """

    kernel: AbstractKernel
    data: PyTree
    stream: Stream
    batch_size: int
    position: PyTree
    template: PyTree
    momentum_keys: Key
    keys: Keys


def placed(
    key: Any,
    kernel: Any,
    params: Any,
    data: PyTree,
    batch_size: int | None,
    stream: str | Stream | None,
    num_chains: int,
) -> Start:
    """Check kernel, data and parameters against each other, and say where the chains start.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    key = checks.typed_key(key)
    require_kernel(kernel)
    traits = kernel.traits
    data, chosen, batch_size = data_and_stream(
        kernel.posterior, data, stream, batch_size, traits.batches, traits.stream_batches,
        traits.name,
    )  # fmt: skip
    start_keys, momentum_keys, keys = derive(key, num_chains)
    position, template = positions(start_keys, kernel, params, data)
    if kernel.posterior is not None:
        width = kernel.source(chosen, batch_size, data).width
        try:
            kernel.posterior.check_shapes(template, data, width)
        except Exception:
            _require_as_many(kernel.posterior, template, data, num_chains)
            raise
    if kernel.clock is not None:
        kernel.clock.check(template)
    return Start(kernel, data, chosen, batch_size, position, template, momentum_keys, keys)


def begun(
    start: Start,
    chain_method: str,
    collect: Callable[[PyTree], PyTree] | None,
    draw: PyTree,
    reducers: Mapping[str, Any],
    *,
    protect: bool,
) -> Chains:
    """The chains at step 0.

    Args:
        start: from `placed`.
        chain_method: as in `sample`.
        collect: what to keep of a draw; None: nothing.
        draw: what that gives, from `kept`.
        reducers: {name: reducer}.
        protect: whether a chain that has failed adds nothing more to the reducers.
    """
    num_chains, num_parameters = len(start.momentum_keys), trees.size(start.template)
    method, vmapped, devices = choose_method(chain_method, num_chains, num_parameters)
    program = Program(
        stream=start.stream,
        data_size=0 if start.data is None else leading_axis(start.data),
        batch_size=start.batch_size,
        num_parameters=num_parameters,
        capacity=_capacity(draw_bytes(draw, num_chains)),
        vmapped=vmapped,
        devices=devices,
        protect=protect,
    )
    inputs = Inputs(program, start.kernel, start.data, start.keys, collect, dict(reducers))
    return Chains(inputs, _first(inputs, start.momentum_keys, start.position), 0, method)


@eqx.filter_jit
def _first(inputs: Inputs, momentum_keys: Key, position: PyTree) -> Carry:
    program, kernel = inputs.program, inputs.kernel
    begin = lambda p, k: kernel.init(p, k, inputs.data)  # noqa: E731
    state = jax.vmap(begin)(position, momentum_keys)
    source = kernel.source(program.stream, program.batch_size, inputs.data)
    order = jax.vmap(lambda key: empty_order(source, key))(inputs.keys.stream)
    recorded = jax.vmap(kernel.recorded)(position)
    reduced = {name: jax.vmap(r.init)(recorded) for name, r in inputs.reducers.items()}
    failed, zero = jnp.full(momentum_keys.shape, -1, jnp.int32), jnp.zeros(momentum_keys.shape)
    return Carry(state, order, failed, (zero, zero), reduced, zero)


def whole(position: PyTree) -> PyTree:
    """All of a position, as `collect`."""
    return position


def kept(start: Start, collect: Callable[[PyTree], PyTree] | None) -> PyTree:
    """Shapes of what is kept of one chain's draw."""
    if collect is None:
        return ()
    return jax.eval_shape(lambda p: collect(start.kernel.recorded(p)), start.template)


def draw_bytes(kept: PyTree, num_chains: int) -> int:
    """Bytes of one draw of all chains, where `kept` has the shapes of one chain's."""
    # Beside what is kept, the weight and the info: at most eight numbers a draw.
    return (trees.num_bytes(kept) + 64) * num_chains


def _capacity(draw_bytes: int) -> int:
    """Draws that a chunk has room for: 32 MiB of them. It does not depend on `num_samples`, so that
    runs of any length share one trace.
    """
    return max(1, min(2**16, 2**25 // max(draw_bytes, 1)))


@functools.partial(jax.jit, static_argnums=1)
def derive(key: Key, num_chains: int) -> tuple[Key, Key, Keys]:
    """Every chain's keys: for its parameters, its first momentum, its noise and its batches."""
    init_key, noise_key, stream_key = jax.random.split(key, 3)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    chains = jnp.arange(num_chains)
    pairs = jax.vmap(jax.random.split)(fold(init_key, chains))
    return pairs[:, 0], pairs[:, 1], Keys(fold(noise_key, chains), fold(stream_key, chains))


def has_chain_axis(kernel: AbstractKernel, params: PyTree, data: PyTree, num_chains: int) -> bool:
    """Whether `params` has a leading chain axis.

    So it is if every leaf's first axis is `num_chains` and the target takes a slice but not
    the whole. Where it takes both, `params` is one position: pass `init(key)` to say otherwise.
    """
    leaves = jax.tree.leaves(params)
    if any(leaf.ndim == 0 or leaf.shape[0] != num_chains for leaf in leaves):
        return False
    posterior = kernel.posterior
    if posterior is None:
        return False
    first = jax.tree.map(lambda x: x[0], params)
    return _takes(posterior, first, data) and not _takes(posterior, params, data)


def _takes(posterior: Posterior, params: PyTree, data: PyTree) -> bool:
    """Whether the target's potential can be traced at `params`."""
    try:
        eqx.filter_eval_shape(posterior.potential, params, batch_shape(data, 1))
    except Exception:  # whatever the user's function raises, it does not take this
        return False
    return True


def _require_as_many(posterior: Posterior, params: PyTree, data: PyTree, num_chains: int) -> None:
    """Raise a ValueError where `params`, which the target refuses, are starts of other chains."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(params)}
    if len(lengths) != 1 or lengths == {()}:
        return
    (length,) = lengths.pop()
    if length != num_chains and _takes(posterior, jax.tree.map(lambda x: x[0], params), data):
        raise ValueError(
            f"params: leading axis {length}, num_chains={num_chains}; expected one start for each "
            f"chain (num_chains={length}), one for all, or init(key) -> params"
        ) from None


def positions(
    start_keys: Key, kernel: AbstractKernel, params: Any, data: PyTree
) -> tuple[PyTree, PyTree]:
    """Starts with a chain axis, as new arrays, and one chain's as a template."""
    num_chains = len(start_keys)
    if _is_init(params):
        starts = [params(start_keys[chain]) for chain in range(num_chains)]
        checks.require_floating(starts[0], "params")
        checks.require_in_range(starts, "params")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
        return _strong(stacked), _strong(starts[0])
    checks.require_floating(params, "params")
    checks.require_in_range(params, "params")
    params = _strong(params)
    if has_chain_axis(kernel, params, data, num_chains):
        return trees.copy(params), jax.tree.map(lambda x: x[0], params)
    return _repeat(params, num_chains), params


@functools.partial(jax.jit, static_argnums=1)
def _repeat(tree: PyTree, num_chains: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.repeat(x[None], num_chains, axis=0), tree)


def _strong(tree: PyTree) -> PyTree:
    """Arrays without weak types: a step's result has none, and would need a second trace."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype=jnp.result_type(x)), tree)


def _is_init(params: Any) -> bool:
    """Whether `params` is a function that makes them, and no module that can be called."""
    if not callable(params):
        return False
    # These may hold arrays too: Equinox's bound methods are pytrees with those of their module.
    if isinstance(params, Partial) or hasattr(params, "__func__"):
        return True
    return not any(isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves(params))
