"""MALA and HMC on all data, by BlackJAX: references to hold the minibatch samplers against.

They take their data from `sample`, as every sampler here does, and target exp(−U/T). Needs
the extra `blackjax`. Other algorithms of BlackJAX's (NUTS) run by `sgmcmc.from_blackjax`, which
compiles in what its target closes over.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._interop import BlackjaxKernel, from_blackjax
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Rate, ScalarOrSchedule, as_rate
from sgmcmc.clocks._base import AbstractClock, StepSize
from sgmcmc.clocks._schedules import as_clock
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import full
from sgmcmc.kernels._base import AbstractDynamics, Traits
from sgmcmc.kernels._splitting import check_parts, require_constant
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import Dense, identity
from sgmcmc.types import Array, Blocks, ClockState, Info, Key, NoiseKind, PyTree, State


class AbstractFullGradientKernel(AbstractDynamics):
    """A BlackJAX algorithm on a posterior; `State.extra` is BlackJAX's own state."""

    posterior: Posterior
    clock: AbstractClock
    temperature: Rate
    metric: AbstractMetric
    gradient: AbstractEstimator
    name: str = eqx.field(static=True)
    block_size: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True, default=1)

    friction: ClassVar[None] = None
    noise: ClassVar[NoiseKind] = "gaussian"

    @property
    def traits(self) -> Traits:
        """L gradients of all data a step, exact at any step size."""
        return Traits(
            name=self.name,
            order=0,
            gradient_evaluations=float(self.num_steps),
            exact=True,
            needs_data=True,
            batches="all data",
        )

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state; draws no momentum, which each step draws anew."""
        position = self.placed(position)
        for path, leaf in trees.named_leaves(position):
            if leaf.dtype.itemsize < 4:
                raise TypeError(
                    f"params: leaf {path} is {leaf.dtype}; BlackJAX draws {self.name}'s normals in "
                    "that dtype, where they are not centred; allowed: float32, float64"
                )
        clock = self.clock.init(position)
        state = self._bound(data, clock.count, position).init(position, rng_key)
        return state._replace(clock=clock)

    def draw(self, rng_key: Key, state: State) -> Key:
        """The key: BlackJAX draws its numbers inside its own step."""
        return rng_key

    def drive(self, noise: Key, state: State, batch: Blocks | None) -> tuple[State, Info]:
        """One step. `batch` is `Blocks`, of which the data alone are read."""
        data = None if batch is None else batch.data
        count = state.clock.count
        dt, weight, clock = self.clock.tick(state.clock)
        following, info = self._bound(data, count, state.position).drive(noise, state, None)
        # Their log density is −U/T.
        energy = info.energy * self.temperature(count).astype(info.energy.dtype)
        info = info._replace(weight=weight, time=self.num_steps * dt, energy=energy)
        return following._replace(clock=clock), info

    def _bound(self, data: PyTree, count: Array, position: PyTree) -> BlackjaxKernel:
        """BlackJAX's algorithm at the numbers of step `count`; made while a step is traced."""
        temperature = self.temperature(count)
        density = Partial(_log_density, self.posterior, data, temperature, self.block_size)
        dt = self.clock.tick(ClockState(count))[0]
        dtype = jax.tree.leaves(position)[0].dtype
        algorithm = self.algorithm(density, dt.astype(dtype), temperature.astype(dtype), position)
        return from_blackjax(algorithm, name=self.name)

    @abstractmethod
    def algorithm(
        self,
        log_density: Callable[[PyTree], Array],
        dt: Array,
        temperature: Array,
        position: PyTree,
    ) -> Any:
        """A `blackjax.SamplingAlgorithm` of log density −U/T, `dt` in our units."""


class Mala(AbstractFullGradientKernel):
    """See `mala`."""

    def algorithm(
        self,
        log_density: Callable[[PyTree], Array],
        dt: Array,
        temperature: Array,
        position: PyTree,
    ) -> Any:
        # θ + ε ∇(−U/T) + √(2ε) ξ is ours with ε = hT.
        return _blackjax().mala(log_density, dt * temperature)


class Hmc(AbstractFullGradientKernel):
    """See `hmc`."""

    def algorithm(
        self,
        log_density: Callable[[PyTree], Array],
        dt: Array,
        temperature: Array,
        position: PyTree,
    ) -> Any:
        # With the momentum p/√T, whose law is N(0, M), time runs √T times as fast.
        mass = _inverse_mass(self.metric, position)
        return _blackjax().hmc(log_density, dt * jnp.sqrt(temperature), mass, self.num_steps)


def mala(
    posterior: Posterior,
    step_size: StepSize,
    *,
    temperature: ScalarOrSchedule = 1.0,
    block_size: int = 4096,
) -> Mala:
    """MALA (Roberts and Tweedie 1996), exact: SGLD's step on all data, accepted or rejected.

    One gradient of all data a step; `run.gradient_evaluations` counts those.

    Args:
        posterior: what to sample.
        step_size: h > 0 of θ − h ∇U + √(2hT) ξ, a float, a schedule, a clock or None: `sample`
            chooses it by acceptance.
        temperature: T > 0.
        block_size: examples evaluated at a time.

    Raises:
        ImportError: BlackJAX is not installed: `pip install 'sgmcmc[blackjax]'`.
        TypeError, ValueError: the argument is named. `sample` refuses a `batch_size`.
    """
    return _build(Mala, "mala", posterior, step_size, temperature, identity(), block_size, 1)


def hmc(
    posterior: Posterior,
    step_size: StepSize,
    num_steps: int,
    *,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    block_size: int = 4096,
) -> Hmc:
    """HMC (Duane et al. 1987; Neal 2011), exact: L leapfrog steps on all data, p drawn anew.

    L gradients of all data a step; `run.gradient_evaluations` counts those. Blocks that gain
    more than 1,000 nats are rejected as divergent.

    Args:
        num_steps: L ≥ 1.
        step_size: h > 0, in the units of `sgmcmc.obabo`: p ~ N(0, TM); None as for `mala`.
        metric: as in `sgmcmc.kernels`.
        posterior, temperature, block_size: see `mala`.

    Raises:
        ImportError, TypeError, ValueError: as for `mala`.
    """
    checks.count(num_steps, "num_steps", least=1)
    return _build(Hmc, "hmc", posterior, step_size, temperature, metric, block_size, int(num_steps))


_Kernel = TypeVar("_Kernel", bound=AbstractFullGradientKernel)


def _build(
    kind: type[_Kernel],
    name: str,
    posterior: Posterior,
    step_size: StepSize,
    temperature: ScalarOrSchedule,
    metric: AbstractMetric,
    block_size: int,
    num_steps: int,
) -> _Kernel:
    _blackjax()
    gradient = full()
    check_parts(posterior, metric, gradient, "gaussian")
    require_constant(metric)
    checks.count(block_size, "block_size", least=1)
    return kind(
        posterior=posterior,
        clock=as_clock(step_size),
        temperature=as_rate(temperature, "temperature", above_zero=True),
        metric=metric,
        gradient=gradient,
        name=name,
        block_size=int(block_size),
        num_steps=num_steps,
    )


def _blackjax() -> Any:
    try:
        import blackjax
    except ImportError as error:
        raise ImportError(
            "sgmcmc.mala and sgmcmc.hmc run on BlackJAX, which is not installed: "
            "pip install 'sgmcmc[blackjax]'"
        ) from error
    return blackjax


def _log_density(
    posterior: Posterior, data: PyTree, temperature: Array, block_size: int, position: PyTree
) -> Array:
    value = posterior.log_density(position, data, block_size=block_size)
    return value / temperature.astype(value.dtype)


def _inverse_mass(metric: AbstractMetric, position: PyTree) -> Array:
    """G over the parameters raveled in tree order: (d,) where it is diagonal, else (d, d)."""
    if isinstance(metric, Dense):
        return metric.factor @ metric.factor.T
    ones = jax.tree.map(jnp.ones_like, position)
    return ravel_pytree(metric.to_position(metric.to_momentum(ones)))[0]
