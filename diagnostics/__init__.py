"""Judging draws: convergence, predictions, calibration.

Everything takes a `Run` (or an ArviZ DataTree) and gives a small immutable record.
"""

from sgmcmc.diagnostics.affine_chains import sweeps
from sgmcmc.diagnostics.classification import Classification, classification_scores
from sgmcmc.diagnostics.deep_linear import deep_linear_coefficient
from sgmcmc.diagnostics.distance import PredictiveDistance, predictive_distance
from sgmcmc.diagnostics.flatness import Flatness, compare_flatness, flatness
from sgmcmc.diagnostics.learning import learning_coefficient
from sgmcmc.diagnostics.learning_record import LearningCoefficient
from sgmcmc.diagnostics.learning_sweep import LearningSweep, learning_sweep
from sgmcmc.diagnostics.predictive import predictive
from sgmcmc.diagnostics.reference import ReferenceComparison, compare_to_reference
from sgmcmc.diagnostics.regression import Regression, regression_scores
from sgmcmc.diagnostics.spectrum import spectrum
from sgmcmc.diagnostics.spectrum_record import Spectrum
from sgmcmc.diagnostics.stationary import StationaryLaw, stationary_law
from sgmcmc.diagnostics.statistics import statistics
from sgmcmc.diagnostics.summary import Summary, summary

__all__ = [
    "Classification",
    "Flatness",
    "LearningCoefficient",
    "LearningSweep",
    "PredictiveDistance",
    "ReferenceComparison",
    "Regression",
    "Spectrum",
    "StationaryLaw",
    "Summary",
    "classification_scores",
    "compare_flatness",
    "compare_to_reference",
    "deep_linear_coefficient",
    "flatness",
    "learning_coefficient",
    "learning_sweep",
    "predictive",
    "predictive_distance",
    "regression_scores",
    "spectrum",
    "stationary_law",
    "statistics",
    "summary",
    "sweeps",
]
