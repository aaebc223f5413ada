"""`sgmcmc.tune`, and which rule chooses for which kernel.

words, Euler's schemes     curvature, the word's own error, gradient noise (`_by_curvature`)
adaptive clocks            Δτ = h/ψ̄, h that of the word without Z (`_adaptive`)
psgld                      Euler's rule in the metric at the mode (`_preconditioned`)
amagold, sggmc, mala, hmc  acceptance (`_by_acceptance`)
replica_exchange           the shorter of its kernel's at the lowest and highest temperature
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

from sgmcmc import _checks as checks
from sgmcmc.exact._base import AbstractCorrectedKernel
from sgmcmc.exact._blackjax import AbstractFullGradientKernel
from sgmcmc.kernels._base import AbstractDynamics, require_kernel
from sgmcmc.kernels._replica_exchange import ReplicaExchange, at_temperature
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.loop._diagnose import why_not_finite
from sgmcmc.loop._start import placed
from sgmcmc.metrics._base import AbstractPreconditioner
from sgmcmc.streams._streams import Stream
from sgmcmc.tuning._adaptive import choose_with_clock
from sgmcmc.tuning._by_acceptance import choose_by_acceptance
from sgmcmc.tuning._by_curvature import choose_by_curvature
from sgmcmc.tuning._preconditioned import choose_preconditioned
from sgmcmc.tuning._problem import Problem, settled
from sgmcmc.tuning._record import Kernel, Tuning, is_untuned, with_tuning
from sgmcmc.types import Key, PyTree


def tune(
    key: Key,
    kernel: Kernel,
    params: PyTree | Callable[[Key], PyTree],
    data: PyTree = None,
    *,
    batch_size: int | None = None,
    stream: str | Stream | None = None,
    num_burnin: int = 0,
) -> tuple[Kernel, Tuning]:
    """Choose the step of a kernel made with `step_size=None`, as `sample` does, without a run.

    For `jax.vmap` over kernels, `to_blackjax`, a bench, or the step of an inner loop. With the
    key, the arguments and the `num_burnin` of a run it is the choice that `sample` makes there;
    but `sample` goes on to halve the step where a chain is lost in the burn-in, or stuck.

    >>> import jax, jax.numpy as jnp, sgmcmc
    >>> def log_density(x):
    ...     return -0.5 * jnp.sum(jnp.array([1.0, 4.0, 25.0]) * x**2)
    >>> posterior = sgmcmc.Posterior.from_log_density(log_density)
    >>> untuned = sgmcmc.baoab(posterior, None, friction="auto")
    >>> kernel, tuning = sgmcmc.tune(jax.random.key(0), untuned, jnp.zeros(3))
    >>> print(f"{tuning.step_size:.2f}: {tuning.reason}")
    0.20: stability

    It costs some thousand minibatch gradients (`tuning.gradient_evaluations`). See "Choosing a
    step size" for the rules, and `sgmcmc.tuning.Rules` for their thresholds.

    Args:
        key: `jax.random.key(seed)`, or a legacy uint32 key.
        kernel: a sampler made with `step_size=None`, or whose clock was.
        params: where the search for the mode begins: one pytree of floating arrays, or
            `init(key) -> params`. Never changed.
        data: pytree of arrays with one leading axis; None for targets without data.
        batch_size: examples a step; None: all of them.
        stream: as in `sample`; None (default): the one that the kernel asks for.
        num_burnin: the step at which schedules of temperature and friction are read; ≥ 0.

    Returns:
        The kernel with its step size, and its friction where that was "auto"; and what was
        chosen, and why, as in `run.tuning`.

    Raises:
        TypeError, ValueError: bad input, by name; a kernel that has its step; a kernel for which
            there is no rule.
        FloatingPointError: no step was found that stays finite, the search for the mode did not,
            or the density has no curvature there.
    """
    checks.on_host("tune", key, kernel, params, data)
    require_kernel(kernel)
    if not is_untuned(kernel):
        raise ValueError(
            f"kernel: got {kernel!r}, which has its step; expected one made with step_size=None"
        )
    tuning = choose_for_run(key, kernel, params, data, batch_size, stream, 1, num_burnin)
    return with_tuning(kernel, tuning), tuning


def choose_for_run(
    key: Any,
    kernel: Any,
    params: PyTree | Callable[[Key], PyTree],
    data: PyTree,
    batch_size: int | None,
    stream: str | Stream | None,
    num_chains: int,
    num_burnin: int,
) -> Tuning:
    """What is chosen from the first chain's start; arguments as in `sample`, not checked yet."""
    require_tunable(kernel)
    key = checks.typed_key(key)
    checks.count(num_chains, "num_chains", least=1)
    checks.count(num_burnin, "num_burnin", least=0)
    start = placed(jax.random.clone(key), kernel, params, data, batch_size, stream, int(num_chains))
    first = jax.tree.map(lambda x: x[0], start.position)
    problem = Problem(first, start.data, start.stream, start.batch_size, num_burnin)
    try:
        return choose(kernel, jax.random.fold_in(key, 2**31 - 1), problem)
    except FloatingPointError as error:
        said = why_not_finite(kernel.posterior, first, start.data)
        if said is None:
            raise
        raise FloatingPointError(f"step_size: none found; {said}") from error


@functools.singledispatch
def choose(kernel: Any, key: Key, problem: Problem) -> Tuning:
    """The step of an untuned kernel, by the rule that is registered for its kind.

    Args:
        kernel: untuned; its temperature and friction may be schedules.
        key: consumed.
        problem: start, data and batches.

    Raises:
        ValueError: there is no rule for this kernel.
        FloatingPointError: no step was found.
    """
    raise _no_rule(kernel)


@choose.register
def _(kernel: AbstractDynamics, key: Key, problem: Problem) -> Tuning:
    if kernel.clock.adaptive or isinstance(kernel.metric, AbstractPreconditioner):
        raise _no_rule(kernel)
    return choose_by_curvature(key, settled(kernel, problem.num_burnin), problem)[0]


@choose.register
def _(kernel: SplittingKernel, key: Key, problem: Problem) -> Tuning:
    kernel = settled(kernel, problem.num_burnin)
    if kernel.clock.adaptive:
        return choose_with_clock(key, kernel, problem)
    if isinstance(kernel.metric, AbstractPreconditioner):
        return choose_preconditioned(key, kernel, problem)
    return choose_by_curvature(key, kernel, problem)[0]


@choose.register(AbstractCorrectedKernel)
@choose.register(AbstractFullGradientKernel)
def _(
    kernel: AbstractCorrectedKernel | AbstractFullGradientKernel, key: Key, problem: Problem
) -> Tuning:
    return choose_by_acceptance(key, settled(kernel, problem.num_burnin), problem)


@choose.register
def _(kernel: ReplicaExchange, key: Key, problem: Problem) -> Tuning:
    """All replicas make one step h: a swap multiplies the momentum by √(T_new/T_old) instead.

    Hot ones go further by as much, and come to steeper places.
    """
    ends: dict[float, Tuning] = {}
    for place, end_key in zip((0, -1), jax.random.split(key), strict=True):
        temperature = kernel.temperatures[place]
        inner = at_temperature(kernel.inner, temperature)
        ends[float(temperature)] = choose(inner, end_key, problem)
    shorter = min(ends.values(), key=lambda tuning: tuning.step_size)
    steps = {f"step at T = {t:g}": tuning.step_size for t, tuning in ends.items()}
    return shorter._replace(
        measured={**(shorter.measured or {}), **steps},
        gradient_evaluations=sum(tuning.gradient_evaluations for tuning in ends.values()),
    )


def require_tunable(kernel: Any) -> None:
    """Raise a ValueError unless there is a rule for this kind of kernel."""
    require_kernel(kernel)
    if choose.dispatch(type(kernel)) is choose.dispatch(object):
        raise _no_rule(kernel)


def _no_rule(kernel: Any) -> ValueError:
    return ValueError(
        f"step_size: got None; it is not chosen for {type(kernel).__name__}; allowed: a number"
    )
