"""The optimizers of local entropy train networks of equinox and flax, in chains and by `fit`."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from tests.optim.test_fit import network

_RNG = np.random.default_rng(0)
INPUTS = _RNG.normal(size=(128, 2)).astype(np.float32)
LABELS = (INPUTS[:, 0] * INPUTS[:, 1] > 0).astype(np.int32)
DATA = (INPUTS, LABELS)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def optimizer(**changed):
    """Clipping, weight decay, a schedule of the rate and scoping in one chain."""
    given = {
        "precision": sgmcmc.local.scoping(0.1, 1e-3), "step_size": 0.2, "num_steps": 10,
        "averaging": 0.75, "absorbed": True,
    } | changed  # fmt: skip
    rate = optax.piecewise_constant_schedule(1.0, {80: 0.1})  # of outer steps
    return optax.chain(
        optax.clip_by_global_norm(5.0),
        optax.add_decayed_weights(1e-4),
        sgmcmc.optim.entropy_sgd(jax.random.key(1), rate, **given),
    )


def accuracy(predict):
    return float(jnp.mean(jnp.argmax(predict(jnp.asarray(INPUTS)), axis=-1) == LABELS))


def by_hand(transform, loss, params, num_steps):
    """The loop that a user writes; the anchor."""

    @jax.jit
    def step(carry, t):
        params, state = carry
        rows = (t * 32 + jnp.arange(32)) % len(INPUTS)
        gradient = jax.grad(loss)(params, (jnp.asarray(INPUTS)[rows], jnp.asarray(LABELS)[rows]))
        updates, state = transform.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (_, state), _ = jax.lax.scan(step, (params, transform.init(params)), jnp.arange(num_steps))
    return state[-1].anchor


def fitted(loss, params, num_steps):
    return sgmcmc.optim.fit(
        jax.random.key(3), loss, params, DATA, optimizer=optimizer(), batch_size=32,
        num_steps=num_steps, progress=False,
    ).params  # fmt: skip


def test_equinox():
    """The arrays of a module alone, as `eqx.partition` gives them; or the module, by `fit`."""
    model = network(2, 16, 2)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    assert any(x is None for x in jax.tree.leaves(params, is_leaf=lambda x: x is None))

    def loss(params, batch):
        return cross_entropy(jax.vmap(eqx.combine(params, static))(batch[0]), batch[1])

    anchor = by_hand(optimizer(), loss, params, 1_500)
    assert accuracy(jax.vmap(eqx.combine(anchor, static))) > 0.9
    whole = lambda m, batch: cross_entropy(jax.vmap(m)(batch[0]), batch[1])  # noqa: E731
    found = fitted(whole, model, 1_500)
    assert isinstance(found, eqx.nn.Sequential)
    assert accuracy(jax.vmap(found)) > 0.9


def test_flax_nnx():
    """The parameters that `nnx.split` gives."""
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(2, 16, rngs=rngs), jnp.tanh, nnx.Linear(16, 2, rngs=rngs))
    graph, params = nnx.split(model, nnx.Param)

    def loss(params, batch):
        return cross_entropy(nnx.merge(graph, params)(batch[0]), batch[1])

    assert accuracy(nnx.merge(graph, by_hand(optimizer(), loss, params, 1_500))) > 0.9
    assert accuracy(nnx.merge(graph, fitted(loss, params, 1_500))) > 0.9


def test_flax_linen():
    """The dict of a linen module."""
    nn = pytest.importorskip("flax.linen")
    model = nn.Sequential([nn.Dense(16), jnp.tanh, nn.Dense(2)])
    params = model.init(jax.random.key(0), INPUTS[:1])

    def loss(params, batch):
        return cross_entropy(model.apply(params, batch[0]), batch[1])

    found = fitted(loss, params, 1_500)
    assert accuracy(lambda x: model.apply(found, x)) > 0.9


def test_momentum_sampling_and_replicas():
    """The other optimizers train the same network of this library's own."""
    model = sgmcmc.models.mlp((2, 16, 2), activation="tanh")
    loss = lambda p, batch: cross_entropy(model.predict(p, batch[0]), batch[1])  # noqa: E731
    shared = {"precision": 0.1, "step_size": 0.2, "num_steps": 10, "averaging": 0.75}
    key = jax.random.key(2)
    cold = sgmcmc.optim.entropy_sgld(key, 5.0, temperature=1e-5, **shared)
    fast = sgmcmc.optim.entropy_sgd(key, 5.0, **shared | {"step_size": 0.05}, momentum=0.9)
    start = model.init(jax.random.key(0))
    for transform in (cold, fast):
        found = sgmcmc.optim.fit(
            jax.random.key(3), loss, start, DATA, optimizer=transform, batch_size=32,
            num_steps=1_500, progress=False,
        )  # fmt: skip
        assert accuracy(lambda x, p=found.params: model.predict(p, x)) > 0.9
    starts = jax.tree.map(lambda x: jnp.stack([x] * 3), start)
    found = sgmcmc.optim.fit(
        jax.random.key(3), loss, starts, DATA, batch_size=32, num_steps=1_500, num_replicas=3,
        optimizer=sgmcmc.optim.parle(key, 3, 5.0, coupling=0.02, **shared), progress=False,
    )  # fmt: skip
    assert accuracy(lambda x: model.predict(found.params, x)) > 0.9


def test_sizes_of_the_published_networks():
    """E2: the networks of the authors' programs, batch norm included, have their weights."""
    nnx = pytest.importorskip("flax.nnx")

    def dense(rngs, *sizes):
        """Hidden layers with batch norm, and a last one without."""
        layers = []
        for fan_in, out in itertools.pairwise(sizes[:-1]):
            layers += [nnx.Linear(fan_in, out, rngs=rngs), nnx.BatchNorm(out, rngs=rngs)]
        return [*layers, nnx.Linear(*sizes[-2:], rngs=rngs)]

    def convolutions(rngs, *shapes):
        """Convolutions (in, out, width), each with batch norm."""
        layers = []
        for fan_in, out, width in shapes:
            layers += [
                nnx.Conv(fan_in, out, (width, width), rngs=rngs),
                nnx.BatchNorm(out, rngs=rngs),
            ]
        return layers

    def mnistfc():
        return nnx.Sequential(*dense(nnx.Rngs(0), 784, 1024, 1024, 10))

    def lenet():
        rngs = nnx.Rngs(0)
        parts = convolutions(rngs, (1, 20, 5), (20, 50, 5))
        return nnx.Sequential(*parts, *dense(rngs, 50 * 2 * 2, 500, 10))

    def all_cnn():
        small, large = [(3, 96, 3), (96, 96, 3), (96, 96, 3)], [(192, 192, 3)] * 4
        return nnx.Sequential(
            *convolutions(nnx.Rngs(0), *small, (96, 192, 3), *large, (192, 10, 1))
        )

    for make, number in ((mnistfc, 1_867_786), (lenet, 132_220), (all_cnn, 1_667_166)):
        parameters = nnx.state(nnx.eval_shape(make), nnx.Param)
        assert sum(np.prod(x.shape) for x in jax.tree.leaves(parameters)) == number
