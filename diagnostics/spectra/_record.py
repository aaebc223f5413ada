"""The record of a spectrum: a Gauss rule for each probe, and what is read off it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jax.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats

from sgmcmc.diagnostics._plots import new_axes

NOTICE = (
    "None of these numbers is invariant: rescaling a ReLU network's layers changes them and "
    "leaves its function as it is. Between networks they compare weights, not functions."
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """What `spectrum` returns. Every number depends on how the layers are scaled.

    Attributes:
        nodes: [probe, step], ascending; NaN where Lanczos ended before its steps.
        weights: [probe, step], summing to 1 for each probe: the eigenvalues' distribution.
        trace: by the first probe's directions, exactly, and further probes for the rest.
        trace_error: its standard error over those.
        top: the largest eigenvalues, descending, each the largest of the probes' Ritz values
            of that rank: from below, up to rounding.
        top_bounds: an eigenvalue is within this of each (the residual's norm).
        lowest: the most negative (or smallest) Ritz value, from above.
        lowest_bound: an eigenvalue is within this of it.
        threshold: τ of `near_zero`.
        num_parameters, num_steps, num_probes: d, k and m.
        curvature: "hessian" or "gauss_newton".
    """

    nodes: np.ndarray
    weights: np.ndarray
    trace: float
    trace_error: float
    top: np.ndarray
    top_bounds: np.ndarray
    lowest: float
    lowest_bound: float
    threshold: float
    num_parameters: int
    num_steps: int
    num_probes: int
    curvature: str

    def trace_of(self, function: Callable[[np.ndarray], ArrayLike]) -> tuple[float, float]:
        """(tr f(H), its standard error over the probes, NaN for one) by quadrature.

        Args:
            function: f on arrays of eigenvalues, as `np.square`.
        """
        gaps = np.isnan(self.nodes)
        values = np.where(gaps, 0.0, function(np.where(gaps, 0.0, self.nodes)))
        return self._over_probes(self.num_parameters * np.sum(self.weights * values, axis=1))

    def share_within(self, threshold: float) -> tuple[float, float]:
        """(share of eigenvalues with |λ| < threshold, its standard error over the probes).

        Steps of the Gauss rules: resolved as finely as nodes lie near ±threshold.
        """
        inside = np.abs(self.nodes) < threshold  # False for NaN
        return self._over_probes(np.sum(self.weights * inside, axis=1))

    @property
    def near_zero(self) -> float:
        """Share of eigenvalues with |λ| < `threshold`."""
        return self.share_within(self.threshold)[0]

    @property
    def width(self) -> float:
        """σ of `density` where none is given: a hundredth of the range of the nodes."""
        return float(np.nanmax(self.nodes) - np.nanmin(self.nodes)) / 100 or 1e-6

    def density(self, grid: ArrayLike, width: float | None = None) -> np.ndarray:
        """The eigenvalues' density on `grid`, smoothed by a Gaussian of standard deviation `width`.

        Integrates to 1; times `num_parameters`, it counts eigenvalues.
        """
        width = self.width if width is None else float(width)
        if not (np.isfinite(width) and width > 0):
            raise ValueError(f"width: got {width}; expected a finite number > 0")
        nodes, weights = self._measure()
        bumps = stats.norm.pdf(np.asarray(grid, np.float64)[..., None], nodes, width)
        return bumps @ weights

    def distance(self, eigenvalues: ArrayLike) -> float:
        """Wasserstein distance of order 1 to `eigenvalues` (n,), in their units."""
        nodes, weights = self._measure()
        return float(stats.wasserstein_distance(nodes, np.ravel(eigenvalues), weights))

    def plot(self, ax: Axes | None = None, width: float | None = None) -> Axes:
        """The smoothed density on a logarithmic scale, the largest marked. Returns the axes."""
        ax = new_axes(ax)
        width = self.width if width is None else width
        low, high = np.nanmin(self.nodes), np.nanmax(self.nodes)
        grid = np.linspace(low - 6 * width, high + 6 * width, 2_000)
        heights = self.density(grid, width)
        ax.semilogy(grid, heights)
        # One eigenvalue is a bump of this height; an order below it there is nothing to see.
        one = 1 / (self.num_parameters * width * np.sqrt(2 * np.pi))
        ax.set_ylim(one / 30, 3 * heights.max())
        ax.plot(self.top, np.full(len(self.top), one / 15), "|", color="C1", label="largest")
        ax.set(xlabel="eigenvalue λ", ylabel="density")
        name = "Gauss-Newton" if self.curvature == "gauss_newton" else "Hessian"
        ax.set_title(
            f"{name}: σ = {width:.2g}, k = {self.num_steps}, m = {self.num_probes}", fontsize=10
        )
        ax.legend()
        return ax

    def __repr__(self) -> str:
        share, error = self.share_within(self.threshold)
        return (
            f"Spectrum ({self.curvature}, {self.num_parameters:,} parameters, k = "
            f"{self.num_steps} steps, m = {self.num_probes} probes)\n"
            f"  trace {self.trace:.4g} ± {self.trace_error:.2g}, largest {self.top[0]:.4g} "
            f"(residual {self.top_bounds[0]:.1g}), lowest {self.lowest:.3g} "
            f"({self.lowest_bound:.1g}), {share:.1%} ± {error:.1%} within "
            f"{self.threshold:g} of 0\n  {NOTICE}"
        )

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        """(nodes, weights) of all probes together; the weights sum to 1."""
        kept = ~np.isnan(self.nodes)
        return self.nodes[kept], self.weights[kept] / self.num_probes

    def _over_probes(self, values: np.ndarray) -> tuple[float, float]:
        """(mean, its standard error) of one value a probe; the error of one probe is NaN."""
        count = len(values)
        error = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return float(values.mean()), float(error)
