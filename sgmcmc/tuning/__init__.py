"""`step_size=None`: how a step is chosen, kernel by kernel."""

from sgmcmc.tuning._record import Tuning

__all__ = [
    "Tuning",
]
