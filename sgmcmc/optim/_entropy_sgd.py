"""Entropy-SGD and Entropy-SGLD as optax transformations, one inner step a call.

The parameters that optax moves are the *inner* iterate y; the anchor x is in the state:

    y ← y − h [g + γ (y − x)] + √(2hT) ξ,   μ ← (1 − a) μ + a y          L times from y = μ = x
    x ← x − η γ (x − μ) [+ √(2ηT/β) ξ],   y = μ = x,   t ← t + 1           on the L-th call

with g the gradient at y (Chaudhari et al., arXiv 1611.01838, algorithm 1). With the noise in
brackets x has approximately the law exp(βF/T) (Dziugaite and Roy, arXiv 1712.09376).

Parle (arXiv 1707.00424) has replicas with that inner loop, each about its own anchor x_a, and

    x_a ← x_a − η [γ (x_a − μ_a) + ρ (x_a − x̄)],    x̄ the mean of the anchors

on the L-th call: a gradient step of Σ_a [−F(x_a; γ) + (ρ/2) ‖x_a − x̄‖²].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgmcmc._schedule import ScalarOrSchedule

if TYPE_CHECKING:
    import optax

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise
from sgmcmc._checks import check_range, positive
from sgmcmc._schedule import Rate, as_rate
from sgmcmc.types import Array, Key, PyTree


class EntropyState(NamedTuple):
    """What `entropy_sgd` keeps.

    Attributes:
        anchor: x, the parameters to evaluate and to keep.
        mean: μ.
        velocity: v of the inner momentum; () without.
        inner: () int32, inner steps since the anchor last moved.
        outer: () int32, moves of the anchor.
        key: root of the noise.
    """

    anchor: PyTree
    mean: PyTree
    velocity: PyTree
    inner: Array
    outer: Array
    key: Key

    @property
    def to_evaluate(self) -> PyTree:
        """What `sgmcmc.optim.fit` evaluates and returns."""
        return self.anchor


class EntropyOptimizer(eqx.Module):
    """Entropy-SGD's checked numbers, as leaves, and its two optax functions."""

    learning_rate: Rate
    precision: Rate
    step_size: Array
    temperature: Array
    averaging: Array
    momentum: Array | None
    key: Key
    num_steps: int = eqx.field(static=True)
    absorbed: bool = eqx.field(static=True)

    def init(self, params: PyTree) -> EntropyState:
        checks.require_floating(params, "params")
        velocity = () if self.momentum is None else trees.zeros_like(params)
        zero = jnp.zeros((), jnp.int32)
        x, mean = trees.copy(params), trees.copy(self.start(params))
        return EntropyState(x, mean, velocity, zero, zero, self.key)

    def update(
        self, updates: PyTree, state: EntropyState, params: PyTree = None
    ) -> tuple[PyTree, EntropyState]:
        if params is None:
            raise ValueError("params: got None; call update(gradient, state, params)")
        precision = self.precision(state.outer)
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.outer), state.inner)
        velocity = state.velocity
        if self.momentum is not None:
            # Nesterov's: the buffer holds loss gradients alone, neither the pull nor the noise.
            velocity = trees.axpy(self.momentum, velocity, updates)
            updates = trees.axpy(self.momentum, velocity, updates)
        inner_move = self.inner_move(key, updates, params, state.anchor, precision)
        position = trees.add(params, inner_move)
        average = lambda m, y: m + self.averaging.astype(m.dtype) * (y - m)  # noqa: E731
        mean = jax.tree.map(average, state.mean, position)
        last = state.inner + 1 == self.num_steps
        either = lambda new, old: jnp.where(last, new, old)  # noqa: E731
        moved = self.outer_step(state, mean, precision, last)
        anchor = jax.tree.map(either, moved, state.anchor)
        jump = jax.tree.map(jnp.subtract, anchor, params)
        following = state._replace(
            anchor=anchor,
            mean=jax.tree.map(either, self.start(anchor), mean),
            velocity=jax.tree.map(lambda v: jnp.where(last, jnp.zeros_like(v), v), velocity),
            inner=jnp.where(last, 0, state.inner + 1),
            outer=state.outer + last.astype(jnp.int32),
        )
        return jax.tree.map(either, jump, inner_move), following

    def inner_move(
        self, key: Key, gradient: PyTree, params: PyTree, anchor: PyTree, precision: Array
    ) -> PyTree:
        """−h [g + γ (y − x)] + √(2hT) ξ."""
        normals = noise.to_tree(noise.draw(key, params, 1, "gaussian")[0], params)
        spread = jnp.sqrt(2 * self.step_size * self.temperature)

        def move(y: Array, x: Array, g: Array, z: Array) -> Array:
            force = g + precision.astype(y.dtype) * (y - x)
            return -self.step_size.astype(y.dtype) * force + spread.astype(y.dtype) * z

        moved = jax.tree.map(move, *(trees.wide(t) for t in (params, anchor, gradient, normals)))
        return trees.rounded(moved, params)

    def start(self, anchor: PyTree) -> PyTree:
        """Where the running mean μ of an outer step begins: at x."""
        return anchor

    def outer_step(
        self, state: EntropyState, mean: PyTree, precision: Array, last: Array
    ) -> PyTree:
        """Where the anchor moves to; used on the last inner step alone."""
        rate = self.learning_rate(state.outer) * (1 if self.absorbed else precision)
        step = lambda x, m: x - rate.astype(x.dtype) * (x - m)  # noqa: E731
        return jax.tree.map(step, state.anchor, mean)


class EntropySampler(EntropyOptimizer):
    """`EntropyOptimizer` with √(2ηT/β) ξ in the outer step: Entropy-SGLD."""

    power: Array = eqx.field(kw_only=True)

    def outer_step(
        self, state: EntropyState, mean: PyTree, precision: Array, last: Array
    ) -> PyTree:
        moved = super().outer_step(state, mean, precision, last)
        rate = self.learning_rate(state.outer) / (precision if self.absorbed else 1)
        spread = jnp.sqrt(2 * rate * self.temperature / self.power)
        # Inner steps count from 0 to L − 1.
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.outer), self.num_steps)
        draw = lambda: noise.draw(key, moved, 1, "gaussian")[0]  # noqa: E731
        shape = jax.eval_shape(draw)
        row = jax.lax.cond(last, draw, lambda: jnp.zeros(shape.shape, shape.dtype))
        return trees.axpy(spread, noise.to_tree(row, moved), moved)


def entropy_sgd(
    key: Key,
    learning_rate: ScalarOrSchedule,
    *,
    precision: ScalarOrSchedule,
    step_size: float,
    num_steps: int = 20,
    averaging: float = 0.25,
    temperature: float = 1e-8,
    momentum: float = 0.0,
    absorbed: bool = False,
) -> optax.GradientTransformation:
    """Entropy-SGD, for an ordinary optax training loop or `sgmcmc.optim.fit`.

    Each call takes the gradient of one minibatch at the parameters, so L calls are one outer
    step and cost L gradients; the batches of the inner loop are those of L calls in turn.
    Evaluate and keep `state.anchor`, never the parameters (`fit` does so). In a chain it comes
    last: weight decay and clipping before it act on g, anything after it would rescale the
    anchor's jump.

    Args:
        key: `jax.random.key(seed)`, root of the noise.
        learning_rate: η > 0 of x ← x − η γ (x − μ); a number or a schedule of the outer step.
        precision: γ > 0, a number or a schedule of the outer step (`sgmcmc.local.scoping`).
        step_size: h > 0 of the inner steps.
        num_steps: L ≥ 1, default 20. Under `fit(stream="cyclic")` take one without a common
            factor with the number of batches, or each of the L places sees a part of the data.
        averaging: a in (0, 1], the weight of the *new* inner point; default 0.25.
        temperature: T ≥ 0; default the programs' ε² with ε = 1e-4.
        momentum: m in [0, 1) of the inner steps, Nesterov's: v ← m v + g, and g + m v in the
            place of g, with v = 0 at every outer step. The authors' programs have 0.9. With
            m > 0 the inner loop is not Langevin dynamics at T any more, and μ no mean of the
            localised posterior.
        absorbed: the outer step is x ← x − η (x − μ), as in the authors' programs; default
            False.

    `sgmcmc.convert.entropy_sgd` has the numbers of the published forms, ready to be passed on:
    `entropy_sgd(key, 1.0, precision=1e-3, **convert.entropy_sgd("code", 0.1)._asdict())`.

    Returns:
        An `optax.GradientTransformation`.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    check_range(temperature, "temperature", above_zero=False)
    given = numbers(
        key, learning_rate, precision, step_size, num_steps, averaging, temperature, momentum,
        absorbed,
    )  # fmt: skip
    return transformation(EntropyOptimizer(**given))


def entropy_sgld(
    key: Key,
    learning_rate: ScalarOrSchedule,
    *,
    temperature: float,
    precision: ScalarOrSchedule,
    step_size: float,
    power: float = 1.0,
    num_steps: int = 20,
    averaging: float = 0.25,
    absorbed: bool = False,
) -> optax.GradientTransformation:
    """Entropy-SGLD: Entropy-SGD whose anchor is a draw from about exp(βF/T).

        x ← x − η γ (x − μ) + √(2ηT/β) ξ

    is a step of Langevin dynamics for that law, F the local entropy at temperature T. The
    estimate μ is noisy and, after L steps from x, biased towards x: the law is approximate.
    The paper's F_{γ,τ} is F/T with τ = 1/T, its τ usually √N, and its outer step ηT/β
    (Dziugaite and Roy, arXiv 1712.09376); `sgmcmc.local.gibbs_privacy` is its privacy.

    Args:
        key, learning_rate, precision, step_size, num_steps, averaging, absorbed: as in
            `entropy_sgd`; the anchors after every L-th call are the chain.
        temperature: T > 0 of the inner steps and of F.
        power: β > 0.

    Returns:
        An `optax.GradientTransformation`.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    check_range(temperature, "temperature", above_zero=True)
    given = numbers(
        key, learning_rate, precision, step_size, num_steps, averaging, temperature, 0.0, absorbed
    )
    return transformation(EntropySampler(**given, power=positive(power, "power")))


def numbers(
    key: Key,
    learning_rate: ScalarOrSchedule,
    precision: ScalarOrSchedule,
    step_size: float,
    num_steps: int,
    averaging: float,
    temperature: float,
    momentum: float,
    absorbed: bool,
) -> dict[str, PyTree]:
    """The checked fields of an `EntropyOptimizer`."""
    checks.count(num_steps, "num_steps", least=1)
    check_range(momentum, "momentum", above_zero=False, below=1.0)
    plain = not isinstance(momentum, jax.core.Tracer) and momentum == 0
    return {
        "learning_rate": as_rate(learning_rate, "learning_rate", above_zero=True),
        "precision": as_rate(precision, "precision", above_zero=True),
        "step_size": positive(step_size, "step_size"),
        "temperature": jnp.asarray(temperature, float),
        "averaging": positive(averaging, "averaging", most=1.0),
        "momentum": None if plain else jnp.asarray(momentum, float),
        "key": checks.typed_key(key),
        "num_steps": int(num_steps),
        "absorbed": bool(absorbed),
    }


def transformation(optimizer: EntropyOptimizer) -> optax.GradientTransformation:
    """An `optax.GradientTransformation` of two `Partial`s, which share a trace over numbers."""
    import optax  # not at the top: `import sgmcmc` is quick without it

    return optax.GradientTransformation(Partial(_init, optimizer), Partial(_update, optimizer))


def _init(optimizer: EntropyOptimizer, params: PyTree) -> EntropyState:
    return optimizer.init(params)


def _update(
    optimizer: EntropyOptimizer, updates: PyTree, state: EntropyState, params: PyTree = None
) -> tuple[PyTree, EntropyState]:
    return optimizer.update(updates, state, params)


class ParleState(EntropyState):
    """An `EntropyState` whose leaves have a leading replica axis."""

    __slots__ = ()

    @property
    def to_evaluate(self) -> PyTree:
        """x̄, without the replica axis."""
        return jax.tree.map(lambda x: jnp.mean(x, axis=0), self.anchor)


class Parle(EntropyOptimizer):
    """`EntropyOptimizer` of n replicas; only the outer step, with x̄, sees the replica axis."""

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
    learning_rate: ScalarOrSchedule,
    *,
    precision: ScalarOrSchedule,
    coupling: ScalarOrSchedule,
    step_size: float,
    num_steps: int = 25,
    averaging: float = 0.25,
    temperature: float = 0.0,
    momentum: float = 0.0,
    absorbed: bool = False,
) -> optax.GradientTransformation:
    """Parle: n replicas of Entropy-SGD, coupled to their mean every L steps.

    The parameters and the gradients have a leading replica axis, as `sgmcmc.optim.fit(…,
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
