"""A small Bayesian convolutional network for images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc.models import checks, likelihoods, priors
from sgmcmc.models.bnn import dense
from sgmcmc.models.model import Model
from sgmcmc.types import Array, Key, PyTree


def cnn(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    channels: Sequence[int] = (16, 32),
    kernel_size: int = 3,
    activation: str | Callable[[Array], Array] = "relu",
    prior: Any = 1.0,
) -> Model:
    """Convolution, activation and 2×2 mean pooling for each of `channels`, then one dense layer.

    Args:
        image_shape: (H, W) or (H, W, C); images are (n, H, W) or (n, H, W, C).
        num_classes: k ≥ 2.
        channels: output channels of each convolution; default (16, 32). Every stage halves
            H and W, rounding down.
        kernel_size: width of the square kernels, zero padding at the edges; default 3.
        activation: a name or a function, as for `mlp`; default "relu".
        prior: standard deviation of a normal on every weight and bias (default 1), or a
            function `params -> ()`.

    Returns:
        A categorical `Model`: `predict -> logits (n, k)`. Parameters are `{"conv": layers,
        "dense": layer}`, kernels (kernel_size, kernel_size, in, out). `init` is He's.

    Raises:
        ValueError: shapes or sizes below 1, images too small for the number of stages, an
            unknown activation, a prior scale not > 0.
        TypeError: a size is not an integer.

    Examples:
        >>> model = cnn((8, 8), 10, channels=(4, 8))
        >>> params = model.init(jax.random.key(0))
        >>> model.predict(params, jnp.zeros((5, 8, 8))).shape
        (5, 10)
    """
    shape = tuple(checks.count(size, "image_shape") for size in image_shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"image_shape: got {shape}; expected (H, W) or (H, W, C)")
    shape = shape if len(shape) == 3 else (*shape, 1)
    widths = tuple(checks.count(width, "channels") for width in channels)
    if not widths or min(shape[:2]) < 2 ** len(widths):
        raise ValueError(
            f"channels: got {widths}; {shape[0]} × {shape[1]} images allow between 1 and "
            f"{int(math.log2(min(shape[:2])))} stages"
        )
    num_classes = checks.count(num_classes, "num_classes", least=2)
    kernel_size = checks.count(kernel_size, "kernel_size")
    predict = Forward(checks.activation_function(activation), shape)
    return Model(
        init=HeInit(shape, widths, kernel_size, num_classes),
        predict=predict,
        log_likelihood=Partial(likelihoods.categorical, predict),
        log_prior=priors.as_prior(prior),
    )


class HeInit(eqx.Module):
    """`key -> params`: weights N(0, 2/fan-in), biases 0."""

    image_shape: tuple[int, ...] = eqx.field(static=True)
    channels: tuple[int, ...] = eqx.field(static=True)
    kernel_size: int = eqx.field(static=True)
    num_classes: int = eqx.field(static=True)

    @eqx.filter_jit  # one small program in place of a dozen
    def __call__(self, key: Key) -> PyTree:
        height, width, depth = self.image_shape
        *conv_keys, dense_key = jax.random.split(key, len(self.channels) + 1)
        conv = []
        for k, out in zip(conv_keys, self.channels, strict=True):
            shape = (self.kernel_size, self.kernel_size, depth, out)
            spread = math.sqrt(2 / math.prod(shape[:3]))
            conv.append({"weight": spread * jax.random.normal(k, shape), "bias": jnp.zeros(out)})
            height, width, depth = height // 2, width // 2, out
        fan_in = height * width * depth
        return {"conv": tuple(conv), "dense": dense(dense_key, fan_in, self.num_classes)}


class Forward(eqx.Module):
    """`(params, x) -> logits (n, k)`."""

    activation: Any
    image_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, params: PyTree, x: Any) -> Array:
        x = jnp.asarray(x)
        allowed = [self.image_shape] + [self.image_shape[:2]] * (self.image_shape[2] == 1)
        if x.shape[1:] not in allowed:
            expected = " or ".join(str(("n", *shape)).replace("'", "") for shape in allowed)
            raise ValueError(f"x: got shape {x.shape}; expected {expected}")
        x = x.reshape(-1, *self.image_shape).astype(params["dense"]["weight"].dtype)
        for layer in params["conv"]:
            x = jax.lax.conv_general_dilated(
                x, layer["weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = _pool(self.activation(x + layer["bias"]))
        dense = params["dense"]
        return x.reshape(len(x), -1) @ dense["weight"] + dense["bias"]


def _pool(x: Array) -> Array:
    """2×2 means; a mean by reshape, whose gradient is cheaper than that of a window."""
    n, height, width, depth = x.shape
    h, w = height // 2, width // 2
    return x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2, depth).mean(axis=(2, 4))
