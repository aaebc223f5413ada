"""Exact laws: what a sampler's draws converge to on a Gaussian."""

from sgmcmc.diagnostics.laws._affine import sweeps
from sgmcmc.diagnostics.laws._stationary import StationaryLaw, stationary_law

__all__ = [
    "StationaryLaw",
    "stationary_law",
    "sweeps",
]
