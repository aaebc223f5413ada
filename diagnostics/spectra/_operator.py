"""Products with the Hessian and the Gauss-Newton matrix, block of examples by block."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc import _tree as trees
from sgmcmc._curvature import hessian_product
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis, sum_over_blocks
from sgmcmc.types import Array, PyTree

KINDS = ("hessian", "gauss_newton")


class Curvature(trees.ByIdentity):
    """v ↦ c Σ_i C_i v + C₀ v at fixed parameters and on fixed examples: a symmetric operator.

    C_i is the curvature of −log p(y_i | x_i, θ) times the likelihood's power, C₀ the Hessian of
    the prior's potential, c = `factor`. One block of examples is in memory at a time.
    """

    posterior: Posterior
    params: PyTree
    data: PyTree
    factor: Array
    kind: str = eqx.field(static=True)
    block_size: int = eqx.field(static=True)

    def __call__(self, vector: PyTree) -> PyTree:
        own = hessian_product(jax.grad(self.posterior.prior_potential), self.params, vector)
        return own if self.data is None else trees.axpy(self.factor, self.total(vector), own)

    def total(self, vector: PyTree) -> PyTree:
        """Σ_i C_i v."""
        n = leading_axis(self.data)
        blocks = n // self.block_size
        split = blocks * self.block_size
        total = trees.zeros_like(vector)
        if blocks:
            shape = (blocks, self.block_size)
            whole = jax.tree.map(lambda x: x[:split].reshape(*shape, *x.shape[1:]), self.data)
            add = lambda sums, block: (trees.add(sums, self.of_block(vector, block)), None)  # noqa: E731
            total, _ = jax.lax.scan(add, total, whole)
        if split < n:
            rest = jax.tree.map(lambda x: x[split:], self.data)
            total = trees.add(total, self.of_block(vector, rest))
        return total

    def value(self, params: PyTree) -> Array:
        """The function whose curvature it is, at `params`: ()."""
        own = self.posterior.prior_potential(params)
        if self.data is None:
            return own
        energies = self.posterior.example_potentials
        return own + self.factor * sum_over_blocks(energies, params, self.data, self.block_size)

    def of_block(self, vector: PyTree, block: PyTree) -> PyTree:
        """Σ_{i in block} C_i v."""
        if self.kind == "gauss_newton":
            return gauss_newton_product(self.posterior, self.params, vector, block)
        energy = lambda p: jnp.sum(self.posterior.example_potentials(p, block))  # noqa: E731
        return hessian_product(jax.grad(energy), self.params, vector)


def gauss_newton_product(
    posterior: Posterior, params: PyTree, vector: PyTree, block: PyTree
) -> PyTree:
    """Σ_i J_iᵀ H_i J_i v, J_i the outputs' Jacobian, H_i the Hessian of −λ log p in the outputs."""
    likelihood, predict = outputs_and_likelihood(posterior, block)
    outputs_of = lambda p: predict(p, block[0])  # noqa: E731

    def energy(outputs: PyTree) -> Array:
        # Without the parameters: a likelihood that looks at them beside its outputs fails here.
        values = likelihood(lambda *_: outputs, None, block)
        values = values.astype(trees.accumulator_dtype(values))
        return -posterior.likelihood_power.astype(values.dtype) * jnp.sum(values)

    outputs, pull = jax.vjp(outputs_of, params)
    moved = jax.jvp(outputs_of, (params,), (vector,))[1]
    return pull(hessian_product(jax.grad(energy), outputs, moved))[0]


def outputs_and_likelihood(
    posterior: Posterior, data: PyTree
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """(f, predict) of a log likelihood that is `Partial(f, predict)` on data (x, y).

    Raises:
        ValueError: it is made otherwise, or the data are no pair.
    """
    made = posterior.log_likelihood
    parted = isinstance(made, Partial) and len(made.args) == 1 and not made.keywords
    if not parted or not callable(made.args[0]):  # type: ignore[union-attr]
        raise ValueError(
            'curvature: "gauss_newton" needs to see the outputs: a posterior whose log_likelihood '
            "is Partial(f, predict), f(predict, params, (x, y)) -> (n,) and f uses the "
            "parameters through predict(params, x) alone, as those of sgmcmc.models do; got "
            'another one. Allowed with it: "hessian"'
        )
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(
            f'data: got a {type(data).__name__}; "gauss_newton" expects the pair (x, y)'
        )
    return made.func, made.args[0]  # type: ignore[union-attr]
