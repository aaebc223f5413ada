"""Third-order schemes: over one step Langevin dynamics is an ODE shifted by three Gaussians.

W, the increment of the Brownian motion, H and K, its first two deviations from a straight
line, are independent of each other, N(0, h), N(0, h/12) and N(0, h/720) in each coordinate.
All are in the whitened coordinates of `sgmcmc.kernels._flows`; a = γh, G is the gradient,

    φ(t) = (1 − e^{−γt}) / γ,   ψ(t) = (e^{−γt} + γt − 1) / γ².

**Where a step begins.** SORT and ShOULD end with a kick h/6 by the gradient at the new
position, which is also the first gradient of the next step. As for words, the step is turned:
it begins with that gradient, closes the step before with its kick, *records there*, and goes on
with the same gradient. So there is no cache that could go stale, `init` needs no batch, both
gradients of a step are of one batch, and the step is affine where the gradient is. The
recorded position is the one at which the step began. (A cache filled by a `cond` at step 0
would cost a third gradient under `vmap`, where both branches run.)

Under minibatches none of them beats order 2 in the step size (Franzese et al. 2021, arXiv
2106.16200); what they buy is accuracy with full gradients, and strong order 3.
"""

from __future__ import annotations

from abc import abstractmethod
from math import sqrt
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc import noise as noises
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Friction, Rate, ScalarOrSchedule, as_rate
from sgmcmc._special import h_ratio, k_ratio, phi_ratio, psi_ratio
from sgmcmc.clocks._base import AbstractClock, StepSize
from sgmcmc.clocks._schedules import as_clock
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._base import Traits
from sgmcmc.kernels._flows import Pace, Phase
from sgmcmc.kernels._phases import AbstractPhaseKernel
from sgmcmc.kernels._splitting import (
    check_batches,
    check_parts,
    dynamics_traits,
    friction_rate,
    require_constant,
)
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import identity
from sgmcmc.types import Array, NoiseKind, PyTree, State


class _Noise(NamedTuple):
    """σW, σH and σK with σ = √(2γT), each a tree like the position."""

    w: PyTree
    h: PyTree
    k: PyTree


class _Flow(NamedTuple):
    """The coefficients of the linear part, over the share f of the step."""

    h: Array
    friction: Array

    def decay(self, f: float) -> Array:
        """e^{−γfh}."""
        return jnp.exp(-self.friction * f * self.h)

    def phi(self, f: float) -> Array:
        """φ(fh)."""
        return f * self.h * phi_ratio(self.friction * f * self.h)

    def psi(self, f: float) -> Array:
        """ψ(fh) / h: what an impulse hG, or σW, adds to the position."""
        return f**2 * self.h * psi_ratio(self.friction * f * self.h)


class AbstractShiftedOde(AbstractPhaseKernel):
    """What the three schemes share: the noise, and impulses hG in whitened coordinates.

    Three normals and two gradients a step.
    """

    posterior: Posterior
    clock: AbstractClock
    friction: Rate | None
    temperature: Rate
    metric: AbstractMetric
    gradient: AbstractEstimator
    name: str = eqx.field(static=True)
    noise: NoiseKind = eqx.field(static=True)

    @property
    def traits(self) -> Traits:
        # Weak order 3 asks for a normal's moments through order 7; "fast" has them through 5.
        order = 2 if self.noise == "fast" else 3
        return dynamics_traits(self.name, order, self.gradient, 2)

    @property
    def num_normals(self) -> int:
        return 3

    def _noise(self, noise: Array, phase: Phase, pace: Pace) -> _Noise:
        heat = jnp.sqrt(2 * pace.friction * pace.temperature * pace.dt)
        rows = (noises.to_tree(row, phase.position) for row in noise)
        sizes = (1.0, 1 / sqrt(12), 1 / sqrt(720))
        return _Noise(*(trees.scale(c * heat, x) for c, x in zip(sizes, rows, strict=True)))

    def _moved(self, phase: Phase, shift: PyTree) -> Phase:
        position = trees.add(phase.position, self.metric.to_position(shift))
        return phase._replace(position=position)

    def _impulse(self, phase: Phase, batch: PyTree, pace: Pace) -> tuple[PyTree, Phase]:
        """hG at the phase's position."""
        phase = self.evaluated(phase, batch)
        return trees.scale(pace.dt, self.metric.to_momentum(phase.gradient)), phase


class AbstractSort(AbstractShiftedOde):
    """The frame of SORT and ShOULD, which differ in how the noise enters."""

    @property
    def swaps(self) -> bool:
        # The bridge's noise of the step before is still in the momentum at the record.
        return False

    @abstractmethod
    def _whole(
        self, flow: _Flow, momentum: PyTree, first: PyTree, second: PyTree, bridge: _Noise
    ) -> tuple[PyTree, PyTree]:
        """The step's shift of the position, and the momentum before its closing kick."""

    def phases(self, noise: Array, state: State, batch: PyTree) -> tuple[Phase, Phase]:
        """Where the step before ends, which is recorded, and where this one stands at last."""
        pace, phase = self.pace(state), self.begin(state)
        flow = _Flow(pace.dt, pace.friction)
        first, phase = self._impulse(phase, batch, pace)
        end = phase._replace(momentum=trees.axpy(-1 / 6, first, phase.momentum))
        bridge = self._noise(noise, phase, pace)
        shifted = _sum((1, end.momentum), (1, bridge.h), (6, bridge.k))
        push = _sum((1, bridge.w), (-12, bridge.k), (-1, first))
        half = _sum((flow.phi(0.5), shifted), (flow.psi(0.5), push))
        second, middle = self._impulse(self._moved(end, half), batch, pace)
        shift, momentum = self._whole(flow, end.momentum, first, second, bridge)
        after = self._moved(middle._replace(position=end.position), shift)
        return end, after._replace(momentum=momentum)


class Sort(AbstractSort):
    """The scheme SORT."""

    def _whole(
        self, flow: _Flow, momentum: PyTree, first: PyTree, second: PyTree, bridge: _Noise
    ) -> tuple[PyTree, PyTree]:
        """The step's shift of the position, and the momentum before its closing kick."""
        shifted = _sum((1, momentum), (1, bridge.h), (6, bridge.k))
        delta = _sum((1, bridge.w), (-12, bridge.k))
        push = _sum((1, delta), (-1 / 3, first), (-2 / 3, second))
        shift = _sum((flow.phi(1.0), shifted), (flow.psi(1.0), push))
        return shift, _sum(
            (flow.decay(1.0), shifted),
            (-flow.decay(1.0) / 6, first),
            (-2 * flow.decay(0.5) / 3, second),
            (phi_ratio(flow.friction * flow.h), delta),
            (-1, bridge.h),
            (6, bridge.k),
        )


class Should(AbstractSort):
    """The scheme ShOULD: noise enters as the linear flow's regression on W, H and K."""

    def _whole(
        self, flow: _Flow, momentum: PyTree, first: PyTree, second: PyTree, bridge: _Noise
    ) -> tuple[PyTree, PyTree]:
        a = flow.friction * flow.h
        bent = _sum((flow.h * h_ratio(a), bridge.h), (flow.h * k_ratio(a), bridge.k))
        push = _sum((1, bridge.w), (-1 / 3, first), (-2 / 3, second))
        shift = _sum((flow.phi(1.0), momentum), (flow.psi(1.0), push), (1, bent))
        return shift, _sum(
            (flow.decay(1.0), momentum),
            (-flow.decay(1.0) / 6, first),
            (-2 * flow.decay(0.5) / 3, second),
            (phi_ratio(a), bridge.w),
            (-flow.friction, bent),
        )


class Quicsort(AbstractShiftedOde):
    """The scheme QUICSORT: gradients at the two Gauss nodes, none at the ends."""

    def phases(self, noise: Array, state: State, batch: PyTree) -> tuple[Phase, Phase]:
        """(end, end): the step ends in the phase that is recorded."""
        left, right = 0.5 - sqrt(3) / 6, 0.5 + sqrt(3) / 6
        pace, start = self.pace(state), self.begin(state)
        flow = _Flow(pace.dt, pace.friction)
        bridge = self._noise(noise, start, pace)
        shifted = _sum((1, start.momentum), (1, bridge.h), (6, bridge.k))
        delta = _sum((1, bridge.w), (-12, bridge.k))

        def drifted(f: float) -> PyTree:
            return _sum((flow.phi(f), shifted), (flow.psi(f), delta))

        first, phase = self._impulse(self._moved(start, drifted(left)), batch, pace)
        node = _sum((1, drifted(right)), (-flow.phi(1 / 3), first))
        phase = self._moved(phase._replace(position=start.position), node)
        second, phase = self._impulse(phase, batch, pace)
        shift = _sum(
            (1, drifted(1.0)), (-flow.phi(right) / 2, first), (-flow.phi(left) / 2, second)
        )
        momentum = _sum(
            (flow.decay(1.0), shifted),
            (-flow.decay(right) / 2, first),
            (-flow.decay(left) / 2, second),
            (phi_ratio(flow.friction * flow.h), delta),
            (-1, bridge.h),
            (6, bridge.k),
        )
        after = self._moved(phase._replace(position=start.position), shift)
        after = after._replace(momentum=momentum)
        return after, after


def _sum(*terms: tuple[Array | float, PyTree]) -> PyTree:
    """Σ a x over the terms (a, x)."""
    (a, x), *rest = terms
    total = x if isinstance(a, int) and a == 1 else trees.scale(a, x)
    for a, x in rest:
        total = trees.axpy(a, x, total)
    return total


def sort(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> AbstractShiftedOde:
    """SORT (Foster, Lyons and Oberhauser 2021, arXiv 2101.03446), two gradients a step.

    Order 3, weakly and strongly, with full gradients; on Gaussians ⟨x²⟩ is off by O(h⁴), stable
    to h √k < 4.33 at γ = 1. A step begins at its first gradient, which also closes the step
    before; it is there that the position is recorded, so that no gradient is kept from one step
    to the next. Three normals a coordinate. `noise="fast"` keeps covariances, but not order 3:
    `traits.order` is then 2.

    Arguments: see `sgmcmc.kernels`.
    """
    return _third_order(
        posterior,
        step_size,
        kind=Sort,
        name="sort",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def should(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> AbstractShiftedOde:
    """ShOULD (Foster, Lyons and Oberhauser 2021, arXiv 2101.03446), two gradients a step.

    SORT with its noise entering as the exact flow's best guess from W, H and K. Order 3, weakly
    and strongly, with full gradients; on Gaussians ⟨x²⟩ is off by O(h⁴), stable to h √k < 4.33 at
    γ = 1. Recorded where its step begins, as SORT is. Three normals a coordinate.
    `noise="fast"` keeps covariances, but not order 3: `traits.order` is then 2.

    Arguments: see `sgmcmc.kernels`.
    """
    return _third_order(
        posterior,
        step_size,
        kind=Should,
        name="should",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def quicsort(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> AbstractShiftedOde:
    """QUICSORT (2025, arXiv 2508.16485), two gradients a step.

    Gradients at the two Gauss nodes of the step, none at its ends. Order 3, weakly and strongly,
    with full gradients; on Gaussians ⟨x²⟩ is off by O(h³), stable to h √k < 3.40 at γ = 1. Three
    normals a coordinate. `noise="fast"` keeps covariances, but not order 3: `traits.order` is
    then 2.

    Arguments: see `sgmcmc.kernels`.
    """
    return _third_order(
        posterior,
        step_size,
        kind=Quicsort,
        name="quicsort",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def _third_order(
    posterior: Posterior,
    step_size: StepSize,
    *,
    kind: type[AbstractShiftedOde],
    name: str,
    friction: Friction,
    temperature: ScalarOrSchedule,
    metric: AbstractMetric,
    gradient: AbstractEstimator,
    noise: NoiseKind,
) -> AbstractShiftedOde:
    check_parts(posterior, metric, gradient, noise)
    require_constant(metric)
    check_batches(gradient, 2, 1)
    return kind(
        posterior=posterior,
        clock=as_clock(step_size),
        friction=friction_rate(friction, step_size),
        temperature=as_rate(temperature, "temperature"),
        metric=metric,
        gradient=gradient,
        name=name,
        noise=noise,
    )
