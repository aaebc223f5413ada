"""Defects of sweeps and of third-order schemes: each must fail the check of the right one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import _tree as trees
from sgmcmc import streams
from sgmcmc.diagnostics import stationary_law, sweeps
from sgmcmc.kernels import _shifted_ode as shifted_ode
from tests.defects.test_defects import CENTRES, STIFFNESS, as_a, must_fail
from tests.laws import samplers

pytestmark = pytest.mark.usefixtures("x64")  # laws are compared to ten digits


def check_symmetric_law(epochs):
    """UBU's bias under symmetric sweeps of four quadratics at h = .1 is the printed one."""
    posterior, batches = samplers.quadratics(STIFFNESS, CENTRES)
    kernel = sgmcmc.ubu(posterior, 0.1)
    law = stationary_law(kernel, jnp.zeros(1), batches, epochs=epochs)
    np.testing.assert_allclose(law.covariance[0, 0] - 1, -2.858e-3, atol=5.01e-7)


def check_symmetric_stream(stream):
    """Each epoch goes through six examples, two at a time, and back the way it came."""
    for epoch in range(5):
        made = [
            streams.rows_at(stream, jax.random.key(3), jnp.asarray(6 * epoch + j), 6, 2).index
            for j in range(6)
        ]
        np.testing.assert_array_equal(made, made[::-1])
        assert sorted(np.concatenate(made[:3]).tolist()) == list(range(6))


def test_backward_sweep_not_reversed():
    """A second sweep in the order of the first fails the law, and the stream's own check."""
    right = sweeps("symmetric", 4)
    check_symmetric_law(right)
    forward = [epoch[:4] for epoch in right]
    must_fail(check_symmetric_law, [order + order for order in forward])
    # Nor will the turn do that does not use its batch twice, or a fixed order.
    must_fail(check_symmetric_law, [order + order[-2::-1] for order in forward])
    must_fail(check_symmetric_law, right[:1])

    def forward_twice(order, key, counter, data_size, batch_size):
        return streams.reshuffled().rows(order, key, counter, data_size, batch_size)

    check_symmetric_stream(streams.symmetric())
    must_fail(check_symmetric_stream, streams.symmetric()._replace(rows=forward_twice))


THIRD_ORDER = {  # ⟨x²⟩ − 1, ⟨p²⟩ − 1, ⟨xp⟩ on the oscillator at h = .2
    "sort": (2.159e-6, -9.549e-5, -4.304e-6),
    "should": (-2.253e-6, -1.041e-4, 1.228e-7),
    "quicsort": (-1.025e-5, -1.284e-4, 5.634e-5),
}


def check_third_order_law(name, kernel):
    law = stationary_law(kernel, jnp.zeros(1))
    parts = (law.covariance - 1, law.momentum_covariance - 1, law.cross_covariance)
    got = np.concatenate([part.ravel() for part in parts])
    np.testing.assert_allclose(got, THIRD_ORDER[name], rtol=5.1e-4)


class StaleFirst:
    """Begins with the gradient at the last step's midpoint, kept from there."""

    def init(self, position, rng_key, data=None):
        state = super().init(position, rng_key, data)
        return state._replace(extra={"stale": trees.zeros_like(state.position)})

    def evaluated(self, phase, batch):
        after = super().evaluated(phase, batch)
        if not isinstance(phase.gradient, tuple):  # the second gradient of the step
            return after._replace(extra={"stale": after.gradient})
        return after._replace(gradient=phase.extra["stale"])


class StaleSort(StaleFirst, shifted_ode.Sort):
    pass


class StaleShould(StaleFirst, shifted_ode.Should):
    pass


@pytest.mark.parametrize(("name", "kind"), [("sort", StaleSort), ("should", StaleShould)])
def test_stale_first_gradient_of_the_third_order_schemes(name, kind):
    """A first gradient from another position than the step's beginning fails the law."""
    kernel = getattr(sgmcmc, name)(samplers.harmonic(), 0.2)
    check_third_order_law(name, kernel)
    must_fail(check_third_order_law, name, as_a(kind, kernel))


class SwappedRows:
    """H and K with each other's variance."""

    def _noise(self, noise, phase, pace):
        bridge = super()._noise(noise, phase, pace)
        ratio = np.sqrt(720 / 12)
        return bridge._replace(h=trees.scale(1 / ratio, bridge.h), k=trees.scale(ratio, bridge.k))


class SwappedQuicsort(SwappedRows, shifted_ode.Quicsort):
    pass


class SwappedSort(SwappedRows, shifted_ode.Sort):
    pass


@pytest.mark.parametrize(("name", "kind"), [("quicsort", SwappedQuicsort), ("sort", SwappedSort)])
def test_wrong_law_of_the_increments(name, kind):
    """Var H and Var K exchanged fail the law."""
    kernel = getattr(sgmcmc, name)(samplers.harmonic(), 0.2)
    check_third_order_law(name, kernel)
    must_fail(check_third_order_law, name, as_a(kind, kernel))


def test_closing_kick_dropped():
    """SORT without the kick h/6 that closes a step fails the law."""

    class Unclosed(shifted_ode.Sort):
        def phases(self, noise, state, batch):
            end, after = super().phases(noise, state, batch)
            gradient = self.evaluated(self.begin(state), batch).gradient
            lost = trees.scale(self.pace(state).dt / 6, gradient)
            return end, after._replace(momentum=trees.add(after.momentum, lost))

    kernel = sgmcmc.sort(samplers.harmonic(), 0.2)
    must_fail(check_third_order_law, "sort", as_a(Unclosed, kernel))
