"""A random walk, as a kernel of one's own that is no word: tests write copies of this file."""

from typing import ClassVar

import jax
import jax.numpy as jnp

import sgmcmc
from sgmcmc.kernels import AbstractKernel, Traits


class Walk(AbstractKernel):
    """θ + width ξ; its draws at given noise are known."""

    width: jax.Array
    posterior: ClassVar[None] = None
    clock: ClassVar[None] = None

    @property
    def traits(self):
        return Traits("walk", order=1, gradient_evaluations=0.0)

    def init(self, position, rng_key, data=None):
        return sgmcmc.State(position, (), (), (), sgmcmc.types.ClockState(jnp.int32(0)))

    def draw(self, rng_key, state):
        return jax.random.normal(rng_key, state.position.shape)

    def drive(self, noise, state, batch):
        position = state.position + self.width * noise
        one, zero = jnp.ones(()), jnp.zeros(())
        info = sgmcmc.Info(position, one, one, zero, zero, zero, jnp.array(True))
        return state._replace(position=position), info


def log_density(theta):
    return -0.5 * jnp.sum(theta**2)
