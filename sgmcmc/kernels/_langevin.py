"""Langevin dynamics by any word, and the words that have a name and a paper.

Arguments and errors: see `sgmcmc.kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Friction, ScalarOrSchedule
from sgmcmc.clocks._base import StepSize
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._flows import LANGEVIN, AbstractFlow
from sgmcmc.kernels._samadams import ClockFlow, one_clock
from sgmcmc.kernels._splitting import SplittingKernel, build
from sgmcmc.kernels._words import plan, table
from sgmcmc.metrics._base import AbstractMetric
from sgmcmc.metrics._constant import identity
from sgmcmc.types import NoiseKind


def langevin(
    posterior: Posterior,
    step_size: StepSize,
    *,
    word: str,
    fractions: Sequence[float] | None = None,
    flows: Sequence[AbstractFlow] = (),
    reuse_gradient: bool = True,
    order: int | None = None,
    batches_per_step: int = 1,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """Underdamped Langevin dynamics by any splitting, given as a word.

        dθ = M⁻¹ p dt,   dp = −∇U dt − γ p dt + √(2γT) M^{1/2} dW

    Args:
        word: letters in the order of time. A drift, B kick, O friction and noise, U the
            exact flow of A and O together: "BAOAB", "OBABO", "UBU", …; Z the flow of an
            adaptive clock, which `step_size` then is: "ZBAOABZ", "ZUBUZ".
        fractions: each letter's share of the step, summing to one for each flow; default
            1/(the letter's count).
        reuse_gradient: share one gradient between B's at the same position (default);
            False evaluates each B on the step's own batch.
        order: weak order to state; default 2 for a palindrome, 1 otherwise.
        batches_per_step: 1, or one batch for each gradient of the step.
        posterior, step_size, friction, temperature, metric, gradient, noise: see
            `sgmcmc.kernels`.

    Raises:
        ValueError: a word with an unknown letter, without B, or with unbalanced fractions
            (a caret shows where); any argument out of range.
    """
    known = table(*LANGEVIN, ClockFlow(), *flows)
    planned = plan(word, known, fractions, reuse_gradient=reuse_gradient)
    adapts = any(flow.adapts for flow in planned.flows.values())
    return build(
        posterior,
        one_clock(step_size) if adapts else step_size,
        planned,
        name=word.lower(),
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
        order=order,
        batches_per_step=batches_per_step,
    )


def baoab(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """BAOAB (Leimkuhler and Matthews 2013, doi:10.1093/amrx/abs010), one gradient a step.

    Order 2, and exact positions on Gaussians at any stable h √k < 2; ⟨p²⟩ at step ends is
    T (1 − h²k/4). The one to reach for first.

    Arguments: see `sgmcmc.kernels`.
    """
    return langevin(
        posterior,
        step_size,
        word="BAOAB",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def obabo(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """OBABO (Bussi and Parrinello 2007, arXiv 0803.4083), one gradient a step.

    Order 2, and exact momenta on Gaussians; ⟨x²⟩ = T/(k (1 − h²k/4)).

    Arguments: see `sgmcmc.kernels`.
    """
    return langevin(
        posterior,
        step_size,
        word="OBABO",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def aboba(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """ABOBA (Leimkuhler and Matthews 2013, doi:10.1093/amrx/abs010), one gradient a step.

    Order 2, and exact positions on Gaussians; ⟨p²⟩ = T/(1 − h²k/4).

    Arguments: see `sgmcmc.kernels`.
    """
    return langevin(
        posterior,
        step_size,
        word="ABOBA",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def ubu(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """UBU (Zapatero 2017; Sanz-Serna and Zygalakis 2021, arXiv 2104.12384), one gradient a step.

    Order 2 both weakly and strongly, stable to h √k < 2.399 at γ = 1. Four normals a
    coordinate and step. Under `noise="fast"` the covariance of its noise stays exact, its
    joint law is that of linear maps of independent `fast` variables.

    Arguments: see `sgmcmc.kernels`.
    """
    return langevin(
        posterior,
        step_size,
        word="UBU",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def bub(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """BUB (Zapatero 2017; Sanz-Serna and Zygalakis 2021, arXiv 2104.12384), one gradient a step.

    UBU's mirror image: order 2 both weakly and strongly, stable to h √k < 2.399 at γ = 1. Two
    normals a coordinate and step, half of UBU's; ⟨x²⟩ is off by half of UBU's error, and the
    other way.

    Arguments: see `sgmcmc.kernels`.
    """
    return langevin(
        posterior,
        step_size,
        word="BUB",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def babo(
    posterior: Posterior,
    step_size: StepSize,
    *,
    friction: Friction = 1.0,
    temperature: ScalarOrSchedule = 1.0,
    metric: AbstractMetric = identity(),
    gradient: AbstractEstimator = minibatch(),
    noise: NoiseKind = "gaussian",
) -> SplittingKernel:
    """BABO, Lie and Trotter's form: a leapfrog step B A B, then exact friction O.

    The scheme that Franzese et al. (2021, arXiv 2106.16200) single out as the simplest good
    choice. OBABO seen between its two O's, and so with OBABO's positions: order 2 once
    stationary (order 1 on the way there), ⟨x²⟩ = T/(k (1 − h²k/4)), momenta exact on Gaussians.
    One gradient a step.

    Arguments: see `sgmcmc.kernels`.
    """
    return langevin(
        posterior,
        step_size,
        word="BABO",
        order=2,
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
