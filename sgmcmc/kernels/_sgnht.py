"""Thermostats: Langevin dynamics whose friction is a variable, so that it finds its own value.

Gradient noise of unknown size heats a chain. A thermostat ξ in the place of the friction
compares the momentum with the temperature and takes that heat out again:

    dθ = M⁻¹ p dt,   dp = −∇U dt − ξ p dt + √(2AT) M^{1/2} dW,
    dξ = (pᵀM⁻¹p − dT)/μ dt,

d the number of parameters. With noise of variance s² in every coordinate of the gradient the
law is exp(−U/T − pᵀM⁻¹p/(2T) − μ (ξ − ξ̄)²/(2T)), ξ̄ = A + h s²/(2T). In the whitened
momentum r of `sgmcmc.metrics` the two letters that belong to it are

    D   ξ += (t/μ) (rᵀr − dT)
    O   r ← e^{−ξt} r + √(2AT t φ(−2ξt)) R,   φ(y) = (e^y − 1)/y.

**The start.** A fall by ΔU nats drives ξ to about √(2ΔU/d). From there it comes back at the rate
T/μ · d at most, and until it has the momentum is as cold as AT/ξ: for as long as √(2ΔU/d) units
of time, tens of thousands of steps. And where noise asks for a large ξ̄ it takes ξ̄/T units of
time to settle about it. So in a burn-in (`Search`) ξ is held first, until the fall is over, then
sought, and only then free.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, Self

import equinox as eqx
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant, Friction, ScalarOrSchedule, as_rate
from sgmcmc._special import relative_growth
from sgmcmc.clocks._base import StepSize
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._flows import AbstractFlow, Drift, Kick, Pace, Phase
from sgmcmc.kernels._splitting import SplittingKernel, build
from sgmcmc.kernels._words import plan, table
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import identity
from sgmcmc.types import Array, Batches, Key, NoiseKind, PyTree

# Of a burn-in: the share in which ξ is held, and that in which it is sought.
HELD, SOUGHT = 0.4, 0.4
# What of the energy of a fall is left after the held steps: e^−12 = 6e-6, of 300,000 nats 2;
# and the most friction for it, per step.
FALLS, STEEPEST = 12.0, 0.1
# Of A', over √d: two standard deviations of what the search ends with.
UNSURE = 0.5
# Steps that the search remembers, the most that it takes for T_kin/T, and the longest step in 1/ξ.
MEMORY, HOTTEST, THICKEST = 50.0, 10.0, 10.0


class Search(eqx.Module):
    """How a burn-in finds ξ: held below step `held`, sought below step `found`, then free.

    Until then A is A' = max(A, min(12/held, 1/10)/h) in friction and noise alike, a Langevin bath
    that leaves e^{−12} of what a fall brings while ξ is held. The excess ξ − A, which gradient
    noise asks for, is sought by its own equation, T_kin ∝ 1/(A' + ξ − A), with a gain per step in
    the place of the thermostat's per time:

        ln(A' + ξ − A) += g (T_kin/T − 1),   g = 1/50, and over the second half 1/(50 + k).

    Attributes:
        held, found: () int32; 0, as outside of `sample`, for none.
    """

    held: Array
    found: Array

    def friction(self, pace: Pace) -> Array:
        """A' while ξ is held or sought, A afterwards."""
        steps = jnp.maximum(self.held, 1).astype(pace.dt.dtype)
        bath = jnp.minimum(FALLS / steps, STEEPEST) / pace.dt
        return jnp.where(pace.step < self.found, jnp.maximum(pace.friction, bath), pace.friction)

    def moved(
        self, thermostat: Array, free: Array, momentum: PyTree, t: Array, pace: Pace
    ) -> Array:
        """ξ and its rounding after t, `free` where it is free."""
        added = self.friction(pace) - pace.friction
        heat = trees.size(momentum) * pace.temperature
        # At T = 0 there is no T_kin/T, and nothing to seek.
        ratio = trees.dot(momentum, momentum) / jnp.where(heat > 0, heat, 1.0)
        excess = jnp.where(heat > 0, jnp.minimum(ratio, HOTTEST) - 1, 0.0)
        late = jnp.maximum(pace.step - (self.held + self.found) // 2, 0)
        gain = t / pace.dt / (MEMORY + late.astype(pace.dt.dtype))
        least = pace.friction + added
        total = (thermostat[0] + added) * jnp.exp(gain * excess)
        sought = jnp.clip(total, least, least + THICKEST / pace.dt) - added
        # Too small a ξ is mended at the rate of T_kin, too large a one at T's: what the search does
        # not know for sure comes off once, where ξ is free, as rounding would.
        unsure = UNSURE * least / math.sqrt(trees.size(momentum))
        off = jnp.minimum(unsure, sought - pace.friction)
        pair = jnp.stack([sought, off]).astype(thermostat.dtype)
        later = jnp.where(pace.step < self.found, pair, free)
        return jnp.where(pace.step < self.held, thermostat, later)


def search(num_burnin: int) -> Search:
    """That of a burn-in of so many steps; of 0: none."""
    held = int(HELD * num_burnin)
    return Search(*(jnp.asarray(n, jnp.int32) for n in (held, held + int(SOUGHT * num_burnin))))


class ThermostatDrift(AbstractFlow):
    """D: ξ += (t/μ) (rᵀr − dT); `State.extra["thermostat"]` is ξ and what rounding took from it.

    With a mass of d the steps of ξ are of order h √(2/d), for a network far below the spacing
    of float32 near ξ: their rounding is summed and given back. ξ begins at A, which it would
    stay near without gradient noise.
    """

    mass: Array | None
    search: Search = eqx.field(default_factory=lambda: search(0))

    letter: ClassVar[str] = "D"
    cools: ClassVar[bool] = True
    purpose: ClassVar[str] = "the thermostat does nothing"
    # ξ has a law of its own at each temperature.
    keeps_temperature: ClassVar[tuple[str, ...]] = ("thermostat",)

    @property
    def batches(self) -> Batches:
        """Independent: of a sweep's kicks, which cancel, ξ would take off p² within the sweep."""
        return "independent"

    def init(self, position: PyTree, friction: Array, key: Key) -> dict[str, PyTree]:
        pair = jnp.stack([friction, jnp.zeros_like(friction)])
        return {"thermostat": pair.astype(trees.accumulator_dtype(position))}

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        divisor = trees.size(phase.position) if self.mass is None else self.mass
        moved = thermostat_drift(
            phase.extra["thermostat"], phase.momentum, t, divisor, pace.temperature
        )
        moved = self.search.moved(phase.extra["thermostat"], moved, phase.momentum, t, pace)
        return phase._replace(extra={**phase.extra, "thermostat": moved})

    def for_burnin(self, num_burnin: int) -> Self:
        return dataclasses.replace(self, search=search(num_burnin))

    def report(self, phase: Phase, pace: Pace) -> dict[str, Array]:
        """`thermostat`: ξ, with which the step began."""
        return {"thermostat": phase.extra["thermostat"][0]}


class ThermostatFriction(AbstractFlow):
    """O: r ← e^{−ξt} r + √(2AT t φ(−2ξt)) R, with D's ξ in the friction's place.

    In a burn-in with A' in the place of A, and ξ + A' − A in that of ξ.
    """

    search: Search = eqx.field(default_factory=lambda: search(0))

    letter: ClassVar[str] = "O"
    normals: ClassVar[int] = 1
    rubs: ClassVar[bool] = True
    purpose: ClassVar[str] = "the thermostat does nothing"

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        normals = noises.to_tree(rows[0], phase.position)
        friction = self.search.friction(pace)
        total = phase.extra["thermostat"][0] + (friction - pace.friction)
        momentum = thermostat_friction(
            phase.momentum, normals, t, total, friction * pace.temperature
        )
        return phase._replace(momentum=momentum)

    def for_burnin(self, num_burnin: int) -> Self:
        return dataclasses.replace(self, search=search(num_burnin))


def thermostat_drift(
    thermostat: Array, momentum: PyTree, t: Array, mass: Array | int, temperature: Array
) -> Array:
    """D: the new ξ and its rounding, (2,), by Kahan's sum."""
    excess = trees.dot(momentum, momentum) - trees.size(momentum) * temperature
    value, lost = thermostat
    wanted = (t / mass * excess).astype(thermostat.dtype) - lost
    moved = value + wanted
    return jnp.stack([moved, (moved - value) - wanted])


def thermostat_friction(
    momentum: PyTree, noise: PyTree, t: Array, thermostat: Array, diffusion: Array
) -> PyTree:
    """O: the new momentum, for ξ of any sign; `diffusion` = A T."""
    amplitude = jnp.sqrt(2 * diffusion * t * relative_growth(-2 * thermostat * t))
    return trees.axpy(amplitude, noise, trees.scale(jnp.exp(-thermostat * t), momentum))


def sgnht(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    thermostat_mass: float | Array | None = None,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
    word: str = "BADODAB",
    fractions: Sequence[float] | None = None,
) -> SplittingKernel:
    """SGNHT (Ding et al. 2014) by BADODAB (Leimkuhler and Shang 2016), for independent batches.

    Batches are drawn with replacement, its default stream, or are all the data: within a sweep p
    carries kicks that the rest of the sweep takes back, and ξ would cool positions that they
    never heat. Other streams are refused.

    Langevin dynamics that takes the heat of gradient noise out of itself, if that noise is
    of one size in all coordinates of M^{-1/2}∇U and everywhere. One gradient and one normal
    a coordinate and step. It is the positions whose law is right: ⟨p²⟩ at step ends is
    T − (h²/4) E[g²], g the minibatch's gradient.

    In the burn-in of `sample` ξ is held for 40% of the steps, under a friction that ends the fall
    from the start, sought for 40% and then free (`Info.thermostat`); in a loop of your own
    `kernel.for_burnin(num_burnin)` does that. Without a burn-in it is free from step 0, and a
    chain that begins far away stays too cold for √(2ΔU/d) units of time.

    Args:
        friction: A ≥ 0, of the noise that is injected on purpose, √(2AT); the thermostat
            begins there. With A = 0 (Nosé-Hoover) the chain need not be ergodic.
        thermostat_mass: μ > 0, how slowly the thermostat moves; default d, the number of
            parameters, as in Ding et al. Its stationary variance is T/μ.
        word: letters in the order of time, with D and O among them.
        fractions: each letter's share of the step, as in `langevin`.
        posterior, step_size, temperature, metric, gradient, noise: see `sgmcmc.kernels`.

    Raises:
        ValueError: `thermostat_mass` is not positive; a word without D, O, B or A, or with
            U, whose exact flow needs a friction that stands still.
    """
    mass = None
    if thermostat_mass is not None:
        rate = as_rate(thermostat_mass, "thermostat_mass", above_zero=True)
        if not isinstance(rate, Constant):
            raise TypeError("thermostat_mass: got a schedule; expected a number or None")
        mass = rate.value
    flows = table(Drift(), Kick(), ThermostatDrift(mass), ThermostatFriction())
    return build(
        posterior,
        step_size,
        plan(word, flows, fractions),
        name="sgnht",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
