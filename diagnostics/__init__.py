"""Judging draws: convergence, predictions, exact laws, learning coefficients, spectra.

What judges draws takes a `Run` or an ArviZ DataTree, what judges a kernel or a point takes
that; all give a small immutable record. Rooms: `convergence`, `predictions`, `laws`,
`learning`, `spectra`; their names are here too.
"""

from sgmcmc.diagnostics import convergence, laws, learning, predictions, spectra
from sgmcmc.diagnostics.convergence import (
    ReferenceComparison,
    Summary,
    compare_to_reference,
    statistics,
    summary,
)
from sgmcmc.diagnostics.laws import StationaryLaw, stationary_law, sweeps
from sgmcmc.diagnostics.learning import (
    LearningCoefficient,
    LearningSweep,
    deep_linear_coefficient,
    learning_coefficient,
    learning_sweep,
)
from sgmcmc.diagnostics.predictions import (
    Classification,
    PredictiveDistance,
    Regression,
    classification_scores,
    predictive,
    predictive_distance,
    regression_scores,
)
from sgmcmc.diagnostics.spectra import (
    Curvature,
    Flatness,
    FlatnessComparison,
    Spectrum,
    compare_flatness,
    curvature_of,
    flatness,
    spectrum,
)

__all__ = [
    "Classification",
    "Curvature",
    "Flatness",
    "FlatnessComparison",
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
    "convergence",
    "curvature_of",
    "deep_linear_coefficient",
    "flatness",
    "laws",
    "learning",
    "learning_coefficient",
    "learning_sweep",
    "predictions",
    "predictive",
    "predictive_distance",
    "regression_scores",
    "spectra",
    "spectrum",
    "stationary_law",
    "statistics",
    "summary",
    "sweeps",
]
