"""Arithmetic on pytrees, and how leaves are named and checked."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees

X = {"a": jnp.array([1.0, 2.0]), "b": [jnp.array(3.0)]}
Y = {"a": jnp.array([0.5, -1.0]), "b": [jnp.array(4.0)]}


def test_leaves_are_named_as_users_write_them():
    """`b/0` for a list in a dict; a bare array has a name too."""
    assert [name for name, _ in trees.named_leaves(X)] == ["a", "b/0"]
    assert [name for name, _ in trees.named_leaves(jnp.ones(2))] == ["(the only leaf)"]


def test_sizes():
    """Numbers of scalars, and bytes with each leaf's own width."""
    assert trees.size(X) == 3
    assert trees.num_bytes({**X, "c": jax.ShapeDtypeStruct((5,), jnp.bfloat16)}) == 12 + 10


def test_linear_algebra():
    """axpy, add, scale and dot are those of the raveled vectors."""
    np.testing.assert_allclose(trees.axpy(2.0, X, Y)["a"], [2.5, 3.0])
    np.testing.assert_allclose(trees.add(X, Y)["b"][0], 7.0)
    np.testing.assert_allclose(trees.scale(-1.0, X)["a"], [-1.0, -2.0])
    np.testing.assert_allclose(trees.dot(X, Y), 0.5 - 2.0 + 12.0)
    np.testing.assert_array_equal(trees.zeros_like(X)["a"], 0)


def test_half_precision_is_summed_in_float32():
    """⟨x, x⟩ of 10,000 bfloat16 ones is 10,000, and axpy keeps the dtype of y."""
    ones = jnp.ones(10_000, jnp.bfloat16)
    assert float(trees.dot(ones, ones)) == 10_000
    assert trees.dot(ones, ones).dtype == jnp.float32
    assert trees.axpy(0.5, jnp.ones(3), jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
    assert trees.accumulator_dtype((ones, jnp.ones(2, jnp.float16))) == jnp.float32


def test_float64_is_summed_in_float64(x64):
    """The accumulator is the widest of the leaves."""
    x = jnp.array([1.0, 1e-12])
    assert float(trees.dot(x, jnp.ones(2))) == 1 + 1e-12


def test_copies_are_new_buffers():
    """A copy survives the deletion of what it was made from."""
    original = {"a": jnp.arange(3.0)}
    copied = trees.copy(original)
    original["a"].delete()
    np.testing.assert_array_equal(copied["a"], [0, 1, 2])


@pytest.mark.parametrize(
    ("tree", "error", "message"),
    [
        ({}, ValueError, "p: got a pytree without leaves"),
        ({"a": {"n": np.arange(2)}}, TypeError, "p: leaf a/n is int64"),
        ({"a": 1 + 0j}, TypeError, "p: leaf a is complex"),
        ({"a": "text"}, TypeError, "p: leaf a is a str"),
        ({"a": jax.nn.relu}, TypeError, "p: leaf a is "),
        ([jnp.ones(2), jnp.ones((2, 0))], ValueError, r"p: leaf 1 is empty, shape \(2, 0\)"),
    ],
)
def test_parameters_are_floating_arrays(tree, error, message):
    """What is no floating array is named by its path."""
    with pytest.raises(error, match=message):
        checks.require_floating(tree, "p")


def test_structures_are_compared_by_leaf():
    """The first leaf that differs is named, with both shapes, or the names that are not shared."""
    checks.require_same_structure(X, Y, "x", "y")
    with pytest.raises(ValueError, match=r"x: leaf a has shape \(3,\); y has \(2,\) there"):
        checks.require_same_structure({**X, "a": jnp.ones(3)}, Y, "x", "y")
    with pytest.raises(ValueError, match=r"x: its tree differs from that of y at .*'b/0', 'c'"):
        checks.require_same_structure({"a": X["a"], "c": X["a"]}, Y, "x", "y")
    with pytest.raises(ValueError, match="its containers"):
        checks.require_same_structure([X["a"]], (X["a"],), "x", "y")


def double(x, factor=2.0):
    return factor * x


def test_callables_are_pytrees_with_their_arrays_as_leaves():
    """One function has one structure; arrays bound in a partial or a module are leaves."""
    plain = trees.as_callable(double, "f")
    assert jax.tree.structure(plain) == jax.tree.structure(trees.as_callable(double, "f"))
    assert not jax.tree.leaves(plain)
    bound = trees.as_callable(functools.partial(double, factor=jnp.array(3.0)), "f")
    assert len(jax.tree.leaves(bound)) == 1
    assert float(bound(2.0)) == 6.0
    linear = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    assert trees.as_callable(linear, "f") is linear
    with pytest.raises(TypeError, match="f: got int; expected a function"):
        trees.as_callable(3, "f")
