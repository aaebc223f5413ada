"""Laws in bfloat16 and float16, as far as the spacing of the numbers lets them be.

Coordinates are independent chains. A sum over C of them and a few far-apart times is within 5
standard errors of its mean but for a chance of 6e-7 each.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import noise
from tests.compare import assert_same_tree


def standard(x):
    """A standard normal in every coordinate, summed in float32."""
    return -0.5 * jnp.sum(x.astype(jnp.float32) ** 2)


def narrow(x):
    """A standard deviation of 1e-3, written so that no square underflows in float16."""
    return -0.5 * jnp.sum((x.astype(jnp.float32) * 1e3) ** 2)


def moments(kernel, dtype, size, scale, steps):
    """Mean and variance over coordinates that begin in the target's law, in its units."""
    start = (scale * jax.random.normal(jax.random.key(1), (size,))).astype(dtype)

    @jax.jit
    def run(key):
        state = kernel.init(start, jax.random.fold_in(key, steps))
        step = lambda t, s: kernel.step(jax.random.fold_in(key, t), s)[0]  # noqa: E731
        return jax.lax.fori_loop(0, steps, step, state).position

    end = run(jax.random.key(2))
    assert end.dtype == dtype
    end = np.asarray(end, np.float64) / scale
    return end.mean(), np.mean(end**2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_normals_are_centred(dtype):
    """Mean 0 and variance 1: 10⁷ numbers, so a mean of .0016 is 5 standard errors."""
    like = jnp.zeros(10_000_000, dtype)
    drawn = noise.draw(jax.random.key(0), like, 1, "gaussian")
    assert drawn.dtype == dtype
    mean = float(jnp.mean(drawn, dtype=jnp.float32))
    assert abs(mean) < 1.6e-3
    assert abs(float(jnp.mean(drawn.astype(jnp.float32) ** 2)) - 1) < 1.6e-3 * np.sqrt(2)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(jnp.bfloat16, "gaussian"), (jnp.bfloat16, "fast"), (jnp.float16, "gaussian")],
)
def test_short_steps_of_sgld(dtype, kind):
    """h = .001 on N(0, 1) after 3,000 steps: mean 0, ⟨x²⟩ = 1 (to .3%, the spacing's share)."""
    posterior = sgmcmc.Posterior.from_log_density(standard)
    size = 8_192
    kernel = sgmcmc.sgld(posterior, 1e-3, noise=kind)
    mean, square = moments(kernel, dtype, size, 1.0, 3_000)
    assert abs(mean) < 5 / np.sqrt(size)
    assert abs(square - 1) < 5 * np.sqrt(2 / size) + 3e-3


def test_a_step_below_the_numbers_of_float16():
    """h = 4e-8 where k = 10⁶: ⟨x²⟩ k = 1/(1 − hk/2); as a float16 h would be 6e-8."""
    size, kernel = 16_384, sgmcmc.sgld(sgmcmc.Posterior.from_log_density(narrow), 4e-8)
    mean, square = moments(kernel, jnp.float16, size, 1e-3, 200)
    assert abs(mean) < 5 / np.sqrt(size)
    assert abs(square - 1 / 0.98) < 5 * np.sqrt(2 / size)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (sgmcmc.baoab, jnp.bfloat16),
        (sgmcmc.sort, jnp.bfloat16),
        (sgmcmc.sgnht, jnp.float16),
    ],
)
def test_underdamped_kernels(make, dtype):
    """h = .1, γ = 2: what a kick adds is rounded with the friction's noise, not before it."""
    posterior = sgmcmc.Posterior.from_log_density(standard)
    size = 8_192
    mean, square = moments(make(posterior, 0.1, friction=2.0), dtype, size, 1.0, 300)
    assert abs(mean) < 5 / np.sqrt(size)
    assert abs(square - 1) < 5 * np.sqrt(2 / size) + 3e-3


@pytest.mark.parametrize("make", [sgmcmc.amagold, sgmcmc.sggmc])
def test_corrected_kernels(make):
    """Blocks in float32 between half-precision states: 2,048 chains in four dimensions."""
    kernel = make(sgmcmc.Posterior.from_log_density(standard), 0.2, 5, friction=1.0)

    @jax.jit
    @jax.vmap
    def run(key):
        start = jax.random.normal(key, (4,)).astype(jnp.bfloat16)
        state = kernel.init(start, jax.random.fold_in(key, 20))
        step = lambda t, s: kernel.step(jax.random.fold_in(key, t), s)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 20, step, state).position

    end = np.asarray(run(jax.random.split(jax.random.key(0), 2_048)), np.float64)
    assert abs(end.mean()) < 5 / np.sqrt(end.size)
    assert abs(np.mean(end**2) - 1) < 5 * np.sqrt(2 / end.size) + 3e-3


def test_a_step_of_float32_is_unchanged():
    """In float32 x − hx + √(2h) ξ is what it was, to the bit."""
    posterior = sgmcmc.Posterior.from_log_density(standard)
    kernel, x = sgmcmc.sgld(posterior, 0.1), jnp.linspace(-1.0, 2.0, 7)
    key = jax.random.key(3)
    got = kernel.step(key, kernel.init(x, jax.random.key(4)))[0].position
    normals = jax.random.normal(jax.random.clone(key), (1, 7))[0]
    h = jnp.asarray(0.1)
    assert_same_tree(
        got, x + (-h * jax.grad(lambda x: -standard(x))(x) + jnp.sqrt(2 * h) * normals)
    )
