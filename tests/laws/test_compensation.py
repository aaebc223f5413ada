"""SGHMC less the noise of its gradient: exact laws, and an estimate that sees no batch early."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import metrics
from sgmcmc.diagnostics import stationary_law
from sgmcmc.kernels._sghmc import CompensatedFriction
from tests.laws import oracle, samplers


def moments(kernel, batches=None):
    law = stationary_law(kernel, jnp.zeros(1), batches)
    parts = (law.covariance, law.momentum_covariance, law.cross_covariance)
    return np.concatenate([part.ravel() for part in parts])


def test_what_is_taken_off_is_what_the_gradient_adds():
    """With V̂ = V = 1 the exact law is that of V = V̂ = 0, whatever the metric."""
    posterior, batches = samplers.noisy_harmonic()
    compensated = sgmcmc.sghmc(posterior, 0.2, noise_estimate=1.0)
    np.testing.assert_allclose(
        moments(compensated, batches), oracle.moments("sghmc", 0.2), atol=1e-12
    )
    plain = sgmcmc.sghmc(posterior, 0.2)
    assert abs(moments(plain, batches)[0] - 1.01123596 - 0.10112360) < 1e-8
    assert abs(moments(compensated, [sgmcmc.Batch(jnp.zeros(1))])[0] - 1) > 0.05
    options = {"metric": metrics.diagonal(0.7), "friction": 1.3, "temperature": 1.8}
    np.testing.assert_allclose(
        moments(sgmcmc.sghmc(posterior, 0.2, noise_estimate=1.0, **options), batches),
        moments(sgmcmc.sghmc(samplers.harmonic(), 0.2, **options)),
        atol=1e-12,
    )


def test_each_coordinate_has_its_own_estimate():
    """A pytree of V̂, scaled by a pytree of metrics, is taken off coordinate by coordinate."""
    posterior = sgmcmc.Posterior(_tilts, _standard, data_size=1)
    deviations = jnp.array([1.0, 0.5])
    batches = [
        sgmcmc.Batch(deviations * jnp.array([[a, b]])) for a in (-1.0, 1.0) for b in (-1.0, 1.0)
    ]
    for metric in (metrics.identity(), metrics.diagonal(jnp.array([0.8, 1.3]))):
        kernel = sgmcmc.sghmc(posterior, 0.2, metric=metric, noise_estimate=deviations**2)
        law = stationary_law(kernel, jnp.zeros(2), batches)
        plain = sgmcmc.sghmc(samplers.harmonic(), 0.2, metric=metric)
        wanted = stationary_law(plain, jnp.zeros(2))
        np.testing.assert_allclose(law.covariance, wanted.covariance, atol=1e-12)
        np.testing.assert_allclose(law.momentum_covariance, wanted.momentum_covariance, atol=1e-12)


def test_the_running_estimate_finds_the_variance():
    """V̂ settles at V (1 + h²) + h²⟨p²⟩/2, V = 4, and ⟨x²⟩ is what the exact law says for it.

    Uncompensated it would be 1.416. 2,000 chains, five standard errors and .01, for the
    fluctuation of V̂ about its mean.
    """
    posterior = sgmcmc.Posterior(_tilts, _standard, data_size=1)
    kernel = sgmcmc.sghmc(
        posterior, 0.2, friction=1.0, noise_estimate=sgmcmc.gradients.running_variance(0.99)
    )
    state = kernel.init(jax.random.normal(jax.random.key(0), (2_000,)), jax.random.key(1))
    squares, variance, clipped = (np.asarray(x) for x in _averages(kernel, state, 2.0, 1_000))
    mcse = squares.std() / np.sqrt(len(squares))
    wanted = 1.01123596 - 0.10112360 * (variance.mean() - 4)
    assert abs(squares.mean() - wanted) < 5 * mcse + 0.01 < 0.05
    error = variance.std() / np.sqrt(len(variance))
    assert abs(variance.mean() - (4 * 1.04 + 0.02 * 1.12)) < 5 * error + 0.01
    assert clipped == 0


def test_too_much_noise_is_clipped_and_reported():
    """Where h V̂ > 2γT no noise is injected, and `Info.clipped` is the share of coordinates."""
    target = samplers.harmonic()
    slow = sgmcmc.sghmc(target, 0.2, noise_estimate=jnp.array([1.0, 9.0, 11.0, 40.0]) / 10)
    kernel = dataclasses.replace(slow, friction=sgmcmc.clocks.as_rate(0.1, "friction"))
    state = kernel.init(jnp.zeros(4), jax.random.key(0))
    state = state._replace(momentum=jnp.zeros(4))
    following, info = kernel.drive(jnp.ones((1, 4)), state, None)
    assert float(info.clipped) == 0.5
    wanted = np.sqrt(np.maximum(0.04 - 0.04 * np.array([0.1, 0.9, 1.1, 4.0]), 0))
    np.testing.assert_allclose(following.momentum, wanted, atol=1e-12)
    assert sgmcmc.sghmc(target, 0.2).step(jax.random.key(1), state, None)[1].clipped is None


def check_estimate_is_older_than_the_batch(kernel):
    """The size of a step's noise depends on the batches before, and not on its own."""

    def spread(batches):
        state = kernel.init(jnp.zeros(1), jax.random.key(0))
        for value in batches[:-1]:
            state, _ = kernel.drive(jnp.zeros((1, 1)), state, sgmcmc.Batch(jnp.array([[value]])))
        last = sgmcmc.Batch(jnp.array([[batches[-1]]]))
        momenta = [kernel.drive(z * jnp.ones((1, 1)), state, last)[0].momentum for z in (0.0, 1.0)]
        return float((momenta[1] - momenta[0])[0])

    assert spread([0.5, -0.5, 0.1]) != spread([0.9, -0.5, 0.1])
    np.testing.assert_allclose(spread([0.5, -0.5, 0.1]), spread([0.5, -0.5, 2.0]), rtol=1e-12)


class SameBatch(CompensatedFriction):
    """Estimates V̂ with the gradient whose noise it is taken for."""

    def apply(self, phase, t, rows, pace):
        seen = self.estimate.update(phase.extra["noise_estimate"], phase.gradient)
        knowing = phase._replace(extra={"noise_estimate": seen})
        return super().apply(knowing, t, rows, pace)._replace(extra=knowing.extra)


def test_the_estimate_does_not_know_the_batch_it_corrects():
    """V̂ of a step is made of earlier gradients; one made with its own fails the check."""
    posterior = sgmcmc.Posterior(_tilts, _standard, data_size=1)
    kernel = sgmcmc.sghmc(posterior, 0.2, noise_estimate=sgmcmc.gradients.running_variance(0.5))
    check_estimate_is_older_than_the_batch(kernel)
    flows = {**kernel.flows, "F": SameBatch(kernel.flows["F"].estimate)}
    with pytest.raises(AssertionError):
        check_estimate_is_older_than_the_batch(dataclasses.replace(kernel, flows=flows))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"noise_estimate": 11.0}, ValueError, r"noise_estimate: h V̂ = 2.2 > 2γT = 2"),
        ({"noise_estimate": -1.0}, ValueError, "noise_estimate: .* finite and ≥ 0, got -1.0"),
        ({"noise_estimate": np.nan}, ValueError, "noise_estimate: .* finite and ≥ 0"),
        ({"noise_estimate": "running"}, TypeError, "noise_estimate: got 'running'; expected None"),
        ({"noise_estimate": {}}, TypeError, "noise_estimate: got {}"),
        ({"noise_estimate": 1.0, "metric": metrics.dense(np.eye(2))}, ValueError,
         "metric: got dense; noise_estimate"),
        ({"noise_estimate": 6.0, "metric": metrics.diagonal(2.0)}, ValueError, r"h V̂ = 4.8 > 2γT"),
        ({"noise_estimate": 6.0, "metric": metrics.diagonal({"a": jnp.array([2.0, 0.1])})},
         ValueError, r"h V̂ = 4.8 > 2γT"),
        ({"noise_estimate": 1.0, "temperature": 0.0}, ValueError, "> 2γT = 0"),
    ],
)  # fmt: skip
def test_bad_estimates_are_refused(options, error, message):
    """V̂ out of range, of the wrong kind, or too large for the friction, is named."""
    with pytest.raises(error, match=message):
        sgmcmc.sghmc(samplers.harmonic(), 0.2, **options)
    with pytest.raises(ValueError, match=r"decay: got 1.0"):
        sgmcmc.gradients.running_variance(1.0)


def test_an_estimate_of_another_shape_is_refused():
    """V̂ must fit the parameters, leaf by leaf."""
    kernel = sgmcmc.sghmc(samplers.harmonic(), 0.2, noise_estimate=jnp.ones(3))
    with pytest.raises(ValueError, match="noise_estimate: leaf"):
        kernel.init(jnp.zeros(2), jax.random.key(0))


@eqx.filter_jit
def _averages(kernel, state, deviation, steps):
    """Time averages of x², V̂ and the clipped share, the first half left out."""

    def one_step(t, carry):
        state, sums = carry
        keys = jax.random.split(jax.random.fold_in(jax.random.key(2), t))
        noise = deviation * jax.random.normal(keys[1], (1, state.position.shape[0]))
        state, info = kernel.step(keys[0], state, sgmcmc.Batch(noise))
        values = (info.position**2, state.extra["noise_estimate"].variance, info.clipped)
        counts = jnp.where(2 * t >= steps, 2 / steps, 0.0)
        return state, jax.tree.map(lambda s, v: s + counts * v, sums, values)

    zero = jnp.zeros_like(state.position)
    sums = (zero, zero, jnp.zeros(()))
    return jax.lax.fori_loop(0, steps, one_step, (state, sums))[1]


def _standard(x):
    return -0.5 * jnp.sum(x**2)


def _tilts(x, examples):
    return examples @ x
