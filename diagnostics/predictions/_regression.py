"""Scores of Gaussian-mixture predictive densities p(y) = Σ_s w_s N(y; μ_s, σ_s²)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jax.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, ndtr

from sgmcmc.diagnostics._plots import new_axes
from sgmcmc.diagnostics.predictions._mixture import half_mean_difference, mean_distance

LEVELS = np.arange(0.05, 0.96, 0.05)


@dataclass(frozen=True, eq=False)
class Regression:
    """Predictive mean and spread at m points, and their scores where responses are known.

    Attributes:
        mean: (m,) predictive mean, in units of y.
        sd: (m,) predictive standard deviation: noise and spread of the draws together.
        epistemic_sd: (m,) standard deviation of the draws' means alone.
        y: responses (m,), or None: then the scores raise a ValueError.
        log_density: (m,) log p(y | x, data), in nats, or None.
        pointwise_crps: (m,), in units of y, or None.
        pit: (m,) probability integral transform P(Y ≤ y), uniform where calibrated, or None.
        notes: dropped chains and the like.
    """

    mean: np.ndarray
    sd: np.ndarray
    epistemic_sd: np.ndarray
    y: np.ndarray | None = None
    log_density: np.ndarray | None = None
    pointwise_crps: np.ndarray | None = None
    pit: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def rmse(self) -> float:
        """Root mean squared error of the predictive mean, in units of y."""
        return float(np.sqrt(np.mean((self.mean - self._known(self.y)) ** 2)))

    @property
    def lppd(self) -> float:
        """Mean per point of log p(y | x, data), in nats."""
        return float(self._known(self.log_density).mean())

    @property
    def nll(self) -> float:
        """−lppd, in nats."""
        return -self.lppd

    @property
    def crps(self) -> float:
        """Mean continuous ranked probability score ∫ (F(t) − 1{t ≥ y})² dt, in units of y."""
        return float(self._known(self.pointwise_crps).mean())

    def coverage(self, levels: ArrayLike = LEVELS) -> np.ndarray:
        """Share of responses inside the central predictive interval of each level in (0, 1)."""
        distance = np.abs(2 * self._known(self.pit) - 1)
        return (distance[:, None] <= np.asarray(levels)).mean(axis=0)

    @property
    def ece(self) -> float:
        """Mean of |coverage − level| over the central intervals of 5%, 10%, …, 95%."""
        return float(np.abs(self.coverage() - LEVELS).mean())

    def plot_reliability(self, ax: Axes | None = None, *, label: str = "") -> Axes:
        """Coverage of central intervals against their level; on the diagonal where calibrated.

        Args:
            ax: matplotlib axes; default new ones.
            label: of the curve, for a legend.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is missing.
        """
        ax = new_axes(ax)
        ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        ax.plot(LEVELS, self.coverage(), marker="o", label=label or None)
        ax.set(xlabel="level", ylabel="coverage", xlim=(0, 1), ylim=(0, 1))
        return ax

    def __repr__(self) -> str:
        head = f"Regression at {len(self.mean)} points"
        if self.y is None:
            scores = f"mean predictive sd {self.sd.mean():.4g}; no responses"
        else:
            scores = ", ".join(
                f"{name} {getattr(self, name):.4g}" for name in ("rmse", "lppd", "crps", "ece")
            )
        return "\n".join([f"{head}: {scores}", *(f"note: {note}" for note in self.notes)])

    @staticmethod
    def _known(values: np.ndarray | None) -> np.ndarray:
        if values is None:
            raise ValueError("y: no responses were given, so there are no scores")
        return values


def regression_scores(
    mean: ArrayLike,
    scale: ArrayLike,
    y: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Regression:
    """Scores of Gaussians, or of mixtures of them over S draws.

    Args:
        mean: μ, (S, m), or (m,) for one Gaussian a point, in units of y.
        scale: σ > 0, broadcastable to the shape of `mean`.
        y: responses (m,), or None.
        weights: (S,) of the draws, ≥ 0; default all equal.

    CRPS = Σ_s w_s A(y − μ_s, σ_s) − ∫ F(1 − F) dt with A(d, σ) = 2σφ(d/σ) + d(2Φ(d/σ) − 1)
    (Grimit et al., 2006). The integral is a trapezoid sum of spacing σ/2 for the smallest
    σ of the point, whose error for a Gaussian mixture is below 1e-9 of σ; where the mixture
    spreads over more than 2,000 σ, Gauss-Legendre sums over panels as wide as what they cross,
    or the sum over all pairs of draws, whichever is the fewer terms.

    Raises:
        ValueError: other shapes, scales not > 0, values not finite, or weights negative,
            infinite or all zero.

    Examples:
        >>> round(regression_scores([0.0], 1.0, [0.0]).crps, 4)
        0.2337
    """
    mean = np.atleast_2d(np.asarray(mean, np.float64))
    if mean.ndim != 2:
        raise ValueError(f"mean: got shape {mean.shape}; expected (S, m) or (m,)")
    try:
        scale = np.broadcast_to(np.asarray(scale, np.float64), mean.shape)
    except ValueError:
        raise ValueError(
            f"scale: got shape {np.shape(scale)}; expected one that broadcasts to {mean.shape}"
        ) from None
    if not np.all(np.isfinite(mean)) or not np.all((scale > 0) & np.isfinite(scale)):
        raise ValueError("mean, scale: expected finite values, scale > 0")
    w = np.ones(len(mean)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(mean),) or not np.all((w >= 0) & np.isfinite(w)) or not w.sum() > 0:
        raise ValueError(f"weights: expected ({len(mean)},) finite numbers ≥ 0, not all 0")
    w = w / w.sum()
    center = w @ mean
    epistemic = w @ (mean - center) ** 2
    spread = (np.sqrt(epistemic + w @ scale**2), np.sqrt(epistemic))
    if y is None:
        return Regression(center, *spread)
    y = np.asarray(y, np.float64)
    if y.shape != center.shape or not np.all(np.isfinite(y)):
        raise ValueError(f"y: got shape {y.shape}; expected finite values of shape {center.shape}")
    z = (y - mean) / scale
    with np.errstate(divide="ignore"):
        log_w = np.log(w)[:, None]
    log_density = logsumexp(
        log_w - 0.5 * z**2 - np.log(scale) - 0.5 * math.log(2 * math.pi), axis=0
    )
    below = ndtr(z)
    crps = w @ mean_distance(y - mean, scale) - half_mean_difference(mean, scale, w)
    return Regression(center, *spread, y, log_density, crps, w @ below)
