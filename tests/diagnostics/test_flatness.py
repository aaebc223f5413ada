"""Measures of flatness: closed forms on quadratics, the table and its notice, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import models
from sgmcmc.diagnostics import compare_flatness, curvature_of, flatness
from tests.diagnostics.test_spectrum import quadratic

pytest.importorskip("matfree")

EXACT = np.array([0.5, 1.0, 4.0])


def of_quadratic(seed=0, **settings):
    settings = {"width": 0.3, "num_probes": 2, **settings}
    return flatness(jax.random.key(seed), quadratic(EXACT), jnp.zeros(3), **settings)


def test_a_quadratic(x64):
    """Rise σ²/2 tr H within 4 errors; F(x; γ) = −½ Σ log(h_i + γ) + d/2 log 2π at the minimum."""
    kernel = sgmcmc.sgld(quadratic(EXACT), 0.01)
    found = of_quadratic(entropy=sgmcmc.local.local_entropy(kernel, 2.0), num_samples=2_000)
    assert found.loss == 0
    assert found.rise_error < 0.05 * found.rise
    assert abs(found.rise - 0.3**2 / 2 * EXACT.sum()) < 4 * found.rise_error
    np.testing.assert_allclose(found.spectrum.trace, EXACT.sum(), rtol=1e-9)
    exact = 1.5 * np.log(2 * np.pi) - 0.5 * np.log(EXACT + 2).sum()
    value = found.local_entropy
    assert abs(float(value.value) - exact) < 4 * float(value.standard_error)


def test_a_slope_costs_no_noise(x64):
    """Pairs ±ξ: what is linear in ξ drops out of every one of them."""
    target = sgmcmc.Posterior.from_log_density(lambda x: 100 * x.sum() - 0.5 * x @ x)
    found = flatness(jax.random.key(0), target, jnp.zeros(4), width=1.0, num_probes=2)
    assert abs(found.rise - 2.0) < 4 * found.rise_error
    assert found.rise_error < 3 * np.sqrt(2 / 100)


def test_a_network_block_by_block():
    """The mean loss of all rows, whatever the block; its rise is the potential's over n."""
    model = models.mlp((3, 4, 2), prior=1e6)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (50, 3))
    data = (x, (x[:, 0] > 0).astype(jnp.int32))
    exact = -float(model.log_likelihood(params, data).mean())
    for of, size, scale in (("loss", 16, 1), ("loss", 64, 1), ("potential", 16, 50)):
        function = curvature_of(model.posterior(50), params, data, "hessian", of, size)
        prior = 0 if of == "loss" else float(-model.log_prior(params))
        assert float(function.value(params)) - prior == pytest.approx(scale * exact, rel=1e-5)
    found = flatness(
        jax.random.key(2), model.posterior(50), params, data, width=0.1, num_samples=20,
        num_steps=3, num_probes=1, block_size=16,
    )  # fmt: skip
    assert found.loss == pytest.approx(exact, rel=1e-5)


def test_the_table():
    found = of_quadratic()
    compared = compare_flatness({"one": found, "another": of_quadratic(1)})
    title, _, head, one, another, _, notice = repr(compared).splitlines()
    assert "rise at σ = 0.3" in title
    assert head.split()[:3] == ["loss", "trace", "trace_error"]
    assert compared.table.loc["one", "trace"] == found.spectrum.trace
    assert "local_entropy" not in compared.table
    assert "Spectra of the Hessian. None of these" in compared._repr_html_()
    assert one.startswith("one ")
    assert another.startswith("another ")
    assert " 5.5 " in one
    assert notice.startswith("Spectra of the Hessian. None of these numbers is invariant")
    assert notice in repr(found)
    with pytest.raises(ValueError, match=r"found: \(width, threshold, curvature\) differ"):
        compare_flatness({"one": found, "other": of_quadratic(width=0.2)})
    with pytest.raises(ValueError, match="found: got no records"):
        compare_flatness({})
    with pytest.raises(TypeError, match="found: 'one' is a Spectrum; expected a Flatness"):
        compare_flatness({"one": found.spectrum})


def test_bad_input():
    with pytest.raises(ValueError, match=r"width: got 0\.0; expected a finite number > 0"):
        of_quadratic(width=0.0)
    with pytest.raises(ValueError, match="num_samples: got 2; allowed: at least 4"):
        of_quadratic(num_samples=2)
    with pytest.raises(ValueError, match="num_samples: got 5; expected an even number"):
        of_quadratic(num_samples=5)
    with pytest.raises(
        TypeError, match=r"entropy: got float; expected sgmcmc\.local\.local_entropy"
    ):
        of_quadratic(entropy=2.0)
