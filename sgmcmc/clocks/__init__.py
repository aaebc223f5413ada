"""Clocks: the pace of time. A clock gives each step its dt and each draw its weight.

The weight is dt over the nominal step: exactly 1 for a fixed step, h_k/h_0 for a schedule,
so that weighted averages are averages over physical time.

    fixed(h)                        h
    scheduled(f)                    h_k = f(k)
    scheduled(periodic(f, P))       h_k = f(k mod P)
    decreasing(h, offset, power)    h_k = h (1 + k/b)^{−γ}
    cyclical(h, num_cycles, …)      h_k = (h/2) (cos(π r_k) + 1), r_k the place in the cycle
    adaptive(Δτ, …)                 ψ(ζ) Δτ, ζ the recent size of the gradient

k counts all steps from 0, burn-in included. `periodic` is for schedules of friction and temperature
too. One of your own: `AbstractClock`, and `sgmcmc/clocks/README.md`.
"""

from sgmcmc._schedule import Constant, Rate, Schedule, as_rate
from sgmcmc.clocks._adaptive import SA_SGLD_CODE, SAMADAMS_CODE, AdaptiveClock, adaptive
from sgmcmc.clocks._base import AbstractClock, Clock
from sgmcmc.clocks._schedules import (
    CyclicalClock,
    as_clock,
    cyclical,
    decreasing,
    fixed,
    periodic,
    scheduled,
)

__all__ = [
    "SAMADAMS_CODE",
    "SA_SGLD_CODE",
    "AbstractClock",
    "AdaptiveClock",
    "Clock",
    "Constant",
    "CyclicalClock",
    "Rate",
    "Schedule",
    "adaptive",
    "as_clock",
    "as_rate",
    "cyclical",
    "decreasing",
    "fixed",
    "periodic",
    "scheduled",
]
