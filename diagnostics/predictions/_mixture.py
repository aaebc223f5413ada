"""Mean distances of Gaussian mixtures F = Σ_s w_s N(μ_s, σ_s²), for the CRPS.

E|X − X′|/2 = ∫ F(1 − F) dt = ½ Σ_st w_s w_t A(μ_s − μ_t, √(σ_s² + σ_t²)),    A(d, σ) = E|d + σξ|
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr

# Of a grid of one spacing for all points, before each point is given panels of its own.
MOST_GRID_POINTS = 4096

# Numbers held at a time.
BLOCK = 2**22

# A panel is at most this many σ of any component that it crosses, which its nodes resolve to
# 1e-13 of the panel; further than REACH σ a component is 0 or 1 to 1e-15.
WIDTH, REACH = 3.0, 8.0

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(16)


def mean_distance(d: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A(d, σ) = 2σφ(d/σ) + d (2Φ(d/σ) − 1), the mean of |d + σξ|, ξ ~ N(0, 1)."""
    z = d / scale
    return 2 * scale * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) + d * (2 * ndtr(z) - 1)


def half_mean_difference(mean: np.ndarray, scale: np.ndarray, w: np.ndarray) -> np.ndarray:
    """E|X − X′|/2 of each mixture, (m,); `mean` and `scale` are (S, m), w (S,) sums to 1."""
    low, high = (mean - 6.5 * scale).min(axis=0), (mean + 6.5 * scale).max(axis=0)
    needed = np.ceil((high - low) / scale.min(axis=0)) * 2 + 1
    wide = needed > MOST_GRID_POINTS
    found = np.empty(mean.shape[1])
    if not wide.all():
        points = int(needed[~wide].max())
        found[~wide] = _by_grid(mean[:, ~wide], scale[:, ~wide], w, points)
    kept = w > 0
    for j in np.flatnonzero(wide):
        found[j] = _by_panels(mean[kept, j], scale[kept, j], w[kept])
    return found


def _by_grid(mean: np.ndarray, scale: np.ndarray, w: np.ndarray, points: int) -> np.ndarray:
    """∫ F(1 − F) dt by the trapezoid rule, whose error is that of the transform at 1/spacing."""
    low, high = (mean - 6.5 * scale).min(axis=0), (mean + 6.5 * scale).max(axis=0)
    spacing = (high - low) / (points - 1)
    grid = low + spacing * np.arange(points)[:, None]
    cdf = np.zeros_like(grid)
    size = max(1, BLOCK // max(grid.size, 1))
    for start in range(0, len(w), size):
        s = slice(start, start + size)
        cdf += np.tensordot(w[s], ndtr((grid - mean[s, None]) / scale[s, None]), axes=1)
    # F(1 − F) is 0 at both ends, so the trapezoid rule is a plain sum.
    return spacing * (cdf * (1 - cdf)).sum(axis=0)


def _by_panels(mean: np.ndarray, scale: np.ndarray, w: np.ndarray) -> float:
    """∫ F(1 − F) dt of one mixture by panels, or by pairs where they are fewer terms."""
    edges = np.array([(mean - REACH * scale).min(), (mean + REACH * scale).max()])
    done: list[np.ndarray] = []
    left, right = edges[:1], edges[1:]
    # Panels are halved until all fit; their edges lie on one binary grid.
    while left.size:
        if NODES.size * (sum(map(len, done)) + left.size) > len(w):
            return _by_pairs(mean, scale, w)
        fits = np.concatenate(
            [
                right[s] - left[s] <= WIDTH * _narrowest(left[s], right[s], mean, scale)
                for s in _blocks(left.size, len(w))
            ]
        )
        done.append(np.stack([left[fits], right[fits]], axis=1))
        left, right = left[~fits], right[~fits]
        middle = (left + right) / 2
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
    panels = np.concatenate(done)
    half = np.diff(panels, axis=1) / 2
    t = (panels.mean(axis=1, keepdims=True) + half * NODES).reshape(-1)
    cdf = np.concatenate([ndtr((t[s, None] - mean) / scale) @ w for s in _blocks(t.size, len(w))])
    return float((half * NODE_WEIGHTS).reshape(-1) @ (cdf * (1 - cdf)))


def _narrowest(
    left: np.ndarray, right: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """The smallest σ of the components that vary in each panel; ∞ where none does."""
    crosses = (mean + REACH * scale > left[:, None]) & (mean - REACH * scale < right[:, None])
    return np.where(crosses, scale, np.inf).min(axis=1)


def _by_pairs(mean: np.ndarray, scale: np.ndarray, w: np.ndarray) -> float:
    """½ Σ_st w_s w_t A(μ_s − μ_t, √(σ_s² + σ_t²)) of one mixture."""
    total = 0.0
    for s in _blocks(len(w), len(w)):
        distance = mean_distance(mean[s, None] - mean, np.hypot(scale[s, None], scale))
        total += float(w[s] @ distance @ w)
    return total / 2


def _blocks(rows: int, columns: int) -> list[slice]:
    """Rows of a table in pieces of at most `BLOCK` numbers."""
    size = max(1, BLOCK // max(columns, 1))
    return [slice(start, start + size) for start in range(0, rows, size)]
