"""Exact laws under variance reduction: four quadratics, one a step."""

import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc.diagnostics import stationary_law
from tests.laws import estimators, samplers

STIFFNESS, CENTRES = estimators.STIFFNESS, estimators.CENTRES
STEPS = (0.2, 0.1, 0.05)

# Variance bias of x with control variates at the exact mean, batches drawn with replacement.
# BAOAB shares a gradient between steps, so that its positions are those of AOAB.
PRINTED = {
    "AOAB": (2.07e-2, 1.01e-2, 5.03e-3),
    "BAOAB": (2.07e-2, 1.01e-2, 5.03e-3),
    "sgld": (1.364e-1, 6.38e-2, 3.09e-2),
}


@pytest.mark.parametrize("name", PRINTED)
def test_control_variates_at_the_mean(name):
    """The printed bias, digit by digit, and the right mean."""
    posterior, _ = samplers.quadratics(STIFFNESS, CENTRES)
    data = (jnp.asarray(STIFFNESS), jnp.asarray(CENTRES))
    batches = [
        sgmcmc.Batch((data[0][i : i + 1], data[1][i : i + 1]), jnp.array([i])) for i in range(4)
    ]
    gradient = sgmcmc.gradients.control_variate(jnp.array([0.5]))
    for h, printed in zip(STEPS, PRINTED[name], strict=True):
        kernel = samplers.make(name, posterior, h, gradient=gradient)
        law = stationary_law(kernel, jnp.zeros(1), batches, data=data)
        bias = law.covariance[0, 0] - 1
        digits = 10.0 ** (np.floor(np.log10(printed)) - (3 if printed > 0.1 else 2))
        assert abs(bias - printed) <= 0.501 * digits
        np.testing.assert_allclose(law.mean, 0.5, atol=1e-10)
        steps, _ = estimators.derived_steps(name.replace("BAOAB", "AOAB"), h, "control_variate")
        np.testing.assert_allclose(bias, estimators.variance_bias(steps), rtol=1e-8)


# SVRG's snapshot is refreshed every four steps, the mean length of a sweep.
@pytest.mark.parametrize(
    ("name", "kind"), [("sgld", "svrg"), ("sgld", "saga"), ("AOAB", "saga"), ("UBU", "svrg")]
)
def test_memory_that_moves_with_the_chain(name, kind):
    """The law of chain and memory together, from the library's steps and from the equations."""
    h = 0.1
    own, refresh = estimators.library_steps(name, h, kind)
    derived, same = estimators.derived_steps(name, h, kind)
    every = 4 if kind == "svrg" else 1
    bias = estimators.variance_bias(own, refresh=refresh, every=every)
    np.testing.assert_allclose(
        bias, estimators.variance_bias(derived, refresh=same, every=every), rtol=1e-8
    )
    plain, _ = estimators.derived_steps(name, h, "minibatch")
    assert abs(bias) < abs(estimators.variance_bias(plain))


def test_sweeps_and_saga_do_not_go_together():
    """With replacement SAGA beats minibatches; in sweeps its table tells what is to come.

    Entries not yet seen in a sweep are the older ones, so that the batches still to come
    are no fair sample of the differences.
    """
    bias = {}
    for kind in ("minibatch", "saga"):
        steps, _ = estimators.derived_steps("AOAB", 0.1, kind)
        for stream in ("with_replacement", "reshuffled", "symmetric"):
            bias[kind, stream] = estimators.variance_bias(steps, stream=stream)
    # The minibatch rows are known ones.
    np.testing.assert_allclose(bias["minibatch", "with_replacement"], 3.750e-2, rtol=5e-4)
    np.testing.assert_allclose(bias["minibatch", "reshuffled"], -4.778e-4, rtol=5e-4)
    np.testing.assert_allclose(bias["minibatch", "symmetric"], -1.178e-3, rtol=5e-4)
    assert bias["saga", "with_replacement"] < 0.2 * bias["minibatch", "with_replacement"]
    for stream in ("reshuffled", "symmetric"):
        assert bias["saga", stream] < -2 * bias["minibatch", "with_replacement"]


@pytest.mark.parametrize(("kind", "order"), [("control_variate", 1), ("svrg", 3), ("saga", 3)])
def test_orders_with_replacement(kind, order):
    """Memory that follows the chain leaves noise of the size of its moves: two orders more.

    BAOAB's own error is none here, so that what is left is that of the batches.
    """
    bias = []
    for h in (0.0125, 0.00625):
        steps, refresh = estimators.derived_steps("AOAB", h, kind)
        bias.append(estimators.variance_bias(steps, refresh=refresh, every=4))
    np.testing.assert_allclose(np.log2(bias[0] / bias[1]), order, atol=0.1)
