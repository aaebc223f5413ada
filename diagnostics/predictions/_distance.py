"""How far one sampler's predictions lie from a reference's, with the error of saying so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike


class PredictiveDistance(NamedTuple):
    """Two measures over m inputs, both 0 where the laws agree, each with its standard error.

    With mean μ_j and standard deviation σ_j of the predictions at input j, and μ*_j, σ*_j
    those of the reference,

        spread  = mean_j (σ_j² + (μ_j − μ*_j)²)/σ*_j² − 1       signed
        squared = mean_j ((μ_j − μ*_j)² + (σ_j − σ*_j)²)/σ*_j²

    `squared` is the squared 2-Wasserstein distance of two Gaussians, in units of the reference's
    variance; `spread`, the excess of mean squared deviations, is far better known from the same
    draws, as input by input errors average out.

    Attributes:
        spread: linear in a small error of the law; 1 is twice the variance.
        spread_error: its standard error.
        squared: quadratic in a small error of the law. As the bias of a plain estimate is taken
            off, it may come out below 0 where nothing is to be seen.
        squared_error: its standard error; near 0 too large, by up to a factor 2.
    """

    spread: float
    spread_error: float
    squared: float
    squared_error: float


def predictive_distance(
    values: ArrayLike,
    reference: ArrayLike,
    weights: ArrayLike | None = None,
    reference_weights: ArrayLike | None = None,
) -> PredictiveDistance:
    """The distance of predictions from a reference's, both from several independent chains.

    Args:
        values: [chain, draw, m], one prediction (say a regression function) at m inputs.
        reference: [chain, draw, m], draws of a reference sampler at the same inputs; chains and
            draws may be of other numbers.
        weights, reference_weights: [chain, draw], ≥ 0, as `run.weights`; default all equal.

    Returns:
        A `PredictiveDistance`. Bias and errors come from a jackknife over whole chains of
        both, so that correlated draws need no special care; they hold where chains are
        independent and long against their correlation time. A handful of chains gives a rough
        error: of C, to a share 1/√(2(C − 1)).

    Raises:
        ValueError: other shapes, weights negative, infinite or 0 throughout a chain, fewer than
            two chains or two draws, numbers that are not finite, or a reference that does not
            vary at some input.
    """
    ours = _moments(values, weights, "values", "weights")
    theirs = _moments(reference, reference_weights, "reference", "reference_weights")
    if ours.shape[2] != theirs.shape[2]:
        raise ValueError(
            f"values: got predictions at {ours.shape[2]} inputs; the reference has "
            f"{theirs.shape[2]}"
        )
    if np.any(_pooled(theirs)[1] <= 0):
        raise ValueError("reference: it does not vary at some input, so it sets no unit there")
    plain = _compare(ours, theirs)
    estimate, variance = plain.copy(), np.zeros(2)
    for part, without in (
        (ours, lambda i: _compare(np.delete(ours, i, 0), theirs)),
        (theirs, lambda i: _compare(ours, np.delete(theirs, i, 0))),
    ):
        chains = len(part)
        left_out = np.array([without(i) for i in range(chains)])
        estimate -= (chains - 1) * (left_out.mean(axis=0) - plain)
        variance += (chains - 1) * left_out.var(axis=0)
    spread, squared = estimate
    spread_error, squared_error = np.sqrt(variance)
    return PredictiveDistance(
        float(spread), float(spread_error), float(squared), float(squared_error)
    )


def _moments(
    draws: ArrayLike, weights: ArrayLike | None, name: str, weights_name: str
) -> np.ndarray:
    """Each chain's means of w f, w f² and w, [chain, 3, m]."""
    draws = np.asarray(draws, np.float64)
    if draws.ndim != 3 or draws.shape[0] < 2 or draws.shape[1] < 2 or not draws.shape[2]:
        raise ValueError(
            f"{name}: got shape {draws.shape}; expected [chain, draw, m] with at least two "
            "chains and two draws"
        )
    if not np.all(np.isfinite(draws)):
        raise ValueError(f"{name}: got a number that is not finite")
    w = np.ones(draws.shape[:2]) if weights is None else np.asarray(weights, np.float64)
    fits = w.shape == draws.shape[:2] and np.all((w >= 0) & np.isfinite(w))
    if not fits or not np.all(w.sum(axis=1) > 0):
        raise ValueError(
            f"{weights_name}: got shape {w.shape}; expected {draws.shape[:2]}, all finite and ≥ 0 "
            "and some above it in each chain"
        )
    w = np.broadcast_to(w[..., None], draws.shape)
    return np.stack([(w * f).mean(axis=1) for f in (draws, draws**2, np.ones(()))], axis=1)


def _pooled(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance, numerators and denominators summed over chains before dividing."""
    first, second, total = moments.mean(axis=0)
    mean = first / total
    return mean, np.maximum(second / total - mean**2, 0)


def _compare(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(spread, squared) of two sets of moments, with no correction."""
    (mean, variance), (centre, unit) = _pooled(ours), _pooled(theirs)
    shift = (mean - centre) ** 2
    spread = np.mean((variance + shift) / unit) - 1
    squared = np.mean((shift + (np.sqrt(variance) - np.sqrt(unit)) ** 2) / unit)
    return np.array([spread, squared])
