"""pSGLD: its Γ, and its law with and without it, on N(0, 1) by quadrature (F21).

Where G depends on the position alone a step is a Markov chain on the line with Gaussian
transitions. Their stationary law is computed on a grid, with no sampling.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import sgmcmc
from sgmcmc import metrics
from sgmcmc.diagnostics import stationary_law
from sgmcmc.metrics._position_dependent import PositionDependent, jacobian_diagonal
from tests.laws import samplers

GRID = np.linspace(-7.5, 7.5, 1201)


def stationary_density(kernel):
    """The law of a one-dimensional kernel with the normal noise of one row, on GRID."""

    def move(x, noise):
        state = kernel.init(x[None], jax.random.key(0))
        return kernel.drive(noise * jnp.ones((1, 1)), state, None)[0].position[0]

    moved = jax.jit(jax.vmap(move, (0, None)))
    mean = np.asarray(moved(jnp.asarray(GRID), 0.0))
    spread = np.asarray(moved(jnp.asarray(GRID), 1.0)) - mean
    # The quadrature is exact to rounding while a step is wider than the grid.
    assert spread.min() > 1.5 * (GRID[1] - GRID[0])
    step = np.exp(-0.5 * ((GRID[None] - mean[:, None]) / spread[:, None]) ** 2)
    step /= step.sum(axis=1, keepdims=True)
    # π P = π and Σ π = 1, one equation of which is redundant.
    system = step.T - np.eye(len(GRID))
    system[0] = 1
    return np.linalg.solve(system, np.eye(len(GRID))[0])


def toy(h, gamma):
    metric = metrics.position_dependent(_bowl, gamma=gamma)
    return sgmcmc.psgld(samplers.harmonic(), h, metric=metric)


@pytest.mark.parametrize(
    ("h", "plain", "weighted", "corrected"),
    [(0.1, 2.0635, 1.0173, 1.0863), (0.05, 2.0309, 1.0084, 1.0421), (0.02, 2.0103, 1.0042, 1.0163)],
)
def test_the_law_of_a_position_dependent_metric(h, plain, weighted, corrected):
    """G = 1/(1 + x²): ⟨x²⟩ without Γ, the same weighted by G, and with Γ, as printed."""
    density = stationary_density(toy(h, gamma=False))
    assert abs(density @ GRID**2 - plain) < 0.005
    weights = density / (1 + GRID**2)
    assert abs(weights @ GRID**2 / weights.sum() - weighted) < 0.005
    density = stationary_density(toy(h, gamma=True))
    assert abs(density @ GRID**2 - corrected) < 0.005


def test_gamma_makes_the_law_right_and_its_absence_wrong():
    """As h → 0 ⟨x²⟩ − 1 vanishes in proportion to h with Γ, and is 1 without it."""
    steps = (0.05, 0.025, 0.0125)
    right = [stationary_density(toy(h, gamma=True)) @ GRID**2 - 1 for h in steps]
    wrong = [stationary_density(toy(h, gamma=False)) @ GRID**2 - 1 for h in steps]
    assert abs(np.log2(right[1] / right[2]) - 1) < 0.05
    assert abs(2 * right[2] - right[1]) < 2e-3
    assert abs(2 * wrong[2] - wrong[1] - 1) < 2e-3


class WrongGamma(PositionDependent):
    """−Γ in the place of Γ."""

    def evaluate(self, *args):
        scale, gamma, memory = super().evaluate(*args)
        return scale, jax.tree.map(jnp.negative, gamma), memory


def test_gamma_of_the_wrong_sign_is_seen():
    """−Γ in the place of Γ fails the figure by far."""
    kernel = toy(0.02, gamma=True)
    kernel = dataclasses.replace(kernel, metric=WrongGamma(kernel.metric.function, True))
    assert abs(stationary_density(kernel) @ GRID**2 - 1.0163) > 0.5


def bent(epsilon, power):
    """⟨x²⟩ of (ε + |x|)^power e^{−x²/2}."""
    density = (epsilon + np.abs(GRID)) ** power * np.exp(-(GRID**2) / 2)
    return density @ GRID**2 / density.sum()


@pytest.mark.parametrize(
    ("epsilon", "gamma", "tolerance"), [(1.0, False, 1e-3), (1.0, True, 1e-3), (0.1, False, 5e-3)]
)
def test_rmsprop_without_memory(epsilon, gamma, tolerance):
    """At a = 0 and h → 0, extrapolated: the law of (ε + |x|) e^{−x²/2}, and N(0, 1) with Γ."""
    metric = metrics.rmsprop(decay=0.0, epsilon=epsilon, gamma=gamma)
    coarse, fine = (
        stationary_density(sgmcmc.psgld(samplers.harmonic(), h, metric=metric)) @ GRID**2
        for h in (0.01, 0.005)
    )
    assert abs(2 * fine - coarse - bent(epsilon, 0 if gamma else 1)) < tolerance


def test_the_printed_limit_of_rmsprop():
    """At ε = .1 the law without Γ has ⟨x²⟩ = 1.8886."""
    assert abs(bent(0.1, 1) - 1.8886) < 5e-5


def test_a_constant_metric_leaves_the_law_alone():
    """With G = s² constant the exact law is that of `sgld` with diagonal(s), Γ is 0."""
    scale = jnp.array([0.5, 1.2])
    metric = metrics.position_dependent(jax.tree_util.Partial(_constant, scale**2))
    got = stationary_law(sgmcmc.psgld(samplers.harmonic(), 0.2, metric=metric), jnp.zeros(2))
    plain = sgmcmc.sgld(samplers.harmonic(), 0.2, metric=metrics.diagonal(scale))
    wanted = stationary_law(plain, jnp.zeros(2))
    np.testing.assert_allclose(got.covariance, wanted.covariance, atol=1e-12)


def test_a_frozen_metric_is_a_constant_one():
    """After `freeze_after` steps V stands still, Γ is 0, and steps are those of `sgld`."""
    metric = metrics.rmsprop(decay=0.5, epsilon=0.1, freeze_after=3)
    kernel = sgmcmc.psgld(samplers.harmonic(2.0), 0.1, metric=metric)
    state = kernel.init(jnp.array([1.0, -0.3]), jax.random.key(0))
    for t in range(3):
        before = state.metric.square
        state, _ = kernel.step(jax.random.key(t + 1), state, None)
        assert not np.array_equal(before, state.metric.square)
    square = state.metric.square
    scale = jnp.sqrt(1 / (0.1 + jnp.sqrt(square)))
    plain = sgmcmc.sgld(samplers.harmonic(2.0), 0.1, metric=metrics.diagonal(scale))
    other = plain.init(state.position, jax.random.key(0))
    for t in range(3):
        noise = kernel.draw(jax.random.key(t + 10), state)
        state, _ = kernel.drive(noise, state, None)
        other, _ = plain.drive(noise, other, None)
        np.testing.assert_allclose(state.position, other.position, rtol=1e-13)
    np.testing.assert_array_equal(state.metric.square, square)


def test_gamma_is_the_derivative_of_the_metric():
    """Γ of `rmsprop` is ∂G_i/∂θ_i at the V before, for a gradient that couples parameters."""
    target = sgmcmc.Posterior.from_log_density(_coupled)
    position = {"a": jnp.array([0.3, -0.8]), "b": jnp.array(0.5)}
    flat, unravel = ravel_pytree(position)
    metric = metrics.rmsprop(decay=0.7, epsilon=0.2)

    def slope(x):
        return target.potential_and_gradient(x)[1]

    def evaluate(x, memory):
        scale, gamma, memory = metric.evaluate(slope, unravel(x), slope(unravel(x)), memory)
        return ravel_pytree(scale)[0], (ravel_pytree(gamma)[0], memory)

    @jax.jit
    def compare(x):
        # V of four gradients, more than 1/(1 − a).
        memory = metric.init(position)
        for shift in (0.0, 0.02, 0.04, 0.06):
            memory = evaluate(x + shift, memory)[1][1]
        slopes, (gamma, _) = jax.jacfwd(evaluate, has_aux=True)(x + 0.1, memory)
        hessian = jax.hessian(lambda y: target.potential(unravel(y)))(x)
        diagonal = ravel_pytree(jacobian_diagonal(slope, unravel(x)))[0]
        return jnp.diag(slopes), gamma, jnp.diag(hessian), diagonal

    wanted, gamma, hessian, diagonal = compare(flat)
    np.testing.assert_allclose(gamma, wanted, rtol=1e-10)
    np.testing.assert_allclose(diagonal, hessian, rtol=1e-12)


def test_gamma_uses_the_batch_of_its_gradient():
    """With minibatches Γ holds the derivative of the very estimate g, not of another."""
    posterior, batches = samplers.quadratics([0.5, 2.0], [0.0, 1.0])
    metric = metrics.rmsprop(decay=0.0, epsilon=0.1)
    kernel = sgmcmc.psgld(posterior, 0.1, metric=metric)
    state = kernel.init(jnp.array([0.4]), jax.random.key(0))
    for (k, m), batch in zip(((1.0, 0.0), (4.0, 1.0)), batches, strict=True):
        moved = kernel.drive(jnp.zeros((1, 1)), state, batch)[0].position[0]
        g = k * (0.4 - m)
        scale = 1 / (0.1 + abs(g))
        wanted = 0.4 + 0.1 * (-scale * g - np.sign(g) * k * scale**2)
        np.testing.assert_allclose(moved, wanted, rtol=1e-12)


def test_where_the_gradient_vanishes():
    """At a stationary point V begins with a T ‖H_i‖ = .99: G = 1/(ε + √.99), and nothing is NaN.

    At a = 0, without a memory, V = 0: G = 1/ε, Γ = 0.
    """
    for decay, scale in ((0.99, 1 / (0.5 + np.sqrt(0.99))), (0.0, 2.0)):
        metric = metrics.rmsprop(decay=decay, epsilon=0.5)
        kernel = sgmcmc.psgld(samplers.harmonic(), 0.1, metric=metric)
        first = kernel.init(jnp.zeros(2), jax.random.key(0))
        state, info = kernel.drive(jnp.ones((1, 2)), first, None)
        assert bool(info.finite)
        np.testing.assert_allclose(state.position, np.sqrt(2 * 0.1 * scale), rtol=1e-6)


def test_the_optimizer_at_temperature_zero():
    """At T = 0 it is RMSProp's own step, with neither noise nor Γ."""
    metric = metrics.rmsprop(decay=0.9, epsilon=0.1)
    kernel = sgmcmc.psgld(samplers.harmonic(), 0.1, metric=metric, temperature=0.0)
    state = kernel.init(jnp.array([2.0]), jax.random.key(0))
    state, _ = kernel.drive(jnp.ones((1, 1)), state, None)
    np.testing.assert_allclose(state.position, 2 - 0.1 * 2 / 2.1, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: metrics.rmsprop(decay=1.0), ValueError, "decay: got 1.0.* ≥ 0 and < 1"),
        (lambda: metrics.rmsprop(epsilon=0.0), ValueError, "epsilon: got 0.0.* > 0"),
        (lambda: metrics.rmsprop(freeze_after=0), ValueError, "freeze_after: got 0"),
        (lambda: metrics.position_dependent(3.0), TypeError, "metric: function: got float"),
        (lambda: sgmcmc.psgld(samplers.harmonic(), 0.1, metric=metrics.identity()), TypeError,
         "metric: got Identity.*constant metrics are for sgmcmc.sgld"),
        (lambda: sgmcmc.sgld(samplers.harmonic(), 0.1, metric=metrics.rmsprop()), TypeError,
         "metric: got RMSProp, which changes with the position"),
    ],
)  # fmt: skip
def test_bad_preconditioners_are_refused(make, error, message):
    """Numbers out of range, and metrics given to a kernel that has no use for them."""
    with pytest.raises(error, match=message):
        make()


def test_a_metric_of_another_shape_is_refused():
    """G(θ) must look like θ."""
    kernel = sgmcmc.psgld(samplers.harmonic(), 0.1, metric=metrics.position_dependent(jnp.sum))
    with pytest.raises(ValueError, match="metric: "):
        kernel.init(jnp.zeros(2), jax.random.key(0))


def _bowl(x):
    return 1 / (1 + x**2)


def _constant(scale, x):
    return scale * jnp.ones_like(x)


def _coupled(x):
    a, b = x["a"], x["b"]
    return -jnp.sum(a**4) / 4 - jnp.sin(a[0] * a[1] * b) - b**2 - jnp.sum(a) * b
