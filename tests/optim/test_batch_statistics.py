"""Batch statistics at given weights: against means and variances computed directly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc.optim import refresh_batch_statistics

X = (3 + np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 0.1, 5.0]).astype(np.float32)
# Of unequal size, and in an order that separates large values from small.
BATCHES = [jnp.asarray(part) for part in np.split(X[np.argsort(X[:, 2])], [7, 30, 45])]


def linen_net(momentum):
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train, momentum=momentum)(nn.Dense(4)(x))
            return nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.relu(x))

    net = Net()
    variables = net.init(jax.random.key(0), X, train=False)

    def apply(params, batch_stats, batch, train=True):
        given = {"params": params, "batch_stats": batch_stats}
        return net.apply(given, batch, train=train, mutable=["batch_stats"])[1]["batch_stats"]

    return net, apply, variables["params"], variables["batch_stats"]


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99])
def test_linen(momentum):
    """Layer 1: over all rows. Layer 2: of rows that layer 1 normalised batch by batch."""
    _, apply, params, old = linen_net(momentum)
    new = refresh_batch_statistics(apply, params, old, iter(BATCHES))
    dense = {k: np.asarray(v, np.float64) for k, v in params["Dense_0"].items()}
    inner = X.astype(np.float64) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(new["BatchNorm_0"]["mean"], inner.mean(axis=0), rtol=2e-5)
    np.testing.assert_allclose(new["BatchNorm_0"]["var"], inner.var(axis=0), rtol=2e-5)
    rows = []
    for batch in BATCHES:
        h = np.asarray(batch, np.float64) @ dense["kernel"] + dense["bias"]
        h = (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)
        rows.append(np.maximum(h, 0))
    outer = np.concatenate(rows)
    np.testing.assert_allclose(new["BatchNorm_1"]["mean"], outer.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(new["BatchNorm_1"]["var"], outer.var(axis=0), rtol=1e-4)
    assert jax.tree.structure(new) == jax.tree.structure(old)
    assert float(old["BatchNorm_0"]["mean"].max()) == 0


def test_evaluation_with_them():
    """One batch of all rows: evaluating with the new statistics is the training pass."""
    net, apply, params, old = linen_net(0.9)
    new = refresh_batch_statistics(apply, params, old, [jnp.asarray(X)])
    given = {"params": params, "batch_stats": new}
    evaluated = net.apply(given, X, train=False)
    trained, _ = net.apply(given, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(evaluated, trained, rtol=1e-4, atol=1e-4)


def test_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(3, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.dense(x))

    net = Net(nnx.Rngs(0))
    graph, params, old, rest = nnx.split(net, nnx.Param, nnx.BatchStat, ...)

    def apply(params, batch_stats, batch):
        run = nnx.merge(graph, params, batch_stats, rest)
        run.train()
        run(batch)
        return nnx.state(run, nnx.BatchStat)

    new = refresh_batch_statistics(apply, params, old, BATCHES)
    inner = np.asarray(net.dense(X), np.float64)
    np.testing.assert_allclose(new["norm"]["mean"][...], inner.mean(axis=0), rtol=2e-5)
    np.testing.assert_allclose(new["norm"]["var"][...], inner.var(axis=0), rtol=2e-5)


def by_hand(momentum, apart=0.0):
    """A layer without flax, in double precision; `apart` spoils one feature's momentum."""

    def apply(params, old, x):
        m = momentum + apart * jnp.arange(3)
        own = {"mean": (x * params).mean(axis=0), "var": (x * params).var(axis=0)}
        return jax.tree.map(lambda a, b: m * a + (1 - m) * b, old, own)

    return apply


def test_double_precision(x64):
    """Sixty batches of one row: the variance is all between them, and to twelve digits."""
    x = jnp.asarray(X, float)
    start = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    new = refresh_batch_statistics(by_hand(0.9), 2.0, start, [row[None] for row in x])
    np.testing.assert_allclose(new["mean"], 2 * x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(new["var"], 4 * x.var(axis=0), rtol=1e-12)
    wrapped = refresh_batch_statistics(by_hand(0.0), 2.0, start, [sgmcmc.Batch(x)])
    np.testing.assert_allclose(wrapped["var"], new["var"], rtol=1e-12)


def test_bad_input():
    _, apply, params, old = linen_net(0.9)
    with pytest.raises(ValueError, match="batches: got none"):
        refresh_batch_statistics(apply, params, old, [])
    evaluate = lambda p, s, x: apply(p, s, x, train=False)  # noqa: E731
    with pytest.raises(ValueError, match=r"apply: .* run the network in training mode"):
        refresh_batch_statistics(evaluate, params, old, BATCHES)
    start = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"apply: .* expected one momentum"):
        refresh_batch_statistics(by_hand(0.5, apart=0.1), 1.0, start, BATCHES)
    odd = {"mean": jnp.zeros(3), "scale": jnp.ones(3)}
    with pytest.raises(ValueError, match=r"leaves \['mean', 'scale'\]; expected pairs"):
        refresh_batch_statistics(by_hand(0.5), 1.0, odd, BATCHES)
    padded = sgmcmc.Batch(BATCHES[0], mask=jnp.ones(7, bool))
    with pytest.raises(ValueError, match="got one with a mask"):
        refresh_batch_statistics(by_hand(0.5), 1.0, start, [padded])
