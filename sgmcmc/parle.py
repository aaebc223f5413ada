"""Parle: replicas of Entropy-SGD that are pulled towards their mean (arXiv 1707.00424).

Every replica has the inner loop of `sgmcmc.entropy_optimiser` about its own anchor x_a, and

    x_a ← x_a − η [γ (x_a − μ_a) + ρ (x_a − x̄)],    x̄ the mean of the anchors

on the L-th call: a gradient step of Σ_a [−F(x_a; γ) + (ρ/2) ‖x_a − x̄‖²].
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import checks, trees
from sgmcmc.entropy_optimiser import EntropyOptimiser, EntropyState, numbers, transformation
from sgmcmc.rates import Rate, as_rate, check_range
from sgmcmc.types import Array, Key, PyTree


class ParleState(EntropyState):
    """An `EntropyState` whose leaves have a leading replica axis."""

    __slots__ = ()

    @property
    def to_evaluate(self) -> PyTree:
        """x̄, without the replica axis."""
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), self.anchor)


class Parle(EntropyOptimiser):
    """Inner steps go number by number, so that the replica axis matters in the outer one alone."""

    coupling: Rate = eqx.field(kw_only=True)
    num_replicas: int = eqx.field(kw_only=True, static=True)

    def init(self, params: PyTree) -> ParleState:
        for path, leaf in trees.named_leaves(params):
            if jnp.shape(leaf)[:1] != (self.num_replicas,):
                raise ValueError(
                    f"params: leaf {path} has shape {jnp.shape(leaf)}; expected a leading axis of "
                    f"num_replicas = {self.num_replicas}"
                )
        return ParleState(*super().init(params))

    def outer_step(
        self, state: EntropyState, mean: PyTree, precision: Array, last: Array
    ) -> PyTree:
        moved = super().outer_step(state, mean, precision, last)
        rate = self.learning_rate(state.outer) * self.coupling(state.outer)

        def pulled(to: Array, x: Array) -> Array:
            return to - rate.astype(x.dtype) * (x - jnp.mean(x, axis=0))

        return jax.tree.map(pulled, moved, state.anchor)


def parle(
    key: Key,
    num_replicas: int,
    learning_rate: Any,
    *,
    precision: Any,
    coupling: Any,
    step_size: float,
    num_steps: int = 25,
    averaging: float = 0.25,
    temperature: float = 0.0,
    momentum: float = 0.0,
    absorbed: bool = False,
) -> Any:
    """Parle: n replicas of Entropy-SGD, coupled to their mean every L steps.

    The parameters and the gradients have a leading replica axis, as `sgmcmc.fit(…,
    num_replicas=n)` makes them: one call costs n minibatch gradients. Evaluate and keep the
    mean of `state.anchor` over the replicas (`fit` does so).

    Args:
        key: `jax.random.key(seed)`, root of the noise.
        num_replicas: n ≥ 1.
        learning_rate: η > 0 of x_a ← x_a − η [γ (x_a − μ_a) + ρ (x_a − x̄)], a number or a
            schedule of the outer step. ηρ < 2 keeps the replicas together, η(γ + ρ) < 1 without
            overshooting.
        precision: γ > 0; coupling: ρ ≥ 0, in the units of γ; numbers or schedules of the
            outer step. Parle lets both grow up to a limit, `local.scoping(γ₀, growth, limit)`.
        step_size, num_steps, averaging, temperature, momentum: of the inner loop, as in
            `entropy_sgd`. The authors' program has no noise there.
        absorbed: x_a ← x_a − η [(x_a − μ_a) + ρ (x_a − x̄)], as in that program: its ρ is a
            multiple of γ.

    The authors' program has γ = `scoping(0.01, 0.5/B, 1.0)`, ρ = `scoping(0.01 L n, 0.5/B,
    10.0)` with B batches an epoch, L = 25, `absorbed=True`, and momentum inside and outside.
    It also goes on with y and μ where here both begin again at x_a, and pulls towards the mean
    of the μ_a.

    Returns:
        An `optax.GradientTransformation`.

    Raises:
        TypeError, ValueError: bad input, by name; parameters without the replica axis.
    """
    checks.count(num_replicas, "num_replicas", least=1)
    check_range(temperature, "temperature", above_zero=False)
    given = numbers(
        key, learning_rate, precision, step_size, num_steps, averaging, temperature, momentum,
        absorbed,
    )  # fmt: skip
    rate = as_rate(coupling, "coupling")
    return transformation(Parle(**given, coupling=rate, num_replicas=int(num_replicas)))
