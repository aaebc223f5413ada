"""Euler's schemes and their kin: short lists of sub-steps, which are no words of exact flows.

Arguments and errors: see `sgmcmc.kernels`.
"""

from __future__ import annotations

from typing import Any

from sgmcmc._posterior import Posterior
from sgmcmc.gradients._base import Estimator
from sgmcmc.gradients._minibatch import minibatch
from sgmcmc.kernels._splitting import SplittingKernel, build
from sgmcmc.kernels._words import spell
from sgmcmc.metrics._base import Metric
from sgmcmc.metrics._constant import identity


def sgld(
    posterior: Posterior,
    step_size: Any,
    *,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """SGLD (Welling and Teh 2011): θ ← θ − h ∇U + √(2hT) ξ, their ε = 2h.

    Order 1; on Gaussians ⟨x²⟩ = T/(k (1 − hk/2)), stable for h k < 2. With a metric G,
    θ ← θ − h G ∇U + √(2hT) G^{1/2} ξ.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GE", order=1),
        name="sgld",
        friction=None,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def leimkuhler_matthews(
    posterior: Posterior,
    step_size: Any,
    *,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """Leimkuhler and Matthews (2013, eq. 1.4): θ ← θ − h ∇U + √(hT/2) (ξ_k + ξ_{k+1}).

    Overdamped at the price of SGLD, stationary order 2 and exact on Gaussians with full
    gradients; with minibatches it is of order 1 under every stream.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GM", order=2),
        name="leimkuhler_matthews",
        friction=None,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def euler_maruyama(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """Explicit Euler of the underdamped equation, θ with the old p. For comparison only.

        θ ← θ + h M⁻¹ p,   p ← (1 − hγ) p − h ∇U(θ_old) + √(2γTh) ξ

    Order 1 with the largest error of all: at h = .2 a Gaussian's variance is 26% too large.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GAFB", order=1),
        name="euler_maruyama",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )


def symplectic_euler(
    posterior: Posterior,
    step_size: Any,
    *,
    friction: Any = 1.0,
    temperature: Any = 1.0,
    metric: Metric = identity(),
    gradient: Estimator = minibatch(),
    noise: str = "gaussian",
) -> SplittingKernel:
    """Symplectic Euler with Euler's friction, one gradient a step.

        p ← (1 − hγ) p − h ∇U + √(2γTh) ξ,   θ ← θ + h M⁻¹ p

    The integrator inside `sghmc`, under the name that numerical analysis gives it: the two
    kernels make the same steps. Order 1 (momenta; positions on Gaussians 2), stable to
    h √k < 1.236 at γ = 1.

    Arguments: see `sgmcmc.kernels`.
    """
    return build(
        posterior,
        step_size,
        spell("GFBA", order=1),
        name="symplectic_euler",
        friction=friction,
        temperature=temperature,
        metric=metric,
        gradient=gradient,
        noise=noise,
    )
