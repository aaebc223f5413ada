"""The learning coefficient: local, swept, and in closed form."""

from sgmcmc.diagnostics.learning._coefficient import learning_coefficient
from sgmcmc.diagnostics.learning._deep_linear import deep_linear_coefficient
from sgmcmc.diagnostics.learning._record import LearningCoefficient
from sgmcmc.diagnostics.learning._sweep import LearningSweep, learning_sweep

__all__ = [
    "LearningCoefficient",
    "LearningSweep",
    "deep_linear_coefficient",
    "learning_coefficient",
    "learning_sweep",
]
