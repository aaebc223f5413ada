"""What kernels by phases share: a first state, flat noise, and what one step reports.

Words, short lists of sub-steps and the third-order schemes differ in `phases` alone.
"""

from __future__ import annotations

from abc import abstractmethod

import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc.kernels._base import AbstractDynamics
from sgmcmc.kernels._flows import Pace, Phase
from sgmcmc.metrics._base import AbstractPreconditioner
from sgmcmc.metrics._position_dependent import typical_square
from sgmcmc.types import Array, Batch, Info, Key, PyTree, State, as_batch

# Examples that a preconditioner's first memory is measured on.
MEASURED = 256


class AbstractPhaseKernel(AbstractDynamics):
    """A kernel whose step goes through `Phase`s. Its noise is flat for the whole tree."""

    @property
    @abstractmethod
    def num_normals(self) -> int:
        """Rows of standard normals of a step."""

    @abstractmethod
    def phases(self, noise: Array, state: State, batch: PyTree) -> tuple[Phase, Phase]:
        """Where the word ends, which is recorded, and where the step ends, which is kept."""

    @property
    def swaps(self) -> bool:
        """Whether replicas of the kernel may exchange temperatures, its momentum alone rescaled."""
        return True

    @property
    def keeps_temperature(self) -> tuple[str, ...]:
        """Names in `State.extra` whose law belongs to a temperature, not to a position."""
        return ()

    @property
    def pending_kick(self) -> float:
        """The share of a step by which the state's momentum is kicked beyond the word's end."""
        return 0.0

    def first_extra(self, position: PyTree, friction: Array, key: Key) -> dict[str, PyTree]:
        """`State.extra` at the start, {name: memory}; `friction` is γ at step 0."""
        return {}

    def reports(self, phase: Phase, pace: Pace) -> dict[str, Array]:
        """{field of `Info`: value} set by its flows, from the phase in which the step began."""
        return {}

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state. Underdamped kernels draw r ~ N(0, T).

        Args:
            position: pytree of floating arrays.
            rng_key: consumed.
            data: all data, for the estimators that need them.

        Raises:
            TypeError, ValueError: `position` is empty or not floating, or the metric's
                shape is not that of `position`; the leaf's path is named.
        """
        position = self.placed(position)
        self.clock.check(position)
        clock = self.clock.init(position)
        momentum: PyTree = ()
        momentum_key, extra_key = jax.random.split(rng_key)
        if self.friction is not None:
            standard = noises.draw(momentum_key, position, 1, "gaussian")
            spread = jnp.sqrt(self.temperature(clock.count))
            momentum = trees.scale(spread, noises.to_tree(standard[0], position))
        estimator = self.gradient.init(self.posterior, position, data)
        friction = jnp.zeros(()) if self.friction is None else self.friction(clock.count)
        extra = self.first_extra(position, friction, extra_key)
        first = State(position, momentum, estimator, (), clock, extra)
        if not isinstance(self.metric, AbstractPreconditioner):
            return first
        first = first._replace(metric=self.metric.init(position))
        return self.measured(first, data, momentum_key)

    def measured(self, state: State, data: PyTree, key: Key) -> State:
        """A first state whose preconditioner knows of U's curvature; others as they are.

        Args:
            state: from `init`.
            data: all data, or a batch's, without a `Batch` around it; None where there are none
                at hand. The curvature is that of 256 examples, evenly spread over them.
            key: consumed.
        """
        if not isinstance(self.metric, AbstractPreconditioner):
            return state
        if self.posterior.has_data and data is None:
            return state
        batch = None
        if self.posterior.has_data:
            apart = -(-trees.leading_axis(data) // MEASURED)
            batch = Batch(jax.tree.map(lambda x: x[::apart], data))
        gradient = lambda x: self.posterior.potential_and_gradient(x, batch)[1]  # noqa: E731
        temperature = self.temperature(state.clock.count)

        def square() -> PyTree:
            return typical_square(gradient, state.position, temperature, key)

        return state._replace(metric=self.metric.begin(state.position, square))

    def draw(self, rng_key: Key, state: State) -> Array:
        """(rows, d) floats under `noise="gaussian"`, uint32 words under "fast"."""
        return noises.draw(rng_key, state.position, self.num_normals, self.noise)

    def normals(self, state: State) -> jax.ShapeDtypeStruct:
        """(rows, d): `drive` takes floats or words, whatever the kernel's own kind."""
        d = trees.size(state.position)
        return jax.ShapeDtypeStruct((self.num_normals, d), jnp.result_type(float))

    def momentum_at_record(self, noise: PyTree, state: State, batch: PyTree) -> PyTree:
        """The momentum where the word ends; that of `State` is kicked beyond by `pending_kick`."""
        return self.phases(noise, state, batch)[0].momentum

    def drive(self, noise: Array, state: State, batch: PyTree) -> tuple[State, Info]:
        """One step. `noise` may be floats or words, whatever the kernel's own kind."""
        following, info, _ = self.advance(noise, state, batch)
        return following, info

    def advance(self, noise: Array, state: State, batch: PyTree) -> tuple[State, Info, Phase]:
        """`drive`, and the phase in which the step ends."""
        end, after = self.phases(noise, state, batch)
        time, weight = self.clock.account(state.clock, end.clock, self.friction is None)
        clock = self.clock.tick(state.clock)[2]._replace(memory=after.clock)
        kinetic = jnp.zeros_like(after.energy)
        if self.friction is not None:
            kinetic = trees.dot(end.momentum, end.momentum) / 2
        norm = jnp.sqrt(trees.dot(after.gradient, after.gradient))
        like = state.position
        info = Info(
            position=trees.rounded(end.position, like),
            weight=weight,
            time=time,
            energy=after.energy,
            gradient_norm=norm,
            kinetic_energy=kinetic,
            finite=jnp.isfinite(after.energy) & jnp.isfinite(norm) & jnp.isfinite(kinetic),
        )
        info = info._replace(**self.reports(self.begin(state), self.pace(state)))
        if isinstance(self.metric, AbstractPreconditioner):
            scale = jax.tree.leaves(self.metric.scale(state.position, after.metric))
            if scale:
                least, most = (jnp.stack([f(x) for x in scale]) for f in (jnp.min, jnp.max))
                info = info._replace(metric_min=jnp.min(least), metric_max=jnp.max(most))
        following = State(
            trees.rounded(after.position, like),
            trees.rounded(after.momentum, state.momentum),
            after.estimator, after.metric, clock, trees.rounded(after.extra, state.extra),
        )  # fmt: skip
        return following, info, after

    def refresh(self, state: State, data: PyTree) -> State:
        """Recompute what the gradient estimator keeps of all data, at the state's position."""
        estimator = self.gradient.refresh(self.posterior, state.position, state.estimator, data)
        return state._replace(estimator=estimator)

    def pace(self, state: State) -> Pace:
        """dt, friction and temperature at the state's step, with the metric and the clock."""
        dt, _, _ = self.clock.tick(state.clock)
        count = state.clock.count
        friction = jnp.zeros_like(dt) if self.friction is None else self.friction(count)
        return Pace(dt, friction, self.temperature(count), self.metric, self.clock, count)

    def begin(self, state: State) -> Phase:
        """The `Phase` of a state; gradient () and energy 0 until the first evaluation."""
        zero = jnp.zeros((), trees.accumulator_dtype(state.position))
        return Phase(
            trees.wide(state.position), trees.wide(state.momentum), (), zero, state.estimator,
            state.metric, state.clock.memory, state.extra, state.position,
        )  # fmt: skip

    def evaluated(self, phase: Phase, batch: Batch | PyTree) -> Phase:
        """The phase with the gradient at its position, and a preconditioner with it."""
        batch = as_batch(batch)
        position = trees.rounded(phase.position, phase.begun)
        energy, gradient, estimator = self.gradient.estimate(
            self.posterior, position, batch, phase.estimator
        )
        energy = energy.astype(phase.energy.dtype)
        after = phase._replace(energy=energy, gradient=trees.wide(gradient), estimator=estimator)
        if not isinstance(self.metric, AbstractPreconditioner):
            return after

        def gradient_at(position: PyTree) -> PyTree:
            return self.gradient.estimate(self.posterior, position, batch, phase.estimator)[1]

        scale, divergence, memory = self.metric.evaluate(
            gradient_at, position, gradient, phase.metric
        )
        return after._replace(metric=(trees.wide(scale), trees.wide(divergence), memory))
