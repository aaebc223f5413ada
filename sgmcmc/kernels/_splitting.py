"""The kernel that executes a plan: word × gradient estimator × metric × clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Friction, Rate, ScalarOrSchedule, Unchosen, as_rate
from sgmcmc.clocks._base import AbstractClock, StepSize
from sgmcmc.clocks._schedules import as_clock
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.kernels._base import Traits
from sgmcmc.kernels._flows import AbstractFlow, Pace, Phase
from sgmcmc.kernels._phases import AbstractPhaseKernel
from sgmcmc.kernels._words import GRADIENT, Plan, Word, pending_kick
from sgmcmc.metrics._base import AbstractMetric, AbstractPreconditioner
from sgmcmc.types import Array, Batches, Key, NoiseKind, PyTree, State

# What asks for most comes first; corrections ("reversible") are no words.
STRICTEST: tuple[Batches, ...] = ("all data", "noisy", "independent", "any")


class SplittingKernel(AbstractPhaseKernel):
    """A sampler as a sequence of sub-steps; `sgmcmc.langevin` and its kin build it.

    Its step size, friction, temperature, metric and the numbers of its flows are array leaves:
    kernels that differ in them alone share one trace and can be vmapped.
    """

    posterior: Posterior
    clock: AbstractClock
    friction: Rate | None
    temperature: Rate
    metric: AbstractMetric | AbstractPreconditioner
    gradient: AbstractEstimator
    flows: dict[str, AbstractFlow]
    name: str = eqx.field(static=True)
    noise: NoiseKind = eqx.field(static=True)
    plan: Plan = eqx.field(static=True)
    order: int = eqx.field(static=True)
    batches_per_step: int = eqx.field(static=True)

    @property
    def traits(self) -> Traits:
        return dynamics_traits(
            self.name, self.order, self.gradient, self.plan.gradient_evaluations,
            self.batches_per_step, [flow.batches for flow in self.flows.values()],
        )  # fmt: skip

    @property
    def num_normals(self) -> int:
        return self.plan.num_normals

    @property
    def word(self) -> Word:
        """Its plan with the flows of its letters."""
        return Word(self.plan, self.flows)

    @property
    def swaps(self) -> bool:
        return all(flow.swaps for flow in self.flows.values())

    @property
    def cools(self) -> bool:
        """Whether it takes out the heat of gradient noise that is of one size everywhere."""
        return any(flow.cools for flow in self.flows.values())

    @property
    def keeps_temperature(self) -> tuple[str, ...]:
        return tuple(name for flow in self.flows.values() for name in flow.keeps_temperature)

    @property
    def pending_kick(self) -> float:
        return pending_kick(self.word)

    def for_burnin(self, num_burnin: int) -> Self:
        flows = {letter: flow.for_burnin(num_burnin) for letter, flow in self.flows.items()}
        return dataclasses.replace(self, flows=flows)

    def first_extra(self, position: PyTree, friction: Array, key: Key) -> dict[str, PyTree]:
        """{name: memory} of all flows, at the start."""
        extra: dict[str, PyTree] = {}
        for i, flow in enumerate(self.flows.values()):
            extra |= flow.init(position, friction, jax.random.fold_in(key, i) if i else key)
        return extra

    def reports(self, phase: Phase, pace: Pace) -> dict[str, Array]:
        reported: dict[str, Array] = {}
        for flow in self.flows.values():
            reported |= flow.report(phase, pace)
        return reported

    def phases(self, noise: Array, state: State, batch: PyTree) -> tuple[Phase, Phase]:
        """Where the word ends, which is recorded, and where the step ends, which is kept."""
        pace, phase = self.pace(state), self.begin(state)
        end, gradients = phase, 0
        for step in self.plan.substeps:
            if step.letter == GRADIENT:
                phase = self.evaluated(phase, self._batch(batch, gradients))
                gradients += 1
                continue
            flow, before = self.flows[step.letter], phase
            rows = noise[step.noise : step.noise + flow.normals]
            phase = self._flow(flow, step.fraction, before, rows, pace)
            if step.end == step.fraction:
                end = phase
            elif step.end is not None:
                # The first part of a merged sub-step, with the same normals: its law at the
                # word's end is exact, and costs no second draw.
                end = self._flow(flow, step.end, before, rows, pace)
        return end, phase

    def _flow(
        self, flow: AbstractFlow, fraction: float, phase: Phase, rows: Array, pace: Pace
    ) -> Phase:
        # An adaptive clock changes under its own letter alone, so that one step's letters
        # share its dt, and what follows that letter belongs to the next.
        dt = pace.dt if flow.adapts else self.clock.pace(phase.clock, pace.dt)
        return flow.apply(phase, jax.tree.map(lambda x: fraction * x, dt), rows, pace)

    def _batch(self, batch: PyTree, gradients: int) -> PyTree:
        if self.batches_per_step == 1:
            return batch
        return jax.tree.map(lambda x: x[gradients], batch)


def dynamics_traits(
    name: str,
    order: int,
    gradient: AbstractEstimator,
    gradients_a_step: int,
    batches_per_step: int = 1,
    borne: Sequence[Batches] = (),
) -> Traits:
    """The traits of a kernel that evaluates its estimator `gradients_a_step` times.

    `borne`: the batches that its flows bear, beside those that the estimator does.
    """
    estimator = gradient.traits
    asked = (estimator.batches, *borne)
    return Traits(
        name=name,
        order=order,
        gradient_evaluations=float(gradients_a_step * estimator.evaluations),
        batches_per_step=batches_per_step,
        refresh_every=estimator.refresh_every,
        batches=min(asked, key=STRICTEST.index),
    )


def build(
    posterior: Posterior,
    step_size: StepSize,
    word: Word,
    *,
    name: str,
    friction: Friction | None,
    temperature: ScalarOrSchedule,
    metric: AbstractMetric | AbstractPreconditioner,
    gradient: AbstractEstimator,
    noise: NoiseKind,
    order: int | None = None,
    batches_per_step: int = 1,
) -> SplittingKernel:
    """A kernel from a word, its arguments checked. `friction=None`: overdamped.

    Raises:
        TypeError, ValueError: the argument is named, with what was given and what is allowed.
    """
    check_parts(posterior, metric, gradient, noise)
    flows = word.flows.values()
    if not all(flow.any_metric for flow in flows):
        require_constant(metric)
    check_batches(gradient, word.plan.gradient_evaluations, batches_per_step)
    if gradient.traits.batches == "all data" and any(flow.batches == "noisy" for flow in flows):
        raise ValueError(
            f"gradient: got {gradient.traits.name}, which has no noise to take off; allowed: an "
            "estimator from minibatches, or noise_estimate=None"
        )
    return SplittingKernel(
        posterior=posterior,
        clock=as_clock(step_size, adaptive=any(flow.adapts for flow in flows)),
        friction=friction_rate(friction, step_size),
        temperature=as_rate(temperature, "temperature"),
        metric=metric,
        gradient=gradient,
        flows=dict(word.flows),
        name=name,
        noise=noise,
        plan=word.plan,
        order=word.plan.order if order is None else order,
        batches_per_step=batches_per_step,
    )


def check_batches(gradient: AbstractEstimator, gradients: int, batches_per_step: int) -> None:
    """Raise a ValueError unless a step of `gradients` gradients can do with its batches."""
    if batches_per_step not in (1, gradients):
        raise ValueError(
            f"batches_per_step: got {batches_per_step}; allowed: 1, or one for each of "
            f"the {gradients} gradients of a step"
        )
    if gradient.traits.batches == "independent" and batches_per_step != gradients:
        raise ValueError(
            f"batches_per_step: got {batches_per_step} for {gradients} gradients "
            f"a step; this gradient estimator remembers a batch once it has seen it and is "
            f"biased when it sees it again; allowed: {gradients}, or "
            "reuse_gradient=True"
        )


def check_parts(posterior: object, metric: object, gradient: object, noise: object) -> None:
    """Raise a TypeError or ValueError that names the part of a kernel that does not fit."""
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    if noise not in noises.KINDS:
        raise ValueError(f"noise: got {noise!r}; allowed: {', '.join(noises.KINDS)}")
    if not isinstance(metric, AbstractMetric | AbstractPreconditioner):
        said = checks.lacking(metric, AbstractMetric, "sgmcmc.metrics")
        raise TypeError(f"metric: got {trees.told(metric)}; expected one of sgmcmc.metrics{said}")
    if not isinstance(gradient, AbstractEstimator):
        said = checks.lacking(gradient, AbstractEstimator, "sgmcmc.gradients")
        raise TypeError(
            f"gradient: got {trees.told(gradient)}; expected one of sgmcmc.gradients{said}"
        )


def require_constant(metric: object) -> None:
    """Raise a TypeError if a metric changes with the position."""
    if isinstance(metric, AbstractPreconditioner):
        raise TypeError(
            f"metric: got {type(metric).__name__}, which changes with the position; only "
            "sgmcmc.psgld allows for that. Expected identity, diagonal or dense"
        )


def friction_rate(friction: Friction | None, step_size: StepSize) -> Rate | None:
    """The friction's rate, `Unchosen` where tuning is to choose it."""
    if isinstance(friction, str) and friction == "auto":
        if step_size is not None and not (
            isinstance(step_size, AbstractClock) and step_size.untuned
        ):
            raise ValueError(
                'friction: got "auto" beside a step_size; allowed: with step_size=None'
            )
        return Unchosen()
    return None if friction is None else as_rate(friction, "friction")
