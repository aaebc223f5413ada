"""Defects of variance reduction: each must fail the enumeration that the right one passes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from sgmcmc import Batch, gradients
from sgmcmc import _tree as trees
from sgmcmc.gradients._control_variate import SVRG, Anchor, ControlVariate
from sgmcmc.gradients._saga import SAGA
from tests.gradients import enumeration as every

pytestmark = pytest.mark.usefixtures("x64")  # means over every batch are compared to twelve digits


def check(estimator):
    """Unbiased from a state that belongs elsewhere, for pairs of six and the short batch of five.

    The state has seen a batch there, so that what is remembered is not all of one place.
    """
    for data_size, drawn in ((6, {"size": 2}), (5, {"size": 1, "padded": 1})):
        data, target = every.examples(data_size), every.posterior(data_size)
        there, index = every.double(every.THERE), jnp.array([1, 1, 3])
        state = eqx.filter_jit(estimator.init)(target, there, data)
        seen = Batch(jax.tree.map(lambda x, i=index: x[i], data), index)
        between = jax.tree.map(lambda x: 0.5 * x, there)
        state = eqx.filter_jit(estimator)(target, between, seen, state)[2]
        every.check_unbiased(estimator, state, data_size, drawn)


def must_fail(estimator):
    with pytest.raises(AssertionError):
        check(estimator)


@pytest.mark.parametrize("name", ["control_variate", "svrg", "saga"])
def test_the_right_estimators_pass(name):
    """No check fails an estimator as it is."""
    made = {
        "control_variate": lambda: gradients.control_variate(every.double(every.THERE)),
        "svrg": lambda: gradients.svrg(1),
        "saga": gradients.saga,
    }[name]
    check(made())


class UpdatedFirst(SAGA):
    """Writes the batch's gradients into the table before it uses the table."""

    def estimate(self, posterior, position, batch, state):
        state = super().estimate(posterior, position, batch, state)[2]
        return super().estimate(posterior, position, batch, state)


class CountedTwice(SAGA):
    """Adds the change of an example that was drawn twice to the running sum twice."""

    def estimate(self, posterior, position, batch, state):
        energy, gradient, after = super().estimate(posterior, position, batch, state)
        change = jax.tree.map(lambda new, old: (new - old)[batch.index], after.rows, state.rows)
        total = jax.tree.map(lambda t, c: t + jnp.sum(c, axis=0), state.total, change)
        return energy, gradient, after._replace(total=total)


class UnscaledSnapshot(SVRG):
    """Forgets N/n on the batch's gradients at the snapshot."""

    def estimate(self, posterior, position, batch, state):
        energy, gradient, state = super().estimate(posterior, position, batch, state)
        there = jax.grad(posterior.data_potential)(state.position, batch)
        count = len(batch.index) if batch.mask is None else jnp.sum(batch.mask)
        return energy, trees.axpy(1 - count / posterior.data_size, there, gradient), state


class NoFullGradient(ControlVariate):
    """Leaves out the sum over all data at the mode."""

    def init(self, posterior, position, data):
        return trees.zeros_like(super().init(posterior, position, data))


class PriorTwice(SVRG):
    """Takes the prior's gradient at the snapshot for a part of the data's."""

    def init(self, posterior, position, data):
        anchor = super().init(posterior, position, data)
        prior = jax.grad(posterior.prior_potential)(position)
        return Anchor(position, trees.add(anchor.gradient, prior))


class Unpowered(SVRG):
    """Forgets the power of the likelihood in the pass over all data."""

    def init(self, posterior, position, data):
        return super().init(posterior.with_likelihood_power(1.0), position, data)


@pytest.mark.parametrize("kind", [UpdatedFirst, CountedTwice])
def test_saga_with_a_defect(kind):
    """A table that knows its batch, and a sum that is not the table's, are biased."""
    must_fail(kind(2**30, 256))


@pytest.mark.parametrize("kind", [UnscaledSnapshot, PriorTwice, Unpowered])
def test_svrg_with_a_defect(kind):
    """A missing N/n, a prior counted twice and a forgotten power are biased."""
    must_fail(kind(1))


def test_control_variates_without_the_full_gradient():
    """Differences alone are no gradient."""
    must_fail(NoFullGradient(every.double(every.THERE)))
