"""Exact laws: what a sampler's draws converge to on a Gaussian."""

from sgmcmc.diagnostics.laws._stationary import StationaryLaw, stationary_law
from sgmcmc.diagnostics.laws._sweeps import sweeps

__all__ = [
    "StationaryLaw",
    "stationary_law",
    "sweeps",
]
