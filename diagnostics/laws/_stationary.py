"""Exact stationary laws of samplers on linear-Gaussian targets, without sampling.

What is refused is refused here or in `_linear`, which reads the affine maps of a kernel's steps
off its `drive` and `refresh`; `_affine` makes the law of them.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.diagnostics.laws import _linear as linear
from sgmcmc.diagnostics.laws._affine import round_length, stationary_moments
from sgmcmc.kernels._base import AbstractDynamics, AbstractKernel, require_kernel
from sgmcmc.types import Batch, Blocks, PyTree


class StationaryLaw(NamedTuple):
    """What a sampler's draws converge to, in float64; d parameters, raveled in tree order.

    Attributes:
        mean: (d,) mean of the recorded positions.
        covariance: (d, d) covariance of the recorded positions.
        momentum_mean: (d,) mean of the whitened momentum M^{-1/2} p at the word's end, which
            is p itself under the identity metric; (0,) for overdamped kernels.
        momentum_covariance: (d, d) its covariance, T I where the kernel is exact.
        cross_covariance: (d, d) Cov(position, momentum), 0 where the kernel is exact.
        spectral_radius: of the map of second moments, a step, below 1; they settle as its kth
            power after k steps.
    """

    mean: np.ndarray
    covariance: np.ndarray
    momentum_mean: np.ndarray
    momentum_covariance: np.ndarray
    cross_covariance: np.ndarray
    spectral_radius: float


def stationary_law(
    kernel: AbstractKernel,
    position: PyTree,
    batches: Sequence[PyTree] | None = None,
    *,
    data: PyTree = None,
    epochs: Sequence[Sequence[int]] | None = None,
) -> StationaryLaw:
    """Prove your own integrator in one call: the exact law of its draws on a Gaussian target.

    Computed from the Jacobian of `kernel.drive` in state and noise and a discrete Lyapunov
    equation, in float64 whatever JAX's setting, with no sampling. What a kernel gets wrong
    (a noise scale, a half step, the order of letters) is seen in milliseconds, to ten digits.

    The state has all that the kernel remembers: the snapshot of `gradients.svrg` with its
    refreshes, the table of `gradients.saga`. Draws count by their weights. Where step,
    friction or temperature repeat themselves the law is that over a period, draws of every step
    taken together; after how many steps they do, they must say (`clocks.periodic`,
    `AbstractClock.period`), and it is checked.

    Args:
        kernel: any kernel whose `drive` takes standard normals, as an array or a pytree of
            them, and whose step is affine in them and in its state; one of your own too.
        position: pytree of floating arrays, of the shape of the parameters; where in space
            does not matter.
        batches: what a step may be given: one batch with all data for a full gradient, or all
            minibatches, each a `Batch` with its `index` for `gradients.saga`. Kernels with
            `batches_per_step` = L > 1 take batches with a leading axis L. None (default): a
            target without data.
        data: all data, for gradient estimators that begin with a pass over them, as
            `gradients.control_variate` does; default: those of the first batch.
        epochs: equally likely sequences of indices into `batches`, all of one length, as
            `diagnostics.sweeps` lists them for the library's streams; the law is then averaged
            over the steps of an epoch. Step 0, where periods and refreshes begin, opens one.
            Default: every step draws one of `batches` anew.

    Returns:
        A `StationaryLaw`. Its `covariance` is that of the target where the kernel is exact.
        For n state variables the cost is that of a system of n² equations.

    Raises:
        ValueError: the step is not affine in state and noise (the target is not Gaussian, the
            step follows the gradient, a memory counts or squares, or the code rounds to float32);
            its noise is not of standard normals; numbers change with the step index and do not
            say when they come again, or not as they say; periods, epochs and refreshes begin anew
            together only after too many steps; all draws weigh 0; there is no stationary law
            (the spectral radius is 1 or more: the step size is beyond the limit of stability, or
            the friction is 0); `batches` is empty; `epochs` is empty, of several lengths, or names
            a batch that is not there.
        TypeError: `position` is not floating.

    Examples:
        >>> import numpy as np, sgmcmc, sgmcmc.models
        >>> target = sgmcmc.models.gaussian([0.0], 1.0).posterior()
        >>> law = stationary_law(sgmcmc.langevin(target, 0.2, word="OBABO"), np.zeros(1))
        >>> round(float(law.covariance[0, 0]), 6)  # 1 / (1 − h²/4)
        1.010101
    """
    checks.on_host("stationary_law", kernel, position, batches, data)
    if batches is None:
        batches = [None]
    if not len(batches):
        raise ValueError("batches: got an empty list; expected at least one batch")
    if epochs is None:
        epochs = [(i,) for i in range(len(batches))]
    _check_epochs(epochs, len(batches))
    checks.require_floating(position, "position")
    require_kernel(kernel)
    period = _period(kernel)
    round_length(period, epochs, kernel.traits.refresh_every)
    if data is None and batches[0] is not None:
        data = batches[0].data if isinstance(batches[0], Batch | Blocks) else batches[0]
    with _double_precision():
        kernel, position, batches, data = _widen((kernel, position, list(batches), data))
        state = linear.template(kernel, position, batches[0], data)
        steps, refresh = linear.chain(kernel, state, batches, data, period)
        d, momenta = trees.size(position), trees.size(state.momentum)
    mean, covariance, radius = stationary_moments(steps, epochs, refresh)
    return StationaryLaw(
        mean=mean[:d],
        covariance=covariance[:d, :d],
        momentum_mean=mean[d:],
        momentum_covariance=covariance[d:, d:],
        cross_covariance=covariance[:d, d : d + momenta],
        spectral_radius=radius,
    )


def _check_epochs(epochs: Sequence[Sequence[int]], num_batches: int) -> None:
    lengths = {len(epoch) for epoch in epochs}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"epochs: got {len(epochs)} of lengths {sorted(lengths)}; "
            "expected at least one, all of one length ≥ 1"
        )
    odd = [i for epoch in epochs for i in epoch if i not in range(num_batches)]
    if odd:
        raise ValueError(
            f"epochs: got the index {odd[0]}; allowed: 0 to {num_batches - 1}, "
            f"for there are {num_batches} batches"
        )


def _period(kernel: AbstractKernel) -> int:
    """Steps after which the kernel's numbers come again, as it says; `linear.chain` checks it.

    Raises:
        ValueError: they need not come again, or nobody says when; they follow the gradient; no
            step is chosen yet.
    """
    clock = kernel.clock
    periods: dict[str, int | None] = {}
    if clock is not None:
        if clock.untuned:
            raise ValueError(
                "step_size: got None, which sgmcmc.sample chooses from the data; expected a "
                "number, or the kernel that sgmcmc.tune returns"
            )
        if clock.adaptive:
            raise ValueError(
                f"kernel: {kernel.traits.name} has a step that follows the gradient, so that it is "
                "not affine and has no exact law; allowed: a number, or a clock that repeats itself"
            )
        periods["step_size"] = clock.period
    if isinstance(kernel, AbstractDynamics):
        if kernel.friction is not None:
            periods["friction"] = kernel.friction.period
        periods["temperature"] = kernel.temperature.period
    known = []
    for name, period in periods.items():
        if period is None:
            raise ValueError(
                f"{name}: its numbers change with the step and do not say when they come again, so "
                "that there is no stationary law to tell; allowed: a number, "
                "clocks.periodic(f, period), clocks.cyclical, or a clock with a `period` of its own"
            )
        known.append(period)
    return math.lcm(*known)


def _widen(tree: PyTree) -> PyTree:
    """All floating arrays in float64."""

    def widen(leaf: PyTree) -> PyTree:
        return jnp.asarray(leaf, jnp.float64) if eqx.is_inexact_array_like(leaf) else leaf

    return jax.tree.map(widen, tree)


def _double_precision() -> contextlib.AbstractContextManager[object]:
    """`jax.enable_x64(True)`, which older versions keep among the experiments."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64(True)
