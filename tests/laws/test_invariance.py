"""What a law may not depend on: the tree, its order, the metric's coordinates, the noise's kind."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import metrics, noise
from sgmcmc.diagnostics import stationary_law
from sgmcmc.models import gaussian
from tests.laws import oracle, samplers

NAMES = ("BAOAB", "OBABO", "ABOBA", "UBU", "sghmc", "sgld", "leimkuhler_matthews")
D = 10


@eqx.filter_jit
def drive(kernel, noise, state):
    return kernel.drive(noise, state, None)


def covariance():
    """A correlated covariance in 10 dimensions, of condition number 100."""
    rng = np.random.default_rng(1)
    q, _ = np.linalg.qr(rng.normal(size=(D, D)))
    return q @ np.diag(np.geomspace(0.1, 10.0, D)) @ q.T


@pytest.mark.parametrize("name", NAMES)
def test_dense_metric_whitens(name):
    """With the target's covariance as metric the law is L times that of N(0, I) times Lᵀ."""
    target, mean = covariance(), np.arange(D) / 3
    posterior = gaussian(mean, target).posterior()
    kernel = samplers.make(name, posterior, 0.2, metric=metrics.dense(target))
    law = stationary_law(kernel, jnp.zeros(D))
    white = oracle.moments(name, 0.2)
    factor = np.linalg.cholesky(target)
    np.testing.assert_allclose(law.mean, mean, atol=1e-10)
    np.testing.assert_allclose(law.covariance, white[0] * target, atol=1e-10)
    if len(white) > 1:
        np.testing.assert_allclose(law.momentum_covariance, white[1] * np.eye(D), atol=1e-10)
        np.testing.assert_allclose(law.cross_covariance, white[2] * factor, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_diagonal_metric_rescales(name):
    """With the target's scales as metric every coordinate has the law of N(0, 1), rescaled."""
    scale = np.geomspace(0.1, 10.0, D)
    posterior = gaussian(np.zeros(D), scale**2).posterior()
    metric = metrics.diagonal(jnp.asarray(scale))
    law = stationary_law(samplers.make(name, posterior, 0.2, metric=metric), jnp.zeros(D))
    expected = oracle.moments(name, 0.2)[0] * np.diag(scale**2)
    np.testing.assert_allclose(law.covariance, expected, atol=1e-10)


def test_scalar_metric_is_a_change_of_time():
    """Scale s for all is the step s h and the friction γ/s under the identity metric."""
    posterior = gaussian(np.zeros(2), np.array([1.0, 4.0])).posterior()
    scaled = sgmcmc.ubu(posterior, 0.1, friction=2.0, metric=metrics.diagonal(3.0))
    plain = sgmcmc.ubu(posterior, 0.3, friction=2.0 / 3)
    one, other = (stationary_law(k, jnp.zeros(2)) for k in (scaled, plain))
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_any_metric_leaves_exact_words_exact(name):
    """A diagonal metric on a correlated target: exact words stay exact, others have its bias."""
    target = covariance()
    posterior = gaussian(np.zeros(D), target).posterior()
    metric = metrics.diagonal(jnp.sqrt(jnp.diag(jnp.asarray(target))))
    h = 0.02 if name in samplers.OVERDAMPED else 0.2
    law = stationary_law(samplers.make(name, posterior, h, metric=metric), jnp.zeros(D))
    # In the metric's coordinates each eigenvector is an oscillator of its own stiffness.
    s = np.sqrt(np.diag(target))
    stiffness, vectors = np.linalg.eigh(s[:, None] * np.linalg.inv(target) * s)
    spread = np.array([oracle.moments(name, h, k=k)[0] for k in stiffness])
    expected = s[:, None] * (vectors @ np.diag(spread) @ vectors.T) * s
    np.testing.assert_allclose(law.covariance, expected, atol=1e-10)
    if name in ("BAOAB", "ABOBA", "leimkuhler_matthews"):
        np.testing.assert_allclose(law.covariance, target, atol=1e-10)


def test_shape_and_order_of_the_tree_do_not_matter():
    """A dict of leaves, in either order of its names, has the permuted law of the flat vector."""
    target = covariance()
    flat = gaussian(np.zeros(D), target).posterior()
    metric = metrics.dense(target + np.diag(np.arange(1.0, D + 1)))
    expected = stationary_law(sgmcmc.ubu(flat, 0.2, metric=metric), jnp.zeros(D)).covariance
    precision = jnp.asarray(np.linalg.inv(target))
    for first, second in (("z", "b"), ("a", "b")):
        tree = {first: jnp.arange(6.0).reshape(2, 3), second: jnp.arange(6.0, 10.0)}
        order = np.asarray(ravel_pytree(tree)[0], int)
        posterior = sgmcmc.Posterior.from_log_density(
            Partial(_tree_density, precision[np.ix_(order, order)])
        )
        permuted = np.asarray(target + np.diag(np.arange(1.0, D + 1)))[np.ix_(order, order)]
        kernel = sgmcmc.ubu(posterior, 0.2, metric=metrics.dense(permuted))
        # Cholesky factors differ by a rotation of the momentum, which no law can see.
        law = stationary_law(kernel, tree)
        np.testing.assert_allclose(law.covariance, expected[np.ix_(order, order)], atol=1e-10)


@pytest.mark.parametrize("name", [*NAMES, *samplers.THIRD_ORDER])
def test_temperature_scales_the_law(name):
    """All second moments are proportional to T, and the mean does not depend on it."""
    posterior = gaussian([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]]).posterior()

    def law_at(temperature):
        kernel = samplers.make(name, posterior, 0.2, temperature=temperature)
        return stationary_law(kernel, jnp.zeros(2))

    warm, cold, frozen = law_at(1.0), law_at(0.01), law_at(0.0)
    for field in ("covariance", "momentum_covariance", "cross_covariance"):
        np.testing.assert_allclose(getattr(cold, field), 0.01 * getattr(warm, field), atol=1e-12)
        np.testing.assert_allclose(getattr(frozen, field), 0, atol=1e-14)
    for law in (warm, cold, frozen):
        np.testing.assert_allclose(law.mean, [1.0, -2.0], atol=1e-10)


@pytest.mark.parametrize("name", [*samplers.NAMES, *samplers.THIRD_ORDER])
def test_zero_temperature_is_deterministic(name):
    """At T = 0 the noise has no effect at all, and nothing is NaN; nor is it at γ = 0."""
    for numbers in ({"temperature": 0.0}, {"temperature": 0.0, "friction": 0.0}):
        kernel = samplers.make(name, samplers.harmonic(), 0.2, **numbers)
        state = kernel.init(jnp.ones(3), jax.random.key(0))
        if name not in samplers.OVERDAMPED:
            np.testing.assert_array_equal(state.momentum, 0)
        shape = (kernel.num_normals, 3)
        quiet, _ = drive(kernel, jnp.zeros(shape), state)
        loud, info = drive(kernel, jnp.full(shape, 1e6), state)
        np.testing.assert_array_equal(quiet.position, loud.position)
        assert np.all(np.isfinite(loud.position))
        assert info.finite


@pytest.mark.parametrize("name", [*samplers.WORDS, *samplers.EULERS, *samplers.THIRD_ORDER])
def test_without_friction_there_is_no_noise(name):
    """At γ = 0 the noise has no effect at any temperature; words have no stationary law."""
    kernel = samplers.make(name, samplers.harmonic(), 0.2, friction=0.0)
    state = kernel.init(jnp.ones(3), jax.random.key(0))
    shape = (kernel.num_normals, 3)
    quiet, _ = drive(kernel, jnp.zeros(shape), state)
    loud, _ = drive(kernel, jnp.full(shape, 1e6), state)
    np.testing.assert_array_equal(quiet.position, loud.position)
    if name in samplers.THIRD_ORDER:
        return  # no symplectic maps: they lose energy, at order h⁴, and settle at rest
    with pytest.raises(ValueError, match="no stationary law"):
        stationary_law(kernel, jnp.zeros(1))


@pytest.mark.parametrize("name", ["BAOAB", "sgld", "leimkuhler_matthews"])
def test_fast_noise_has_the_same_law(name):
    """A step is linear in its noise, so a law needs variance 1 and mean 0 alone, and has them."""
    fast = samplers.make(name, samplers.harmonic(), 0.2, noise="fast")
    law = stationary_law(fast, jnp.zeros(1))
    np.testing.assert_allclose(law.covariance[0, 0], oracle.moments(name, 0.2)[0], atol=1e-10)
    state = fast.init(jnp.zeros(1), jax.random.key(0))
    # Every byte once, as the first lane of a word, through the kernel's own step.
    words = jnp.arange(256, dtype=jnp.uint32)
    values = jax.vmap(lambda w: noise.to_tree(w[None], jnp.zeros(1)))(words)
    np.testing.assert_allclose([jnp.mean(values), jnp.var(values)], [0, 1], atol=1e-8)
    if name != "leimkuhler_matthews":
        rows = jnp.zeros((fast.num_normals, 1), jnp.uint32)
        by_words = jax.vmap(lambda w: drive(fast, rows.at[0, 0].set(w), state)[0].position)
        floats = noise.to_tree(rows[0], jnp.zeros(1)) * jnp.ones_like(rows, float)
        by_floats = jax.vmap(lambda v: drive(fast, floats.at[0].set(v), state)[0].position)
        np.testing.assert_allclose(by_words(words), by_floats(values), rtol=1e-12)


def _tree_density(precision, params):
    flat, _ = ravel_pytree(params)
    return -0.5 * flat @ precision @ flat
