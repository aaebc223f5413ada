"""The kernel that executes a plan: word × gradient estimator × metric × clock."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant, Rate, as_rate
from sgmcmc.clocks._base import Clock, Untuned
from sgmcmc.clocks._schedules import as_clock
from sgmcmc.gradients._base import Estimator
from sgmcmc.kernels import _flows as substeps
from sgmcmc.kernels._words import Plan
from sgmcmc.metrics._base import Metric
from sgmcmc.types import Array, Batch, Info, Key, PyTree, State


class Pace(NamedTuple):
    """The numbers of one step, read once for all its letters."""

    dt: Array
    friction: Array
    temperature: Array


class Phase(NamedTuple):
    """What the sub-steps of one step change."""

    position: PyTree
    momentum: PyTree
    gradient: PyTree
    energy: Array
    estimator: PyTree
    extra: PyTree
    memory: PyTree


class SplittingKernel(eqx.Module):
    """A sampler as a sequence of sub-steps; `sgmcmc.langevin` and its kin build it.

    Its step size, friction, temperature and metric are array leaves: kernels that differ
    in them alone share one trace and can be vmapped. See `sgmcmc.Kernel`.
    """

    posterior: Posterior
    clock: Clock
    friction: Rate | None
    temperature: Rate
    metric: Metric
    gradient: Estimator
    name: str = eqx.field(static=True)
    noise: str = eqx.field(static=True)
    plan: Plan = eqx.field(static=True)
    order: int = eqx.field(static=True)
    batches_per_step: int = eqx.field(static=True)
    refresh_every: int | None = eqx.field(static=True)

    @property
    def gradient_evaluations(self) -> float:
        """Gradients of one minibatch (or of all data, under `full`) that a step costs.

        What `refresh` costs is not in it.
        """
        return float(self.plan.gradient_evaluations * getattr(self.gradient, "evaluations", 1))

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
        checks.require_floating(position, "params")
        self.metric.check(position)
        position = jax.tree.map(jnp.asarray, position)
        momentum: PyTree = ()
        extra: PyTree = ()
        clock = self.clock.init()
        momentum_key, extra_key = jax.random.split(rng_key)
        if self.friction is not None:
            standard = noises.draw(momentum_key, position, 1, "gaussian")
            spread = jnp.sqrt(self.temperature(clock.count))
            momentum = trees.scale(spread, noises.to_tree(standard[0], position))
        if any(step.letter == "M" for step in self.plan.substeps):
            extra = noises.draw(extra_key, position, 1, self.noise)[0]
        estimator = self.gradient.init(self.posterior, position, data)
        return State(position, momentum, estimator, (), clock, extra)

    def draw(self, rng_key: Key, state: State) -> Array:
        """(rows, d) floats under `noise="gaussian"`, uint32 words under "fast"."""
        return noises.draw(rng_key, state.position, self.plan.num_normals, self.noise)

    def drive(self, noise: Array, state: State, batch: Any) -> tuple[State, Info]:
        """One step. `noise` may be floats or words, whatever the kernel's own kind."""
        end, after = self.phases(noise, state, batch)
        dt, weight = self._time(state, end)
        clock = self.clock.tick(state.clock)[2]._replace(memory=after.memory)
        kinetic = jnp.zeros_like(after.energy)
        if self.friction is not None:
            kinetic = trees.dot(end.momentum, end.momentum) / 2
        norm = jnp.sqrt(trees.dot(after.gradient, after.gradient))
        info = Info(
            position=end.position,
            weight=weight,
            time=dt,
            energy=after.energy,
            gradient_norm=norm,
            kinetic_energy=kinetic,
            finite=jnp.isfinite(after.energy) & jnp.isfinite(norm) & jnp.isfinite(kinetic),
        )
        following = State(
            after.position, after.momentum, after.estimator, state.metric, clock, after.extra
        )
        return following, info

    def phases(self, noise: Array, state: State, batch: Any) -> tuple[Phase, Phase]:
        """Where the word ends, which is recorded, and where the step ends, which is kept."""
        pace, phase = self._begin(state)
        end, gradients = phase, 0
        for step in self.plan.substeps:
            if step.letter == "G":
                phase = self._evaluate(phase, self._batch(batch, gradients))
                gradients += 1
                continue
            before = phase
            phase = self._apply(step.letter, step.fraction, step.noise, before, noise, pace)
            if step.end == step.fraction:
                end = phase
            elif step.end is not None:
                # The first part of a merged sub-step, with the same normals: its law at the
                # word's end is exact, and costs no second draw.
                end = self._apply(step.letter, step.end, step.noise, before, noise, pace)
        return end, phase

    def step(self, rng_key: Key, state: State, batch: Any = None) -> tuple[State, Info]:
        """`drive(draw(rng_key, state), state, batch)`."""
        return self.drive(self.draw(rng_key, state), state, batch)

    def refresh(self, state: State, data: PyTree) -> State:
        """Recompute what the gradient estimator keeps of all data, at the state's position."""
        if self.refresh_every is None:
            return state
        estimator = self.gradient.refresh(self.posterior, state.position, state.estimator, data)  # type: ignore[attr-defined]
        return state._replace(estimator=estimator)

    def bind(
        self, data: PyTree = None, batch_size: int | None = None, stream: Any = "reshuffled"
    ) -> Any:
        """This kernel with its data, for loops that pass no batch; see `sgmcmc.to_blackjax`."""
        from sgmcmc._interop import bind

        return bind(self, data, batch_size, stream)

    def _time(self, state: State, end: Phase) -> tuple[Array, Array]:
        """The time that the step took, and the weight of what it records."""
        dt, weight, _ = self.clock.tick(state.clock)
        return dt, weight

    def _begin(self, state: State) -> tuple[Pace, Phase]:
        """The step's numbers, and the state as its sub-steps see it."""
        dt, _, _ = self.clock.tick(state.clock)
        count = state.clock.count
        friction = jnp.zeros_like(dt) if self.friction is None else self.friction(count)
        zero = jnp.zeros((), trees.accumulator_dtype(state.position))
        phase = Phase(
            state.position, state.momentum, (), zero, state.estimator, state.extra,
            state.clock.memory,
        )  # fmt: skip
        return Pace(dt, friction, self.temperature(count)), phase

    def _batch(self, batch: Any, gradients: int) -> Any:
        if self.batches_per_step == 1:
            return batch
        return jax.tree.map(lambda x: x[gradients], batch)

    def _evaluate(self, phase: Phase, batch: Batch | PyTree) -> Phase:
        energy, gradient, estimator = self.gradient(
            self.posterior, phase.position, batch, phase.estimator
        )
        energy = energy.astype(phase.energy.dtype)
        return phase._replace(energy=energy, gradient=gradient, estimator=estimator)

    def _apply(
        self, letter: str, fraction: float, row: int, phase: Phase, noise: Array, pace: Pace
    ) -> Phase:
        def normals(which: int = 0) -> PyTree:
            return noises.to_tree(noise[row + which], phase.position)

        t, friction, temperature = fraction * pace.dt, pace.friction, pace.temperature
        position, momentum, gradient = phase.position, phase.momentum, phase.gradient
        match letter:
            case "A":
                position = substeps.drift(position, momentum, t, self.metric)
            case "B":
                momentum = substeps.kick(momentum, gradient, t, self.metric)
            case "O":
                momentum = substeps.ornstein_uhlenbeck(
                    momentum, normals(), t, friction, temperature
                )
            case "U":
                pair = (normals(0), normals(1))
                position, momentum = substeps.drift_with_friction(
                    position, momentum, pair, t, friction, temperature, self.metric
                )
            case "F":
                momentum = substeps.euler_friction(momentum, normals(), t, friction, temperature)
            case "E":
                position = substeps.overdamped_euler(
                    position, gradient, normals(), t, temperature, self.metric
                )
            case "M":
                pair = (noises.to_tree(phase.extra, position), normals())
                position = substeps.leimkuhler_matthews(
                    position, gradient, pair, t, temperature, self.metric
                )
                # Words are kept as words; numbers given to a kernel of words stay numbers.
                words = jnp.uint32 in (noise.dtype, phase.extra.dtype)
                last = noise[row] if words else noise[row].astype(phase.extra.dtype)
                phase = phase._replace(extra=last)
            case _:
                raise ValueError(f"word: no sub-step is called {letter!r}")
        return phase._replace(position=position, momentum=momentum)


def build(
    posterior: Posterior,
    step_size: Any,
    plan: Plan,
    *,
    name: str,
    friction: Any,
    temperature: Any,
    metric: Metric,
    gradient: Estimator,
    noise: str,
    order: int | None = None,
    batches_per_step: int = 1,
    kind: type[SplittingKernel] = SplittingKernel,
) -> SplittingKernel:
    """A kernel from a plan, its arguments checked. `friction=None`: overdamped.

    `kind` is the class that executes the plan.

    Raises:
        TypeError, ValueError: the argument is named, with what was given and what is allowed.
    """
    check_parts(posterior, metric, gradient, noise)
    if batches_per_step not in (1, plan.gradient_evaluations):
        raise ValueError(
            f"batches_per_step: got {batches_per_step}; allowed: 1, or one for each of "
            f"the {plan.gradient_evaluations} gradients of a step"
        )
    alone = batches_per_step == plan.gradient_evaluations
    if getattr(gradient, "needs_fresh_batches", False) and not alone:
        raise ValueError(
            f"batches_per_step: got {batches_per_step} for {plan.gradient_evaluations} gradients "
            f"a step; this gradient estimator remembers a batch once it has seen it and is "
            f"biased when it sees it again; allowed: {plan.gradient_evaluations}, or "
            "reuse_gradient=True"
        )
    return kind(
        posterior=posterior,
        clock=as_clock(step_size, adaptive=any(s.letter == "Z" for s in plan.substeps)),
        friction=friction_rate(friction, step_size),
        temperature=as_rate(temperature, "temperature"),
        metric=metric,
        gradient=gradient,
        name=name,
        noise=noise,
        plan=plan,
        order=plan.order if order is None else order,
        batches_per_step=batches_per_step,
        refresh_every=getattr(gradient, "refresh_every", None),
    )


def check_parts(posterior: Any, metric: Any, gradient: Any, noise: Any) -> None:
    """Raise a TypeError or ValueError that names the part of a kernel that does not fit."""
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    if noise not in noises.KINDS:
        raise ValueError(f"noise: got {noise!r}; allowed: {', '.join(noises.KINDS)}")
    if hasattr(metric, "evaluate"):
        raise TypeError(
            f"metric: got {type(metric).__name__}, which changes with the position; only "
            "sgmcmc.psgld allows for that. Expected identity, diagonal or dense"
        )
    for part, value, needs in (("metric", metric, "to_position"), ("gradient", gradient, "init")):
        if isinstance(value, type) or not hasattr(value, needs):
            raise TypeError(f"{part}: got {value!r}; expected one of sgmcmc.{part}s")


def friction_rate(friction: Any, step_size: Any) -> Rate | None:
    """The friction's rate; NaN where tuning is to choose it."""
    if isinstance(friction, str) and friction == "auto":
        if step_size is not None and not isinstance(step_size, Untuned):
            raise ValueError(
                'friction: got "auto" beside a step_size; allowed: with step_size=None'
            )
        return Constant(jnp.asarray(jnp.nan, dtype=float))
    return None if friction is None else as_rate(friction, "friction")


_Kernel = TypeVar("_Kernel", bound=SplittingKernel)


def extend(kernel: SplittingKernel, kind: type[_Kernel], **fields: Any) -> _Kernel:
    """`kernel` as one of the subclass `kind`, with the fields that this adds or replaces."""
    own = {field.name: getattr(kernel, field.name) for field in dataclasses.fields(kernel)}
    return kind(**{**own, **fields})
