"""Spectra by Lanczos quadrature of operators whose eigenvalues are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

import sgmcmc
from sgmcmc.diagnostics import spectrum

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
