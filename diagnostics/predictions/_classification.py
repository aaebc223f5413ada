"""Scores of predictive class probabilities, whatever made them: draws, an ensemble, a MAP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jax.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from sgmcmc.diagnostics._plots import new_axes

NUM_BINS = 15


@dataclass(frozen=True, eq=False)
class Classification:
    """Predictive probabilities at m points, and their scores where labels are known.

    Attributes:
        log_probabilities: (m, k), in nats, of the predictive mean p(y | x, data).
        y: labels (m,), or None: then the scores raise a ValueError.
        expected_entropy: (m,) mean over draws of each draw's own entropy, in nats; None
            where the probabilities did not come from draws.
        notes: dropped chains and the like.
    """

    log_probabilities: np.ndarray
    y: np.ndarray | None = None
    expected_entropy: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """(m, k)."""
        return np.exp(self.log_probabilities)

    @property
    def confidence(self) -> np.ndarray:
        """(m,): the largest probability."""
        return self.probabilities.max(axis=1)

    @property
    def entropy(self) -> np.ndarray:
        """(m,): predictive entropy −Σ p log p, in nats; at most log k."""
        return entr(self.probabilities).sum(axis=1)

    @property
    def mutual_information(self) -> np.ndarray:
        """(m,): entropy − expected entropy, in nats: what the draws disagree about."""
        if self.expected_entropy is None:
            raise ValueError("mutual_information: these probabilities did not come from draws")
        return self.entropy - self.expected_entropy

    @property
    def correct(self) -> np.ndarray:
        """(m,) bool: whether the likeliest class is the label."""
        return self.log_probabilities.argmax(axis=1) == self._labels()

    @property
    def accuracy(self) -> float:
        """Share of points whose likeliest class is the label."""
        return float(self.correct.mean())

    @property
    def lppd(self) -> float:
        """Mean per point of log p(y | x, data), in nats."""
        y = self._labels()
        return float(self.log_probabilities[np.arange(len(y)), y].mean())

    @property
    def nll(self) -> float:
        """−lppd: the mean negative log probability of the label, in nats."""
        return -self.lppd

    @property
    def brier(self) -> float:
        """Mean per point of Σ_c (p_c − 1{y = c})²: 0 at best, 2 at worst."""
        y = self._labels()
        return float(
            ((self.probabilities - np.eye(self.probabilities.shape[1])[y]) ** 2).sum(1).mean()
        )

    @property
    def ece(self) -> float:
        """Expected calibration error: Σ_b (m_b/m) |accuracy_b − confidence_b|, 15 equal bins."""
        _, share, accuracy, confidence = self.reliability()
        return float((share * np.abs(accuracy - confidence)).sum())

    def reliability(
        self, num_bins: int = NUM_BINS
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Points binned by confidence in `num_bins` equal bins (lower, upper] of (0, 1].

        Returns:
            Edges (num_bins + 1,); then (num_bins,) each: share of points, accuracy, mean
            confidence, the latter two 0 where a bin is empty.
        """
        if num_bins < 1:
            raise ValueError(f"num_bins: got {num_bins}; expected an integer ≥ 1")
        correct, confidence = self.correct, self.confidence
        edges = np.linspace(0.0, 1.0, num_bins + 1)
        # Right-closed; rounding may put a confidence a little above 1.
        bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
        count = np.bincount(bins, minlength=num_bins)
        filled = np.maximum(count, 1)
        return (
            edges,
            count / len(bins),
            np.bincount(bins, correct, num_bins) / filled,
            np.bincount(bins, confidence, num_bins) / filled,
        )

    def plot_reliability(
        self, ax: Axes | None = None, *, num_bins: int = NUM_BINS, label: str = ""
    ) -> Axes:
        """Accuracy against confidence, bin by bin; on the diagonal where calibrated.

        Args:
            ax: matplotlib axes; default new ones.
            num_bins: equal bins of confidence.
            label: of the curve, for a legend.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is missing.
        """
        ax = new_axes(ax)
        _, share, accuracy, confidence = self.reliability(num_bins)
        filled = share > 0
        ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        ax.plot(confidence[filled], accuracy[filled], marker="o", label=label or None)
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        return ax

    def __repr__(self) -> str:
        m, k = self.log_probabilities.shape
        head = f"Classification of {m} points, {k} classes"
        if self.y is None:
            scores = f"mean confidence {self.confidence.mean():.4f}; no labels"
        else:
            scores = ", ".join(
                f"{name} {getattr(self, name):.4f}" for name in ("accuracy", "lppd", "brier", "ece")
            )
        return "\n".join([f"{head}: {scores}", *(f"note: {note}" for note in self.notes)])

    def _labels(self) -> np.ndarray:
        if self.y is None:
            raise ValueError("y: no labels were given, so there are no scores")
        return self.y


def classification_scores(probabilities: ArrayLike, y: ArrayLike | None = None) -> Classification:
    """Scores of given class probabilities: a MAP network's, an ensemble's mean, ….

    Args:
        probabilities: (m, k ≥ 2), ≥ 0, rows summing to 1 (within 1e-3).
        y: integer labels (m,) in 0 … k−1, or None.

    Raises:
        TypeError: labels that are not integers.
        ValueError: other shapes, probabilities that are none, labels out of range.

    Examples:
        >>> classification_scores([[0.9, 0.1], [0.4, 0.6]], [0, 0]).accuracy
        0.5
    """
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(
            f"probabilities: got shape {probabilities.shape}; expected (m, k) of k ≥ 2 classes: of "
            "two, (1 − p, p)"
        )
    sums = probabilities.sum(axis=1)
    if not np.all(probabilities >= 0) or not np.allclose(sums, 1, atol=1e-3):
        raise ValueError("probabilities: expected values ≥ 0 whose rows sum to 1 (softmax logits)")
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities / sums[:, None])
    return Classification(logs, labels(y, *probabilities.shape))


def labels(y: ArrayLike | None, m: int, k: int) -> np.ndarray | None:
    """`y` as (m,) integers in 0 … k−1, checked; None stays None."""
    if y is None:
        return None
    y = np.asarray(y)
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(
            f"y: got {y.dtype}; expected integer labels, as predictions are class probabilities; "
            "for responses let `predict` return (mean, scale)"
        )
    if y.shape != (m,):
        raise ValueError(f"y: got shape {y.shape}; expected (m,) = ({m},)")
    if m and not (y.min() >= 0 and y.max() < k):
        raise ValueError(f"y: got labels {y.min()} … {y.max()}; expected 0 … {k - 1}")
    return y
