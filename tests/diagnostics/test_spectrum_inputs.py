"""Spectra: bad input, the missing extra, the record's text and its picture."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import models
from sgmcmc.diagnostics import Spectrum, spectrum
from tests.diagnostics.test_spectrum import of_quadratic, quadratic

pytest.importorskip("matfree")

X = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32)
DATA = (X, jnp.arange(20) % 2)
MODEL = models.mlp((3, 4, 2))
POSTERIOR = MODEL.posterior(20)


@pytest.fixture(scope="module")
def params():
    with jax.debug_key_reuse(False):
        return MODEL.init(jax.random.key(0))


def _own(params, batch):
    return -jnp.sum(batch[0], axis=1) * params


def _peeks(predict, params, batch):
    return predict(params, batch[0])[:, 0] * params[0]["bias"][0]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"key": 3}, TypeError, "key: got int"),
        ({"posterior": MODEL}, TypeError, "posterior: got Model; expected a Posterior"),
        ({"params": {"a": jnp.ones(2, int)}}, TypeError, "params: leaf a is int32"),
        ({"data": None}, ValueError, "data: got None; this posterior has a likelihood"),
        ({"data": (X, jnp.ones(7, int))}, ValueError, "data: leaves must share one leading axis"),
        ({"curvature": "fisher"}, ValueError, "curvature: got 'fisher'; allowed: hessian, gauss_n"),
        ({"of": "energy"}, ValueError, "of: got 'energy'; allowed: loss, potential"),
        ({"num_steps": 0}, ValueError, "num_steps: got 0; allowed: at least 1"),
        ({"num_steps": 27}, ValueError, "num_steps: got 27; allowed: at most 26, the number of"),
        ({"num_probes": 0}, ValueError, "num_probes: got 0; allowed: at least 1"),
        ({"num_probes": 2.5}, TypeError, r"num_probes: got 2\.5; expected an integer"),
        ({"num_trace_probes": 1}, ValueError, "num_trace_probes: got 1; allowed: at least 2"),
        ({"threshold": 0.0}, ValueError, r"threshold: got 0\.0; expected a finite number > 0"),
        ({"block_size": 0}, ValueError, "block_size: got 0; allowed: at least 1"),
    ],
)
def test_bad_input(params, changed, error, message):
    given = {"key": jax.random.key(0), "posterior": POSTERIOR, "params": params, "data": DATA}
    given |= changed
    arguments = [given.pop(name) for name in ("key", "posterior", "params", "data")]
    with pytest.raises(error, match=message):
        spectrum(*arguments, **given)


def test_gauss_newton_needs_outputs(params):
    """A likelihood that hides its outputs, one that looks past them, data that are no pair."""
    key, settings = jax.random.key(0), {"curvature": "gauss_newton"}
    hidden = sgmcmc.Posterior(_own, lambda p: 0.0, data_size=20)
    with pytest.raises(ValueError, match=r'"gauss_newton" needs to see the outputs: .* Partial\(f'):
        spectrum(key, hidden, jnp.ones(()), DATA, **settings)
    with pytest.raises(ValueError, match=r'data: got a dict; "gauss_newton" expects the pair'):
        spectrum(key, POSTERIOR, params, {"x": X}, **settings)
    peeks = sgmcmc.Posterior(
        jax.tree_util.Partial(_peeks, MODEL.predict), lambda p: 0.0, data_size=20
    )
    with pytest.raises(TypeError, match="NoneType"):
        spectrum(key, peeks, params, DATA, **settings)
    with pytest.raises(ValueError, match="a target without data has the"):
        spectrum(key, quadratic(np.ones(3)), jnp.ones(3), **settings)
    with pytest.raises(ValueError, match="data: this posterior has no likelihood"):
        spectrum(key, quadratic(np.ones(3)), jnp.ones(3), X)


def test_not_finite(params):
    broken = jax.tree.map(lambda p: p.at[0].set(jnp.nan), params)
    with pytest.raises(FloatingPointError, match="params: the curvature there is not finite"):
        spectrum(jax.random.key(0), POSTERIOR, broken, DATA, num_steps=3, num_probes=2)


def test_the_missing_extra(params, monkeypatch):
    monkeypatch.setitem(sys.modules, "matfree", None)
    with pytest.raises(ImportError, match=r'pip install "sgmcmc\[spectrum\]"'):
        spectrum(jax.random.key(0), POSTERIOR, params, DATA)


def test_the_record(params):
    """It says σ, k, m and what the numbers do not mean; it cannot be changed."""
    found = spectrum(jax.random.key(0), POSTERIOR, params, DATA, num_steps=8, num_probes=3)
    assert isinstance(found, Spectrum)
    text = repr(found)
    assert "26 parameters, k = 8 steps, m = 3 probes" in text
    assert "None of these numbers is invariant: rescaling a ReLU network's layers" in text
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.trace = 0.0
    with pytest.raises(ValueError, match="width: got 0"):
        found.density([0.0], 0)
    alone = of_quadratic(np.arange(4.0), num_probes=1)
    assert np.isnan(alone.trace_of(np.square)[1])
    assert alone.trace_of(np.square)[0] == pytest.approx(14, rel=1e-5)
    flat = of_quadratic(np.zeros(4), num_probes=1)
    assert flat.near_zero == 1
    assert flat.width > 0


def test_the_picture(params):
    pytest.importorskip("matplotlib").use("agg")
    found = spectrum(jax.random.key(0), POSTERIOR, params, DATA, num_steps=8, num_probes=3)
    ax = found.plot(width=0.05)
    assert ax.get_yscale() == "log"
    assert ax.get_title() == "Hessian: σ = 0.05, k = 8, m = 3"
    (line, _) = ax.get_lines()
    grid, height = line.get_data()
    assert np.trapezoid(height, grid) == pytest.approx(1, abs=1e-3)
