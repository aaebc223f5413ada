"""The random numbers of one step: the generator bit for bit, the fast law by enumeration,
independence.
"""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from sgmcmc import noise

TREES = {
    "vector": jnp.zeros(17),
    "network": {
        "w": jnp.zeros((50, 41)),
        "b": jnp.zeros(41),
        "v": jnp.zeros((41, 3)),
        "c": jnp.zeros(()),
    },
    "even": [jnp.zeros((64, 64)), jnp.zeros(64)],
    "convolution": (jnp.zeros((3, 3, 5, 7)), jnp.zeros((1, 1, 9)), jnp.zeros((2, 1))),
    "hollow": [jnp.zeros((0, 3)), jnp.zeros(5), jnp.zeros((4, 0))],
    "empty": (),
}
KEYS = [
    jax.random.key(0),
    jax.random.key(2**31 + 5),
    jax.random.PRNGKey(7),
    jax.random.fold_in(jax.random.key(1), 3),
]


@pytest.fixture(autouse=True)
def one_key_for_two_generators() -> Iterator[None]:
    """These tests compare two generators on one key, which is what the key checker forbids."""
    with jax.debug_key_reuse(False):
        yield


def size_of(tree: object) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def identical(a: Array, b: Array) -> bool:
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    )


def fast_law(dtype: jnp.dtype) -> np.ndarray:
    """The 256 values of the fast law, in the order of the bytes, from words that hold each byte
    once.
    """
    words = jnp.asarray(np.arange(256, dtype=np.uint8).view(np.uint32))
    value = jax.jit(noise.to_tree)(words, jnp.zeros(256, dtype))
    return np.sort(np.asarray(value, np.float64))


def solved_polynomial() -> np.ndarray:
    """Newton on (m2, m4) from the least-squares fit to the normal quantiles, the least move in root
    mean square.
    """
    from scipy.special import ndtri

    x = (2 * np.arange(256) - 255) / 256
    orthonormal, triangle = np.linalg.qr(x[:, None] ** np.arange(1, 10, 2))
    weights = orthonormal.T @ ndtri((np.arange(256) + 0.5) / 256)
    for _ in range(20):
        z = orthonormal @ weights
        residual = [np.mean(z**2) - 1, np.mean(z**4) - 3]
        slope = np.stack([2 * z, 4 * z**3]) @ orthonormal / 256
        weights = weights - np.linalg.lstsq(slope, np.array(residual), rcond=None)[0]
    return np.linalg.solve(triangle, weights)


# --- the generator --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 7), (2, 128), (3, 2047), (1, 2048), (2, 2049), (1, 5001)], ids=str
)
def test_written_out_threefry_is_jax_random_bits(shape: tuple[int, int]) -> None:
    """The written-out threefry gives jax.random.bits bit for bit: odd and even sizes, several keys,
    jit and vmap.
    """
    keys = jnp.stack([jax.random.wrap_key_data(jax.random.key_data(key)) for key in KEYS])
    expected = jnp.stack([jax.random.bits(key, shape, jnp.uint32) for key in KEYS])
    for key, words in zip(KEYS, expected, strict=True):
        assert identical(noise._bits(key, shape), words)
    assert identical(jax.jit(jax.vmap(lambda key: noise._bits(key, shape)))(keys), expected)
    assert identical(
        jax.vmap(lambda key: noise._bits(key, shape))(jax.random.key_data(keys)), expected
    )


def test_this_run_uses_the_written_out_threefry() -> None:
    """On CPU with default keys, jax.random is not compared with itself in this file."""
    if jax.default_backend() != "cpu":
        pytest.skip("the written-out generator is for CPU")
    assert all(noise._write_out(key, (1, 7)) for key in KEYS)
    assert not noise._write_out(jax.random.key(0, impl="rbg"), (1, 7))
    assert "threefry2x32" not in str(jax.make_jaxpr(lambda key: noise._bits(key, (1, 7)))(KEYS[0]))


@pytest.mark.parametrize(
    ("name", "count"), [("vector", 1), ("network", 2), ("even", 1), ("hollow", 2), ("empty", 1)]
)
def test_gaussian_is_jax_random_normal(name: str, count: int) -> None:
    """draw("gaussian") gives jax.random.normal bit for bit, typed and legacy keys, eagerly, under
    jit and vmap.
    """
    tree = TREES[name]
    shape = (count, size_of(tree))

    def draw(key: Array) -> Array:
        return noise.draw(key, tree, count, "gaussian")

    compiled = jax.jit(draw)
    for key in KEYS:
        expected = jax.random.normal(key, shape)
        assert identical(draw(key), expected)
        assert identical(compiled(key), expected)
    keys = jax.random.split(jax.random.key(5), 2)
    expected = jnp.stack([jax.random.normal(key, shape) for key in keys])
    assert identical(jax.jit(jax.vmap(draw))(keys), expected)


def test_gaussian_inside_a_loop_where_it_is_consumed() -> None:
    """Fused into the update of a scan, the numbers are still jax.random.normal's."""
    tree = {"w": jnp.zeros((70, 50)), "b": jnp.zeros(33)}
    key = jax.random.key(11)

    def body(position, t):
        row = noise.draw(jax.random.fold_in(key, t), tree, 1, "gaussian")[0]
        return jax.tree.map(lambda p, z: 0.5 * p + z, position, noise.to_tree(row, tree)), None

    final, _ = jax.jit(lambda: jax.lax.scan(body, tree, jnp.arange(4)))()
    expected = np.zeros(3533, np.float32)
    for t in range(4):
        expected = (
            np.float32(0.5) * expected
            + np.asarray(jax.random.normal(jax.random.fold_in(key, t), (1, 3533)))[0]
        )
    flat = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(final)])
    np.testing.assert_array_equal(flat, expected)


@pytest.mark.integration
def test_sharded_draws_are_the_same() -> None:
    """Chains spread over two CPU devices, by sharded keys under jit and by shard_map, draw the same
    numbers.
    """
    # The script's own process: the number of devices is settled before JAX starts.
    environment = dict(
        os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=2", JAX_PLATFORMS="cpu"
    )
    root = str(Path(noise.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    script = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from sgmcmc import noise
mesh = Mesh(np.array(jax.devices()), ("chain",))
assert mesh.size == 2
tree = {"w": jnp.zeros((50, 61)), "b": jnp.zeros(7)}
keys = jax.random.split(jax.random.key(3), 4)
sharded = jax.device_put(keys, NamedSharding(mesh, P("chain")))
for kind in noise.KINDS:
    draw = jax.vmap(lambda key: noise.draw(key, tree, 2, kind))
    here = jax.jit(draw)(keys)
    spread = jax.jit(draw).lower(sharded).compile()
    assert "all-gather" not in spread.as_text() and "all-reduce" not in spread.as_text()
    assert spread(sharded).sharding.is_equivalent_to(NamedSharding(mesh, P("chain")), 3)
    np.testing.assert_array_equal(here, spread(sharded))
    mapped = jax.jit(jax.shard_map(draw, mesh=mesh, in_specs=P("chain"), out_specs=P("chain")))
    np.testing.assert_array_equal(here, mapped(sharded))
    halves = NamedSharding(mesh, P("chain"))
    single = jax.jit(lambda key: noise.draw(key, tree, 2, kind), out_shardings=halves)
    np.testing.assert_array_equal(here[0], single(keys[0]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", noise.KINDS)
def test_other_generators_fall_back_to_jax(kind: str) -> None:
    """Keys of another implementation, and the mode that is not partitionable, use JAX's own
    generator.
    """
    tree = jnp.zeros(45)
    key = jax.random.key(1, impl="rbg")
    row = noise.draw(key, tree, 2, kind)
    if kind == "gaussian":
        assert identical(row, jax.random.normal(key, (2, 45)))
    else:
        assert identical(row, jax.random.bits(key, row.shape, jnp.uint32))
    with jax.threefry_partitionable(False):
        key = jax.random.key(1)
        row = noise.draw(key, tree, 1, kind)
        if kind == "gaussian":
            assert identical(row, jax.random.normal(key, (1, 45)))
        else:
            assert identical(row, jax.random.bits(key, row.shape, jnp.uint32))


def test_dtypes() -> None:
    """Gaussian draws have the leaves' common dtype and every leaf gets its own, in both kinds, x64
    on and off. Half precision is float32's numbers, rounded: JAX's own are not centred.
    """
    for x64 in (False, True):
        with jax.enable_x64(x64):
            wide = jnp.float64 if x64 else jnp.float32
            tree = {
                "a": jnp.zeros(3, jnp.bfloat16),
                "b": jnp.zeros((2, 5), jnp.float32),
                "c": jnp.zeros((), wide),
            }
            key = jax.random.key(8)
            row = noise.draw(key, tree, 1, "gaussian")
            assert identical(row, jax.random.normal(key, (1, 14), wide))
            half = noise.draw(key, tree["a"], 1, "gaussian")
            single = jax.random.normal(key, (1, 3), jnp.float32)
            assert identical(half, single.astype(jnp.bfloat16))
            words = noise.draw(key, tree, 1, "fast")
            assert words.dtype == jnp.uint32
            for drawn in (row[0], words[0]):
                out = jax.jit(noise.to_tree)(drawn, tree)
                for name, leaf in tree.items():
                    assert out[name].dtype == leaf.dtype
                    assert out[name].shape == leaf.shape


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_floats_pass_through(tree: object) -> None:
    """to_tree splits a row of floats in the order of the leaves and changes no number; laws pass
    normals this way.
    """
    row = jnp.arange(size_of(tree), dtype=jnp.float32)
    out = noise.to_tree(row, tree)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    flat = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(out)]
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *flat]), row)


# --- the fast law ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_moments_by_enumeration(dtype: str, tolerance: float) -> None:
    """Over all 256 bytes moments 1 to 5 are the normal's to rounding; m6 = 13.74, max 2.74,
    distance 0.011.
    """
    from scipy.special import ndtr

    with jax.enable_x64(dtype == "float64"):
        z = fast_law(jnp.dtype(dtype))
    assert len(np.unique(z)) == 256
    np.testing.assert_array_equal(z, -z[::-1])
    for order, moment in enumerate((1, 0, 1, 0, 3, 0)):
        assert abs(np.mean(z**order) - moment) <= tolerance * 3 ** max(0, order - 2)
    assert abs(np.mean(z**6) - 13.74) < 0.005
    assert abs(z[-1] - 2.74) < 0.005
    distance = max(
        np.max(np.arange(1, 257) / 256 - ndtr(z)), np.max(ndtr(z) - np.arange(256) / 256)
    )
    assert abs(distance - 0.011) < 0.0005


def test_polynomial_solves_the_moments() -> None:
    """The frozen coefficients are those of the stated construction, computed anew."""
    np.testing.assert_allclose(noise._POLYNOMIAL, solved_polynomial(), rtol=1e-11)


def test_law_increases_with_the_byte() -> None:
    """The polynomial is increasing on the bytes, so the law's quantiles are the bytes'."""
    x = (2 * np.arange(256) - 255) / 256
    assert np.all(np.diff(sum(c * x ** (2 * i + 1) for i, c in enumerate(noise._POLYNOMIAL))) > 0)


SHAPES = [(), (2,), (3,), (4,), (10,), (127,), (3, 3), (5, 7), (8, 3), (3, 3, 5, 2), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_element_has_its_own_byte(shape: tuple[int, ...]) -> None:
    """Flipping one byte of the words changes at most one element, each element has one byte, few
    are wasted.
    """
    tree = [jnp.zeros(3), jnp.zeros(shape), jnp.zeros((2, 5))]
    size = size_of(tree)
    words = noise.draw(jax.random.key(0), tree, 1, "fast").shape[1]
    assert words <= size * 65 / 256 + 3
    flipped = np.zeros((1 + 4 * words, words), np.uint32)
    flipped.view(np.uint8)[1 + np.arange(4 * words), np.arange(4 * words)] = 255
    z = jax.jit(
        jax.vmap(lambda row: jnp.concatenate([z.ravel() for z in noise.to_tree(row, tree)]))
    )(flipped)
    changed = np.asarray(z[1:] != z[0])
    assert set(changed.sum(1)) <= {0, 1}
    np.testing.assert_array_equal(changed.sum(0), np.ones(size))


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_byte_lanes_by_fake_words(tree: object) -> None:
    """No byte is used twice: each element reads back the number of its byte, digit by digit, from
    fake words.
    """
    total = noise.draw(jax.random.key(0), tree, 1, "fast").shape[1]
    values = fast_law(jnp.float32)
    number = np.zeros(size_of(tree), int)
    to_tree = jax.jit(noise.to_tree)
    for digit in range(2):
        bytes_ = ((np.arange(4 * total) >> (8 * digit)) & 255).astype(np.uint8)
        # The law increases with the byte read as a signed number: -128 is the lowest.
        rows = to_tree(jnp.asarray(bytes_.view(np.uint32)), tree)
        z = np.concatenate(
            [np.zeros(0), *[np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(rows)]]
        )
        number += (np.searchsorted(values, z - 1e-9) ^ 128) << (8 * digit)
    assert len(np.unique(number)) == size_of(tree)


# --- independence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", noise.KINDS)
def test_independence(kind: str) -> None:
    """Across steps, chains, rows, leaves and bytes no correlation of z or z^2 exceeds 5 standard
    errors.

    Keys are fixed, so the test cannot flicker; under independence the chance that fresh keys would
    fail is at most (9,120 correlations + 192 moments) x 5.8e-7, about 0.5%.
    """
    tree = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
    samples = 20_000

    def flat(words: Array) -> Array:
        return jnp.concatenate(
            [leaf.ravel() for leaf in jax.tree.leaves(noise.to_tree(words, tree))]
        )

    def draws(key: Array) -> Array:  # (2 steps, 2 rows, 8 elements)
        return jax.vmap(
            lambda t: jax.vmap(flat)(noise.draw(jax.random.fold_in(key, t), tree, 2, kind))
        )(jnp.arange(2))

    def chains(key: Array) -> Array:
        # Keys are folded as the sampling loop folds them: chain, then step.
        return jax.vmap(lambda chain: draws(jax.random.fold_in(key, chain)))(jnp.arange(3)).ravel()

    z = np.asarray(
        jax.jit(jax.vmap(chains))(jax.random.split(jax.random.key(2024), samples)), np.float64
    )
    assert z.shape == (samples, 96)
    off_diagonal = ~np.eye(96, dtype=bool)
    for power in (1, 2):
        correlation = np.corrcoef(z**power, rowvar=False)[off_diagonal]
        assert np.abs(correlation).max() < 5 / math.sqrt(samples)
    assert np.abs(z.mean(0)).max() < 5 / math.sqrt(samples)
    assert np.abs((z**2).mean(0) - 1).max() < 5 * math.sqrt(2 / samples)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_neighbours_in_a_long_row(kind: str) -> None:
    """Within one long draw, elements 1, 4, 128 or a quarter of a leaf apart are uncorrelated at 5
    standard errors.

    Fixed key; under independence a fresh key fails with a chance below 20 x 5.8e-7, about 1e-5.
    """
    tree = jnp.zeros((512, 256))
    z = np.asarray(
        noise.to_tree(noise.draw(jax.random.key(99), tree, 1, kind)[0], tree), np.float64
    ).ravel()
    n = z.size
    for lag in (1, 2, 3, 4, 8, 32, 64, 128, 256, n // 4):
        for x in (z, (z**2 - 1) / z.std() ** 2 / math.sqrt(2)):
            assert abs(np.mean(x[lag:] * x[:-lag])) < 5 / math.sqrt(n - lag) * 1.01


# --- the interface --------------------------------------------------------------------------------


def test_draw_does_not_read_values() -> None:
    """Only shapes and dtypes of `like` are used: ShapeDtypeStructs give the same numbers."""
    tree = {"w": jnp.full((5, 3), jnp.nan), "b": jnp.zeros(())}
    shapes = jax.eval_shape(lambda: tree)
    for kind in noise.KINDS:
        row = noise.draw(KEYS[0], tree, 1, kind)
        assert identical(row, noise.draw(KEYS[0], shapes, 1, kind))
        for a, b in zip(
            *map(jax.tree.leaves, (noise.to_tree(row[0], tree), noise.to_tree(row[0], shapes))),
            strict=True,
        ):
            assert identical(a, b)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_derivatives_pass(kind: str) -> None:
    """A step that draws can be differentiated, forwards and backwards, with respect to what is not
    noise.
    """
    tree = jnp.zeros(2500)

    def value(scale: Array) -> Array:
        row = noise.draw(KEYS[0], tree, 1, kind)[0]
        return jnp.sum((scale * noise.to_tree(row, tree)) ** 2) / 2500

    assert abs(float(jax.grad(value)(1.0)) - 2) < 0.3
    assert abs(float(jax.jacfwd(value)(1.0)) - 2) < 0.3


def test_errors() -> None:
    """An unknown kind names the argument, its value and what is allowed; wrong rows and leaves are
    refused.
    """
    with pytest.raises(
        ValueError, match="noise must be one of 'gaussian', 'fast'; got noise='normal'"
    ):
        noise.draw(KEYS[0], jnp.zeros(3), 1, "normal")
    with pytest.raises(TypeError, match="int32"):
        noise.draw(KEYS[0], jnp.zeros(3, jnp.int32), 1, "gaussian")
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        noise.to_tree(jnp.zeros(4), jnp.zeros(3))
    with pytest.raises(TypeError, match="int32"):
        noise.to_tree(jnp.zeros(3, jnp.int32), jnp.zeros(3))
