"""Defects injected into adaptive kernels: two steps written out in NumPy must tell each.

The oracle is the scheme as printed, Z(½) BAOAB Z(½) with dt = ψ(ζ) Δτ, in its own order of
letters, against the kernel's rotated one; and SA-SGLD's. Times, weights and positions count.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import clocks
from sgmcmc.kernels._euler import EulerStep
from sgmcmc.kernels._flows import Kick, OrnsteinUhlenbeck
from sgmcmc.kernels._samadams import ClockFlow

pytestmark = pytest.mark.usefixtures("x64")

TAU, ALPHA, M_LOW, M_HIGH = 0.1, 2.0, 0.25, 4.0
CLOCK = clocks.adaptive(
    TAU, alpha=ALPHA, shortest=M_LOW, longest=M_HIGH, power=1.0, scale=1.0, start=0.7
)
NOISE = np.array([[[0.3, -1.1]], [[-0.8, 0.5]], [[1.4, 0.2]]])
START, MOMENTUM = np.array([0.9, -1.3]), np.array([0.4, 0.6])


def quartic(x):
    return -jnp.sum(x**4) / 4


TARGET = sgmcmc.Posterior.from_log_density(quartic)


def psi(zeta):
    return M_LOW * (zeta + M_HIGH) / (zeta + M_LOW)


def relax(zeta, gradient, t):
    stay = np.exp(-ALPHA * t)
    return stay * zeta + (1 - stay) / ALPHA * np.sum(gradient**2)


def zbaoabz():
    """(position, weight, dt) after each step; the kernel begins after the first Z and B."""
    x, p, zeta, made = START, MOMENTUM, 0.7, []
    for noise in NOISE[:, 0]:
        dt = psi(zeta) * TAU
        x = x + dt / 2 * p
        c = np.exp(-dt)
        p = c * p + np.sqrt(1 - c**2) * noise
        x = x + dt / 2 * p
        p = p - dt / 2 * x**3
        zeta = relax(zeta, x**3, TAU / 2)
        made.append((x, psi(zeta), dt))
        zeta = relax(zeta, x**3, TAU / 2)
        p = p - psi(zeta) * TAU / 2 * x**3
    return made


def sa_sgld():
    x, zeta, made = START, 0.7, []
    for noise in NOISE[:, 0]:
        zeta = relax(zeta, x**3, TAU)
        dt = psi(zeta) * TAU
        made.append((x, psi(zeta), dt))
        x = x - dt * x**3 + np.sqrt(2 * dt) * noise
    return made


def agrees(kernel, oracle):
    state = kernel.init(jnp.asarray(START), jax.random.key(0))
    if kernel.friction is not None:
        state = state._replace(momentum=jnp.asarray(MOMENTUM))
    for noise, (x, weight, dt) in zip(NOISE, oracle(), strict=True):
        state, info = kernel.drive(jnp.asarray(noise), state, None)
        same = [
            np.allclose(made, wanted, rtol=1e-6)
            for made, wanted in ((info.position, x), (info.weight, weight), (info.time, dt))
        ]
        if not all(same):
            return False
    return True


KERNELS = {"samadams": (sgmcmc.samadams(TARGET, CLOCK), zbaoabz),
           "sa_sgld": (sgmcmc.sa_sgld(TARGET, CLOCK), sa_sgld)}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_are_the_printed_schemes(name):
    assert agrees(*KERNELS[name])


class NoWeights(clocks.AdaptiveClock):
    def account(self, before, memory, overdamped):
        time, weight = super().account(before, memory, overdamped)
        return time, jnp.ones_like(weight)


class LastWeight(clocks.AdaptiveClock):
    """The dt of the step that led here, in the place of the one that belongs to the draw."""

    def account(self, before, memory, overdamped):
        time, _ = super().account(before, memory, overdamped)
        return time, self.weight(before.memory)


class Twice(ClockFlow):
    def apply(self, phase, t, rows, pace):
        return super().apply(super().apply(phase, t, rows, pace), t, rows, pace)


def plain_noise(kind):
    """A flow of `kind` under which ψ rescales the drift, and not the noise."""

    class PlainNoise(kind):
        def apply(self, phase, t, rows, pace):
            silent = super().apply(phase, t, jnp.zeros_like(rows), pace)
            loud = super().apply(phase, t, rows, pace)
            scale = 1 / jnp.sqrt(pace.clock.factor(phase.clock))
            spread = lambda quiet, noisy: jax.tree.map(  # noqa: E731
                lambda x, y: x + scale * (y - x), quiet, noisy
            )
            return silent._replace(
                momentum=spread(silent.momentum, loud.momentum),
                position=spread(silent.position, loud.position),
            )

    return PlainNoise()


class EarlyKick(Kick):
    """The last B of a step takes the next step's dt too early: ζ moves before it."""

    def apply(self, phase, t, rows, pace):
        moved = pace.clock.flow(phase.clock, phase.gradient, 0.5 * pace.dt)
        share = pace.clock.factor(moved) / pace.clock.factor(phase.clock)
        return super().apply(phase, share * t, rows, pace)


def with_clock(kind):
    fields = {f.name: getattr(CLOCK, f.name) for f in dataclasses.fields(CLOCK)}
    return lambda kernel: dataclasses.replace(kernel, clock=kind(**fields))


def with_flow(flow):
    flows = lambda kernel: {**kernel.flows, flow.letter: flow}  # noqa: E731
    return lambda kernel: dataclasses.replace(kernel, flows=flows(kernel))


COMMON = {
    "no weights": with_clock(NoWeights),
    "last weight": with_clock(LastWeight),
    "ζ twice": with_flow(Twice()),
}
DEFECTS = {
    "samadams": COMMON
    | {
        "plain noise": with_flow(plain_noise(OrnsteinUhlenbeck)),
        "early kick": with_flow(EarlyKick()),
    },
    "sa_sgld": COMMON | {"plain noise": with_flow(plain_noise(EulerStep))},
}


@pytest.mark.parametrize(
    ("name", "defect"), [(name, defect) for name in KERNELS for defect in DEFECTS[name]]
)
def test_defects_are_seen(name, defect):
    """Weights dropped or of another step, ζ moved twice, ψ on the drift alone, B's dt."""
    kernel, oracle = KERNELS[name]
    assert not agrees(DEFECTS[name][defect](kernel), oracle)
