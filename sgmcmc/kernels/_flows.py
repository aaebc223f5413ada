"""Flows: one small class a letter, and the four letters of which most words are made.

All take the whitened momentum r = M^{-1/2} p (see `sgmcmc.metrics`), a duration t, and rows of
standard normals. With c = e^{−γt}, metric G = L Lᵀ = M⁻¹:

    A   θ += t L r                                     drift
    B   r −= t Lᵀ ∇U                                   kick
    O   r ← c r + √(T (1 − c²)) ξ                      Ornstein-Uhlenbeck
    U   A and O together, exactly                      two normals a coordinate

Other letters are with the samplers that they were made for: Z in `_samadams`, D and the
thermostat's O in `_sgnht`, E, M and F, which are no exact flows but steps of their own, in
`_euler`, and their variants in `_sghmc` and `_psgld`.
"""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import jax.numpy as jnp
import numpy as np
from equinox import AbstractClassVar

from sgmcmc import _tree as trees
from sgmcmc._special import divide, phi_ratio, position_noise_rest
from sgmcmc.clocks._base import AbstractClock
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.noise import to_tree
from sgmcmc.types import Array, Batches, Key, PyTree


class Pace(NamedTuple):
    """What stands still during one step, read once for all its letters.

    Attributes:
        dt: () the step h (Δτ under an adaptive clock).
        friction: () γ in 1/time; 0 where the kernel is overdamped.
        temperature: () T.
        metric: the kernel's metric.
        clock: the kernel's clock, for the letter that is an adaptive clock's flow.
        step: () int32, steps made so far.
    """

    dt: Array
    friction: Array
    temperature: Array
    metric: Any
    clock: AbstractClock
    step: Array


class Phase(NamedTuple):
    """What the sub-steps of one step change, in float32 at least; `State` rounds it once.

    Attributes:
        position, momentum: θ, and the whitened momentum r = M^{-1/2} p, a pytree like θ
            (() where overdamped).
        gradient, energy: ∇U, a pytree like θ, and U, () in nats, of the last evaluation, at θ
            in the parameters' own dtypes; () and 0 before the first.
        estimator, metric, clock: what the kernel's estimator, preconditioner and adaptive
            clock remember; () without a memory.
        extra: {name: memory} of the flows that have one; it becomes `State.extra`.
        begun: θ of the `State` in which the step began, which has those dtypes.
    """

    position: PyTree
    momentum: PyTree
    gradient: PyTree
    energy: Array
    estimator: PyTree
    metric: PyTree
    clock: PyTree
    extra: dict[str, PyTree]
    begun: PyTree


# (x, p, the last normal) of an oscillator, each as coefficients over what it depends on.
Oscillator: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


class AbstractFlow(trees.ByIdentity):
    """One letter of a word. `letter` and `apply` must be given.

    `sgmcmc/kernels/README.md` adds one in ten lines; `langevin(word=…, flows=[…])` takes it.

    Attributes:
        letter: one capital, as words have it.
        normals: rows of standard normals that it uses.
        moves: whether it moves θ.
        reads_gradient: whether it reads ∇U, which is then evaluated wherever θ has moved.
        shares_gradient: of those, whether it must share the gradient of the letter beside it.
        kicks: whether it adds −t Lᵀ∇U to the momentum and does nothing else.
        rubs: whether friction acts on the momentum.
        adapts: whether it is the flow of an adaptive clock, and runs in that clock's time.
        any_metric: whether it takes metrics that change with the position.
        replaces: letters that it does the work of, beside which it cannot stand.
        cools: whether it takes the heat of gradient noise out, where that is of one size in all
            coordinates.
        purpose: what a word would lack without this letter, where it must not lack it.
        keeps_temperature: its memories whose law belongs to a temperature and not to a
            position, so that replicas which swap leave them there.
        swaps: whether its state knows of the temperature in nothing but the momentum.
        linear: whether `oscillate` has its action on an oscillator.
    """

    letter: AbstractClassVar[str]
    normals: ClassVar[int] = 0
    moves: ClassVar[bool] = False
    reads_gradient: ClassVar[bool] = False
    shares_gradient: ClassVar[bool] = False
    kicks: ClassVar[bool] = False
    rubs: ClassVar[bool] = False
    adapts: ClassVar[bool] = False
    any_metric: ClassVar[bool] = False
    replaces: ClassVar[str] = ""
    cools: ClassVar[bool] = False
    purpose: ClassVar[str] = ""
    keeps_temperature: ClassVar[tuple[str, ...]] = ()
    swaps: ClassVar[bool] = True
    linear: ClassVar[bool] = False

    @abstractmethod
    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        """The phase after a duration t.

        Args:
            phase: before.
            t: () this letter's share of the step, in units of `step_size`; under a clock that
                splits leaves a pytree of these, like θ.
            rows: (normals, d) floats, or random words; `noise.to_tree(rows[i], phase.position)`
                is a pytree of standard normals like θ.
            pace: the step's friction, temperature, metric and clock.
        """

    @property
    def batches(self) -> Batches:
        """Which streams it bears: "any" (default), "independent" or "noisy"."""
        return "any"

    def init(self, position: PyTree, friction: Array, key: Key) -> dict[str, PyTree]:
        """{name: memory} at the start; {} (default) for flows without one.

        Args:
            position: pytree of floating arrays.
            friction: () γ at step 0.
            key: consumed.
        """
        return {}

    def for_burnin(self, num_burnin: int) -> Self:
        """The flow for a run of so many steps of burn-in; itself unless it finds a number there."""
        return self

    def report(self, phase: Phase, pace: Pace) -> dict[str, Array]:
        """{field of `Info`: value} set by this flow, from the phase in which the step began."""
        return {}

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        """(x, p, last normal) after t on U = x²/2 at T = 1, where `linear`; NumPy.

        Args:
            before: x, p and the last normal, each coefficients over what they depend on.
            t: the letter's share of the step.
            g: ∇U = x where it was last evaluated, as such coefficients.
            normals: (normals, …) the coefficients of the flow's own normals.
            friction: γ.
        """
        raise NotImplementedError(f"{type(self).__name__} is not linear")


class Drift(AbstractFlow):
    """A: θ += t L r."""

    letter: ClassVar[str] = "A"
    moves: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        return phase._replace(position=drift(phase.position, phase.momentum, t, pace.metric))

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        x, p, last = before
        return x + t * p, p, last


class Kick(AbstractFlow):
    """B: r −= t Lᵀ ∇U."""

    letter: ClassVar[str] = "B"
    reads_gradient: ClassVar[bool] = True
    kicks: ClassVar[bool] = True
    purpose: ClassVar[str] = "nothing feels the gradient"
    linear: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        return phase._replace(momentum=kick(phase.momentum, phase.gradient, t, pace.metric))

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        x, p, last = before
        return x, p - t * g, last


class OrnsteinUhlenbeck(AbstractFlow):
    """O: r ← c r + √(T (1 − c²)) ξ."""

    letter: ClassVar[str] = "O"
    normals: ClassVar[int] = 1
    rubs: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        noise = to_tree(rows[0], phase.position)
        momentum = ornstein_uhlenbeck(phase.momentum, noise, t, pace.friction, pace.temperature)
        return phase._replace(momentum=momentum)

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        x, p, last = before
        c = np.exp(-friction * t)
        return x, c * p + np.sqrt(1 - c**2) * normals[0], last


class DriftWithFriction(AbstractFlow):
    """U: A and O together, exactly."""

    letter: ClassVar[str] = "U"
    normals: ClassVar[int] = 2
    moves: ClassVar[bool] = True
    rubs: ClassVar[bool] = True
    replaces: ClassVar[str] = "AO"
    linear: ClassVar[bool] = True

    def apply(self, phase: Phase, t: Array, rows: Array, pace: Pace) -> Phase:
        noise = (to_tree(rows[0], phase.position), to_tree(rows[1], phase.position))
        position, momentum = drift_with_friction(
            phase.position, phase.momentum, noise, t, pace.friction, pace.temperature, pace.metric
        )
        return phase._replace(position=position, momentum=momentum)

    def oscillate(
        self, before: Oscillator, t: float, g: np.ndarray, normals: np.ndarray, friction: float
    ) -> Oscillator:
        x, p, last = before
        if friction == 0:
            return x + t * p, p, last
        z = friction * t
        c = np.exp(-z)
        kicked = np.sqrt(1 - c**2) * normals[0]
        rest = np.sqrt(max(2 * (z - 2 * np.tanh(z / 2)), 0.0)) / friction
        x = x + (1 - c) / friction * p + np.tanh(z / 2) / friction * kicked
        return x + rest * normals[1], c * p + kicked, last


LANGEVIN: tuple[AbstractFlow, ...] = (Drift(), Kick(), OrnsteinUhlenbeck(), DriftWithFriction())


def drift(position: PyTree, momentum: PyTree, t: Array, metric: AbstractMetric) -> PyTree:
    """A: the new position."""
    return trees.axpy(t, metric.to_position(momentum), position)


def kick(momentum: PyTree, gradient: PyTree, t: Array, metric: AbstractMetric) -> PyTree:
    """B: the new momentum."""
    return trees.axpy(-t, metric.to_momentum(gradient), momentum)


def ornstein_uhlenbeck(
    momentum: PyTree, noise: PyTree, t: Array, friction: Array, temperature: Array
) -> PyTree:
    """O: the new momentum."""
    amplitude = jnp.sqrt(temperature * -jnp.expm1(-2 * friction * t))
    return trees.axpy(amplitude, noise, trees.scale(jnp.exp(-friction * t), momentum))


def drift_with_friction(
    position: PyTree,
    momentum: PyTree,
    noise: tuple[PyTree, PyTree],
    t: Array,
    friction: Array,
    temperature: Array,
    metric: AbstractMetric,
) -> tuple[PyTree, PyTree]:
    """U: the exact flow of A and O together: (position, momentum).

    The momentum's noise is drawn first; the position's is its regression on it plus an
    independent rest, a form without cancellation (`position_noise_rest`).
    """
    z = friction * t
    kicked = trees.scale(jnp.sqrt(temperature * -jnp.expm1(-2 * z)), noise[0])
    rest = t * jnp.sqrt(2 * temperature * z * position_noise_rest(z))
    shift = trees.scale(t * phi_ratio(z), momentum)
    shift = trees.axpy(t * divide(jnp.tanh(z / 2), z, 0.5), kicked, shift)
    shift = trees.axpy(rest, noise[1], shift)
    momentum = trees.add(trees.scale(jnp.exp(-z), momentum), kicked)
    return trees.add(position, metric.to_position(shift)), momentum
