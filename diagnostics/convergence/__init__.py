"""Convergence: summaries, and draws against a reference."""

from sgmcmc.diagnostics.convergence._reference import ReferenceComparison, compare_to_reference
from sgmcmc.diagnostics.convergence._statistics import statistics
from sgmcmc.diagnostics.convergence._summary import Summary, summary

__all__ = [
    "ReferenceComparison",
    "Summary",
    "compare_to_reference",
    "statistics",
    "summary",
]
