"""`step_size=None`: which rule chooses for which kernel.

words, Euler's schemes     curvature, the word's own error, gradient noise (`tuning`)
adaptive clocks            Δτ = h/ψ̄, h that of the word without Z (`tune_adaptive`)
psgld                      Euler's rule in the metric at the mode (`tune_preconditioned`)
amagold, sggmc, mala, hmc  acceptance (`tune_acceptance`)
replica_exchange           the shorter of its kernel's at the lowest and highest temperature
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax

from sgmcmc.exact._base import AbstractCorrectedKernel
from sgmcmc.exact._blackjax import AbstractFullGradientKernel
from sgmcmc.kernels._base import AbstractDynamics, require_kernel
from sgmcmc.kernels._replica_exchange import ReplicaExchange, at_temperature
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.metrics._base import AbstractPreconditioner
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._acceptance import tune_acceptance
from sgmcmc.tuning._adaptive import tune_adaptive
from sgmcmc.tuning._preconditioned import tune_preconditioned
from sgmcmc.tuning._record import Tuning, tuned
from sgmcmc.tuning._rules import tune
from sgmcmc.types import Key, PyTree


def require_tunable(kernel: Any) -> None:
    """Raise unless `step_size=None` can be chosen for this kernel."""
    require_kernel(kernel)
    if not isinstance(kernel, AbstractDynamics | ReplicaExchange):
        raise ValueError(
            f"step_size: got None; it is not chosen for {type(kernel).__name__}; allowed: a number"
        )


def choose(
    key: Key,
    kernel: Any,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int = 0,
) -> Tuning:
    """The step of a kernel made with `step_size=None`; arguments and errors as `tuning.tune`.

    Raises:
        ValueError: there is no rule for this kernel.
    """
    arguments = (params, data, stream, batch_size, count)
    if isinstance(kernel, ReplicaExchange):
        return _of_replicas(key, kernel, *arguments)
    if isinstance(kernel, AbstractCorrectedKernel | AbstractFullGradientKernel):
        return tune_acceptance(key, kernel, *arguments)
    if isinstance(kernel, SplittingKernel) and kernel.clock.adaptive:
        return tune_adaptive(key, kernel, *arguments)
    if isinstance(kernel, SplittingKernel) and isinstance(kernel.metric, AbstractPreconditioner):
        return tune_preconditioned(key, kernel, *arguments)
    if isinstance(kernel, AbstractDynamics):
        return tune(key, kernel, *arguments)
    raise ValueError(
        f"step_size: got None; it is not chosen for {type(kernel).__name__}; allowed: a number"
    )


def with_choice(kernel: Any, tuning: Tuning) -> Any:
    """The kernel with the numbers of `tuning`."""
    if not isinstance(kernel, ReplicaExchange):
        return tuned(kernel, tuning)
    return eqx.tree_at(lambda k: k.inner, kernel, with_choice(kernel.inner, tuning))


def _of_replicas(key: Key, kernel: ReplicaExchange, *arguments: Any) -> Tuning:
    """All replicas make one step h: a swap multiplies the momentum by √(T_new/T_old) instead,

    so that hot ones go further by as much. Hot ones come to steeper places.
    """
    ends = {}
    for place, end_key in zip((0, -1), jax.random.split(key), strict=True):
        temperature = kernel.temperatures[place]
        inner = at_temperature(kernel.inner, temperature)
        ends[float(temperature)] = choose(end_key, inner, *arguments)
    shorter = min(ends.values(), key=lambda tuning: tuning.step_size)
    steps = {f"step at T = {t:g}": tuning.step_size for t, tuning in ends.items()}
    spent = sum(tuning.gradient_evaluations for tuning in ends.values())
    found = {**(shorter.found or {}), **steps}
    return shorter._replace(found=found, gradient_evaluations=spent)
