"""Defects of Metropolis-corrected samplers: each must fail a check that the right one passes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import streams
from sgmcmc.exact._minibatch import Amagold, Sggmc
from sgmcmc.types import Blocks
from tests.defects.test_defects import as_a, must_fail
from tests.laws import blocks

pytestmark = pytest.mark.usefixtures("x64")  # laws are compared beyond single precision


def check_invariance(kernel, num_blocks=1):
    """Blocks of three batches, drawn with replacement, leave all moments where they were."""
    _, data = blocks.double_well(3)
    made = blocks.sequences(streams.with_replacement(), data, 1, kernel.num_steps)
    made = jax.tree.map(lambda x: np.repeat(x, num_blocks, axis=1), made)
    np.testing.assert_allclose(blocks.change(kernel, data, made), 0, atol=2e-3)


def kernel_of(sampler):
    return sampler(blocks.double_well(3)[0], 0.4, 2, friction=0.0)


def test_the_right_kernels_pass():
    """No check fails a kernel as it is."""
    for sampler in (sgmcmc.amagold, sgmcmc.sggmc):
        check_invariance(kernel_of(sampler))


class NoWork(Amagold):
    """Accepts by the energy alone: ρ is dropped."""

    def propose(self, *given):
        proposal = super().propose(*given)
        return proposal._replace(work=jnp.zeros_like(proposal.work))


class OtherSign(Amagold):
    """ρ with the other sign."""

    def propose(self, *given):
        proposal = super().propose(*given)
        return proposal._replace(work=-proposal.work)


@pytest.mark.parametrize("kind", [NoWork, OtherSign])
def test_work_dropped(kind):
    """AMAGOLD without its ρ, or with −ρ, fails."""
    must_fail(check_invariance, as_a(kind, kernel_of(sgmcmc.amagold)))


class KeptMomentum:
    """Goes on in the same direction after a rejection."""

    def drive(self, noise, state, batch):
        following, info = super().drive(noise, state, batch)
        accepted = noise.uniform < info.acceptance
        kept = jax.tree.map(lambda r: jnp.where(accepted, r, -r), following.momentum)
        return following._replace(momentum=kept), info


class KeptAmagold(KeptMomentum, Amagold):
    pass


class KeptSggmc(KeptMomentum, Sggmc):
    pass


@pytest.mark.parametrize(("name", "kind"), [("amagold", KeptAmagold), ("sggmc", KeptSggmc)])
def test_momentum_kept_on_rejection(name, kind):
    """A momentum that is not turned on rejection fails."""
    must_fail(check_invariance, as_a(kind, kernel_of(getattr(sgmcmc, name))))


class MinibatchEnergy(Sggmc):
    """Decides by the energy that the block's first batch estimates."""

    def drive(self, noise, state, batch):
        count = self.posterior.data_size
        rows = batch.batches.data
        repeated = jax.tree.map(lambda x: jnp.repeat(x[0], count, axis=0), rows)
        energy = -self.posterior.log_density(state.position, repeated)
        return super().drive(noise, state._replace(extra=energy), Blocks(batch.batches, repeated))


def test_energy_of_a_minibatch():
    """SGGMC with U from a minibatch in the place of all data fails."""
    must_fail(check_invariance, as_a(MinibatchEnergy, kernel_of(sgmcmc.sggmc)))


class StaleEnergy(Sggmc):
    """Keeps U of the first position for good: accepted energies are not carried on."""

    def drive(self, noise, state, batch):
        following, info = super().drive(noise, state, batch)
        return following._replace(extra=state.extra), info


def test_energy_not_renewed():
    """A kernel whose carried energy is not that of its position is seen by a direct look."""

    def check_energy(kernel):
        target, data = blocks.double_well(3)
        state = kernel.init(jnp.array(0.5), jax.random.key(0), data)
        batch = Blocks(None, data)
        state, info = eqx.filter_jit(kernel.step)(jax.random.key(1), state, batch)
        assert info.acceptance > 0.5
        np.testing.assert_allclose(state.extra, target.potential(state.position, data), rtol=1e-12)

    check_energy(kernel_of(sgmcmc.sggmc))
    must_fail(check_energy, as_a(StaleEnergy, kernel_of(sgmcmc.sggmc)))
