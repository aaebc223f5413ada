"""What a step is chosen for, beside the kernel."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp

from sgmcmc._schedule import Constant, Unchosen
from sgmcmc.kernels._base import AbstractDynamics
from sgmcmc.streams import _streams as streams
from sgmcmc.streams._source import Source
from sgmcmc.tuning._rules import RULES
from sgmcmc.types import PyTree

Dynamics = TypeVar("Dynamics", bound=AbstractDynamics)


class Problem(NamedTuple):
    """Start, data and batches of the chains whose step is chosen.

    Attributes:
        start: one chain's position, where the search for the mode begins.
        data, stream, batch_size: as `streams._source.data_and_stream` gives them.
        num_burnin: the step at which schedules of temperature and friction are read.
    """

    start: PyTree
    data: PyTree
    stream: streams.Stream
    batch_size: int
    num_burnin: int

    @property
    def noisy(self) -> bool:
        """Whether a gradient is estimated from a part of the data."""
        return self.stream.law != "all" and self.data is not None

    @property
    def sweep(self) -> int:
        """Steps in a sweep whose noise adds up to 0, or nearly; 0 where there is none such.

        Batches that are independent, or all data; and sweeps of a stream of one's own that
        leave a last batch of another size, whose noise is not that of the others.
        """
        if not self.noisy or self.stream.law == "independent":
            return 0
        data_size, batch_size = self.measured.sizes
        alike = self.stream.even or data_size % batch_size == 0
        return streams.num_batches(data_size, batch_size) if alike else 0

    @property
    def unevenness(self) -> float:
        """ρ of a sweep: the share of independent noise that batches of two sizes leave in it."""
        return streams.unevenness(*self.measured.sizes) if self.sweep else 0.0

    @property
    def measured(self) -> Source:
        """The batches that curvature and noise are measured on: whole sweeps in random order.

        Their noise is (N − n)/(N − 1) of that of batches drawn with replacement, which are measured
        themselves where that is less than .9. A sweep of one's own in random order may be cut in
        another way than ours.
        """
        own = self.stream.law == "sweep"
        swept = Source(self.stream if own else streams.reshuffled(), self.batch_size, self.data)
        data_size, batch_size = swept.sizes
        if self.stream.law == "independent" and 10 * (batch_size - 1) > data_size - 1:
            return swept._replace(stream=streams.with_replacement())
        return swept

    @property
    def num_measured(self) -> int:
        """How many: 32 less what is no whole sweep, whose mean is that of all data; or 1."""
        if not self.noisy:
            return 1
        most = RULES.num_batches
        return most - most % min(streams.num_batches(*self.measured.sizes), most)

    def source(self, kernel: AbstractDynamics) -> Source:
        """The batches of the kernel's own steps."""
        return kernel.source(self.stream, self.batch_size, self.data)


def settled(kernel: Dynamics, num_burnin: int) -> Dynamics:
    """The kernel with temperature and friction constant, as they are at step `num_burnin`."""
    count = jnp.asarray(num_burnin, jnp.int32)
    kernel = eqx.tree_at(lambda k: k.temperature, kernel, Constant(kernel.temperature(count)))
    if kernel.friction is None or isinstance(kernel.friction, Unchosen):
        return kernel
    return eqx.tree_at(lambda k: k.friction, kernel, Constant(kernel.friction(count)))


def temperature_of(kernel: AbstractDynamics) -> float:
    """T of a settled kernel."""
    return float(kernel.temperature(jnp.zeros((), jnp.int32)))
