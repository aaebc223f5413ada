"""The one place that reaches for matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def new_axes(ax: Axes | None = None) -> Axes:
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
