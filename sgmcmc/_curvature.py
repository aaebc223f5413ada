"""The largest curvature of U, its slope, and the variance of its gradient's estimate.

All in the metric's coordinates, and with U the mean over some batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from sgmcmc import _tree as trees
from sgmcmc.streams import _source as batches
from sgmcmc.streams import _streams as streams
from sgmcmc.types import Array, Batch, Key, PyTree


@eqx.filter_jit
def draw_batches(source: batches.Source, key: Key, count: int, sampled: bool) -> PyTree:
    """`count` independent batches with a leading axis; all data as one where none are drawn."""
    if source.data is None:
        return None
    if not sampled:
        return Batch(jax.tree.map(lambda x: x[None], source.data))
    draw = lambda t: streams.gather(  # noqa: E731
        source.stream, streams.rows_at(source.stream, key, t, *source.sizes), source.data
    )
    return jax.lax.map(draw, jnp.arange(count, dtype=jnp.int32))


class Noise(NamedTuple):
    """The gradient estimate's variance in two directions, with U's curvature in each.

    Attributes:
        stiffest: (variance, curvature) along the direction of the largest curvature.
        noisiest: those of the coordinate of the largest variance.
    """

    stiffest: tuple[Array, Array]
    noisiest: tuple[Array, Array]

    @property
    def largest(self) -> float:
        """The larger variance."""
        return max(float(self.stiffest[0]), float(self.noisiest[0]))


@eqx.filter_jit
def largest_curvature(
    kernel: Any, position: PyTree, given: PyTree, key: Key, num_steps: int
) -> tuple[Array, Array, PyTree]:
    """(λ̂, ‖Hv − λ̂v‖, v) of the mean Hessian H over batches, v of length 1, by power iteration.

    `given` holds the batches along a leading axis; `num_steps` products, ≥ 1.
    """

    def product(vector: PyTree) -> PyTree:
        return hessian_product(kernel, position, given, vector)

    def normalised(vector: PyTree) -> PyTree:
        return trees.scale(1 / jnp.sqrt(trees.dot(vector, vector)), vector)

    leaves, structure = jax.tree.flatten(position)
    keys = jax.random.split(key, len(leaves))
    random = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    start = normalised(jax.tree.unflatten(structure, random))
    vector = jax.lax.fori_loop(0, num_steps - 1, lambda _, v: normalised(product(v)), start)
    image = product(vector)
    value = trees.dot(vector, image)
    rest = trees.axpy(-value, vector, image)
    return value, jnp.sqrt(trees.dot(rest, rest)), vector


def hessian_product(kernel: Any, position: PyTree, given: PyTree, vector: PyTree) -> PyTree:
    """Lᵀ H L v."""
    metric, posterior = kernel.metric, kernel.posterior
    direction = metric.to_position(vector)

    def one(batch: PyTree) -> PyTree:
        gradient = lambda x: posterior.potential_and_gradient(x, batch)[1]  # noqa: E731
        return jax.jvp(gradient, (position,), (direction,))[1]

    if given is None:
        return metric.to_momentum(one(None))
    parts = jax.lax.map(one, given)
    return metric.to_momentum(jax.tree.map(lambda x: jnp.mean(x, axis=0), parts))


@eqx.filter_jit
def slope(kernel: Any, position: PyTree, given: PyTree) -> Array:
    """|∇U|² in the metric's coordinates: of the mean over batches, less what their noise adds."""

    def one(batch: PyTree) -> PyTree:
        return kernel.metric.to_momentum(
            kernel.posterior.potential_and_gradient(position, batch)[1]
        )

    if given is None:
        gradient = one(None)
        return trees.dot(gradient, gradient)
    gradients = jax.lax.map(one, given)
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), gradients)
    count = jax.tree.leaves(gradients)[0].shape[0]
    away = jax.tree.map(lambda x, m: x - m, gradients, mean)
    noise = trees.dot(away, away) / max(count - 1, 1)
    return trees.dot(mean, mean) - noise / count


@eqx.filter_jit
def gradient_noise(
    kernel: Any, position: PyTree, given: PyTree, data: PyTree, anchor: PyTree, stiffest: PyTree
) -> Noise:
    """The variance of the gradient estimate over batches, in two directions.

    They are `stiffest`, a pytree of length 1, and the coordinate of the largest variance.
    Estimators with a memory have it from `anchor`, where they begin.
    """
    memory = kernel.gradient.init(kernel.posterior, anchor, data)

    def one(carry: tuple[Array, PyTree, PyTree], batch: PyTree) -> tuple[Any, Array]:
        count, mean, square = carry
        gradient = kernel.gradient(kernel.posterior, position, batch, memory)[1]
        gradient = kernel.metric.to_momentum(gradient)
        away = jax.tree.map(jnp.subtract, gradient, mean)
        mean = trees.axpy(1 / (count + 1), away, mean)
        square = jax.tree.map(lambda s, a, g, m: s + a * (g - m), square, away, gradient, mean)
        return (count + 1, mean, square), trees.dot(stiffest, gradient)

    zero = trees.zeros_like(position)
    (count, _, square), along = jax.lax.scan(one, (jnp.zeros(()), zero, zero), given)
    flat, unravel = ravel_pytree(square)
    place = jnp.argmax(flat)
    ways = [stiffest, unravel(jnp.zeros_like(flat).at[place].set(1))]
    bent = [jnp.abs(trees.dot(v, hessian_product(kernel, position, given, v))) for v in ways]
    variances = jnp.var(along, ddof=1), flat[place] / (count - 1)
    return Noise((variances[0], bent[0]), (variances[1], bent[1]))
