"""Conversions from other packages' conventions to (h, γ, T).

Ours, with U = −log posterior summed over all N examples (`sgmcmc.Posterior`):

    overdamped      θ ← θ − h ∇U + √(2hT) ξ
    underdamped     dθ = M⁻¹p dt,   dp = −∇U dt − γp dt + √(2γT) M^{1/2} dW

Each function returns a `Convention`, whose numbers go to the kernel that it names. Momenta
are related as the docstrings say; M = 1 throughout. Temperatures are ours where nothing else is
said, default 1. A number out of range is a ValueError that names it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = [
    "Convention",
    "EntropyConvention",
    "amagold",
    "blackjax_sghmc",
    "blackjax_sgld",
    "diffrax",
    "entropy_sgd",
    "mean_loss",
    "mean_loss_momentum",
    "optimizer",
    "per_datum",
    "per_datum_momentum",
    "sghmc_paper",
    "welling_teh",
]


class Convention(NamedTuple):
    """Arguments for the sampler `sgmcmc.<kernel>`.

    Attributes:
        kernel: the sampler's name; "langevin": any underdamped one.
        step_size: h.
        friction: γ in 1/time; None where the sampler has none.
        temperature: T.
    """

    kernel: str
    step_size: float
    friction: float | None = None
    temperature: float = 1.0


def welling_teh(epsilon: float) -> Convention:
    """θ += (ε/2) ∇log p + N(0, ε), as in the SGLD paper: h = ε/2."""
    _positive(epsilon=epsilon)
    return Convention("sgld", epsilon / 2)


def blackjax_sgld(step_size: float, temperature: float = 1.0) -> Convention:
    """θ += ε ∇log p + √(2Tε) ξ: h = ε."""
    _positive(step_size=step_size)
    return Convention("sgld", step_size, None, temperature)


def blackjax_sghmc(step_size: float, alpha: float, temperature: float = 1.0) -> Convention:
    """θ += ε p_old; p ← (1 − αε) p + ε ∇log p(θ_old) + √(2αεT) ξ: h = ε, γ = α.

    This is explicit Euler, and it holds for β = 0 and momenta that are not drawn anew.
    """
    _positive(step_size=step_size)
    return Convention("euler_maruyama", step_size, alpha, temperature)


def per_datum(learning_rate: float, data_size: int, temperature: float | None = None) -> Convention:
    """Log posterior divided by N: θ += lr ∇(log p / N) + √(2 lr T') ξ: h = lr/N, T = T' N.

    Args:
        learning_rate: lr > 0.
        data_size: N.
        temperature: their T'; default 1/N, the posterior.
    """
    _positive(learning_rate=learning_rate, data_size=data_size)
    ours = 1.0 if temperature is None else temperature * data_size
    return Convention("sgld", learning_rate / data_size, None, ours)


def per_datum_momentum(
    learning_rate: float, alpha: float, data_size: int, temperature: float | None = None
) -> Convention:
    """The underdamped form of `per_datum` with friction α: h = lr/√N, γ = α√N, p = √N m."""
    _positive(learning_rate=learning_rate, data_size=data_size)
    root = math.sqrt(data_size)
    ours = 1.0 if temperature is None else temperature * data_size
    return Convention("euler_maruyama", learning_rate / root, alpha * root, ours)


def mean_loss(learning_rate: float, data_size: int, temperature: float = 1.0) -> Convention:
    """θ ← θ − lr ∇(U/N) + √(2 lr T/N) ξ, cyclical SG-MCMC's code: h = lr/N."""
    _positive(learning_rate=learning_rate, data_size=data_size)
    return Convention("sgld", learning_rate / data_size, None, temperature)


def mean_loss_momentum(
    learning_rate: float, alpha: float, data_size: int, temperature: float = 1.0
) -> Convention:
    """v ← (1 − α) v − lr ∇(U/N) + √(2α lr T/N) ξ; θ += v: h = √(lr/N), γ = α/h, v = h p."""
    _positive(learning_rate=learning_rate, data_size=data_size)
    h = math.sqrt(learning_rate / data_size)
    return Convention("sghmc", h, alpha / h, temperature)


def sghmc_paper(eta: float, alpha: float, temperature: float = 1.0) -> Convention:
    """v ← (1 − α) v − η ∇U + N(0, 2αηT); θ += v (arXiv 1402.4102): h = √η, γ = α/h, v = h p."""
    _positive(eta=eta)
    h = math.sqrt(eta)
    return Convention("sghmc", h, alpha / h, temperature)


def optimizer(
    learning_rate: float, momentum: float, data_size: int, temperature: float = 1.0
) -> Convention:
    """SGD on the mean loss with momentum decay β, v ← βv − ℓ ∇(U/N); θ += v, and its sampler.

    h = √(ℓ/N), γ = (1 − β)/h; at temperature 0 the two are the same iteration.
    """
    _positive(learning_rate=learning_rate, data_size=data_size)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: got {momentum}; allowed: 0 ≤ momentum < 1")
    return mean_loss_momentum(learning_rate, 1 - momentum, data_size, temperature)


def amagold(step_size: float, beta: float, temperature: float = 1.0) -> Convention:
    """AMAGOLD's p' = ((1 − hβ) p − hg + √(4βhT) ξ)/(1 + hβ): the SDE with γ = 2β."""
    _positive(step_size=step_size)
    return Convention("langevin", step_size, 2 * beta, temperature)


def diffrax(gamma: float, u: float, step_size: float) -> Convention:
    """dv = −γv − u∇f, noise √(2γu), with f = U/T: T = u."""
    _positive(step_size=step_size, u=u)
    return Convention("langevin", step_size, gamma, u)


class EntropyConvention(NamedTuple):
    """Arguments for `sgmcmc.optim.entropy_sgd`, or for `sgmcmc.local.local_entropy` and its `sgld`.

    Attributes:
        step_size, temperature: of the inner `sgld`.
        averaging: weight of the *new* inner point in the running mean.
        absorbed: whether the outer rate multiplies x − μ and not γ (x − μ).
    """

    step_size: float
    temperature: float
    averaging: float
    absorbed: bool


def entropy_sgd(
    form: str, inner_learning_rate: float, thermal_noise: float = 1e-4
) -> EntropyConvention:
    """Entropy-SGD (Chaudhari et al., arXiv 1611.01838) in one of its three published forms.

    Args:
        form: "code", the authors' programs: noise ε √(2η′), a = 0.25, T = ε²;
            "text_final", the last version of the text: noise ε √η′, a = 0.75, T = ε²/2;
            "text_v1", its first version: noise 2 √η′ whatever ε, a = 0.9, T = 2.
        inner_learning_rate: η′ > 0, the step of the inner loop.
        thermal_noise: ε ≥ 0.

    What a form has beside this: the programs have Nesterov momentum, in the inner loop (see
    `sgmcmc.optim.entropy_sgd`; it is not Langevin dynamics at temperature T) and in the outer step
    (not made here), and evaluate a gradient at x that they do not use; the first text adds
    ρ ∇f(x) of another batch to the outer step (not made here).
    """
    _positive(inner_learning_rate=inner_learning_rate)
    if not (thermal_noise >= 0 and math.isfinite(thermal_noise)):
        raise ValueError(f"thermal_noise: got {thermal_noise}; expected a finite number ≥ 0")
    forms = {
        "code": (thermal_noise**2, 0.25, True),
        "text_final": (thermal_noise**2 / 2, 0.75, True),
        "text_v1": (2.0, 0.9, False),
    }
    if form not in forms:
        raise ValueError(f"form: got {form!r}; allowed: {', '.join(forms)}")
    return EntropyConvention(inner_learning_rate, *forms[form])


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: got {value}; expected a finite number > 0")


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
