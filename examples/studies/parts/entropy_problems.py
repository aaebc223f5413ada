"""Networks and data behind `entropy_sgd`: digits, the paper's mnistfc, a small convolutional net.

A problem's loss is `(params, batch, key) -> (n,)`. Networks with batch norm train on the
statistics of each batch; scores and spectra are taken with `frozen`, the statistics of a part of
the training images in one pass, without dropout, as the paper takes them before testing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import models

from . import mnist_runs

KEEP = 0.8  # of the hidden units under dropout
STATISTICS = 5_000  # training images that batch norm's statistics are taken from
MNISTFC = (784, 1024, 1024, 10)


class Problem(NamedTuple):
    """Data as (x, y) pairs, a network, and the budget in minibatch gradients."""

    name: str
    train: Any
    validation: Any
    test: Any
    init: Any
    loss: Any
    freeze: Any  # (params, x) -> what `logits` needs besides the parameters
    logits: Any  # (params, frozen, x) -> (n, 10)
    batch_size: int
    gradients: int


def nll(logits: Any, y: Any) -> Any:
    """(n,) negative log likelihoods."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)[:, 0]


def digits(gradients: int) -> Problem:
    """8 × 8 digits, an MLP 64-64-64-10; 1,000 to train, 257 to choose, 540 to test."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int32)
    parts = [(x[a:b], y[a:b]) for a, b in ((0, 1_000), (1_000, 1_257), (1_257, 1_797))]
    model = models.mlp((64, 64, 64, 10), likelihood="categorical")
    return _plain("digits", parts, model, 64, gradients)


def convolutional(gradients: int) -> Problem:
    """MNIST at 14 × 14, 6,000 images to train and 2,000 to choose: channels 8 and 16, 3 × 3."""
    (x, y), test = mnist_runs.load(small=False)
    order = np.random.default_rng(0).permutation(len(x))
    parts = [(x[p], y[p]) for p in (order[:6_000], order[6_000:8_000])]
    model = models.cnn((14, 14), 10, channels=(8, 16), kernel_size=3)
    return _plain("conv", [_halved(p) for p in (*parts, test)], model, 100, gradients)


def _halved(pair: Any) -> Any:
    """Images whose pixels are the means of four."""
    return pair[0].reshape(-1, 14, 2, 14, 2).mean((2, 4)), pair[1]


def mnistfc(gradients: int) -> Problem:
    """784-1024-1024-10 with batch norm and dropout; 55,000 images to train, 5,000 to choose."""
    train, test = mnist_runs.load(small=False)
    rest, held = mnist_runs.hold_out(train, 0)
    return Problem(
        "mnistfc", rest, held, test, Partial(_init_normed), Partial(_normed_loss),
        Partial(_normed_statistics), Partial(_normed_logits), 128, gradients,
    )  # fmt: skip


def _plain(name: str, parts: Any, model: Any, batch_size: int, gradients: int) -> Problem:
    loss, logits = Partial(_model_loss, model.predict), Partial(_model_logits, model.predict)
    return Problem(name, *parts, model.init, loss, Partial(_nothing), logits, batch_size, gradients)


def _model_loss(predict: Any, params: Any, batch: Any, key: Any) -> Any:
    return nll(predict(params, batch[0]), batch[1])


def _model_logits(predict: Any, params: Any, frozen: Any, x: Any) -> Any:
    return predict(params, x)


def _nothing(params: Any, x: Any) -> Any:
    return ()


def _init_normed(key: Any) -> Any:
    """He's weights; batch norm's scale 1 and shift 0 on both hidden layers: 1,867,786 numbers."""
    layers = []
    for k, a, b in zip(jax.random.split(key, 3), MNISTFC[:-1], MNISTFC[1:], strict=True):
        weight = jax.random.normal(k, (a, b)) * np.sqrt(2 / a)
        layers.append({"weight": weight, "bias": jnp.zeros(b)})
    for layer in layers[:-1]:
        width = layer["bias"].shape
        layer |= {"scale": jnp.ones(width), "shift": jnp.zeros(width)}
    return layers


def _normed(params: Any, x: Any, statistics: Any, key: Any) -> tuple[Any, list[Any]]:
    """Logits, and the statistics that were used; those of the batch where none are given."""
    seen = []
    for i, layer in enumerate(params[:-1]):
        x = x @ layer["weight"] + layer["bias"]
        mean, variance = (x.mean(0), x.var(0)) if statistics is None else statistics[i]
        seen.append((mean, variance))
        x = (x - mean) / jnp.sqrt(variance + 1e-5) * layer["scale"] + layer["shift"]
        x = jax.nn.relu(x)
        if key is not None:
            kept = jax.random.bernoulli(jax.random.fold_in(key, i), KEEP, x.shape)
            x = jnp.where(kept, x / KEEP, 0.0)
    return x @ params[-1]["weight"] + params[-1]["bias"], seen


def _normed_loss(params: Any, batch: Any, key: Any) -> Any:
    return nll(_normed(params, batch[0], None, key)[0], batch[1])


def _normed_statistics(params: Any, x: Any) -> Any:
    return _normed(params, x[:STATISTICS], None, None)[1]


def _normed_logits(params: Any, frozen: Any, x: Any) -> Any:
    return _normed(params, x, frozen, None)[0]
