"""Spectra by Lanczos quadrature: known operators, dense eigenvalues of networks, invariances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from scipy import stats

import sgmcmc
from sgmcmc import models
from sgmcmc.diagnostics import spectrum
from sgmcmc.diagnostics.curvatures import Curvature
from sgmcmc.diagnostics.spectrum import curvature_of

pytest.importorskip("matfree")

# Row L8: 200 values between 0 and 1, and three above.
EIGENVALUES = np.concatenate([np.linspace(0, 1, 200), [5.0, 10.0, 20.0]])


def _quadratic(eigenvalues, x):
    flat = ravel_pytree(x)[0]
    return -0.5 * jnp.sum(eigenvalues * flat**2)


def quadratic(eigenvalues):
    """The target whose Hessian is diagonal, with these entries."""
    return sgmcmc.Posterior.from_log_density(Partial(_quadratic, jnp.asarray(eigenvalues)))


def of_quadratic(eigenvalues, key=0, **settings):
    size = len(eigenvalues)
    return spectrum(jax.random.key(key), quadratic(eigenvalues), jnp.zeros(size), **settings)


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
        params = sgmcmc.find_mode(
            jax.random.key(1), posterior, start, data, num_steps=600, learning_rate=0.03
        )
    return posterior, params, data


def dense(operator):
    """The matrix of an operator, a column at a time."""
    flat, unravel = ravel_pytree(operator.params)
    columns = jax.jit(jax.vmap(lambda v: ravel_pytree(operator(unravel(v)))[0]))(jnp.eye(len(flat)))
    return np.asarray(columns, np.float64)


def test_the_spec_problem(x64):
    """Row L8: top nodes to 1e-6, moments to 1e-10; row L8b: the trace by one ±1 probe."""
    found = of_quadratic(EIGENVALUES, num_steps=10, num_probes=1)
    np.testing.assert_allclose(found.top[:3], [20, 10, 5], atol=1e-6)
    for power in range(20):
        moment, _ = found.trace_of(functools.partial(_power, power))
        np.testing.assert_allclose(moment, np.sum(EIGENVALUES**power), rtol=1e-10)
    short = of_quadratic(EIGENVALUES, num_steps=5, num_probes=1)
    assert abs(short.trace_of(_same)[0] - 135.0) < 1e-8
    # Top three known exactly, the rest by 100 vectors: five standard errors.
    assert abs(found.trace - 135.0) < 5 * found.trace_error < 4


def _power(power, values):
    return values**power


def _same(values):
    return values


def test_bounds(x64):
    """Ritz values lie below the eigenvalues of their rank, within their residuals of one."""
    found = of_quadratic(EIGENVALUES, num_steps=12, num_probes=3)
    ranked = np.sort(EIGENVALUES)[::-1][: len(found.top)]
    assert np.all(found.top <= ranked + 1e-12)
    away = np.abs(found.top[:, None] - EIGENVALUES).min(axis=1)
    assert np.all(away <= found.top_bounds + 1e-12)
    assert found.lowest >= 0
    assert np.abs(found.lowest - EIGENVALUES).min() <= found.lowest_bound


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


@pytest.mark.parametrize("precise", [False, True])
def test_an_exhausted_space(precise):
    """Few different eigenvalues: Lanczos ends after as many steps, and the rule is exact."""
    targets = (np.zeros(40), np.ones(40), np.repeat([0.0, 1.0], [30, 10]),
               np.repeat([0.0, 0.3, 7.0], [30, 9, 1]), np.repeat([0.0, 1, 2, 3], 10))  # fmt: skip
    with jax.enable_x64(precise):
        for exact in targets:
            found = of_quadratic(exact, num_steps=40, num_probes=4)
            different = len(set(exact))
            assert np.all(np.isnan(found.nodes).sum(axis=1) >= 40 - different)
            scale = np.abs(exact).max() or 1.0
            tolerance = 1e-12 if precise else 1e-5
            np.testing.assert_allclose(found.top[0], exact.max(), atol=tolerance * scale)
            np.testing.assert_allclose(found.lowest, exact.min(), atol=tolerance * scale)
            assert found.distance(exact) < tolerance * scale
            assert abs(found.trace - exact.sum()) <= 5 * found.trace_error + 40 * tolerance * scale


def test_pytrees_and_low_precision():
    """Leaves of any shape, lifted to float32; the order of leaves does not matter."""
    exact = np.linspace(-1, 3, 12)
    like = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": (jnp.ones(5), jnp.ones(()))}
    found = spectrum(jax.random.key(8), quadratic(exact), like, num_steps=12, num_probes=2)
    np.testing.assert_allclose(found.top, exact[::-1][:10], atol=1e-5)
    np.testing.assert_allclose([found.lowest, found.trace], [-1, exact.sum()], atol=1e-4)
    assert found.num_parameters == 12


def test_errors_are_between_probes(x64):
    """Over 40 keys the plain and the better trace miss by as much as they say, unbiased."""
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    matrix = basis @ np.diag(np.geomspace(1e-2, 10, 30)) @ basis.T
    target = sgmcmc.Posterior.from_log_density(Partial(_form, jnp.asarray(matrix)))
    plain, better = [], []
    for seed in range(40):
        found = spectrum(
            jax.random.key(seed), target, jnp.zeros(30), num_steps=4, num_probes=8,
            num_trace_probes=8,
        )  # fmt: skip
        value, error = found.trace_of(_same)
        plain.append((value - np.trace(matrix)) / error)
        better.append((found.trace - np.trace(matrix)) / found.trace_error)
    # Student's t of 7 degrees, 40 of them: spread sqrt(7/5), false alarms below 1e-4.
    for misses in (plain, better):
        assert abs(np.mean(misses)) < 4 * np.sqrt(7 / 5 / 40)
        assert 0.7 < np.std(misses) < 2.2


def _form(matrix, x):
    return -0.5 * x @ matrix @ x


def test_one_key_one_result():
    first, again, other = (of_quadratic(EIGENVALUES, key, num_steps=6) for key in (0, 0, 1))
    np.testing.assert_array_equal(first.nodes, again.nodes)
    assert first.trace == again.trace
    # ±1 probes of a diagonal operator are all alike: only the vectors of the trace differ.
    assert first.trace != other.trace


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
