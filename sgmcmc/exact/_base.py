"""Samplers with a Metropolis correction: blocks of minibatch steps, accepted by the full energy.

A block makes L steps on L batches from (θ₀, r₀), r the whitened momentum of
`sgmcmc.metrics`, and ends at (θ, r). With ΔU = U(θ) − U(θ₀) over all data it is accepted with
probability

    a = min(1, exp(−(ΔU + W)/T)),

W the work that the block's own noisy forces do, by each sampler's formula. On rejection the
position is θ₀ again and the momentum −r₀. The law is then exp(−U/T − rᵀr/(2T)) exactly, at
any step size and however noisy the gradients: those cost acceptance, never bias.

This holds if a block's batches, read backwards, have the law they have forwards
(`sgmcmc.streams.require_reversible`), and if the Gaussians are Gaussian: the proposal's
density enters the ratio.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractClassVar

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Friction, Rate, ScalarOrSchedule, as_rate
from sgmcmc.clocks._base import AbstractClock, StepSize
from sgmcmc.clocks._schedules import as_clock
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.kernels._base import AbstractDynamics, Traits
from sgmcmc.kernels._flows import Pace
from sgmcmc.kernels._splitting import check_parts, friction_rate, require_constant
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.types import Array, Batch, Blocks, Info, Key, NoiseKind, PyTree, State


class BlockNoise(NamedTuple):
    """Every random number of a block: normals (rows, d), and the Metropolis uniform ()."""

    normals: Array
    uniform: Array


class Proposal(NamedTuple):
    """Where a block ends, its work W in nats, and its last gradient estimate's norm."""

    position: PyTree
    momentum: PyTree
    work: Array
    gradient_norm: Array


class AbstractCorrectedKernel(AbstractDynamics):
    """A block of steps and its Metropolis correction; `State.extra` holds U(θ) over all data.

    A subclass gives `propose`, which moves through a block. `Info.energy` is U over all data at
    the recorded position, `Info.acceptance` is a, `Info.time` L h, also where the block is
    rejected.

    Attributes:
        num_steps: L, steps and batches of a block.
        block_size: examples evaluated at a time in an energy over all data.
        gradients_per_batch: gradients that a step of the block takes on its batch.
        rows_beside: rows of normals that a block takes beside one for each step.
    """

    posterior: Posterior
    clock: AbstractClock
    friction: Rate
    temperature: Rate
    metric: AbstractMetric
    gradient: AbstractEstimator
    num_steps: int = eqx.field(static=True)
    name: str = eqx.field(static=True)
    block_size: int = eqx.field(static=True)

    noise: ClassVar[NoiseKind] = "gaussian"
    gradients_per_batch: AbstractClassVar[int]
    rows_beside: AbstractClassVar[int]

    @property
    def traits(self) -> Traits:
        """A block's minibatch gradients; its one energy of all data counts as N/(3n) more."""
        estimator = self.gradient.traits
        evaluations = self.num_steps * self.gradients_per_batch * estimator.evaluations
        return Traits(
            name=self.name,
            order=2,
            gradient_evaluations=float(evaluations),
            exact=True,
            batches_per_step=self.num_steps,
            needs_data=True,
            full_energies=1,
            batches="reversible" if estimator.batches == "any" else estimator.batches,
        )

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state: r ~ N(0, T), and U over all data.

        Raises:
            TypeError, ValueError: `position` is empty or not floating, the metric's shape is
                not that of `position`, or `data` is missing.
        """
        position = self.placed(position)
        clock = self.clock.init(position)
        standard = noises.draw(rng_key, position, 1, "gaussian")
        spread = jnp.sqrt(self.temperature(clock.count))
        momentum = trees.scale(spread, noises.to_tree(standard[0], position))
        estimator = self.gradient.init(self.posterior, position, data)
        energy = self._energy(position, data)
        return State(position, momentum, estimator, (), clock, energy)

    def draw(self, rng_key: Key, state: State) -> BlockNoise:
        """The block's normals and its uniform."""
        normals_key, uniform_key = jax.random.split(rng_key)
        rows = self.num_steps + self.rows_beside
        normals = noises.draw(normals_key, state.position, rows, "gaussian")
        return BlockNoise(normals, jax.random.uniform(uniform_key, (), state.extra.dtype))

    def drive(self, noise: BlockNoise, state: State, batch: Blocks | None) -> tuple[State, Info]:
        """One block. `batch` is `Blocks`; None for targets without data.

        Raises:
            ValueError: the data, or L batches, are missing.
        """
        blocks = self._blocks(batch)
        dt, weight, clock = self.clock.tick(state.clock)
        count = state.clock.count
        pace = Pace(
            dt, self.friction(count), self.temperature(count), self.metric, self.clock, count
        )
        proposal = self.propose(noise.normals, state, pace, blocks)
        proposal = proposal._replace(
            position=trees.rounded(proposal.position, state.position),
            momentum=trees.rounded(proposal.momentum, state.momentum),
        )
        energy = self._energy(proposal.position, blocks.data)
        change = energy - state.extra + proposal.work
        # Of T as it falls to 0 this is the limit, with no 0/0.
        probability = jnp.where(change > 0, jnp.exp(-change / pace.temperature), 1.0)
        # What is not finite is refused: −inf too, which no density has.
        acceptance = jnp.where(
            jnp.isfinite(energy) & ~jnp.isnan(change), probability.astype(change.dtype), 0.0
        )
        accepted = noise.uniform < acceptance

        def choose(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda x, y: jnp.where(accepted, x, y), new, old)

        position = choose(proposal.position, state.position)
        momentum = choose(proposal.momentum, jax.tree.map(jnp.negative, state.momentum))
        energy = choose(energy, state.extra)
        info = Info(
            position=position,
            weight=weight,
            time=self.num_steps * dt,
            energy=energy,
            gradient_norm=proposal.gradient_norm,
            kinetic_energy=trees.dot(momentum, momentum) / 2,
            finite=jnp.isfinite(energy),
            acceptance=acceptance,
        )
        return State(position, momentum, state.estimator, state.metric, clock, energy), info

    @abstractmethod
    def propose(self, normals: Array, state: State, pace: Pace, blocks: Blocks) -> Proposal:
        """Where the block's L steps lead, and the work of their noisy forces; float32 at least.

        Args:
            normals: (L + rows_beside, d).
            state: where the block begins.
            pace: h, γ and T of the block.
            blocks: L batches, and all data.
        """

    def _energy(self, position: PyTree, data: PyTree) -> Array:
        value = -self.posterior.log_density(position, data, block_size=self.block_size)
        return value.astype(trees.accumulator_dtype(position))

    def gradient_at(self, position: PyTree, batch: PyTree, state: State) -> PyTree:
        """The estimate of ∇U on one batch, by an estimator whose memory does not change.

        θ is rounded to the dtypes of `state.position`, ∇U in float32 at least.
        """
        position = trees.rounded(position, state.position)
        return trees.wide(
            self.gradient.estimate(self.posterior, position, batch, state.estimator)[1]
        )

    def _blocks(self, batch: PyTree) -> Blocks:
        if batch is None and not self.posterior.has_data:
            return Blocks(None, None)
        if not isinstance(batch, Blocks):
            raise ValueError(
                f"data: {self.name} evaluates the energy of all data; expected its batch to be "
                f"sgmcmc.Blocks(batches, data), got {type(batch).__name__}"
            )
        lengths = {x.shape[:1] for x in jax.tree.leaves(batch.batches)}
        if lengths - {(self.num_steps,)}:
            raise ValueError(
                f"batches: expected a leading axis of num_steps = {self.num_steps} on each leaf, "
                f"got {sorted(lengths)}"
            )
        return batch

    def each(
        self,
        one: Callable[[Proposal, PyTree, Array, Array], Proposal],
        carry: Proposal,
        normals: Array,
        shares: Array,
        blocks: Blocks,
    ) -> Proposal:
        """`one(carry, batch, normals, share)` for each of the L steps in turn."""
        whole = None if blocks.data is None else Batch(blocks.data)

        def body(carry: Proposal, step: PyTree) -> tuple[Proposal, None]:
            batch, row, share = step
            return one(carry, whole if blocks.batches is None else batch, row, share), None

        return jax.lax.scan(body, carry, (blocks.batches, normals, shares))[0]


_Kernel = TypeVar("_Kernel", bound=AbstractCorrectedKernel)


def build(
    kind: type[_Kernel],
    name: str,
    posterior: Posterior,
    step_size: StepSize,
    num_steps: int,
    friction: Friction,
    temperature: ScalarOrSchedule,
    metric: AbstractMetric,
    gradient: AbstractEstimator,
    noise: NoiseKind,
    block_size: int,
) -> _Kernel:
    """A kernel of the class `kind`, its arguments checked.

    Raises:
        TypeError, ValueError: the argument is named, with what was given and what is allowed.
    """
    check_parts(posterior, metric, gradient, noise)
    require_constant(metric)
    checks.count(num_steps, "num_steps", least=1)
    checks.count(block_size, "block_size", least=1)
    if noise != "gaussian":
        raise ValueError(
            f"noise: got {noise!r}; allowed: 'gaussian', since the acceptance probability of "
            f"{name} is that of exact Gaussians"
        )
    if gradient.traits.remembers:
        raise ValueError(
            f"gradient: got {gradient.traits.name}, which remembers where the chain "
            "has been, so that a block cannot be reversed; allowed: minibatch, full, "
            "control_variate"
        )
    rate = friction_rate(friction, step_size) or as_rate(None, "friction")
    return kind(
        posterior=posterior,
        clock=as_clock(step_size),
        friction=rate,
        temperature=as_rate(temperature, "temperature", above_zero=True),
        metric=metric,
        gradient=gradient,
        num_steps=int(num_steps),
        name=name,
        block_size=int(block_size),
    )
