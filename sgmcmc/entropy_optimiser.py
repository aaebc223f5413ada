"""Entropy-SGD as an optax transformation, one inner step a call.

The parameters that optax moves are the *inner* iterate y; the anchor x is in the state:

    y ← y − h [g + γ (y − x)] + √(2hT) ξ,   μ ← (1 − a) μ + a y          L times from y = μ = x
    x ← x − η γ (x − μ),   y = μ = x,   t ← t + 1                          on the L-th call

with g the gradient at y (Chaudhari et al., arXiv 1611.01838, algorithm 1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import checks, noise, trees
from sgmcmc.rates import Rate, as_rate, check_range, positive
from sgmcmc.types import Array, Key, PyTree


class EntropyState(NamedTuple):
    """What `entropy_sgd` keeps.

    Attributes:
        anchor: x, the parameters to evaluate and to keep.
        mean: μ.
        inner: () int32, inner steps since the anchor last moved.
        outer: () int32, moves of the anchor.
        key: root of the noise.
    """

    anchor: PyTree
    mean: PyTree
    inner: Array
    outer: Array
    key: Key

    @property
    def to_evaluate(self) -> PyTree:
        """What `sgmcmc.fit` evaluates and returns."""
        return self.anchor


class _Numbers(eqx.Module):
    """What `update` needs, as leaves."""

    learning_rate: Rate
    precision: Rate
    step_size: Array
    temperature: Array
    averaging: Array
    key: Key
    num_steps: int = eqx.field(static=True)

    def init(self, params: PyTree) -> EntropyState:
        trees.require_floating(params, "params")
        zero = jnp.zeros((), jnp.int32)
        return EntropyState(trees.copy(params), trees.copy(params), zero, zero, self.key)

    def update(
        self, updates: PyTree, state: EntropyState, params: PyTree = None
    ) -> tuple[PyTree, EntropyState]:
        if params is None:
            raise ValueError("params: got None; call update(gradient, state, params)")
        precision = self.precision(state.outer)
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.outer), state.inner)
        normals = noise.to_tree(noise.draw(key, params, 1, "gaussian")[0], params)
        spread = jnp.sqrt(2 * self.step_size * self.temperature)

        def move(y: Array, x: Array, g: Array, z: Array) -> Array:
            force = g + precision.astype(y.dtype) * (y - x)
            return -self.step_size.astype(y.dtype) * force + spread.astype(y.dtype) * z

        inner_move = jax.tree.map(move, params, state.anchor, updates, normals)
        position = trees.add(params, inner_move)
        average = lambda m, y: m + self.averaging.astype(m.dtype) * (y - m)  # noqa: E731
        mean = jax.tree.map(average, state.mean, position)
        last = state.inner + 1 == self.num_steps
        rate = self.learning_rate(state.outer) * precision
        anchor = jax.tree.map(
            lambda x, m: jnp.where(last, x - rate.astype(x.dtype) * (x - m), x), state.anchor, mean
        )
        either = lambda new, old: jnp.where(last, new, old)  # noqa: E731
        jump = jax.tree.map(jnp.subtract, anchor, params)
        following = EntropyState(
            anchor,
            jax.tree.map(either, anchor, mean),
            jnp.where(last, 0, state.inner + 1),
            state.outer + last.astype(jnp.int32),
            state.key,
        )
        return jax.tree.map(either, jump, inner_move), following


def entropy_sgd(
    key: Key,
    learning_rate: Any,
    *,
    precision: Any,
    step_size: float,
    num_steps: int = 20,
    averaging: float = 0.25,
    temperature: float = 1e-8,
) -> Any:
    """Entropy-SGD, for an ordinary optax training loop.

    Each call takes the gradient of one minibatch at the parameters, so L calls are one outer
    step and cost L gradients; the batches of the inner loop are those of L calls in turn.
    Evaluate and keep `state.anchor`, never the parameters. In a chain it comes last: weight
    decay and clipping before it act on g, anything after it would rescale the anchor's jump.

    Args:
        key: `jax.random.key(seed)`, root of the noise.
        learning_rate: η > 0 of x ← x − η γ (x − μ); a number or a schedule of the outer step.
            Where γ is absorbed into the rate η', as in the authors' programs, η = η'/γ.
        precision: γ > 0, a number or a schedule of the outer step (`sgmcmc.local.scoping`).
        step_size: h > 0 of the inner steps.
        num_steps: L ≥ 1.
        averaging: a in (0, 1].
        temperature: T ≥ 0; default the programs' ε² with ε = 1e-4.

    Returns:
        An `optax.GradientTransformation`.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    import optax  # not at the top: `import sgmcmc` is quick without it

    key = checks.typed_key(key)
    checks.count(num_steps, "num_steps", least=1)
    check_range(temperature, "temperature", above_zero=False)
    numbers = _Numbers(
        as_rate(learning_rate, "learning_rate", above_zero=True),
        as_rate(precision, "precision", above_zero=True),
        positive(step_size, "step_size"),
        jnp.asarray(temperature, float),
        positive(averaging, "averaging", most=1.0),
        key,
        int(num_steps),
    )
    return optax.GradientTransformation(numbers.init, numbers.update)
