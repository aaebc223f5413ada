"""Mean, sd, MCSE, ESS and R̂ of scalar quantities, weighted draws included.

With weights w (physical time per draw) the estimator is f̄_w = Σ w f / Σ w, pooled over
chains. Its error is that of the plain mean of z = w (f − f̄_w)/w̄, so MCSE is ArviZ's for z, and
the error of the standard deviation s is that of the same transform of (f − f̄_w)² over 2s. An
effective sample size is the number of independent draws of equal weight whose mean has that
error: Var f over the variance of the weighted mean, which is ArviZ's of z times Var f/Var z; bulk
of f, tail of the indicators of the weighted 5% and 95% quantiles. Where weights vary much z hides
chains that disagree, so R̂ is the larger of ArviZ's for z and of that of f with weighted ranks
(averaged over ties), means and variances. Equal weights give ArviZ's own figures for f, digit for
digit; but for the error of s, which has the effective sample size of (f − f̄)² (ArviZ 0.8 has
that of f).

Rank-normalised R̂, bulk and tail ESS: Vehtari et al. (2021), doi:10.1214/20-BA1221.
"""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike
from scipy.special import ndtri

TAILS = (0.05, 0.95)

AXES = {"chain_axis": 0, "draw_axis": 1}


def statistics(values: ArrayLike, weights: ArrayLike | None = None) -> dict[str, np.ndarray]:
    """Statistics of R scalar quantities.

    Args:
        values: [chain, draw] or [chain, draw, R]; booleans and integers count as numbers.
        weights: [chain, draw], ≥ 0 and finite; default all equal.

    Returns:
        Arrays (R,), or scalars () for [chain, draw], by ArviZ's names: `mean`; `sd` (n − 1 in
        the denominator, or its weighted form); `ess_bulk`, `ess_tail`, in independent draws of
        equal weight; `r_hat`; `mcse_mean`, `mcse_sd`. A quantity that never changes has
        R̂ = NaN; one with a non-finite draw has NaN throughout.

    Raises:
        ValueError: other shapes, fewer than four draws a chain, or weights that are
            negative, infinite, NaN or all zero.
    """
    from arviz_stats.base.array import array_stats

    values = np.asarray(values, np.float64)
    if values.ndim not in (2, 3):
        raise ValueError(f"values: got shape {values.shape}; expected [chain, draw, R]")
    if values.shape[1] < 4:
        raise ValueError(f"values: got {values.shape[1]} draws a chain; expected at least 4")
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        if weights.shape != values.shape[:2]:
            raise ValueError(f"weights: got shape {weights.shape}; expected {values.shape[:2]}")
        if not np.all((weights >= 0) & np.isfinite(weights)) or weights.sum() <= 0:
            raise ValueError("weights: expected numbers ≥ 0, finite and not all of them 0")
        if np.all(weights == weights.flat[0]):
            weights = None
    # ArviZ divides 0 by 0 for constant quantities; the NaN is what we want.
    with np.errstate(divide="ignore", invalid="ignore"):
        if weights is None:
            mean, sd = values.mean(axis=(0, 1)), values.std(axis=(0, 1), ddof=1)
            z, squares = values, (values - mean) ** 2
            bulk = array_stats.ess(values, method="bulk", **AXES)
            tail = array_stats.ess(values, method="tail", prob=TAILS, **AXES)
        else:
            mean, sd = _weighted_moments(values, weights)
            z, squares = _centred(values, weights), _centred((values - mean) ** 2, weights)
            bulk = _effective(values, weights, "bulk")
            below = (_below(values, weights, q) for q in TAILS)
            tail = np.minimum(*(_effective(part, weights, "mean") for part in below))
        table = {
            "mean": mean,
            "sd": sd,
            "ess_bulk": bulk,
            "ess_tail": tail,
            "r_hat": array_stats.rhat(z, method="rank", **AXES),
            "mcse_mean": array_stats.mcse(z, method="mean", **AXES),
            # The delta method: se(s) = se(s²)/(2s).
            "mcse_sd": array_stats.mcse(squares, method="mean", **AXES) / (2 * sd),
        }
        if weights is not None:
            table["r_hat"] = np.fmax(table["r_hat"], _weighted_rhat(values, weights))
            varies = np.ptp(values[weights > 0], axis=0) > 0
            table["r_hat"] = np.where(varies, table["r_hat"], np.nan)
    broken = ~np.isfinite(values).all(axis=(0, 1))
    return {name: np.where(broken, np.nan, column) for name, column in table.items()}


def kish_efficiency(weights: np.ndarray) -> float:
    """(Σ w)² / (n Σ w²): the share of n independent draws left by unequal weights."""
    return float(weights.sum() ** 2 / (weights.size * (weights**2).sum()))


def _broadcast(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return weights.reshape(weights.shape + (1,) * (values.ndim - 2))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ w f / Σ w over all chains; exactly c where f = c throughout."""
    some = values[np.unravel_index(weights.argmax(), weights.shape)]
    w = _broadcast(weights, values)
    return some + (w * (values - some)).sum(axis=(0, 1)) / weights.sum()


def _weighted_moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted (mean, sd) over all chains."""
    w = _broadcast(weights, values)
    total = weights.sum()
    mean = _weighted_mean(values, weights)
    # Unbiased for independent draws; n − 1 for equal weights.
    freedom = total - (weights**2).sum() / total
    return mean, np.sqrt((w * (values - mean) ** 2).sum(axis=(0, 1)) / freedom)


def _centred(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """z = w (f − f̄_w)/w̄, whose plain mean has the error of f̄_w."""
    w = _broadcast(weights / weights.mean(), values)
    return w * (values - _weighted_mean(values, weights))


def _effective(values: np.ndarray, weights: np.ndarray, method: str) -> np.ndarray:
    """Independent draws of equal weight whose mean is as well known as the weighted mean."""
    from arviz_stats.base.array import array_stats

    z = _centred(values, weights)
    spread = z.var(axis=(0, 1), ddof=1)
    share = _weighted_moments(values, weights)[1] ** 2 / spread
    # Of what never changes, as many as the weights alone leave.
    share = np.where(spread > 0, share, kish_efficiency(weights))
    return array_stats.ess(z, method=method, **AXES) * share


def _weighted_rhat(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Split R̂ of weighted normal scores, for place and for scale; NaN for constants."""
    flat, w = values.reshape(weights.size, -1), weights.reshape(-1)
    folded = np.abs(flat - _weighted_quantile(flat, w, 0.5))
    half = weights.shape[1] // 2
    made = []
    for x in (flat, folded):
        scores = ndtri(_weighted_ranks(x, w)).reshape(*weights.shape, -1)
        halves = np.concatenate([scores[:, :half], scores[:, -half:]])
        # A draw of weight 0 has no score at the very edge, and needs none.
        share = np.concatenate([weights[:, :half], weights[:, -half:]])[:, :, None]
        seen = halves[share[..., 0] > 0]
        varies = np.ptp(seen, axis=0) > 0
        halves = np.where(share > 0, halves, 0.0)
        total = share.sum(axis=1)
        counted = total[:, 0] > 0
        halves, share, total = halves[counted], share[counted], total[counted]
        means = (share * halves).sum(axis=1) / total
        squares = (share**2).sum(axis=1)
        freedom = total - squares / total
        within = ((share * (halves - means[:, None]) ** 2).sum(axis=1) / freedom).mean(axis=0)
        between = means.var(axis=0, ddof=1) if len(means) > 1 else 0 * within
        draws = (total**2 / squares).mean()  # as many of equal weight
        rhat = np.sqrt((draws - 1) / draws + between / within)
        made.append(np.where(varies, rhat, np.nan))
    return np.fmax(*made).reshape(values.shape[2:])


def _weighted_ranks(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Ranks in (0, 1) of the columns of x, averaged over ties by weight; Blom's for equal weights.

    A draw of weight v above a weight C of others has rank C + v − 3v/8. Draws v_i that tie, of
    V = Σ v_i, have on average C + V/2 + Σ v_i²/(8V), in whatever order they are taken.
    """
    order = np.argsort(x, axis=0)
    sorted_x, sorted_w = np.take_along_axis(x, order, axis=0), w[order]
    first = np.concatenate([np.ones_like(x[:1], bool), sorted_x[1:] != sorted_x[:-1]])
    ranked = np.empty_like(x)
    for column in range(x.shape[1]):
        starts, weight = np.flatnonzero(first[:, column]), sorted_w[:, column]
        total = np.add.reduceat(weight, starts)
        squares = np.add.reduceat(weight**2, starts)
        middle = np.cumsum(total) - total / 2 + squares / (8 * np.where(total > 0, total, 1))
        group = np.cumsum(first[:, column]) - 1
        ranked[order[:, column], column] = middle[group]
    return ranked / (w.sum() + w.mean() / 4)


def _weighted_quantile(flat: np.ndarray, w: np.ndarray, probability: float) -> np.ndarray:
    """The first value of each column that this share of the weight reaches."""
    order = np.argsort(flat, axis=0)
    reached = np.cumsum(w[order], axis=0) >= probability * w.sum()
    first = np.take_along_axis(order, reached.argmax(axis=0)[None], axis=0)
    return np.take_along_axis(flat, first, axis=0)[0]


def _below(values: np.ndarray, weights: np.ndarray, probability: float) -> np.ndarray:
    """The indicators f ≤ q, as numbers, q the weighted quantile of `probability`."""
    flat, w = values.reshape(weights.size, -1), weights.reshape(-1)
    quantile = _weighted_quantile(flat, w, probability).reshape(values.shape[2:])
    return (values <= quantile).astype(np.float64)
