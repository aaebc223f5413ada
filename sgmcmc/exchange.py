"""Replica exchange as a sampler: what it takes, checked. The kernel is in `sgmcmc.replicas`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc.clocks import Constant
from sgmcmc.rates import check_range
from sgmcmc.replicas import ReplicaExchange, pending_kick
from sgmcmc.shifted_ode import Sort
from sgmcmc.splitting import SplittingKernel
from sgmcmc.types import Array

# M, the step of Leimkuhler and Matthews, carries a noise that its position is correlated with.
LETTERS = "GABDEFOU"


def replica_exchange(
    kernel: SplittingKernel,
    temperatures: Any,
    *,
    swap_every: int,
    energy_variance: float | Array | str = "without_replacement",
    record: str = "cold",
    correct: bool = True,
) -> ReplicaExchange:
    """Replica exchange with noisy energies (Deng et al. 2020, arXiv 2008.05367).

        swap neighbours with probability min(1, exp(a (Ũ₁ − Ũ₂) − a² v/2)),
        a = 1/T₁ − 1/T₂,   v the variance of Ũ₁ − Ũ₂

    Hot replicas cross barriers, and swaps bring what they find to the cold one, whose law is
    that of `kernel` at T₁. One step is `swap_every` steps of each replica and one attempt to
    swap. Neighbours should be near enough for `run.info.acceptance` to be above about .1.

    The energies are estimated from a batch of their own, the same for all replicas, since much
    of its noise then cancels in the difference. v is the pair's own, estimated from that
    batch's examples (`sgmcmc.swaps`): it depends on the positions, often strongly, so an
    average over earlier steps would be wrong for most pairs. Correct to the order in which
    batch sums are Gaussian: take batches of 30 at least, and a² v below about n/4.

    Args:
        kernel: a sampler of this library by words, overdamped or not; at its temperature it is
            not run, `temperatures` take its place.
        temperatures: T₁ < … < T_R, R ≥ 2, all above 0; T₁ = 1 samples the posterior.
        swap_every: steps of each replica between two attempts, ≥ 1.
        energy_variance: "without_replacement" (default) or "with_replacement": estimated, by
            how the stream draws a batch; or the variance σ² ≥ 0, in nats², of each energy
            estimate where the noises are independent and known, so that v = 2σ². Energies of a
            target without data, or under `gradients.full()`, are exact unless a number is given.
        record: "cold" (default), draws are positions at T₁; "all", positions at every
            temperature in turn, with a leading axis R.
        correct: False leaves −a² v/2 out, which is wrong wherever v > 0; for comparison.

    Returns:
        A kernel. `batches_per_step` is that of `swap_every` steps and one more. In `Info` all
        is the cold replica's, `acceptance` the mean over the pairs tried of the probability to
        swap, `time` the sum over the steps, and `finite` False if any replica is not.
        `gradient_evaluations` counts all replicas, an energy as a third of a gradient.

    Raises:
        TypeError: `kernel` is not one by sub-steps, or its temperature is a schedule.
        ValueError: fewer than two temperatures, or not increasing, or not above 0;
            `swap_every` < 1, or not a divisor of the estimator's `refresh_every`; a negative
            variance; a kernel whose state cannot change its temperature
            (`leimkuhler_matthews`, `sort`, `should`).
    """
    _check_kernel(kernel)
    ladder = _ladder(temperatures)
    if isinstance(swap_every, bool) or not hasattr(swap_every, "__index__"):
        raise TypeError(f"swap_every: got {swap_every!r}; expected an integer ≥ 1")
    if swap_every < 1:
        raise ValueError(f"swap_every: got {swap_every}; allowed: an integer ≥ 1")
    every = kernel.refresh_every
    if every is not None and every % swap_every:
        raise ValueError(
            f"swap_every: got {swap_every} with an estimator refreshed every {every} steps; "
            f"allowed: a divisor of {every}"
        )
    if record not in ("cold", "all"):
        raise ValueError(f"record: got {record!r}; allowed: cold, all")
    if not isinstance(correct, bool):
        raise TypeError(f"correct: got {correct!r}; expected True or False")
    ways = ("without_replacement", "with_replacement")
    variance = None
    if isinstance(energy_variance, str) or energy_variance is None:
        if energy_variance not in ways:
            raise ValueError(
                f"energy_variance: got {energy_variance!r}; allowed: a number ≥ 0, "
                f"{', '.join(ways)}"
            )
    else:
        variance = jnp.asarray(energy_variance, dtype=float)
        check_range(variance, "energy_variance", above_zero=False)
    return ReplicaExchange(
        inner=eqx.tree_at(lambda k: k.temperature.value, kernel, ladder[0]),
        temperatures=ladder,
        energy_variance=variance,
        replacement=energy_variance == "with_replacement" if variance is None else False,
        correct=correct,
        swap_every=int(swap_every),
        record=record,
    )


def _ladder(temperatures: Any) -> Array:
    """T₁ < … < T_R as an array."""
    ladder = jnp.asarray(temperatures, dtype=float)
    if ladder.ndim != 1 or ladder.shape[0] < 2:
        raise ValueError(
            f"temperatures: got {temperatures!r}; expected two at least, T₁ < … < T_R: one chain "
            "has nobody to swap with"
        )
    if not isinstance(ladder, jax.core.Tracer):
        check_range(ladder, "temperatures", above_zero=True)
        if not bool(np.all(np.diff(np.asarray(ladder)) > 0)):
            raise ValueError(f"temperatures: got {ladder.tolist()}; allowed: increasing numbers")
    return ladder


def _check_kernel(kernel: Any) -> None:
    if not isinstance(kernel, SplittingKernel):
        raise TypeError(
            f"kernel: got {type(kernel).__name__}; expected a sampler by sub-steps such as "
            "sgmcmc.baoab(posterior, step_size)"
        )
    if not isinstance(kernel.temperature, Constant):
        raise TypeError("kernel: its temperature is a schedule; allowed: a number")
    strange = [s.letter for s in kernel.plan.substeps if s.letter not in LETTERS]
    if isinstance(kernel, Sort) or strange:
        raise ValueError(
            f"kernel: got {kernel.name}, whose state knows of the temperature in more than its "
            "momentum and cannot change it; allowed: sgld, psgld, sghmc, sgnht, quicsort and the "
            "words over A, B, O and U, baoab among them"
        )
    pending_kick(kernel.plan)
