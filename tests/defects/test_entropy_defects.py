"""Defects of the optimizers and samplers of local entropy: each must fail a check."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import _tree as trees
from sgmcmc._schedule import Constant
from sgmcmc.local._gibbs import GibbsKernel
from sgmcmc.optim._entropy_sgd import EntropyOptimizer, EntropySampler, Parle, transformation
from tests.defects.test_defects import as_a, must_fail
from tests.laws import test_entropy_sgld, test_gibbs, test_parle
from tests.laws.test_local_entropy import START, STIFFNESS, inner_mean

pytestmark = pytest.mark.usefixtures("x64")  # laws are compared beyond single precision


def check_optimizer(transform):
    """An outer step of Entropy-SGD without noise moves the anchor as the recursion says."""
    params = jnp.asarray(START)
    state = transform.init(params)
    for _ in range(20):
        updates, state = transform.update(STIFFNESS * params, state, params)
        params = params + updates
    exact = START - 0.5 * (START - inner_mean(0.01, 1.0, 20, 0.25))
    np.testing.assert_allclose(state.anchor, exact, rtol=1e-10)


class AverageFromZero(EntropyOptimizer):
    """The average begins at zero."""

    def start(self, anchor):
        return trees.zeros_like(anchor)


class PushedAway(EntropyOptimizer):
    """The γ-term pushes away from the anchor."""

    def inner_move(self, key, gradient, params, anchor, precision):
        return super().inner_move(key, gradient, params, anchor, -precision)


@pytest.mark.parametrize("kind", [AverageFromZero, PushedAway])
def test_optimizer(kind):
    """The two slips of the optax form."""
    right = sgmcmc.optim.entropy_sgd(
        jax.random.key(0), 0.5, precision=1.0, step_size=0.01, temperature=0.0
    )
    check_optimizer(right)
    must_fail(check_optimizer, transformation(as_a(kind, right.init.args[0])))


class PowerForgotten(EntropySampler):
    """β is not in the outer noise."""

    def outer_step(self, state, mean, precision, last):
        plain = eqx.tree_at(lambda s: s.power, self, jnp.ones(()))
        return EntropySampler.outer_step(plain, state, mean, precision, last)


def test_power_of_the_gibbs_law():
    """β forgotten; the right one passes in `tests/laws/test_entropy_sgld.py`."""
    wrong = as_a(PowerForgotten, test_entropy_sgld.make().init.args[0])
    must_fail(test_entropy_sgld.check_law, transformation(wrong))


class GibbsPowerForgotten(GibbsKernel):
    """β is not in the outer noise of the kernel."""

    def drive(self, noise, state, batch):
        plain = eqx.tree_at(lambda s: s.power, self, jnp.ones(()))
        return GibbsKernel.drive(plain, noise, state, batch)


class GibbsCold(GibbsKernel):
    """T is 0 inside and outside."""

    def drive(self, noise, state, batch):
        zero = Constant(jnp.zeros(()))
        cold = eqx.tree_at(lambda s: s.entropy.kernel.temperature, self, zero)
        return GibbsKernel.drive(cold, noise, state, batch)


@pytest.mark.parametrize("kind", [GibbsPowerForgotten, GibbsCold])
def test_gibbs_posterior(kind):
    """The kernel passes in `tests/laws/test_gibbs.py`."""
    must_fail(test_gibbs.check_law, as_a(kind, test_gibbs.make()), 100)


class Uncoupled(Parle):
    """Replicas are pulled towards zero, not towards their mean."""

    def outer_step(self, state, mean, precision, last):
        moved = EntropyOptimizer.outer_step(self, state, mean, precision, last)
        rate = self.learning_rate(state.outer) * self.coupling(state.outer)
        return trees.axpy(-rate, state.anchor, moved)


def test_coupling():
    """A pull towards another point than the mean fails the recursion of Parle."""
    right = test_parle.make()
    check_coupling(right)
    must_fail(check_coupling, transformation(as_a(Uncoupled, right.init.args[0])))


def check_coupling(transform):
    found = test_parle.run(transform, test_parle.STARTS, 3).anchor
    mean = test_parle.KEPT**3 * test_parle.STARTS.mean(axis=0)
    np.testing.assert_allclose(found.mean(axis=0), mean, rtol=1e-9)
