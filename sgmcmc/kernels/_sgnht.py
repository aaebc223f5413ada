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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

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


class ThermostatDrift(AbstractFlow):
    """D: ξ += (t/μ) (rᵀr − dT); `State.extra["thermostat"]` is ξ and what rounding took from it.

    With a mass of d the steps of ξ are of order h √(2/d), for a network far below the spacing
    of float32 near ξ: their rounding is summed and given back. ξ begins at A, which it would
    stay near without gradient noise.
    """

    mass: Array | None

    letter: ClassVar[str] = "D"
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
        return phase._replace(extra={**phase.extra, "thermostat": moved})


class ThermostatFriction(AbstractFlow):
    """O: r ← e^{−ξt} r + √(2AT t φ(−2ξt)) R, with D's ξ in the friction's place."""

    letter: ClassVar[str] = "O"
    normals: ClassVar[int] = 1
    rubs: ClassVar[bool] = True
    purpose: ClassVar[str] = "the thermostat does nothing"

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        normals = noises.to_tree(rows[0], phase.position)
        diffusion = pace.friction * pace.temperature
        momentum = thermostat_friction(
            phase.momentum, normals, t, phase.extra["thermostat"][0], diffusion
        )
        return phase._replace(momentum=momentum)


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
