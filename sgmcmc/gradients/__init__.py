"""Gradient estimators: unbiased (but for `averaged`), stateful, unaware of integrators.

    minibatch         g = ∇U₀(x) + (N/n) Σ_B v_i(x),         v_i = −λ ∇ log p(y_i | x_i, θ)
    full              g = ∇U(x)
    control_variate   g = ∇U₀(x) + Σ_all v_i(x*) + (N/n) Σ_B (v_i(x) − v_i(x*)),  x* a fixed mode
    svrg              the same, x* a snapshot of the chain's own, refreshed every m steps
    saga              g = ∇U₀(x) + Σ_all τ_i + (N/n) Σ_B (v_i(x) − τ_i),  then τ_i ← v_i(x) in B

U₀ is the part without data. With a_i = v_i, v_i(x) − v_i(x*) or v_i(x) − τ_i and
S² = (1/N) Σ (a_i − ā)², the variance of g is (N²/n) S² for batches drawn with replacement and
(N²/n) S² (N−n)/(N−1) without.

What a kernel's keyword `gradient=` takes is an *estimator*, and its memory is
`State.estimator`. One of your own: `AbstractEstimator`, and `sgmcmc/gradients/README.md`.
"""

from sgmcmc.gradients._averaged import averaged
from sgmcmc.gradients._base import AbstractEstimator, EstimatorTraits
from sgmcmc.gradients._control_variate import control_variate, svrg
from sgmcmc.gradients._minibatch import full, minibatch
from sgmcmc.gradients._noise_variance import running_variance
from sgmcmc.gradients._saga import saga

__all__ = [
    "AbstractEstimator",
    "EstimatorTraits",
    "averaged",
    "control_variate",
    "full",
    "minibatch",
    "running_variance",
    "saga",
    "svrg",
]
