"""Predictions: posterior predictives, scores and calibration."""

from sgmcmc.diagnostics.predictions._classification import Classification, classification_scores
from sgmcmc.diagnostics.predictions._distance import PredictiveDistance, predictive_distance
from sgmcmc.diagnostics.predictions._predictive import predictive
from sgmcmc.diagnostics.predictions._regression import Regression, regression_scores

__all__ = [
    "Classification",
    "PredictiveDistance",
    "Regression",
    "classification_scores",
    "predictive",
    "predictive_distance",
    "regression_scores",
]
