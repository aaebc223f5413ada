"""Spectra of networks: against dense eigenvalues, JAX's own Hessian, and the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

import sgmcmc
from sgmcmc import models
from sgmcmc.diagnostics import curvature_of, spectrum
from sgmcmc.diagnostics.spectra._operator import Curvature

pytest.importorskip("matfree")


@pytest.fixture(scope="module")
def trained():
    """A network 3-6-4 near a mode, with its data: float32, 52 parameters."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(301, 3)).astype(np.float32)
    y = (x @ rng.normal(size=(3, 4))).argmax(axis=1).astype(np.int32)
    model = models.mlp((3, 6, 4), activation="tanh")
    data = (jnp.asarray(x), jnp.asarray(y))
    posterior = model.posterior(len(x))
    with jax.debug_key_reuse(False):  # one key twice, on purpose
        start = model.init(jax.random.key(0))
        params = sgmcmc.optim.find_mode(
            jax.random.key(1), posterior, start, data, num_steps=600, learning_rate=0.03
        )
    return posterior, params, data


def dense(operator):
    """The matrix of an operator, a column at a time."""
    flat, unravel = ravel_pytree(operator.params)
    columns = jax.jit(jax.vmap(lambda v: ravel_pytree(operator(unravel(v)))[0]))(jnp.eye(len(flat)))
    return np.asarray(columns, np.float64)


@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton"])
def test_against_dense_eigenvalues(trained, curvature):
    """Trace within 1%, largest within .1%, density within 2% of the range, in float32."""
    posterior, params, data = trained
    matrix = dense(curvature_of(posterior, params, data, curvature, None, 64))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * np.abs(matrix).max())
    exact = np.linalg.eigvalsh(matrix)
    found = spectrum(
        jax.random.key(3), posterior, params, data, curvature=curvature, num_steps=30,
        block_size=64,
    )  # fmt: skip
    spread = exact[-1] - exact[0]
    assert abs(found.trace / exact.sum() - 1) < 0.01
    np.testing.assert_allclose(found.top[:5], exact[::-1][:5], rtol=1e-3)
    assert abs(found.lowest - exact[0]) < 1e-3 * spread
    assert found.distance(exact) < 0.02 * spread
    # Counted from the matrix; nodes are as fine as that at thirty steps of 52.
    assert abs(found.share_within(0.05)[0] - np.mean(np.abs(exact) < 0.05)) < 0.05
    # The density, bump for bump.
    grid = np.linspace(exact[0] - 1, exact[-1] + 1, 4_000)
    height = found.density(grid, 0.1)
    assert abs(np.trapezoid(height, grid) - 1) < 1e-3
    bumps = stats.norm.pdf(grid[:, None], exact, 0.1).mean(axis=1)
    assert np.trapezoid(np.abs(height - bumps), grid) < 0.1


def test_the_matrix_is_the_hessian(trained):
    """Of the mean loss, and of U with its prior: as JAX's own `hessian` has them, in any blocks."""
    posterior, params, data = trained
    flat, unravel = ravel_pytree(params)
    loss = lambda v: -jnp.mean(posterior.log_likelihood(unravel(v), data))  # noqa: E731
    potential = lambda v: posterior.potential(unravel(v), sgmcmc.Batch(data))  # noqa: E731
    for of, function, block_size in (("loss", loss, 50), ("potential", potential, 1024)):
        exact = np.asarray(jax.jit(jax.hessian(function))(flat))
        matrix = dense(curvature_of(posterior, params, data, "hessian", of, block_size))
        np.testing.assert_allclose(matrix, exact, atol=2e-6 * np.abs(exact).max())
    # A part of the data estimates U: scaled by N/n.
    part = jax.tree.map(lambda x: x[:100], data)
    operator = curvature_of(posterior, params, part, "hessian", "potential", 1024)
    assert float(operator.factor) == pytest.approx(3.01)


def test_gauss_newton_of_a_linear_model_is_the_hessian(x64):
    """Gaussian noise, linear mean: XᵀX/σ² for both, and the prior's 1/s² beside it in U."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 5)), rng.normal(size=40)
    model = models.linear_regression(0.5, 2.0, num_features=5, intercept=False)
    data = (jnp.asarray(x), jnp.asarray(y))
    for of, exact in (("loss", x.T @ x / 0.25 / 40), ("potential", x.T @ x / 0.25 + np.eye(5) / 4)):
        for kind in ("hessian", "gauss_newton"):
            operator = curvature_of(model.posterior(40), jnp.ones(5), data, kind, of, 16)
            np.testing.assert_allclose(dense(operator), exact, rtol=1e-9, atol=1e-12)
    found = spectrum(
        jax.random.key(4), model.posterior(40), jnp.ones(5), data, curvature="gauss_newton", of=of
    )
    np.testing.assert_allclose(found.top, np.linalg.eigvalsh(exact)[::-1], rtol=1e-9)
    np.testing.assert_allclose(found.trace, np.trace(exact), rtol=1e-9)


def test_gauss_newton_is_positive(trained):
    """Where the Hessian has negative eigenvalues the Gauss-Newton matrix has none."""
    posterior, params, data = trained
    away = jax.tree.map(lambda p: p + 0.3, params)
    hessian = np.linalg.eigvalsh(dense(curvature_of(posterior, away, data, "hessian", None, 301)))
    positive = dense(curvature_of(posterior, away, data, "gauss_newton", None, 301))
    assert hessian[0] < -0.01
    assert np.linalg.eigvalsh(positive)[0] > -1e-6
    # Jᵀ (diag p − ppᵀ) J, from the Jacobian itself.
    flat, unravel = ravel_pytree(away)
    predict = posterior.log_likelihood.args[0]
    jacobian = np.asarray(jax.jacobian(lambda v: predict(unravel(v), data[0]))(flat), np.float64)
    p = np.asarray(jax.nn.softmax(predict(away, data[0])), np.float64)
    outer = np.einsum("nk,kl->nkl", p, np.eye(4)) - p[:, :, None] * p[:, None, :]
    exact = np.einsum("nki,nkl,nlj->ij", jacobian, outer, jacobian) / len(p)
    np.testing.assert_allclose(positive, exact, atol=1e-5 * np.abs(exact).max())


def test_rescaled_layers_change_it():
    """The same ReLU function with layers scaled by 4 and 1/4: another trace, hence the notice."""
    model = models.mlp((3, 5, 2))
    params = model.init(jax.random.key(5))
    x = jax.random.normal(jax.random.key(6), (64, 3))
    data = (x, jnp.zeros(64, jnp.int32))
    first, second = params
    scaled = (jax.tree.map(lambda p: 4 * p, first), {**second, "weight": second["weight"] / 4})
    np.testing.assert_allclose(model.predict(scaled, x), model.predict(params, x), rtol=1e-5)
    traces = [
        spectrum(jax.random.key(7), model.posterior(64), p, data, num_probes=2).trace
        for p in (params, scaled)
    ]
    assert traces[1] > 2 * traces[0]


def test_memory_is_that_of_a_block():
    """The largest array of the compiled product grows with the block, not with the data."""
    model = models.mlp((8, 32, 4))
    params = model.init(jax.random.key(9))
    x = jnp.ones((4096, 8))
    data = (x, jnp.zeros(4096, jnp.int32))
    sizes = []
    for block in (64, 4096):
        operator = curvature_of(model.posterior(4096), params, data, "hessian", None, block)
        compiled = jax.jit(Curvature.__call__).lower(operator, operator.params).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[0] < sizes[1] / 4
