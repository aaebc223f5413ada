"""The convolutional network against an explicit loop, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from sgmcmc import models

KEY = jax.random.key(0)
RNG = np.random.default_rng(4)


def by_hand(params, image):
    """One image (H, W, C): correlate, add, rectify, average 2×2; then the dense layer."""
    x = image
    for layer in params["conv"]:
        kernel, bias = np.asarray(layer["weight"]), np.asarray(layer["bias"])
        maps = [
            sum(
                scipy.signal.correlate2d(x[..., c], kernel[..., c, o], mode="same")
                for c in range(x.shape[2])
            )
            + bias[o]
            for o in range(kernel.shape[3])
        ]
        x = np.maximum(np.stack(maps, axis=-1), 0)
        h, w = x.shape[0] // 2, x.shape[1] // 2
        x = np.stack(
            [
                [x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((0, 1)) for j in range(w)]
                for i in range(h)
            ]
        )
    return x.ravel() @ np.asarray(params["dense"]["weight"]) + np.asarray(params["dense"]["bias"])


@pytest.mark.parametrize("shape", [(8, 8), (7, 9, 2)])
def test_forward_pass(shape, x64):
    model = models.cnn(shape, 4, channels=(3, 5))
    params = jax.tree.map(lambda v: np.asarray(v) + 0.1 * RNG.normal(size=v.shape), model.init(KEY))
    images = RNG.normal(size=(3, *shape))
    expected = [by_hand(params, image.reshape(*shape[:2], -1)) for image in images]
    np.testing.assert_allclose(jax.jit(model.predict)(params, images), expected, rtol=1e-10)
    assert jax.eval_shape(model.log_likelihood, params, (images, np.array([0, 3, 1]))).shape == (3,)


def test_grey_images_may_have_a_channel_axis():
    model = models.cnn((8, 8), 3)
    params, images = model.init(KEY), RNG.normal(size=(2, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(
        jax.jit(model.predict)(params, images), jax.jit(model.predict)(params, images[..., None])
    )


def test_chains_vmap():
    model = models.cnn((8, 8), 3, channels=(2,))
    params = jax.vmap(model.init)(jax.random.split(KEY, 3))
    images = RNG.normal(size=(2, 8, 8)).astype(np.float32)
    stacked = jax.jit(jax.vmap(model.predict, (0, None)))(params, images)
    single = jax.jit(model.predict)(jax.tree.map(lambda v: np.asarray(v)[1], params), images)
    np.testing.assert_allclose(stacked[1], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "settings", "message"),
    [
        (((8,), 3), {}, r"image_shape: got \(8,\)"),
        (((8, 0), 3), {}, "image_shape: got 0"),
        (((8, 8), 1), {}, "num_classes: got 1"),
        (((8, 8), 3), {"channels": ()}, "between 1 and 3 stages"),
        (((8, 8), 3), {"channels": (2, 2, 2, 2)}, "between 1 and 3 stages"),
        (((8, 8), 3), {"kernel_size": 0}, "kernel_size: got 0"),
    ],
)
def test_bad_input(args, settings, message):
    with pytest.raises(ValueError, match=message):
        models.cnn(*args, **settings)


def test_bad_images():
    model = models.cnn((8, 8), 3)
    with pytest.raises(ValueError, match=r"x: got shape \(2, 9, 9\); expected \(n, 8, 8, 1\)"):
        model.predict(model.init(KEY), jnp.zeros((2, 9, 9)))
