"""Products with a Hessian; the largest curvature of U, its slope, the variance of its gradient.

All but `hessian_product` in the metric's coordinates, and with U the mean over some batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc.kernels._base import AbstractDynamics
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.streams import _streams as streams
from sgmcmc.streams._source import Source
from sgmcmc.types import Array, Batch, Key, PyTree


@eqx.filter_jit
def draw_batches(source: Source, key: Key, count: int, noisy: bool) -> PyTree:
    """`count` batches of a stream with a leading axis; all data as one unless `noisy`."""
    if source.data is None:
        return None
    if not noisy:
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
        slope: (|∂_i tr Σ|, curvature) of the coordinate along which the sum of all coordinates'
            variances changes fastest; None where it was not asked for.
    """

    stiffest: tuple[Array, Array]
    noisiest: tuple[Array, Array]
    slope: tuple[Array, Array] | None = None

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(variance, curvature) in both directions."""
        return [(float(s), float(k)) for s, k in (self.stiffest, self.noisiest)]

    @property
    def largest(self) -> float:
        """The larger variance."""
        return max(float(self.stiffest[0]), float(self.noisiest[0]))


class Stiffest(NamedTuple):
    """The direction of U's largest curvature, as far as a power iteration found it.

    Attributes:
        value: λ̂, of either sign.
        residual: ‖Hv − λ̂v‖.
        direction: v, of length 1.
    """

    value: Array
    residual: Array
    direction: PyTree


def hessian_product(
    gradient: Callable[[PyTree], PyTree], position: PyTree, vector: PyTree
) -> PyTree:
    """H v: the derivative of a gradient along `vector`."""
    return jax.jvp(gradient, (position,), (vector,))[1]


class WhitenedHessian(eqx.Module):
    """v ↦ Lᵀ H L v: H is the mean Hessian of U over some batches, L the metric's factor.

    `batches` have a leading axis; None for targets without data.
    """

    posterior: Posterior
    metric: AbstractMetric
    position: PyTree
    batches: PyTree

    def __call__(self, vector: PyTree) -> PyTree:
        direction = self.metric.to_position(vector)

        def of_batch(batch: PyTree) -> PyTree:
            gradient = lambda x: self.posterior.potential_and_gradient(x, batch)[1]  # noqa: E731
            return hessian_product(gradient, self.position, direction)

        if self.batches is None:
            return self.metric.to_momentum(of_batch(None))
        parts = jax.lax.map(of_batch, self.batches)
        return self.metric.to_momentum(jax.tree.map(lambda x: jnp.mean(x, axis=0), parts))


def whitened_hessian(
    kernel: AbstractDynamics, position: PyTree, batches: PyTree
) -> WhitenedHessian:
    """The Hessian of a kernel's posterior in the coordinates of its metric."""
    return WhitenedHessian(kernel.posterior, coordinates(kernel), position, batches)


def coordinates(kernel: AbstractDynamics) -> AbstractMetric:
    """The kernel's metric.

    Raises:
        TypeError: it changes with the position, and has no coordinates.
    """
    if not isinstance(kernel.metric, AbstractMetric):
        raise TypeError(
            f"metric: got {type(kernel.metric).__name__}, which changes with the position; "
            "expected identity, diagonal or dense"
        )
    return kernel.metric


@eqx.filter_jit
def largest_curvature(
    kernel: AbstractDynamics, position: PyTree, batches: PyTree, key: Key, num_steps: int
) -> Stiffest:
    """The stiffest direction of the mean Hessian over batches, by `num_steps` ≥ 1 products."""
    product = whitened_hessian(kernel, position, batches)

    def normalised(vector: PyTree) -> PyTree:
        return trees.scale(1 / jnp.sqrt(trees.dot(vector, vector)), vector)

    leaves, structure = jax.tree.flatten(position)
    keys = jax.random.split(key, len(leaves))
    random = [trees.normal_like(k, x) for k, x in zip(keys, leaves, strict=True)]
    start = normalised(jax.tree.unflatten(structure, random))
    vector = jax.lax.fori_loop(0, num_steps - 1, lambda _, v: normalised(product(v)), start)
    image = product(vector)
    value = trees.dot(vector, image)
    rest = trees.axpy(-value, vector, image)
    return Stiffest(value, jnp.sqrt(trees.dot(rest, rest)), vector)


@eqx.filter_jit
def squared_slope(kernel: AbstractDynamics, position: PyTree, batches: PyTree) -> Array:
    """|∇U|² in the metric's coordinates: of the mean over batches, less what their noise adds."""

    metric = coordinates(kernel)

    def of_batch(batch: PyTree) -> PyTree:
        return metric.to_momentum(kernel.posterior.potential_and_gradient(position, batch)[1])

    if batches is None:
        gradient = of_batch(None)
        return trees.dot(gradient, gradient)
    gradients = jax.lax.map(of_batch, batches)
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), gradients)
    count = jax.tree.leaves(gradients)[0].shape[0]
    away = jax.tree.map(lambda x, m: x - m[None], gradients, mean)
    noise = trees.dot(away, away) / max(count - 1, 1)
    return trees.dot(mean, mean) - noise / count


class Spread(NamedTuple):
    """The variance of the gradient's estimate: least, mean and most over the coordinates, ()."""

    least: Array
    mean: Array
    most: Array

    @property
    def uneven(self) -> float:
        """By how much the mean misses a coordinate's, beyond what chance does to 512 batches."""
        mean = float(self.mean)
        return max(0.0, float(self.most) - mean, mean - float(self.least)) - CHANCE * mean


# Batches of a spread, and four standard errors of a variance from them, √(2/512), over itself.
SPREAD_BATCHES, CHANCE = 512, 0.25


@eqx.filter_jit
def noise_spread(
    kernel: AbstractDynamics, position: PyTree, source: Source, data: PyTree, key: Key
) -> Spread:
    """`Spread` over 512 batches, in the metric's coordinates, of independent examples.

    Args:
        kernel, position, data: as in `gradient_noise`; the anchor is the position.
        source: whose sizes the batches have.
        key: consumed.
    """
    metric, drawn = coordinates(kernel), streams.with_replacement()
    memory = kernel.gradient.init(kernel.posterior, position, data)

    def add(t: Array, sums: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        rows = streams.rows_at(drawn, key, t, *source.sizes)
        batch = streams.gather(drawn, rows, source.data)
        gradient = kernel.gradient(kernel.posterior, position, batch, memory)[1]
        gradient = metric.to_momentum(gradient)
        mean, square = sums
        away = jax.tree.map(jnp.subtract, gradient, mean)
        mean = trees.axpy(1 / (t + 1).astype(float), away, mean)
        square = jax.tree.map(lambda s, a, g, m: s + a * (g - m), square, away, gradient, mean)
        return mean, square

    zero = trees.zeros_like(position)
    square = jax.lax.fori_loop(0, SPREAD_BATCHES, add, (zero, zero))[1]
    flat = ravel_pytree(square)[0] / (SPREAD_BATCHES - 1)
    return Spread(jnp.min(flat), jnp.mean(flat), jnp.max(flat))


@eqx.filter_jit
def gradient_noise(
    kernel: AbstractDynamics,
    position: PyTree,
    batches: PyTree,
    data: PyTree,
    anchor: PyTree,
    stiffest: PyTree,
    with_slope: bool = False,
) -> Noise:
    """The variance over batches of the gradient's estimate, in two directions, and its slope.

    Args:
        kernel: its estimator, posterior and metric are used.
        position: θ.
        batches: with a leading axis.
        data: all data.
        anchor: the position at which an estimator with a memory begins it.
        stiffest: the first direction, of length 1; the second is the noisiest coordinate.
        with_slope: whether that is measured: three gradients more of each batch.
    """
    metric = coordinates(kernel)
    memory = kernel.gradient.init(kernel.posterior, anchor, data)

    def add(carry: tuple[Array, PyTree, PyTree], batch: PyTree) -> tuple[Any, Array]:
        count, mean, square = carry
        gradient = kernel.gradient(kernel.posterior, position, batch, memory)[1]
        gradient = trees.wide(metric.to_momentum(gradient))
        away = jax.tree.map(jnp.subtract, gradient, mean)
        mean = trees.axpy(1 / (count + 1), away, mean)
        square = jax.tree.map(lambda s, a, g, m: s + a * (g - m), square, away, gradient, mean)
        return (count + 1, mean, square), trees.dot(stiffest, gradient)

    zero = trees.wide(trees.zeros_like(position))
    (count, mean, square), along = jax.lax.scan(add, (jnp.zeros(()), zero, zero), batches)
    flat, unravel = ravel_pytree(square)
    noisiest = jnp.argmax(flat)
    product = whitened_hessian(kernel, position, batches)
    coordinate = unravel(jnp.zeros_like(flat).at[noisiest].set(1))
    directions = [stiffest, trees.rounded(coordinate, position)]
    curvatures = [jnp.abs(trees.dot(v, product(v))) for v in directions]
    variances = jnp.var(along, ddof=1), flat[noisiest] / (count - 1)
    pairs = (variances[0], curvatures[0]), (variances[1], curvatures[1])
    if not with_slope:
        return Noise(*pairs)

    def rise(carry: PyTree, batch: PyTree) -> tuple[PyTree, None]:
        """Adds (∂e) e, e this batch's error: half the slope of |e|²."""
        estimate = lambda x: kernel.gradient(kernel.posterior, x, batch, memory)[1]  # noqa: E731
        error = jax.tree.map(jnp.subtract, metric.to_momentum(estimate(position)), mean)
        direction = trees.rounded(metric.to_position(error), position)
        image = hessian_product(estimate, position, direction)
        mean_image = jax.tree.map(jnp.add, carry, metric.to_momentum(image))
        return mean_image, None

    total = ravel_pytree(jax.lax.scan(rise, zero, batches)[0])[0]
    steepest = jnp.argmax(jnp.abs(total))
    unit = trees.rounded(unravel(jnp.zeros_like(flat).at[steepest].set(1)), position)
    curvature = jnp.abs(trees.dot(unit, product(unit)))
    # The mean of all errors is 0, so that the mean's own derivative drops out.
    return Noise(*pairs, (2 * jnp.abs(total[steepest]) / (count - 1), curvature))
