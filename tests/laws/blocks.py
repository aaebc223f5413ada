"""What blocks of steps do to the exact law, by quadrature and by enumeration of their batches.

Without friction a block is a deterministic map with an acceptance probability. From the exact
law of (θ, p), on a grid, all its outcomes are followed with their weights, for every sequence
of batches that a stream can make: the change of a moment is then known to the grid's accuracy.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import sgmcmc
from sgmcmc import streams
from sgmcmc.exact._base import BlockNoise
from sgmcmc.types import Array, Batch, Blocks

# The double well of four batches: U = Σ_i [a_i x⁴/4 − b_i x²/2 + c_i x].
WELL = tuple(
    np.array(values)
    for values in ([0.1, 0.5, 0.2, 0.2], [0.6, 0.1, 0.2, 0.1], [0.9, -1.1, 0.6, -0.2])
)
POINTS = 100


def double_well(data_size: int = 4) -> tuple[Any, Any]:
    """The posterior of the first examples of `WELL`, and those, in the present precision."""
    data = tuple(jnp.asarray(values[:data_size], float) for values in WELL)
    return sgmcmc.Posterior(_log_likelihood, _flat, data_size=data_size), data


def potential(x: Any, data_size: int = 4) -> Any:
    a, b, c = (values[:data_size].sum() for values in WELL)
    return a * x**4 / 4 - b * x**2 / 2 + c * x


def exact_moments(temperature: float = 1.0) -> np.ndarray:
    """E[x], E[x²], E[x⁴] under exp(−U/T), by quadrature."""
    x = np.linspace(-8, 8, 40_001)
    weights = np.exp(-potential(x) / temperature)
    return np.array([np.sum(weights * x**k) for k in (1, 2, 4)]) / weights.sum()


def sequences(stream: Any, data: Any, batch_size: int, num_steps: int) -> Any:
    """Every sequence of batches of whole blocks and whole epochs, equally likely.

    Leaves are [sequence, block, step, …].
    """
    data_size = len(data[0])
    sizes = (data_size, batch_size)
    if stream.name == "with_replacement":
        drawn = itertools.product(range(data_size), repeat=batch_size * num_steps)
        index = np.array(list(drawn)).reshape(-1, 1, num_steps, batch_size)
        return Batch(jax.tree.map(lambda x: x[index], data))
    key, period = jax.random.key(0), stream.period(*sizes)
    steps = math.lcm(period, num_steps)
    orders = [()] if stream.order is None else itertools.permutations(range(data_size))
    made = []
    for epochs in itertools.product(list(orders), repeat=steps // period):
        rows = []
        for t in range(steps):
            order = jnp.asarray(np.array(epochs[t // period], int))
            row = stream.rows(order, key, jnp.asarray(t), *sizes)
            rows.append(streams.gather(stream, row, data))
        made.append(jax.tree.map(lambda *x: np.stack(x), *rows))
    stacked = jax.tree.map(lambda *x: np.stack(x), *made)
    return jax.tree.map(lambda x: x.reshape(len(made), -1, num_steps, *x.shape[2:]), stacked)


def change(kernel: Any, data: Any, made: Any) -> np.ndarray:
    """How far E[x], E[x²], E[x p] and E[p²] are from their exact values after all blocks."""
    x, p = np.meshgrid(np.linspace(-3.6, 3.6, POINTS), np.linspace(-6, 6, POINTS))
    weights = np.exp(-potential(x, len(data[0])) - p**2 / 2)
    weights = weights.ravel() / weights.sum()
    count, blocks = jax.tree.leaves(made)[0].shape[:2]
    points = [tuple(np.tile(part.ravel(), (count, 1)) for part in (x, p, weights))]
    before = _moments(points)
    template = kernel.init(jnp.zeros(()), jax.random.key(0), data)
    for block in range(blocks):
        batches = jax.tree.map(lambda x: jnp.asarray(x[:, block]), made)  # noqa: B023
        following = []
        for x, p, weights in points:
            # Of one shape for each branch, so that one program does for all.
            accepted, refused, share = outcomes(kernel, template, data, batches, x, p)
            following += [(*accepted, weights * share), (*refused, weights * (1 - share))]
        points = following
    return _moments(points) - before


@eqx.filter_jit
def outcomes(kernel: Any, template: Any, data: Any, batches: Any, x: Any, p: Any) -> Any:
    """Both ends of a block without friction, and the probability of the first.

    Batches are [sequence, step, …], positions and momenta [sequence, point].
    """
    quiet = jnp.zeros((kernel.num_steps + kernel.rows_beside, 1))

    def one(x: Array, p: Array, batches: Any) -> Any:
        energy = -kernel.posterior.log_density(x, data)
        state = template._replace(position=x, momentum=p, extra=energy)
        (accepted, info), (refused, _) = (
            kernel.drive(BlockNoise(quiet, u), state, Blocks(batches, data))
            for u in (jnp.zeros(()), jnp.ones(()))
        )
        pair = lambda state: (state.position, state.momentum)  # noqa: E731
        return pair(accepted), pair(refused), info.acceptance

    over_points = jax.vmap(one, (0, 0, None))
    return jax.vmap(over_points)(jnp.asarray(x), jnp.asarray(p), batches)


def _moments(points: Any) -> np.ndarray:
    totals = np.zeros(4)
    for x, p, weights in points:
        values = (x, x**2, x * p, p**2)
        totals += [np.mean(np.sum(weights * value, axis=1)) for value in values]
    return totals


def _log_likelihood(x: Any, example: Any) -> Any:
    a, b, c = example
    return -(a * x**4 / 4 - b * x**2 / 2 + c * x)


def _flat(x: Any) -> Any:
    return 0.0 * x
