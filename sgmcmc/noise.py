"""The random numbers of one step: drawn flat for the whole tree, by one generator call.

`draw` makes all numbers of a step at once, `to_tree` gives one row of them the shape of the
parameters. Two kinds:

"gaussian"
    Standard normals: bit for bit the numbers of `jax.random.normal(rng_key, (count, d), dtype)`;
    in half precision those of float32, rounded. JAX's own half normals have means of −.011
    (bfloat16) and −.002 (float16), which a chain adds up.

"fast"
    One random byte an element, four to a `uint32` word, turned into numbers by `to_tree`: an
    odd polynomial of degree 9 of the centred byte. The law has 256 values and is symmetric; its
    moments through order 5 are those of the standard normal (m2 = 1 and m4 = 3 exactly), m6 = 13.74
    instead of 15, the Kolmogorov distance is 0.011 and `|z| <= 2.74`. So every covariance stays
    exact and so does any weak order up to 2. It is not for the tails of Metropolis-corrected
    kernels, nor for numbers that must look Gaussian one by one; linear maps of several variables
    (correlated pairs and triples) keep their covariance, but their joint law is Gaussian through
    order 5 only.

On CPU the generator is most of the cost of a Langevin step. JAX 0.10.2 lowers threefry there as a
rolled loop that keeps its state in memory; the same 20 rounds, written out below, fuse and
vectorise. JAX made the same change for itself in pull request 37872; when the oldest supported JAX
has it, the copy goes. Elsewhere (GPU, TPU, other key types, the non-partitionable mode) JAX's own
generator is used. The two give the same bits.

XLA would fuse the hash into every reader and compute a whole word for each byte read; `draw`
keeps it apart, so words and normals are computed once however often they are read. A loop may draw
in the step that consumes, or one step ahead.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float, UInt32

from sgmcmc._tree import common_dtype
from sgmcmc.types import NoiseKind, PyTree

__all__ = [
    "KINDS",
    "draw",
    "to_tree",
]

KINDS = ("gaussian", "fast")
"""What `noise=` of a kernel may be."""

# z = x P(x^2) for the centred byte x = (2 b - 255) / 256: the least-squares fit to the normal
# quantiles Phi^-1((b + 1/2) / 256), moved the least (root mean square over the 256 values) that
# makes m2 = 1 and m4 = 3. tests/test_noise.py computes them anew.
_POLYNOMIAL = (
    1.37988655040101,
    -2.40579741717601,
    13.256026269341902,
    -22.461158253969337,
    13.051100958526863,
)

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

_PARITY = 0x1BD11BDA

_PARTITIONABLE = "jax_threefry_partitionable"

_LANES = 128


def draw(
    rng_key: Array, like: PyTree, count: int, kind: NoiseKind
) -> Float[Array, "rows d"] | UInt32[Array, "rows w"]:
    """All random numbers of one step for a pytree, by one call of the generator.

    Args:
        rng_key: one key, typed (`jax.random.key`) or legacy (`uint32`). Batch with
            `jax.vmap`.
        like: pytree of floating arrays (or `jax.ShapeDtypeStruct`), `d` elements in all; only
            shapes and dtypes are used.
        count: how many variables per element the step needs (rows).
        kind: "gaussian" or "fast"; their laws are those of `sgmcmc.noise`, above.

    Returns:
        For "gaussian" standard normals of shape `(count, d)` in the leaves' common dtype
        (`jnp.result_type`), the very numbers of `jax.random.normal` in float32 at least, then
        rounded. For "fast" `uint32`
        words of shape `(count, w)`, the very words of `jax.random.bits`, about `d / 4` a row.
        A row goes to `to_tree`.

    Raises:
        ValueError: `kind` is not one of `KINDS`.
        TypeError: a leaf of `like` is not floating.
    """
    leaves = jax.tree.leaves(like)
    dtypes = [_float_dtype(leaf) for leaf in leaves]
    if kind == "gaussian":
        size = sum(math.prod(np.shape(leaf)) for leaf in leaves)
        dtype = common_dtype(*dtypes, *([] if dtypes else [float]))
        return _normal(rng_key, (count, size), common_dtype(dtype, jnp.float32)).astype(dtype)
    if kind == "fast":
        return _bits(
            rng_key, (count, sum(math.prod(_word_shape(np.shape(leaf))) for leaf in leaves))
        )
    raise ValueError(f"noise must be one of {', '.join(map(repr, KINDS))}; got noise={kind!r}")


def to_tree(row: Array, like: PyTree) -> PyTree:
    """One row of `draw` as a pytree of independent variables (mean 0, variance 1).

    Args:
        row: either floats of shape `(d,)`, which are passed through, or `uint32` words of shape
            `(w,)` as drawn by "fast"; the dtype decides, at trace time.
        like: pytree of floating arrays (or `jax.ShapeDtypeStruct`), the one given to `draw`.

    Returns:
        Pytree with the structure, shapes and dtypes of `like`. The words' polynomial is evaluated
        in float32 or, for float64 leaves, in float64; narrower leaves are rounded from float32.

    Raises:
        TypeError: a leaf of `like` is not floating, or `row` neither floating nor `uint32`.
        ValueError: `row` has another length than `like` needs.
    """
    leaves, treedef = jax.tree.flatten(like)
    shapes = [np.shape(leaf) for leaf in leaves]
    dtypes = [_float_dtype(leaf) for leaf in leaves]
    words = row.dtype == jnp.uint32
    if not words and not jnp.issubdtype(row.dtype, jnp.floating):
        raise TypeError(f"row must hold floats or uint32 words; got {row.dtype}")
    sizes = [math.prod(_word_shape(shape) if words else shape) for shape in shapes]
    if row.shape != (sum(sizes),):
        raise ValueError(
            f"row must have shape ({sum(sizes)},) for this tree and dtype {row.dtype}; "
            f"got {row.shape}"
        )
    stops = np.cumsum(sizes, dtype=int).tolist()
    out = []
    for shape, dtype, size, stop in zip(shapes, dtypes, sizes, stops, strict=True):
        part = lax.slice_in_dim(row, stop - size, stop)
        out.append(_standardise(part, shape, dtype) if words else part.reshape(shape).astype(dtype))
    return jax.tree.unflatten(treedef, out)


def _float_dtype(leaf: Array) -> DTypeLike:
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"noise is for floating leaves only; got a leaf of dtype {dtype}")
    return dtype


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _normal(rng_key: Array, shape: tuple[int, int], dtype: DTypeLike) -> Float[Array, "rows d"]:
    """Exactly `jax.random.normal(rng_key, shape, dtype)`."""
    if dtype != jnp.float32 or not _write_out(rng_key, shape):
        return jax.random.normal(rng_key, shape, dtype)

    def normal(uniform: Array) -> Array:
        # jax.random.normal's steps: [1, 2) becomes (-1, 1), then the inverse error function.
        low = np.nextafter(np.float32(-1), np.float32(0))
        symmetric = jnp.maximum(low, (uniform - np.float32(1)) * (np.float32(1) - low) + low)
        return np.float32(np.sqrt(2)) * lax.erf_inv(symmetric)

    words = _blocks(rng_key, shape)
    uniform = lax.bitcast_convert_type((words >> np.uint32(9)) | np.uint32(0x3F800000), jnp.float32)
    return _from_blocks(_apart(normal, uniform), shape)


@partial(jax.jit, static_argnums=1, inline=True)
def _bits(rng_key: Array, shape: tuple[int, int]) -> UInt32[Array, "rows w"]:
    """Exactly `jax.random.bits(rng_key, shape, jnp.uint32)`."""
    if not _write_out(rng_key, shape):
        return jax.random.bits(rng_key, shape, jnp.uint32)
    return _from_blocks(_apart(jnp.invert, ~_blocks(rng_key, shape)), shape)


def _write_out(rng_key: Array, shape: tuple[int, int]) -> bool:
    """Whether the written-out threefry below replaces JAX's own: the same words, and faster."""
    return (
        jax.default_backend() == "cpu"
        and bool(getattr(jax.config, _PARTITIONABLE))
        and str(jax.random.key_impl(rng_key)) in ("fry", "threefry2x32")
        and 0 < math.prod(shape) <= 2**32 - _LANES  # beyond, the counter has a high word
    )


def _apart(function: Callable[[Array], Array], operand: Array) -> Array:
    """`function(operand)`, where XLA computes operand and result once each, in one buffer.

    XLA fuses cheap operations into every reader. A hash of 20 rounds counts as cheap, so it would
    be computed again for each reader, and for each half of the inverse error function.
    `lax.optimization_barrier` is gone by the time XLA fuses, but keeps from it here how often the
    loop turns (once), and loops are not fused.
    """
    once = lax.optimization_barrier(jnp.int32(1))
    return lax.while_loop(
        lambda c: c[0] < once, lambda c: (c[0] + 1, function(c[1])), (jnp.int32(0), operand)
    )[1]


def _blocks(rng_key: Array, shape: tuple[int, int]) -> Array:
    """Random words (count, blocks, lanes), where `_from_blocks` gives (count, size)."""
    # Whole blocks of a fixed length, because a loop over a length that the cores do not divide is
    # not vectorised.
    count, size = shape
    lanes = _LANES if size >= 16 * _LANES else size
    key0, key1 = (
        jax.random.key_data(rng_key)
        if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key)
        else rng_key
    )
    block = (count, -(-size // lanes))
    rows, columns = (lax.broadcasted_iota(jnp.uint32, block, axis) for axis in (0, 1))
    # The key comes in before the lanes do: the sum of both indices alone would be the same in each
    # turn of the sampling loop, and XLA would keep the whole array of it in memory.
    start = rows * np.uint32(size) + columns * np.uint32(lanes) + key1
    return _threefry(key0, key1, start[:, :, None] + lax.iota(jnp.uint32, lanes)[None, None])


def _from_blocks(blocks: Array, shape: tuple[int, int]) -> Array:
    return blocks.reshape(shape[0], -1)[:, : shape[1]]


def _threefry(key0: Array, key1: Array, x1: Array) -> Array:
    """Threefry2x32, 20 rounds (Salmon et al. 2011): xor of the words of block (0, x1 - key1)."""
    keys = (key0, key1, key0 ^ key1 ^ np.uint32(_PARITY))
    x0 = key0
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << np.uint32(rotation)) | (x1 >> np.uint32(32 - rotation))) ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + (keys[(group + 2) % 3] + np.uint32(group + 1))
    return x0 ^ x1


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """A leaf's shape as (rows, columns), rows a multiple of four or short of one by 1 in 64."""
    # The byte lanes of the words are stacked along the rows, so that each lane is one contiguous
    # piece of the leaf. Long columns keep the loop over them vectorised; a waste of up to 1 byte in
    # 64 is let pass for them.
    for axis in range(1, len(shape)):
        rows = math.prod(shape[:axis])
        if -rows % 4 * 64 <= rows:
            return rows, math.prod(shape[axis:])
    return math.prod(shape), 1


def _word_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(⌈rows/4⌉, columns): the words that hold a leaf's bytes."""
    rows, columns = _rows(shape)
    return -(-rows // 4), columns


def _standardise(words: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """A leaf of `shape` from its words: each byte through the odd polynomial of degree 9."""
    rows, _ = _rows(shape)
    height, columns = _word_shape(shape)
    words = lax.bitcast_convert_type(words.reshape(height, columns), jnp.int32)
    # Byte k of word i belongs to row k * height + i. The last lanes may be short.
    lanes = []
    for lane in range(4):
        part = words[: min(height, max(0, rows - lane * height))]
        # As a signed number: the shift up drops the bytes above, the arithmetic shift down those
        # below.
        lanes.append((part << (24 - 8 * lane)) >> 24)
    signed = jnp.concatenate(lanes)
    wide = common_dtype(dtype, jnp.float32)
    x = (2 * signed.astype(wide) + 1) / 256
    square = x * x
    value = jnp.full_like(x, _POLYNOMIAL[-1])
    for coefficient in _POLYNOMIAL[-2::-1]:
        value = value * square + coefficient
    return (x * value).reshape(shape).astype(dtype)


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
