"""Many short chains on a toy, and the averages that each pairing of draws and weights gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import metrics

# What a draw may weigh: what the kernel records; the dt that its step took; the dt of the step
# before; the dt of the step after; nothing.
OWN, THIS, BEFORE, AFTER, PLAIN = range(5)
CHUNK = 16_384


def pace(kernel: Any, state: Any, info: Any) -> jax.Array:
    """The step's dt; under a metric of the position, h times the mean of its diagonal."""
    if isinstance(kernel.metric, metrics.AbstractPreconditioner):
        scale = 1 / (kernel.metric.epsilon + jnp.sqrt(state.metric.square))
        return info.time * jnp.mean(scale)
    return info.time


@eqx.filter_jit
def chain_sums(kernel, functions, starts, keys, burnin, block, blocks, memory=None):
    """Each chain's sums Σ w (1, f) by block, its first step that was not finite, and some dt's.

    `functions`: position -> (F,). `burnin` and `block` are steps and may be traced;
    `memory` has what a preconditioner remembers at the start, by its fields.

    Returns:
        (chains, blocks, 5, 1 + F), (chains,) with −1 where all was finite, (chains, blocks).
    """

    def one(start, key):
        begin, key = jax.random.split(key)
        state = kernel.init(start, begin)
        if memory is not None:
            state = state._replace(metric=state.metric._replace(**memory))
        ones = jnp.ones((1,))

        def advance(t, carry):
            state, (seen_before, dt_before), sums, lost = carry
            state, info = kernel.step(jax.random.fold_in(key, t), state, None)
            seen = jnp.concatenate([ones, functions(info.position)])
            dt = pace(kernel, state, info)
            rows = [info.weight * seen, dt * seen, dt_before * seen, dt * seen_before, seen]
            lost = jnp.where((lost < 0) & ~info.finite, t, lost)
            return state, (seen, dt), sums + jnp.stack(rows), lost

        width = 1 + jax.eval_shape(functions, start).shape[0]
        nothing = jnp.zeros((5, width))
        last = (jnp.zeros(width), jnp.zeros(()))
        carry = (state, last, nothing, jnp.asarray(-1))
        carry = jax.lax.fori_loop(0, burnin, advance, carry)

        def of_block(carry, i):
            first = burnin + i * block
            carry = (*carry[:2], nothing, carry[3])
            carry = jax.lax.fori_loop(first, first + block, advance, carry)
            return carry, (carry[2], carry[1][1])

        carry, (sums, dts) = jax.lax.scan(of_block, carry, jnp.arange(blocks))
        return sums, carry[3], dts

    return jax.vmap(one)(starts, keys)


def run(
    kernel: Any,
    functions: Callable,
    starts: Any,
    seed: int,
    burnin: int,
    steps: int,
    blocks: int,
    memory: Any = None,
) -> dict[str, np.ndarray]:
    """`chain_sums` summed over blocks in float64; many chains are run some at a time."""
    chains = len(jax.tree.leaves(starts)[0])
    keys = jax.random.split(jax.random.key(seed), chains)
    sums, lost, dts = [], [], []
    for low in range(0, chains, CHUNK):
        part = slice(low, low + CHUNK)
        begin = jax.tree.map(lambda x, part=part: x[part], starts)
        made = chain_sums(
            kernel, functions, begin, keys[part],
            jnp.asarray(burnin), jnp.asarray(steps // blocks), blocks, memory,
        )  # fmt: skip
        sums.append(np.asarray(made[0], np.float64).sum(1))
        lost.append(np.asarray(made[1]))
        dts.append(np.asarray(made[2]))
    return {"sums": np.concatenate(sums), "lost": np.concatenate(lost), "dt": np.concatenate(dts)}


def averages(made: dict[str, np.ndarray], pairing: int) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of the functions over the chains that stayed finite, and standard errors.

    Numerators and denominators are pooled: a mean of the chains' own ratios is biased.
    """
    sums = made["sums"][made["lost"] < 0][:, pairing]
    if not len(sums):
        nothing = np.full(made["sums"].shape[-1] - 1, np.nan)
        return nothing, nothing
    mean = sums[:, 1:].sum(0) / sums[:, 0].sum()
    error = (sums[:, 1:] - mean * sums[:, :1]) / sums[:, 0].mean()
    if len(sums) == 1:
        return mean, np.full_like(mean, np.nan)
    return mean, error.std(0) / np.sqrt(len(sums))


def of_single_chains(made: dict[str, np.ndarray], pairing: int) -> np.ndarray:
    """Each finite chain's own weighted means, (chains, F)."""
    sums = made["sums"][made["lost"] < 0][:, pairing]
    return sums[:, 1:] / sums[:, :1]


def divergence(made: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many chains were lost, and the first step at which one was."""
    lost = made["lost"][made["lost"] >= 0]
    return {"diverged": len(lost), "first": int(lost.min()) if len(lost) else None}


def mean_step(made: dict[str, np.ndarray]) -> float:
    """The mean dt over the draws of the finite chains."""
    sums = made["sums"][made["lost"] < 0]
    return float(sums[:, THIS, 0].sum() / sums[:, PLAIN, 0].sum()) if len(sums) else float("nan")
