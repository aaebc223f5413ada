"""`step_size=None`: how a step is chosen, kernel by kernel."""

from sgmcmc.tuning._record import Tuning
from sgmcmc.tuning._rules import Rules
from sgmcmc.tuning._tune import tune

__all__ = [
    "Rules",
    "Tuning",
    "tune",
]
