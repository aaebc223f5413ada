"""The rest of the family of integrators, by name: further words, and third-order schemes.

Arguments and errors: see `sgmcmc.kernels`. Under minibatches none of them beats order 2 in
the step size (Franzese et al. 2021, arXiv 2106.16200); what the third-order schemes buy is
accuracy with full gradients, and strong order 3.
"""

from __future__ import annotations

from typing import Any

from sgmcmc.gradients import Estimator, minibatch
from sgmcmc.kernels import langevin
from sgmcmc.metrics import Metric, identity
from sgmcmc.posterior import Posterior
from sgmcmc.shifted_ode import PLAN, Quicsort, ShiftedOde, Should, Sort
from sgmcmc.splitting import SplittingKernel, build


def bub(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
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
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
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


def sort(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """SORT (Foster, Lyons and Oberhauser 2021, arXiv 2101.03446), two gradients a step.

    Order 3, weakly and strongly, with full gradients; on Gaussians ⟨x²⟩ is off by O(h⁴), stable
    to h √k < 4.33 at γ = 1. A step begins at its first gradient, which also closes the step
    before; it is there that the position is recorded (see `sgmcmc.shifted_ode`). Three normals
    a coordinate. `noise="fast"` keeps covariances, but not order 3: `order` is then 2.

    Arguments: see `sgmcmc.kernels`.
    """
    return _third_order(
        posterior,
        step_size,
        kind=Sort,
        name="sort",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def should(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """ShOULD (Foster, Lyons and Oberhauser 2021, arXiv 2101.03446), two gradients a step.

    SORT with its noise entering as the exact flow's best guess from W, H and K. Order 3, weakly
    and strongly, with full gradients; on Gaussians ⟨x²⟩ is off by O(h⁴), stable to h √k < 4.33 at
    γ = 1. Recorded where its step begins, as SORT is. Three normals a coordinate.
    `noise="fast"` keeps covariances, but not order 3: `order` is then 2.

    Arguments: see `sgmcmc.kernels`.
    """
    return _third_order(
        posterior,
        step_size,
        kind=Should,
        name="should",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def quicsort(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """QUICSORT (2025, arXiv 2508.16485), two gradients a step.

    Gradients at the two Gauss nodes of the step, none at its ends. Order 3, weakly and strongly,
    with full gradients; on Gaussians ⟨x²⟩ is off by O(h³), stable to h √k < 3.40 at γ = 1. Three
    normals a coordinate. `noise="fast"` keeps covariances, but not order 3: `order` is then 2.

    Arguments: see `sgmcmc.kernels`.
    """
    return _third_order(
        posterior,
        step_size,
        kind=Quicsort,
        name="quicsort",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def _third_order(
    posterior: Posterior,
    step_size: Any,
    *,
    kind: type[ShiftedOde],
    name: str,
    noise: str,
    **options: Any,
) -> SplittingKernel:
    # Weak order 3 asks for a normal's moments through order 7; "fast" has them through 5.
    order = 2 if noise == "fast" else PLAN.order
    return build(
        posterior, step_size, PLAN, name=name, noise=noise, order=order, kind=kind, **options
    )
