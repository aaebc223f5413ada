"""Spectra of the Hessian and the Gauss-Newton matrix, and flatness."""

from sgmcmc.diagnostics.spectra._flatness import (
    Flatness,
    FlatnessComparison,
    compare_flatness,
    flatness,
)
from sgmcmc.diagnostics.spectra._operator import Curvature
from sgmcmc.diagnostics.spectra._record import Spectrum
from sgmcmc.diagnostics.spectra._spectrum import curvature_of, spectrum

__all__ = [
    "Curvature",
    "Flatness",
    "FlatnessComparison",
    "Spectrum",
    "compare_flatness",
    "curvature_of",
    "flatness",
    "spectrum",
]
