"""Metrics that change with the position, for overdamped kernels: G(θ) diagonal, and its Γ.

Noise of size √(2hT G(θ)) alone pushes a chain to where G is small, and draws from
e^{−U/T}/G in one dimension. The drift T Γ, Γ_i = ∂G_i/∂θ_i, makes up for it:

    θ_i ← θ_i − h G_i ∇_i U + h T Γ_i + √(2hT G_i) ξ_i.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import check_range, positive
from sgmcmc.metrics._base import AbstractPreconditioner
from sgmcmc.types import Array, PyTree

# Unit vectors that are pushed through at a time.
BLOCK = 32

# Products with the Hessian for V's first value.
PROBES = 4


class PositionDependent(AbstractPreconditioner):
    """G_i = function(θ)_i."""

    function: Callable[[PyTree], PyTree]
    gamma: bool = eqx.field(static=True)

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless `function(position)` looks like `position`."""
        shape = jax.eval_shape(self.function, position)
        checks.require_same_structure(shape, position, "metric", "the parameters")

    def scale(self, position: PyTree, memory: PyTree) -> PyTree:
        return self.function(position)

    def evaluate(
        self,
        gradient_at: Callable[[PyTree], PyTree],
        position: PyTree,
        gradient: PyTree,
        memory: PyTree,
    ) -> tuple[PyTree, PyTree, PyTree]:
        scale = self.function(position)
        if not self.gamma:
            return scale, trees.zeros_like(scale), ()
        return scale, jacobian_diagonal(self.function, position), ()


class RMSPropMemory(NamedTuple):
    """V, a pytree like θ in float32 at least, and () int32 the gradients in it.

    Before the first gradient V is the least that it may begin with.
    """

    square: PyTree
    steps: Array


class RMSProp(AbstractPreconditioner):
    """G = 1/(λ + √V), V a running mean of squared gradients; see `rmsprop`."""

    decay: Array
    epsilon: Array
    freeze_after: Array | None
    gamma: bool = eqx.field(static=True)

    def init(self, position: PyTree) -> RMSPropMemory:
        wide = lambda x: jnp.zeros(x.shape, trees.common_dtype(x.dtype, jnp.float32))  # noqa: E731
        return RMSPropMemory(jax.tree.map(wide, position), jnp.zeros((), jnp.int32))

    def begin(self, position: PyTree, square: Callable[[], PyTree]) -> RMSPropMemory:
        memory = self.init(position)
        # A V without a memory, a = 0, has none of its start either.
        found = jax.tree.map(
            lambda v, like: self.decay.astype(like.dtype) * v.astype(like.dtype),
            square(),
            memory.square,
        )
        return memory._replace(square=found)

    def scale(self, position: PyTree, memory: RMSPropMemory) -> PyTree:
        return jax.tree.map(
            lambda v: 1 / (self.epsilon.astype(v.dtype) + jnp.sqrt(v)), memory.square
        )

    def evaluate(
        self,
        gradient_at: Callable[[PyTree], PyTree],
        position: PyTree,
        gradient: PyTree,
        memory: RMSPropMemory,
    ) -> tuple[PyTree, PyTree, RMSPropMemory]:
        # V begins with the first gradient, or with what the curvature says that it will be where
        # that is more: with V near 0 the first steps would be far too long.
        first = memory.steps == 0
        fresh = jnp.where(first, 1.0, 1 - self.decay)
        if self.freeze_after is not None:
            fresh = jnp.where(memory.steps < self.freeze_after, fresh, 0.0)

        def average(v: Array, g: Array) -> Array:
            share, new = fresh.astype(v.dtype), g.astype(v.dtype) ** 2
            return jnp.where(first, jnp.maximum(v, new), (1 - share) * v + share * new)

        square = jax.tree.map(average, memory.square, gradient)
        following = RMSPropMemory(square, memory.steps + 1)
        scale = self.scale(position, following)
        if not self.gamma:
            return scale, trees.zeros_like(scale), following
        hessian = jacobian_diagonal(gradient_at, position)
        # V may begin near 0 by chance, and a Γ of order 1/V would throw the chain away.
        seen = (memory.steps + 1).astype(self.decay.dtype)
        filled = seen * (1 - self.decay) >= 0.999

        def divergence(v: Array, s: Array, g: Array, slope: Array, before: Array) -> Array:
            root = jnp.sqrt(v)
            # |g| ≤ √(V/share): where V vanishes so does g, and the ratio's limit is bounded.
            ratio = g.astype(v.dtype) / jnp.where(root > 0, root, 1.0)
            gamma = -fresh.astype(v.dtype) * ratio * slope.astype(v.dtype) * s**2
            # G does not know of this gradient where V begins with more than its square.
            return jnp.where(filled & ~(first & (v <= before)), gamma, 0)

        gamma = jax.tree.map(divergence, square, scale, gradient, hessian, memory.square)
        return scale, gamma, following


def typical_square(
    gradient_at: Callable[[PyTree], PyTree], position: PyTree, temperature: Array, key: Array
) -> PyTree:
    """About E[g²] of a chain about `position`, like it: T ‖H_i‖, H_i the Hessian's ith row.

    On a Gaussian E[g gᵀ] is T H, so that T H_ii would do at a mode. A row's norm is at least
    that, and not 0 where a coordinate is felt through others alone, as all of a network's are
    below a last layer of zeros. By products with random signs z, E (Hz)_i² = ‖H_i‖²; where even
    that is 0, the mean over all coordinates.
    """
    leaves, structure = jax.tree.flatten(position)
    keys = jax.random.split(key, len(leaves))
    signs = [
        jax.random.rademacher(k, (PROBES, *x.shape), x.dtype)
        for k, x in zip(keys, leaves, strict=True)
    ]

    def product(vector: PyTree) -> PyTree:
        # Backwards over backwards: a likelihood with a gradient of its own may have no other.
        return jax.grad(lambda x: trees.dot(gradient_at(x), vector))(position)

    products = jax.lax.map(product, jax.tree.unflatten(structure, signs))

    def norm(x: Array) -> Array:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        rows = jnp.sqrt(jnp.mean(wide**2, axis=0))
        return temperature.astype(rows.dtype) * jnp.where(jnp.isfinite(rows), rows, 0)

    square = jax.tree.map(norm, products)
    sums = jnp.stack([jnp.sum(v) for v in jax.tree.leaves(square)])
    mean = jnp.sum(sums) / trees.size(position)
    return jax.tree.map(lambda v: jnp.where(v > 0, v, mean.astype(v.dtype)), square)


def jacobian_diagonal(function: Callable[[PyTree], PyTree], position: PyTree) -> PyTree:
    """∂f_i/∂θ_i for all i, exactly: one Jacobian-vector product a parameter."""
    flat, unravel = ravel_pytree(position)
    flattened = lambda x: ravel_pytree(function(unravel(x)))[0]  # noqa: E731

    def entry(i: Array) -> Array:
        unit = jnp.zeros_like(flat).at[i].set(1)
        return jax.jvp(flattened, (flat,), (unit,))[1][i]

    return unravel(jax.lax.map(entry, jnp.arange(len(flat)), batch_size=min(BLOCK, len(flat))))


def rmsprop(
    *,
    decay: float | Array = 0.99,
    epsilon: float | Array = 1e-5,
    gamma: bool = True,
    freeze_after: int | None = None,
) -> RMSProp:
    """G = 1/(ε + √V), V ← a V + (1 − a) g², the preconditioner of `psgld`.

    Args:
        decay: a in [0, 1), the weight of the *old* V: a memory of about 1/(1 − a) steps;
            default 0.99.
        epsilon: ε > 0, the λ of the paper, in units of the gradient; bounds G by 1/ε. Default
            1e-5.
        gamma: add Γ_i = −(1 − a) g_i ∂_i g_i / (√V_i (ε + √V_i)²), the derivative of this
            step's G, exactly. That costs one Hessian-vector product a parameter: for small
            models. It is left out while V rests on fewer than 1/(1 − a) gradients: where the
            first happen to be small Γ, of order 1/g², would throw the chain away. False leaves
            it out always, as the paper does in practice.
        freeze_after: steps after which V stands still, best the burn-in: the draws' law is
            then that of SGLD with a constant metric. None: never.

    V begins with g² of the first gradient, or where that is more with a T ‖H_i‖, H_i the row of
    the Hessian at the start: at an optimum g ≈ 0, and G would be 1/ε. That asks for a kernel's
    `init` with the data, as in `sample`; without them it is g² alone.

    Without Γ and as h → 0 at fixed a, draws on one parameter come from e^{−U/T} (ε + |g|);
    with it from e^{−U/T} (ε + |g|)^a, since V also depends on the position through the
    gradients before. Both are exact in another limit: the memory long against mixing.

    Raises:
        ValueError: `decay`, `epsilon` or `freeze_after` out of range.
    """
    decay, epsilon = jnp.asarray(decay, dtype=float), positive(epsilon, "epsilon")
    check_range(decay, "decay", above_zero=False, below=1.0)
    last = None
    if freeze_after is not None:
        if isinstance(freeze_after, bool) or int(freeze_after) != freeze_after or freeze_after < 1:
            raise ValueError(f"freeze_after: got {freeze_after}; expected an integer ≥ 1 or None")
        last = jnp.asarray(freeze_after, jnp.int32)
    return RMSProp(decay, epsilon, last, bool(gamma))


def position_dependent(
    function: Callable[[PyTree], PyTree], *, gamma: bool = True
) -> PositionDependent:
    """Any diagonal G(θ) of your own, for `psgld`.

    Args:
        function: position -> a pytree like it, of the positive numbers G_i(θ). Pure JAX.
        gamma: add Γ_i = ∂G_i/∂θ_i by automatic differentiation, one Jacobian-vector product
            a parameter. False leaves it out, and draws from another law: for comparison.

    Raises:
        TypeError: `function` is not callable.
    """
    return PositionDependent(trees.as_callable(function, "metric: function"), bool(gamma))
