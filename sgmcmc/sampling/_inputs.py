"""What users hand to `sample`, checked; where chains start, and the keys each draws from."""

from __future__ import annotations

import functools
import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import _is_index, check_range, choice, count
from sgmcmc._posterior import batch_shape
from sgmcmc.loop._chunk import Keys
from sgmcmc.types import Key, PyTree


def check_settings(asked: Any) -> Any:
    """An `execution.Settings` with its numbers checked, as Python's own integers."""
    for name in ("num_chains", "num_samples", "thinning"):
        count(getattr(asked, name), name, least=1)
    count(asked.num_burnin, "num_burnin", least=0)
    if asked.chunk_steps is not None:
        count(asked.chunk_steps, "chunk_steps", least=1)
    if asked.total_time is not None:
        check_range(asked.total_time, "total_time", above_zero=True)
        asked = asked._replace(total_time=float(asked.total_time))
    choice(asked.on_nonfinite, "on_nonfinite", ("raise", "stop_chain", "ignore"))
    plain = {name: operator.index(x) for name, x in asked._asdict().items() if _is_index(x)}
    return asked._replace(**plain)


def total_steps(asked: Any, kernel: Any) -> None:
    """Raise a ValueError unless the steps, and their batches, can be counted in an int32."""
    steps = asked.num_burnin + asked.num_samples * asked.thinning
    if (steps + 1) * kernel.traits.batches_per_step >= 2**31:
        raise ValueError(f"num_samples: burn-in and draws make {steps:,} steps; allowed: < 2³¹")
    if kernel.clock is not None:
        # Until a time is covered: how many steps that takes is not known yet.
        most = asked.num_samples if asked.total_time is None else 2**20 // asked.thinning
        kernel.clock.check_run(asked.num_burnin, min(asked.num_samples, most), asked.thinning)


def most_draws(kernel: Any, num_burnin: int, thinning: int) -> int:
    """The most draws a run can make; see `total_steps`."""
    count(num_burnin, "num_burnin", least=0)
    count(thinning, "thinning", least=1)
    steps = (2**31 - 1) // kernel.traits.batches_per_step - 2
    return max(1, (steps - num_burnin) // thinning)


def has_chain_axis(kernel: Any, params: PyTree, data: PyTree, num_chains: int) -> bool:
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
    batch = batch_shape(data, 1)

    def takes(tree: PyTree) -> bool:
        try:
            eqx.filter_eval_shape(posterior.potential, tree, batch)
        except Exception:  # whatever the user's function raises, it does not take this
            return False
        return True

    return takes(jax.tree.map(lambda x: x[0], params)) and not takes(params)


@functools.partial(jax.jit, static_argnums=1)
def derive(key: Key, num_chains: int) -> tuple[Key, Key, Keys]:
    """Every chain's keys: for its parameters, its first momentum, its noise and its batches."""
    init_key, noise_key, stream_key = jax.random.split(key, 3)
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    chains = jnp.arange(num_chains)
    pairs = jax.vmap(jax.random.split)(fold(init_key, chains))
    return pairs[:, 0], pairs[:, 1], Keys(fold(noise_key, chains), fold(stream_key, chains))


def positions(start_keys: Key, kernel: Any, params: Any, data: PyTree) -> tuple[PyTree, PyTree]:
    """Starts with a chain axis, as new arrays, and one chain's as a template."""
    num_chains = len(start_keys)
    if _is_init(params):
        starts = [params(start_keys[chain]) for chain in range(num_chains)]
        checks.require_floating(starts[0], "params")
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
        return _strong(stacked), _strong(starts[0])
    checks.require_floating(params, "params")
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
