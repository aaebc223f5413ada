"""Bayesian networks: multilayer perceptrons, and a small convolutional one for images.

Parameters of a perceptron are a tuple of layers `{"weight": (in, out), "bias": (out,)}`: plain
arrays, and a batch goes through each layer as one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.models import _likelihoods as likelihoods
from sgmcmc.models import priors
from sgmcmc.models._model import Model
from sgmcmc.types import Array, Key, PyTree

LIKELIHOODS = ("categorical", "gaussian")

# A learned noise scale stays within this factor of `noise_scale`, either way.
NOISE_FACTOR = 30.0


def mlp(
    sizes: Sequence[int],
    *,
    likelihood: str = "categorical",
    activation: str | Callable[[Array], Array] = "relu",
    prior: float | Callable[[PyTree], Array] = 1.0,
    noise_scale: float | Array | None = None,
    learn_noise: bool = False,
) -> Model:
    """A Bayesian multilayer perceptron.

    Args:
        sizes: units of every layer, inputs first, as (64, 64, 64, 10).
        likelihood: "categorical" (default): labels y (n,) in 0 … sizes[−1]−1, `predict ->
            logits (n, k)`. "gaussian": responses y (n,), sizes[−1] = 1, `predict ->
            (mean (n,), scale (n,))`.
        activation: a name ("relu" by default, "tanh", "gelu", "silu", …) or a function,
            applied between layers.
        prior: standard deviation of a zero-centred normal on every weight and bias (default
            1), or a function `layers -> ()`, as `priors.laplace(0.3)`.
        noise_scale: σ > 0 of the Gaussian likelihood, in units of y; default 1. It is the
            prior median where the noise is learned.
        learn_noise: sample σ too (Gaussian only; default False). The parameters are then
            `{"layers": …, "log_noise": ()}` with u = log_noise ~ N(0, 1) and
            log σ = log noise_scale + B tanh(u/B), B = log 30. A free log σ was seen to run
            away in silence (σ = 3e16 with a plausible LPPD); this one stays within a factor
            30, and at the bound the prior alone acts on u and pulls it back. Minibatch
            noise still inflates a learned σ: compare with full gradients.

    Returns:
        A `Model`. `init(key)` is He's: weights N(0, 2/fan-in), biases 0, u = 0. Inputs with
        more than two axes are flattened to (n, sizes[0]).

    Raises:
        ValueError: fewer than two sizes or one below 1, one class, an unknown likelihood or
            activation, a scale not > 0, Gaussian outputs other than 1, or noise settings
            for a categorical likelihood.
        TypeError: a size is not an integer; `prior` or `activation` is of another type.

    Examples:
        >>> model = mlp((3, 16, 1), likelihood="gaussian", activation="tanh", noise_scale=0.1)
        >>> params = model.init(jax.random.key(0))
        >>> [layer["weight"].shape for layer in params]
        [(3, 16), (16, 1)]
    """
    sizes = tuple(checks.count(size, "sizes") for size in sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes: got {sizes}; expected at least two, inputs first")
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood: got {likelihood!r}; expected one of {LIKELIHOODS}")
    network = Partial(forward, activation_function(activation))
    log_prior = priors.as_prior(prior)
    if likelihood == "categorical":
        if noise_scale is not None or learn_noise:
            raise ValueError("noise_scale, learn_noise: a categorical likelihood has no noise")
        if sizes[-1] < 2:
            raise ValueError(
                f"sizes: got {sizes[-1]} output, one class; allowed: k ≥ 2 for labels 0 … k−1, or "
                'likelihood="gaussian" for responses'
            )
        return Model(
            init=MlpInit(sizes, learn_noise=False),
            predict=network,
            log_likelihood=Partial(likelihoods.categorical, network),
            log_prior=log_prior,
            check_data=likelihoods.Labels(sizes[-1]),
        )
    if sizes[-1] != 1:
        raise ValueError(f"sizes: got {sizes[-1]} outputs; a gaussian likelihood has 1")
    noise = checks.positive_scalar(1.0 if noise_scale is None else noise_scale, "noise_scale")
    predict = Partial(_learned_noise if learn_noise else _fixed_noise, network, noise)
    return Model(
        init=MlpInit(sizes, learn_noise=bool(learn_noise)),
        predict=predict,
        log_likelihood=Partial(likelihoods.normal, predict),
        log_prior=Partial(_learned_noise_prior, log_prior) if learn_noise else log_prior,
    )


class MlpInit(eqx.Module):
    """`key -> params`: weights N(0, 2/fan-in), biases 0 (He et al., 2015)."""

    sizes: tuple[int, ...] = eqx.field(static=True)
    learn_noise: bool = eqx.field(static=True)

    @eqx.filter_jit  # one small program in place of a dozen
    def __call__(self, key: Key) -> PyTree:
        keys = jax.random.split(key, len(self.sizes) - 1)
        layers = tuple(
            dense(k, fan_in, fan_out)
            for k, fan_in, fan_out in zip(keys, self.sizes[:-1], self.sizes[1:], strict=True)
        )
        return {"layers": layers, "log_noise": jnp.zeros(())} if self.learn_noise else layers


def dense(key: Key, fan_in: int, fan_out: int) -> dict[str, Array]:
    """A fully connected layer with He's initialisation."""
    weight = math.sqrt(2 / fan_in) * jax.random.normal(key, (fan_in, fan_out))
    return {"weight": weight, "bias": jnp.zeros(fan_out)}


def forward(activation: Callable[[Array], Array], layers: PyTree, x: ArrayLike) -> Array:
    """(n, in) inputs through the layers: (n, out)."""
    first = layers[0]["weight"]
    x = likelihoods.inputs(x, first.shape[0], first.dtype)
    for layer in layers[:-1]:
        x = activation(x @ layer["weight"] + layer["bias"][None])
    return x @ layers[-1]["weight"] + layers[-1]["bias"][None]


def _fixed_noise(
    network: Callable[..., Array], noise: Array, params: PyTree, x: ArrayLike
) -> tuple[Array, Array]:
    mean = network(params, x)[:, 0]
    return mean, jnp.broadcast_to(noise.astype(mean.dtype), mean.shape)


def _learned_noise(
    network: Callable[..., Array], noise: Array, params: PyTree, x: ArrayLike
) -> tuple[Array, Array]:
    mean = network(params["layers"], x)[:, 0]
    bound = math.log(NOISE_FACTOR)
    scale = noise.astype(mean.dtype) * jnp.exp(bound * jnp.tanh(params["log_noise"] / bound))
    return mean, jnp.broadcast_to(scale, mean.shape)


def _learned_noise_prior(log_prior: Callable[[PyTree], Array], params: PyTree) -> Array:
    return log_prior(params["layers"]) - 0.5 * params["log_noise"] ** 2


def cnn(
    image_shape: Sequence[int],
    num_classes: int,
    *,
    channels: Sequence[int] = (16, 32),
    kernel_size: int = 3,
    activation: str | Callable[[Array], Array] = "relu",
    prior: float | Callable[[PyTree], Array] = 1.0,
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
    predict = Forward(activation_function(activation), shape)
    return Model(
        init=CnnInit(shape, widths, kernel_size, num_classes),
        predict=predict,
        log_likelihood=Partial(likelihoods.categorical, predict),
        log_prior=priors.as_prior(prior),
        check_data=likelihoods.Labels(num_classes),
    )


class CnnInit(eqx.Module):
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

    activation: Callable[[Array], Array]
    image_shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, params: PyTree, x: ArrayLike) -> Array:
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
            x = _pool(self.activation(x + layer["bias"][None, None, None]))
        dense = params["dense"]
        return x.reshape(len(x), -1) @ dense["weight"] + dense["bias"][None]


def _pool(x: Array) -> Array:
    """2×2 means; a mean by reshape, whose gradient is cheaper than that of a window."""
    n, height, width, depth = x.shape
    h, w = height // 2, width // 2
    return x[:, : 2 * h, : 2 * w].reshape(n, h, 2, w, 2, depth).mean(axis=(2, 4))


ACTIVATIONS = ("relu", "tanh", "gelu", "silu", "elu", "softplus", "sigmoid", "leaky_relu")


def activation_function(activation: str | Callable[[Array], Array]) -> Callable[..., PyTree]:
    """The activation called `activation`, or the callable itself, as a pytree.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a callable.
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation: got {activation!r}; expected one of {', '.join(ACTIVATIONS)}, "
                "or a function"
            )
        return Partial(getattr(jax.nn, activation))
    return trees.as_callable(activation, "activation")
