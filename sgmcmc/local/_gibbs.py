"""Draws from exp(βF/T), F the local entropy: Langevin dynamics on an inner sampler's gradient.

    x ← x + η ∇F + √(2ηT/β) ξ,    ∇F ≈ −γ (x − μ) by `LocalEntropy.gradient`

One step of this kernel is an outer step of `sgmcmc.optim.entropy_sgld`, with any inner kernel.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise
from sgmcmc._checks import check_range, positive
from sgmcmc._posterior import Posterior
from sgmcmc.clocks._base import AbstractClock, StepSize
from sgmcmc.clocks._schedules import as_clock
from sgmcmc.kernels._base import AbstractKernel, Traits, shown
from sgmcmc.local._entropy import LocalEntropy
from sgmcmc.types import Array, Info, Key, PyTree, State


class GibbsKernel(AbstractKernel):
    """See `gibbs_posterior`."""

    entropy: LocalEntropy
    clock: AbstractClock
    power: Array

    @property
    def posterior(self) -> Posterior:
        return self.entropy.kernel.posterior

    @property
    def length(self) -> int:
        """Inner steps, and batches, of an outer step."""
        return self.entropy.num_burnin + self.entropy.num_steps

    @property
    def traits(self) -> Traits:
        inner = self.entropy.kernel.traits
        return Traits(
            name=f"gibbs_posterior({inner.name})",
            order=1,
            gradient_evaluations=self.length * inner.gradient_evaluations,
            batches_per_step=self.length,
            batches=inner.batches,
        )

    def numbers(self) -> dict[str, float | str | None]:
        """The outer step size, and the inner kernel's temperature."""
        return {
            "step_size": shown(self.clock.step_size),
            "temperature": shown(self.entropy.kernel.temperature),
        }

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state; there is no momentum to draw."""
        checks.require_floating(position, "params")
        position = jax.tree.map(jnp.asarray, position)
        return State(position, (), (), (), self.clock.init(position))

    def draw(self, rng_key: Key, state: State) -> tuple[PyTree, Key]:
        """The outer step's normals, like θ, and a key from which the inner steps draw."""
        outer, inner = jax.random.split(rng_key)
        row = noise.draw(outer, state.position, 1, "gaussian")[0]
        return noise.to_tree(row, state.position), inner

    def drive(self, noise: tuple[PyTree, Key], state: State, batch: PyTree) -> tuple[State, Info]:
        """One outer step; `batch` has one batch for each inner step along a leading axis."""
        normals, key = noise
        if self.length == 1:
            batch = jax.tree.map(lambda x: x[None], batch)
        count = state.clock.count
        dt, weight, clock = self.clock.tick(state.clock)
        found = self.entropy.gradient(key, state.position, batch, step=count)
        spread = jnp.sqrt(2 * dt * self.entropy.kernel.temperature(count) / self.power)
        position = trees.axpy(dt, found.gradient, trees.wide(state.position))
        position = trees.rounded(trees.axpy(spread, normals, position), state.position)
        info = Info(
            position=position,
            weight=weight,
            time=dt,
            energy=jnp.where(found.finite, found.energy, jnp.nan),
            gradient_norm=jnp.sqrt(trees.dot(found.gradient, found.gradient)),
            kinetic_energy=jnp.zeros_like(found.energy),
            finite=found.finite,
        )
        return state._replace(position=position, clock=clock), info


def gibbs_posterior(
    entropy: LocalEntropy, step_size: StepSize, *, power: float = 1.0
) -> GibbsKernel:
    """A sampler of exp(βF/T), for `sgmcmc.sample`: Entropy-SGLD with any inner sampler.

    Each step runs the inner loop from x and costs its L batches. The law is approximate: the
    estimate of ∇F is noisy, and biased towards 0 where L steps are few, both of which flatten
    the law; and η has Euler's bias, a variance larger by 1/(1 − ηk/2) where F has curvature k.
    `Info.energy` is the localised potential at the last inner step.

    Args:
        entropy: from `sgmcmc.local.local_entropy`, of a kernel at a temperature T > 0.
        step_size: η > 0, a number, a schedule of the outer step, or a clock.
        power: β > 0; default 1.

    Returns:
        A kernel.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    if not isinstance(entropy, LocalEntropy):
        raise TypeError(
            f"entropy: got {type(entropy).__name__}; expected sgmcmc.local.local_entropy(kernel, γ)"
        )
    first = entropy.kernel.temperature(jnp.zeros((), jnp.int32))
    check_range(first, "temperature", above_zero=True)
    if step_size is None:
        raise ValueError("step_size: got None; expected a number, nothing is tuned here")
    return GibbsKernel(entropy, as_clock(step_size), positive(power, "power"))
