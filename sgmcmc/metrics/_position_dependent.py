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


class PositionDependent(AbstractPreconditioner):
    """G_i = function(θ)_i."""

    function: Callable[[PyTree], PyTree]
    gamma: bool = eqx.field(static=True)

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless `function(position)` looks like `position`."""
        shape = jax.eval_shape(self.function, position)
        checks.require_same_structure(shape, position, "metric", "the parameters")

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
    """V, a pytree like θ in float32 at least, and () int32 the gradients in it."""

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

    def evaluate(
        self,
        gradient_at: Callable[[PyTree], PyTree],
        position: PyTree,
        gradient: PyTree,
        memory: RMSPropMemory,
    ) -> tuple[PyTree, PyTree, RMSPropMemory]:
        # V begins with the first gradient: from 0 the first steps would be far too long.
        fresh = jnp.where(memory.steps == 0, 1.0, 1 - self.decay)
        if self.freeze_after is not None:
            fresh = jnp.where(memory.steps < self.freeze_after, fresh, 0.0)

        def average(v: Array, g: Array) -> Array:
            share = fresh.astype(v.dtype)
            return (1 - share) * v + share * g.astype(v.dtype) ** 2

        square = jax.tree.map(average, memory.square, gradient)
        scale = jax.tree.map(lambda v: 1 / (self.epsilon.astype(v.dtype) + jnp.sqrt(v)), square)
        following = RMSPropMemory(square, memory.steps + 1)
        if not self.gamma:
            return scale, trees.zeros_like(scale), following
        hessian = jacobian_diagonal(gradient_at, position)
        # V may begin near 0 by chance, and a Γ of order 1/V would throw the chain away.
        seen = (memory.steps + 1).astype(self.decay.dtype)
        filled = seen * (1 - self.decay) >= 0.999

        def divergence(v: Array, s: Array, g: Array, slope: Array) -> Array:
            root = jnp.sqrt(v)
            # |g| ≤ √(V/share): where V vanishes so does g, and the ratio's limit is bounded.
            ratio = g.astype(v.dtype) / jnp.where(root > 0, root, 1.0)
            gamma = -fresh.astype(v.dtype) * ratio * slope.astype(v.dtype) * s**2
            return jnp.where(filled, gamma, 0)

        gamma = jax.tree.map(divergence, square, scale, gradient, hessian)
        return scale, gamma, following


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
            models. It is left out while V rests on fewer than 1/(1 − a) gradients: V begins
            with g² of the first, and where that happens to be small Γ, of order 1/g², would
            throw the chain away. False leaves it out always, as the paper does in practice.
        freeze_after: steps after which V stands still, best the burn-in: the draws' law is
            then that of SGLD with a constant metric. None: never.

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
