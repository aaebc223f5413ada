"""Metrics: the mass of underdamped kernels, the preconditioner of overdamped ones.

A metric stands for G = M⁻¹ = L Lᵀ, best an estimate of the target's covariance. With G constant
this is the identity metric in the coordinates L⁻¹θ: laws are unchanged. `rmsprop` and
`position_dependent`, for `psgld`, change with the position. One of your own: `AbstractMetric`
where it is constant, `AbstractPreconditioner` where it is not.
"""

from sgmcmc.metrics._base import AbstractMetric, AbstractPreconditioner
from sgmcmc.metrics._constant import dense, diagonal, identity
from sgmcmc.metrics._position_dependent import position_dependent, rmsprop

__all__ = [
    "AbstractMetric",
    "AbstractPreconditioner",
    "dense",
    "diagonal",
    "identity",
    "position_dependent",
    "rmsprop",
]
