"""Replica exchange: chains at several temperatures that swap, so that cold ones change modes.

R replicas of one kernel run at T₁ < … < T_R and see the same batches. After every `swap_every`
steps neighbours are swapped by the rule of `_swaps`: pairs (1, 2), (3, 4), … after one group of
steps, (2, 3), (4, 5), … after the next. The law is the product of the e^{−U/T_k}.

**A swap exchanges temperatures, not positions.** That is the same, and moves nothing: a
replica keeps all that belongs to its position (an estimator's snapshot or table, a metric's
memory). Only what has T in its law changes with it:

- the momentum, N(0, T), is multiplied by √(T_new/T_old): r²/(2T) stays as it is, and the two
  factors of a swap have product 1, so that the product law is invariant;
- kernels turned past the last use of a gradient (`_words`) keep a momentum that has had
  a kick −tG beyond the word's end, the one place where the momentum is independent of the
  position. So the rule is r ← s (r + tG) − tG, with the gradient of the last step;
- a thermostat's variable has a law of its own at each temperature and stays there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from sgmcmc import _tree as trees
from sgmcmc._checks import check_range, count
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant, Rate
from sgmcmc.clocks._base import AbstractClock
from sgmcmc.kernels import _swaps as swaps
from sgmcmc.kernels._base import AbstractKernel, Traits, shown
from sgmcmc.kernels._phases import AbstractPhaseKernel
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.types import Array, Batch, ClockState, Info, Key, PyTree, State, as_batch

# Examples that the energies of a swap are estimated from, at least.
LEAST = 32


class Replicas(NamedTuple):
    """The replicas' states with a leading axis R; `order[k]` is the one at temperature k."""

    states: State
    order: Array


class Draws(NamedTuple):
    """The random numbers of one step.

    `steps`: those of the kernel's steps, [swap_every, R, …]; `uniforms`: (R − 1,), one for each
    pair of neighbours.
    """

    steps: PyTree
    uniforms: Array


class StretchedClock(AbstractClock):
    """The replicas' clock, for `check_run`: one step stands for `factor` = `swap_every` of it."""

    inner: AbstractClock
    factor: int = eqx.field(static=True)

    @property
    def step_size(self) -> Rate:
        return self.inner.step_size

    @property
    def period(self) -> int | None:
        inner = self.inner.period
        return None if inner is None else inner // math.gcd(inner, self.factor)

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        """That of the inner clock: replicas tick by themselves."""
        return self.inner.tick(state)

    def check(self, position: PyTree) -> None:
        self.inner.check(position)

    def check_run(self, num_burnin: int, num_samples: int, thinning: int) -> None:
        self.inner.check_run(num_burnin * self.factor, num_samples, thinning * self.factor)


class ReplicaExchange(AbstractKernel):
    """A kernel of kernels; see `replica_exchange`. `State.extra` holds the `Replicas`."""

    inner: AbstractPhaseKernel
    temperatures: Array
    energy_variance: Array | None
    correct: bool = eqx.field(static=True)
    swap_every: int = eqx.field(static=True)
    record: str = eqx.field(static=True)

    @property
    def posterior(self) -> Posterior:
        return self.inner.posterior

    @property
    def clock(self) -> AbstractClock:
        """The inner clock, in steps of `swap_every` of its own."""
        if self.inner.clock.untuned:
            return self.inner.clock
        return StretchedClock(self.inner.clock, self.swap_every)

    @property
    def traits(self) -> Traits:
        """Batches: the kernel's, and one apart for the swap's energies; one where it is all data.

        Gradients: all replicas', and their energies as a third of a gradient each.
        """
        inner, replicas = self.inner.traits, self.temperatures.shape[-1]
        every = inner.refresh_every
        evaluations = self.swap_every * inner.gradient_evaluations + 1 / 3
        every_batch = inner.batches == "all data"
        together = self.swap_every * inner.batches_per_step + 1
        return inner._replace(
            name=f"replica_exchange({inner.name})",
            gradient_evaluations=float(replicas * evaluations),
            batches_per_step=1 if every_batch else together,
            independent_examples=0 if every_batch else LEAST,
            refresh_every=None if every is None else every // self.swap_every,
            refresh_passes=replicas,
        )

    def numbers(self) -> dict[str, Any]:
        """Those of the kernel, at the cold replica's temperature."""
        return {**self.inner.numbers(), "temperature": shown(Constant(self.temperatures[0]))}

    def for_burnin(self, num_burnin: int) -> Self:
        inner = self.inner.for_burnin(num_burnin * self.swap_every)
        return dataclasses.replace(self, inner=inner)

    def recorded(self, position: PyTree) -> PyTree:
        """A position as `Info.position` shows it: with a leading axis R under record="all"."""
        if self.record == "cold":
            return position
        size = self.temperatures.shape[-1]
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *jnp.shape(x))), position)

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state: all replicas at `position`, momenta from N(0, T_k)."""
        size = self.temperatures.shape[-1]

        def begin(temperature: Array, key: Key) -> State:
            return self._at(temperature).init(position, key, data)

        states = jax.vmap(begin)(self.temperatures, jax.random.split(rng_key, size))
        order = jnp.arange(size, dtype=jnp.int32)
        return self._state(jnp.zeros((), jnp.int32), Replicas(states, order))

    def draw(self, rng_key: Key, state: State) -> Draws:
        """Every random number of `swap_every` steps of all replicas, and of one swap."""
        steps = jnp.arange(self.swap_every)
        drawn = jax.vmap(lambda i: self._draw_one(rng_key, state, i))(steps)
        return Draws(drawn, self._uniforms(rng_key))

    def drive(self, noise: Draws, state: State, batch: PyTree) -> tuple[State, Info]:
        """`swap_every` steps of all replicas, and one attempt to swap neighbours."""

        def pick(i: Array | int) -> PyTree:
            return jax.tree.map(lambda x: x[i], noise.steps)

        return self._run(pick, noise.uniforms, state, batch)

    def step(self, rng_key: Key, state: State, batch: PyTree = None) -> tuple[State, Info]:
        """`drive(draw(rng_key, state), state, batch)`, with the numbers of one step at a time."""

        def pick(i: Array | int) -> PyTree:
            return self._draw_one(rng_key, state, i)

        return self._run(pick, self._uniforms(rng_key), state, batch)

    def refresh(self, state: State, data: PyTree) -> State:
        """Recompute what each replica's estimator keeps of all data."""
        replicas = state.extra
        states = jax.vmap(lambda one: self.inner.refresh(one, data))(replicas.states)
        return state._replace(extra=replicas._replace(states=states))

    def measure(self, positions: PyTree, batch: PyTree) -> swaps.Measured:
        """Energies by temperature, from `batch`; `positions` by temperature too."""
        traits = self.inner.gradient.traits
        batch, posterior = as_batch(batch), self.posterior
        if traits.batches == "all data":
            return swaps.exact(posterior, positions, batch, self.energy_variance, traits.block_size)
        return swaps.estimated(posterior, positions, batch, self.energy_variance)

    def _at(self, temperature: Array) -> AbstractPhaseKernel:
        return at_temperature(self.inner, temperature)

    def _state(self, count: Array, replicas: Replicas) -> State:
        cold = jax.tree.map(lambda x: x[replicas.order[0]], replicas.states.position)
        return State(cold, (), (), (), ClockState(count), replicas)

    def _draw_one(self, rng_key: Key, state: State, i: Array | int) -> PyTree:
        """The numbers of step i of all replicas."""
        keys = jax.random.split(jax.random.fold_in(rng_key, i), self.temperatures.shape[-1])
        return jax.vmap(self.inner.draw)(keys, state.extra.states)

    def _uniforms(self, rng_key: Key) -> Array:
        key = jax.random.fold_in(rng_key, self.swap_every)
        return jax.random.uniform(key, (self.temperatures.shape[-1] - 1,))

    def _run(
        self, pick: Callable[[Array | int], PyTree], uniforms: Array, state: State, batch: PyTree
    ) -> tuple[State, Info]:
        states, order = state.extra
        heat = self.temperatures[jnp.argsort(order)]

        def advance(noise: PyTree, states: State, part: PyTree) -> tuple[State, Info]:
            one = lambda t, noise, state: self._at(t).drive(noise, state, part)  # noqa: E731
            return jax.vmap(one)(heat, noise, states)

        def body(i: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            states, info = advance(pick(i), carry[0], self._batch(batch, i))
            return states, carry[1] + info.time[0]

        last = self.swap_every - 1
        dt = jax.vmap(self.inner.clock.tick)(states.clock)[0][0]
        before, elapsed = jax.lax.fori_loop(0, last, body, (states, jnp.zeros_like(dt)))

        def advance_last(t: Array, noise: PyTree, state: State) -> tuple[State, Info, PyTree]:
            """A step, and the kick that the momentum has had beyond its word's end."""
            kernel = self._at(t)
            following, info, after = kernel.advance(noise, state, self._batch(batch, last))
            if not kernel.pending_kick:
                return following, info, ()
            assert isinstance(kernel.metric, AbstractMetric)
            kick = kernel.metric.to_momentum(after.gradient)
            dt = kernel.clock.tick(state.clock)[0]
            return following, info, (kernel.pending_kick * dt, kick)

        states, info, kicks = jax.vmap(advance_last)(heat, pick(last), before)
        at_end = jax.tree.map(lambda x: x[order], states.position)
        measured = self.measure(at_end, self._swap_batch(batch))
        partner, acceptance = self._partners(measured, uniforms, state.clock.count)
        swapped = order[partner]
        new_heat = self.temperatures[jnp.argsort(swapped)]
        factor = jnp.sqrt(new_heat / heat)
        states = rescaled(factor, states, kicks)
        extra = states.extra
        for name in self.inner.keeps_temperature:
            extra = {**extra, name: extra[name].at[swapped].set(extra[name][order])}
        states = states._replace(extra=extra)
        count = state.clock.count + 1
        following = self._state(count, Replicas(states, swapped))
        report = self._report(following, info, measured.energies[partner[0]], factor)
        # ξ belongs to a temperature: that of the replica which was the cold one in this step.
        cold = jax.tree.map(lambda x: x[order[0]], info.thermostat)
        report = report._replace(thermostat=cold)
        return following, report._replace(time=elapsed + info.time[0], acceptance=acceptance)

    def _batch(self, batch: PyTree, i: Array | int) -> PyTree:
        """The batch (or batches) of the replicas' step i."""
        if self.traits.batches_per_step == 1:
            return batch
        each = self.inner.traits.batches_per_step
        if each == 1:
            return jax.tree.map(lambda x: x[i], batch)
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * each, each), batch)

    def _swap_batch(self, batch: PyTree) -> PyTree:
        """What follows the batches that move the replicas, as one: drawn apart from those, so that
        its noise is independent of θ, and they still make whole sweeps.
        """
        if self.traits.batches_per_step == 1:
            return batch
        last = jax.tree.map(lambda x: x[self.traits.stream_batches :], batch)
        if jax.tree.leaves(last) and jax.tree.leaves(last)[0].shape[0] == 1:
            return jax.tree.map(lambda x: x[0], last)
        if isinstance(last, Batch):
            # A share is of a kick; of an energy every example counts alike.
            last = last._replace(share=None)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), last)

    def _partners(
        self, measured: swaps.Measured, uniforms: Array, count: Array
    ) -> tuple[Array, Array]:
        """(R,) the temperature that each swaps with, or its own; and () the mean acceptance."""
        gap = 1 / self.temperatures[:-1] - 1 / self.temperatures[1:]
        noise = measured.noise
        if not self.correct:
            noise = swaps.Noise(jnp.zeros_like(measured.differences))
        chance = swaps.swap_probability(gap, measured.differences, noise)
        pair = jnp.arange(len(chance))
        # Two replicas are one pair, which is tried every time.
        tried = (pair % 2 == count % 2) | (len(chance) == 1)
        accepted = (tried & (uniforms < chance)).astype(jnp.int32)
        up, down = jnp.pad(accepted, (0, 1)), jnp.pad(accepted, (1, 0))
        partner = jnp.arange(len(chance) + 1, dtype=jnp.int32) + up - down
        return partner, jnp.sum(jnp.where(tried, chance, 0.0)) / jnp.sum(tried, dtype=chance.dtype)

    def _report(self, state: State, info: Info, energy: Array, factor: Array) -> Info:
        """`Info` of the cold replica: U of the swap's batch, K at its new T; finite if all are.

        `factor` (R,) is √(T_new/T_old) of each replica, whose square scales K.
        """
        states, order = state.extra
        cold, squared = order[0], factor[order[0]] ** 2
        chosen = jax.tree.map(lambda x: x[cold], info._replace(position=()))
        finite = jnp.all(info.finite) & jnp.isfinite(energy)
        position = state.position
        if self.record == "all":
            position = jax.tree.map(lambda x: x[order], states.position)
        return chosen._replace(
            position=position,
            energy=jnp.where(finite, energy, jnp.nan),
            kinetic_energy=chosen.kinetic_energy * squared.astype(chosen.kinetic_energy.dtype),
            finite=finite,
        )


def at_temperature(kernel: AbstractPhaseKernel, temperature: Array) -> AbstractPhaseKernel:
    """The kernel with `temperature` () in the place of its own."""
    made: AbstractPhaseKernel = eqx.tree_at(lambda k: k.temperature.value, kernel, temperature)
    return made


def rescaled(factor: Array, states: State, kicks: PyTree) -> State:
    """Each replica with a momentum of its new temperature, `factor` = √(T_new/T_old).

    r ← s (r + tG) − tG, `kicks` = (t, G); () where no kick is pending.
    """
    if not jax.tree.leaves(states.momentum):
        return states

    def one(s: Array, momentum: PyTree, kick: tuple[Array, PyTree] | tuple[()]) -> PyTree:
        whole = trees.axpy(*kick, momentum) if kick else momentum
        # s = 1 changes no bit.
        return trees.axpy(s - 1, whole, momentum)

    return states._replace(momentum=jax.vmap(one)(factor, states.momentum, kicks))


def replica_exchange(
    kernel: AbstractPhaseKernel,
    temperatures: ArrayLike,
    *,
    swap_every: int,
    energy_variance: float | Array | None = None,
    record: str = "cold",
    correct: bool = True,
) -> ReplicaExchange:
    """Replica exchange with noisy energies (Deng et al. 2020, arXiv 2008.05367).

        swap neighbours with probability min(1, exp(a (Ũ₁ − Ũ₂) − a² v/2)),
        a = 1/T₁ − 1/T₂,   v the variance of Ũ₁ − Ũ₂

    Hot replicas cross barriers, and swaps bring what they find to the cold one, whose law is
    that of `kernel` at T₁. One step is `swap_every` steps of each replica and one attempt to
    swap. Neighbours should be near enough for `run.info.acceptance` to be above about .1.

    The energies are estimated from a batch of their own, the same for all replicas, since much
    of its noise then cancels in the difference. It is drawn with replacement whatever the
    stream, apart from it: so it is independent of the positions, and the replicas' steps take
    whole sweeps. v is the pair's own, (N²/n) s² with s² the sample variance over that batch of
    the examples' differences in energy: it depends on the positions, often strongly, so an
    average over earlier steps would be wrong for most pairs. That v is estimated is allowed for
    to third order in a² v (Ceperley and Dewing 1999, physics/9812035), which takes an a² v below
    about n/4 and some thirty examples. So where n < 32 the loop draws as many more batches as
    make 32, and where that is all the data, or n ≥ N, it takes each example once and energies
    are exact. In a loop of your own append the batches for the energies to those of the steps.

    Args:
        kernel: a sampler of this library by words, overdamped or not; at its temperature it is
            not run, `temperatures` take its place.
        temperatures: T₁ < … < T_R, R ≥ 2, all above 0; T₁ = 1 samples the posterior.
        swap_every: steps of each replica between two attempts, ≥ 1.
        energy_variance: None (default): estimated as above; or the variance σ² ≥ 0, in nats²,
            of each energy estimate where the noises are independent and known, so that v = 2σ².
            Energies of a target without data, or under `gradients.full()`, are exact unless a
            number is given.
        record: "cold" (default), draws are positions at T₁; "all", positions at every
            temperature in turn, with a leading axis R.
        correct: False leaves −a² v/2 out, which is wrong wherever v > 0; for comparison.

    Returns:
        A kernel. `batches_per_step` is that of `swap_every` steps and one more, which is drawn
        apart (`independent_examples`). In `Info` all
        is the cold replica's, `acceptance` the mean over the pairs tried of the probability to
        swap, `time` the sum over the steps, and `finite` False if any replica is not.
        `gradient_evaluations` counts all replicas, an energy as a third of a gradient of n
        examples.

    Raises:
        TypeError: `kernel` is not one by sub-steps, or its temperature is a schedule.
        ValueError: fewer than two temperatures, or not increasing, or not above 0;
            `swap_every` < 1, or not a divisor of the estimator's `refresh_every`; a negative
            variance; a kernel whose state cannot change its temperature
            (`leimkuhler_matthews`, `sort`, `should`).
    """
    _check_kernel(kernel)
    ladder = _ladder(temperatures)
    swap_every = count(swap_every, "swap_every")
    every = kernel.traits.refresh_every
    if every is not None and every % swap_every:
        raise ValueError(
            f"swap_every: got {swap_every} with an estimator refreshed every {every} steps; "
            f"allowed: a divisor of {every}"
        )
    if record not in ("cold", "all"):
        raise ValueError(f"record: got {record!r}; allowed: cold, all")
    if not isinstance(correct, bool):
        raise TypeError(f"correct: got {correct!r}; expected True or False")
    if isinstance(energy_variance, str):
        raise ValueError(
            f"energy_variance: got {energy_variance!r}; allowed: a number ≥ 0, or None, by which "
            "it is estimated"
        )
    variance = None
    if energy_variance is not None:
        variance = jnp.asarray(energy_variance, dtype=float)
        check_range(variance, "energy_variance", above_zero=False)
    return ReplicaExchange(
        inner=eqx.tree_at(lambda k: k.temperature.value, kernel, ladder[0]),
        temperatures=ladder,
        energy_variance=variance,
        correct=correct,
        swap_every=int(swap_every),
        record=record,
    )


def _ladder(temperatures: ArrayLike) -> Array:
    """T₁ < … < T_R as an array."""
    ladder = jnp.asarray(temperatures, dtype=float)
    if ladder.ndim != 1 or ladder.shape[0] < 2:
        raise ValueError(
            f"temperatures: got {temperatures!r}; expected two at least, T₁ < … < T_R: one chain "
            "has nobody to swap with"
        )
    if not isinstance(ladder, jax.core.Tracer):
        check_range(ladder, "temperatures", above_zero=True)
        if not bool(np.all(np.diff(np.asarray(ladder)) > 0)):
            raise ValueError(f"temperatures: got {ladder.tolist()}; allowed: increasing numbers")
    return ladder


def _check_kernel(kernel: object) -> None:
    if not isinstance(kernel, AbstractPhaseKernel):
        raise TypeError(
            f"kernel: got {type(kernel).__name__}; expected a sampler by sub-steps such as "
            "sgmcmc.baoab(posterior, step_size)"
        )
    if not isinstance(kernel.temperature, Constant):
        raise TypeError("kernel: its temperature is a schedule; allowed: a number")
    if kernel.clock.adaptive or not kernel.swaps:
        raise ValueError(
            f"kernel: got {kernel.traits.name}, whose state knows of the temperature in more than "
            "its momentum and cannot change it; allowed: sgld, psgld, sghmc, sgnht, quicsort and "
            "the words over A, B, O and U, baoab among them"
        )
    assert kernel.pending_kick >= 0  # raises where friction acts on a pending kick
