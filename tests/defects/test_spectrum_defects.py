"""Defects of spectra and of averages: each must fail a check that the right code passes."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import _tree as trees
from sgmcmc import models
from sgmcmc.diagnostics import spectrum
from sgmcmc.diagnostics.spectra._operator import Curvature
from sgmcmc.optim import _batch_norm as batch_statistics
from sgmcmc.optim import _swa as weight_averages
from tests.defects.test_defects import must_fail
from tests.diagnostics.test_spectrum import EIGENVALUES, of_quadratic

decomp = pytest.importorskip("matfree.decomp")
MODULE = sys.modules[sgmcmc.diagnostics.spectrum.__module__]

ROWS = np.random.default_rng(0).normal(size=(40, 3))
DATA = (jnp.asarray(ROWS, jnp.float32), jnp.arange(40) % 3)


def check_top(num_steps):
    """After sixty steps and more in float32 each of the three is there, once."""
    found = of_quadratic(EIGENVALUES, num_steps=num_steps, num_probes=2)
    np.testing.assert_allclose(found.top[:4], [20, 10, 5, 1], atol=0.01)


def check_rules():
    """The weights are a distribution's, the traces the matrix's: row L8b among them."""
    found = of_quadratic(EIGENVALUES, num_steps=5, num_probes=3)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.trace_of(np.asarray)[0], 135, rtol=1e-5)
    assert abs(found.trace - 135) < 5 * found.trace_error < 5


def check_exhausted():
    """One eigenvalue: one node, and nothing above it."""
    found = of_quadratic(np.ones(50), num_steps=20, num_probes=2)
    assert found.distance(np.ones(50)) < 1e-5
    np.testing.assert_allclose(found.top, 1, rtol=1e-5)


def _log_likelihood(w, rows):
    return -0.5 * (rows @ w) ** 2


def check_blocks():
    """The mean over all rows, whatever the block: XᵀX/n."""
    posterior = sgmcmc.Posterior(_log_likelihood, lambda w: 0.0, data_size=40)
    found = spectrum(jax.random.key(0), posterior, jnp.ones(3), DATA[0], block_size=16)
    np.testing.assert_allclose(found.trace, np.sum(ROWS**2) / 40, rtol=1e-4)
    np.testing.assert_allclose(found.top, np.linalg.eigvalsh(ROWS.T @ ROWS / 40)[::-1], rtol=1e-4)


def check_gauss_newton():
    """At zero weights of a linear softmax: the Fisher matrix, (1/3 − 1/9 …) ⊗ XXᵀ."""
    model = models.mlp((3, 3), prior=1.0)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    found = spectrum(
        jax.random.key(1), model.posterior(40), params, DATA, curvature="gauss_newton", num_probes=1
    )
    rows = np.concatenate([ROWS, np.ones((40, 1))], axis=1)
    exact = np.kron(np.eye(3) / 3 - np.full((3, 3), 1 / 9), rows.T @ rows / 40)
    np.testing.assert_allclose(found.top[0], np.linalg.eigvalsh(exact)[-1], rtol=1e-4)
    np.testing.assert_allclose(found.trace, np.trace(exact), rtol=1e-3)


def test_without_reorthogonalisation(monkeypatch):
    """Ghosts: the largest comes twice."""
    check_top(60)
    without = lambda k, **_: decomp.tridiag_sym(k, reortho="none", custom_vjp=False)  # noqa: E731
    monkeypatch.setattr(decomp, "hessenberg", without)
    must_fail(check_top, 61)


def _wrong_side(rule, diagonal, couplings, precision):
    """Weights from the last row of the eigenvectors in place of the first."""
    flipped = np.concatenate([couplings[-2::-1], couplings[-1:]])
    return rule(diagonal[::-1], flipped, precision)


def _not_squared(rule, *given):
    nodes, weights, bounds = rule(*given)
    return nodes, np.sqrt(weights), bounds


def _unscaled(rest, operator, directions, rank, key, count):
    """Vectors of length 1 and not √(d − rank)."""
    return rest(operator, directions, rank, key, count) / (directions.shape[1] - rank)


def _double(rest, operator, directions, rank, key, count):
    """Q is not taken out: its share of the trace is counted twice."""
    return rest(operator, jnp.zeros_like(directions), 0, key, count)


@pytest.mark.parametrize(
    ("name", "defect"),
    [("gauss_rule", _wrong_side), ("gauss_rule", _not_squared), ("_rest", _unscaled),
     ("_rest", _double)],
)  # fmt: skip
def test_rules(name, defect, monkeypatch):
    check_rules()
    monkeypatch.setattr(MODULE, name, Partial(defect, getattr(MODULE, name)))
    must_fail(check_rules)


def test_a_space_without_end(monkeypatch):
    check_exhausted()
    rule = MODULE.gauss_rule
    endless = lambda diagonal, couplings, precision: rule(diagonal, couplings, 0.0)  # noqa: E731
    monkeypatch.setattr(MODULE, "gauss_rule", endless)
    must_fail(check_exhausted)


class MeanOfBlock(Curvature):
    """Each block's mean in place of its sum."""

    def of_block(self, vector, block):
        rows = jax.tree.leaves(block)[0].shape[0]
        return trees.scale(1 / rows, super().of_block(vector, block))


class NoRest(Curvature):
    """The rows after the last whole block are lost."""

    def of_block(self, vector, block):
        rows = jax.tree.leaves(block)[0].shape[0]
        return trees.scale(float(rows == self.block_size), super().of_block(vector, block))


@pytest.mark.parametrize("kind", [MeanOfBlock, NoRest])
def test_blocks(kind, monkeypatch):
    check_blocks()
    monkeypatch.setattr(MODULE, "Curvature", kind)
    must_fail(check_blocks)


class WithoutLoss(Curvature):
    """JᵀJ."""

    def of_block(self, vector, block):
        predict = self.posterior.log_likelihood.args[0]
        outputs_of = lambda p: predict(p, block[0])  # noqa: E731
        moved = jax.jvp(outputs_of, (self.params,), (vector,))[1]
        return jax.vjp(outputs_of, self.params)[1](moved)[0]


def test_gauss_newton(monkeypatch):
    check_gauss_newton()
    monkeypatch.setattr(MODULE, "Curvature", WithoutLoss)
    must_fail(check_gauss_newton)


def check_average():
    """Steps 3 and 5 of x = 1, 2, 3, …: 4."""
    optimizer = sgmcmc.optim.weight_average(3, 2)
    state, x = optimizer.init(jnp.zeros(())), jnp.zeros(())
    for _ in range(6):
        updates, state = optimizer.update(jnp.ones(()), state, x)
        x = optax.apply_updates(x, updates)
    assert float(state.average) == 4


def _before(update, start, period, updates, state, params):
    """The parameters before the update."""
    _, state = update(start, period, jax.tree.map(jnp.zeros_like, updates), state, params)
    return updates, state


def _from_zero(update, start, period, updates, state, params):
    """The initial average counts as one of the mean's."""
    state = state._replace(average=jnp.zeros(())) if int(state.step) == 0 else state
    number = state.number
    updates, state = update(start, period, updates, state._replace(number=number + 1), params)
    return updates, state._replace(number=state.number - 1)


def _late(update, start, period, updates, state, params):
    """Steps counted from 0."""
    updates, after = update(start, period, updates, state._replace(step=state.step - 1), params)
    return updates, after._replace(step=state.step + 1)


@pytest.mark.parametrize("defect", [_before, _from_zero, _late])
def test_averages(defect, monkeypatch):
    check_average()
    monkeypatch.setattr(weight_averages, "_update", Partial(defect, weight_averages._update))
    must_fail(check_average)


def check_statistics():
    """Variance over all rows, in batches that differ."""
    rows = jnp.asarray(ROWS[np.argsort(ROWS[:, 0])], jnp.float32)
    own = lambda x: {"mean": x.mean(axis=0), "var": x.var(axis=0)}  # noqa: E731
    apply = lambda p, old, x: jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old, own(x))  # noqa: E731
    start = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    new = sgmcmc.optim.refresh_batch_statistics(apply, (), start, [rows[:10], rows[10:]])
    np.testing.assert_allclose(new["mean"], ROWS.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(new["var"], ROWS.var(axis=0), rtol=1e-4)


def _within(merge, old, new, many, more):
    """The spread between the batches' means is left out."""
    mean, _ = merge(old, new, many, more)
    return mean, (many * old[1] + more * new[1]) / (many + more)


def _alike(merge, old, new, many, more):
    """Batches count alike, whatever their size."""
    return merge(old, new, 1, 1)


@pytest.mark.parametrize("defect", [_within, _alike])
def test_statistics(defect, monkeypatch):
    check_statistics()
    monkeypatch.setattr(batch_statistics, "_merge", Partial(defect, batch_statistics._merge))
    must_fail(check_statistics)


def test_the_momentum_is_needed(monkeypatch):
    check_statistics()
    monkeypatch.setattr(batch_statistics, "_momentum", lambda *_: 0.0)
    must_fail(check_statistics)
