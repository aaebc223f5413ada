"""The one place that reaches for matplotlib."""

from __future__ import annotations

from typing import Any


def new_axes(ax: Any = None) -> Any:
    """`ax`, or the axes of a new square figure.

    Raises:
        ImportError: matplotlib is missing.
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "sgmcmc[plots]"') from error
    return plt.subplots(figsize=(4, 4), layout="constrained")[1]
