"""Metropolis corrections: samplers that are exact at any step size."""

from sgmcmc.exact._blackjax import hmc, mala
from sgmcmc.exact._minibatch import amagold, sggmc

__all__ = [
    "amagold",
    "hmc",
    "mala",
    "sggmc",
]
