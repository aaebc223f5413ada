"""Comparisons that tests share."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def assert_same_tree(one: Any, other: Any) -> None:
    """Two pytrees have one structure and the same bits; typed keys by their words."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(_assert_same_leaf, one, other)


def assert_same_bits(one: Any, other: Any) -> None:
    """Two runs have the same draws, weights, info and reduced values, to the bit, and costs."""
    assert_same_tree(one.draws, other.draws)
    assert_same_tree(one.info, other.info)
    assert_same_tree(one.reduced, other.reduced)
    assert_same_tree(one.weights, other.weights)
    assert one.stopped == other.stopped
    assert one.num_steps == other.num_steps
    assert one.gradient_evaluations == other.gradient_evaluations


def assert_close(one: Any, other: Any, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    """Two pytrees have one structure and agree to rounding."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), one, other)


def flat(draws: Any) -> np.ndarray:
    """Draws [chain, draw, …] of a pytree as one array [chain, draw, coordinate]."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(draws)]
    return np.concatenate([np.reshape(x, (*x.shape[:2], -1)) for x in leaves], axis=-1)


def _assert_same_leaf(one: Any, other: Any) -> None:
    if isinstance(one, jax.Array) and jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    assert np.asarray(one).dtype == np.asarray(other).dtype
    np.testing.assert_array_equal(one, other)
