"""Functions of many draws, block by block: what diagnostics and ArviZ's groups are made by."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.types import PyTree

BLOCK_BYTES = 2**26


def evaluate(function: Callable[..., PyTree], draws: PyTree, *args: PyTree) -> PyTree:
    """`function(params, *args)` for every draw, in jitted blocks: NumPy arrays [draw, …].

    Args:
        function: `(params, *args) -> pytree of arrays`.
        draws: pytree of NumPy arrays [draw, …].
        args: pytrees of arrays, passed on as arguments and never compiled in.
    """
    function = trees.as_callable(function, "function")
    args = checks.as_arrays(args, "x")
    checks.require_in_range(draws, "run")
    total = len(jax.tree.leaves(draws)[0])
    one = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), draws)
    out = eqx.filter_eval_shape(function, one, *args)
    largest = max(trees.num_bytes(one), trees.num_bytes(out), 1)
    size = max(1, min(total, BLOCK_BYTES // largest))
    blocks = []
    for start in range(0, total, size):
        block = jax.tree.map(lambda v, s=start: v[s : s + size], draws)
        count = min(size, total - start)
        if count < size:  # repeat the last draw: one shape, one trace
            pad = size - count
            block = jax.tree.map(lambda v, p=pad: np.concatenate([v, v[-1:].repeat(p, 0)]), block)
        result = _map(function, block, args)
        blocks.append(jax.tree.map(lambda v, c=count: np.asarray(v)[:c], result))
    return jax.tree.map(lambda *v: np.concatenate(v), *blocks)


@eqx.filter_jit
def _map(function: Callable[..., PyTree], block: PyTree, args: tuple[PyTree, ...]) -> PyTree:
    return jax.lax.map(lambda params: function(params, *args), block)
