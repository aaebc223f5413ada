"""Spectra of the Hessian and the Gauss-Newton matrix, and flatness."""

from sgmcmc.diagnostics.spectra._flatness import (
    Flatness,
    FlatnessComparison,
    compare_flatness,
    flatness,
)
from sgmcmc.diagnostics.spectra._record import Spectrum
from sgmcmc.diagnostics.spectra._spectrum import spectrum

__all__ = [
    "Flatness",
    "FlatnessComparison",
    "Spectrum",
    "compare_flatness",
    "flatness",
    "spectrum",
]
