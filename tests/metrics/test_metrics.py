"""Metrics: G = L Lᵀ, and the two maps L r and Lᵀ g that kernels need."""

# ruff: noqa: E501 (tables, a row a line)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmcmc import metrics

POSITION = {"b": jnp.zeros(()), "w": jnp.zeros((2, 2))}
R = {"b": jnp.array(0.5), "w": jnp.array([[1.0, -2.0], [3.0, 0.25]])}
A = np.random.default_rng(0).normal(size=(5, 5))
COVARIANCE = A @ A.T + np.eye(5)


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_identity_changes_nothing():
    """G = I hands over the very arrays."""
    metric = metrics.identity()
    assert metric.to_position(R) is R
    assert metric.to_momentum(R) is R


def test_diagonal_scales_leaf_by_leaf():
    """G = diag(s²): both maps multiply by s, one number for all or one for each entry."""
    scale = {"b": 2.0, "w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    metric = metrics.diagonal(scale)
    metric.check(POSITION)
    for move in (metric.to_position, metric.to_momentum):
        np.testing.assert_allclose(flat(move(R)), flat(scale) * flat(R))
    metric = metrics.diagonal(3)
    metric.check(POSITION)
    np.testing.assert_allclose(flat(metric.to_position(R)), 3 * flat(R))


def test_dense_is_the_covariance():
    """L Lᵀ = G in tree order: to_position(to_momentum(g)) = G g, and L is lower triangular."""
    metric = metrics.dense(COVARIANCE)
    metric.check(POSITION)
    got = metric.to_position(metric.to_momentum(R))
    np.testing.assert_allclose(flat(got), COVARIANCE @ flat(R), rtol=1e-5)
    assert jax.tree.structure(got) == jax.tree.structure(R)
    np.testing.assert_array_equal(np.triu(metric.factor, 1), 0)


def test_the_maps_are_adjoint():
    """⟨L r, g⟩ = ⟨r, Lᵀ g⟩ for every metric."""
    g = jax.tree.map(lambda x: jnp.cos(3 * x), R)
    for metric in (metrics.identity(), metrics.diagonal(2.0), metrics.dense(COVARIANCE)):
        left = flat(metric.to_position(R)) @ flat(g)
        right = flat(R) @ flat(metric.to_momentum(g))
        np.testing.assert_allclose(left, right, rtol=1e-5)


def test_maps_keep_the_dtype():
    """A bfloat16 position stays one under a float32 metric."""
    r = jax.tree.map(lambda x: x.astype(jnp.bfloat16), R)
    for metric in (metrics.diagonal(2.0), metrics.dense(COVARIANCE)):
        moved = metric.to_position(r)
        assert {x.dtype for x in jax.tree.leaves(moved)} == {jnp.dtype(jnp.bfloat16)}


def test_float64_factors_in_float64(x64):
    """Under x64 G is met to 1e-14."""
    metric = metrics.dense(COVARIANCE)
    np.testing.assert_allclose(metric.factor @ metric.factor.T, COVARIANCE, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.diagonal(0.0), "metric: scale at .*only leaf.* positive and finite, got 0.0"),
        (lambda: metrics.diagonal({"a": jnp.array([1.0, -2.0])}), "metric: scale at a "),
        (lambda: metrics.diagonal({"a": np.nan}), "metric: scale at a .*nan"),
        (lambda: metrics.dense(np.ones((2, 3))), r"metric: covariance must be \(d, d\), got shape \(2, 3\)"),
        (lambda: metrics.dense(np.ones(4)), r"got shape \(4,\)"),
        (lambda: metrics.dense(np.array([[1.0, 0.5], [0.0, 1.0]])), "metric: covariance is not symmetric"),
        (lambda: metrics.dense(np.array([[1.0, 2.0], [2.0, 1.0]])), "metric: .*not positive definite"),
        (lambda: metrics.dense(np.full((2, 2), np.nan)), "metric: covariance"),
    ],
)  # fmt: skip
def test_what_is_no_metric_is_refused(make, message):
    """Scales are positive, covariances symmetric and positive definite: a ValueError otherwise."""
    with pytest.raises(ValueError, match=message):
        make()
