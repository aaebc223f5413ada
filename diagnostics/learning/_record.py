"""The record of a learning coefficient, and what it warns of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

import dataclasses

import numpy as np

from sgmcmc.diagnostics._plots import new_axes
from sgmcmc.sampling._run import Run

# A fall of nβL along the gradient, in nats, beyond which the parameters are no minimum.
LARGEST_FALL = 0.1

# A share of draws below L_n(w*) beyond which w* is no minimum, though its gradient may be zero.
LARGEST_SHARE_BELOW = 0.05

# Drift: halves of the chains differ by this many standard errors and this share of λ̂.
DRIFT_ERRORS, DRIFT_SHARE = 4.0, 0.05


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LearningCoefficient:
    """What `learning_coefficient` returns.

    Attributes:
        estimate: λ̂, the mean over the chains that stayed finite.
        standard_error: of it, from the spread between those chains.
        per_chain: [chain], NaN for chains that were lost.
        r_hat: split R̂ of the loss trace over the chains that were kept.
        drift: λ̂ of the draws' second half less that of the first.
        drift_error: its standard error between chains.
        trace: [chain, draw], nβ (L_n(w_t) − L_n(w*)); its mean is λ̂.
        distance: [chain, draw], ‖w_t − w*‖.
        share_below: share of the draws, by weight, with L_n(w_t) < L_n(w*).
        loss: L_n(w*), in nats per example.
        gradient_norm: Euclidean norm of the gradient of nβL_n at w*.
        fall: nats by which nβL_n + the pull falls along that gradient, to second order.
        nbeta, inverse_temperature, precision, step_size: what was used; `step_size` is
            None where the kernel's own varies.
        warnings: what was warned of, in words.
        run: the `Run`, whose draws are losses and squared distances.
    """

    estimate: float
    standard_error: float
    per_chain: np.ndarray
    r_hat: float
    drift: float
    drift_error: float
    trace: np.ndarray
    distance: np.ndarray
    share_below: float
    loss: float
    gradient_norm: float
    fall: float
    nbeta: float
    inverse_temperature: float
    precision: float
    step_size: float | None
    run: Run
    warnings: tuple[str, ...] = ()

    def plot(self, ax: Axes | None = None) -> Axes:
        """The running mean, by weight, of each chain's trace, and λ̂. Returns matplotlib axes."""
        ax = new_axes(ax)
        length = np.arange(1, self.trace.shape[1] + 1)
        for trace, weights in zip(self.trace, self.run.weights, strict=True):
            total = np.cumsum(weights, dtype=np.float64)
            mean = np.cumsum(weights * trace) / np.where(total > 0, total, np.nan)
            ax.plot(length, mean, lw=0.8, alpha=0.6, color="C0")
        ax.axhline(self.estimate, color="C1", label=f"λ̂ = {self.estimate:.3g}")
        ax.set(xlabel="draws", ylabel="running λ̂ of each chain")
        ax.legend()
        return ax

    def plot_trace(self, ax: Axes | None = None) -> Axes:
        """nβ (L_n(w_t) − L_n(w*)) of every chain, draw by draw. Returns the matplotlib axes."""
        ax = new_axes(ax)
        ax.plot(self.trace.T, lw=0.4, alpha=0.5)
        ax.axhline(self.estimate, color="k", label=f"λ̂ = {self.estimate:.3g}")
        ax.set(xlabel="draws", ylabel="nβ (L_n(w) − L_n(w*))")
        ax.legend()
        return ax

    def __repr__(self) -> str:
        step = "its kernel's own" if self.step_size is None else f"{self.step_size:.3g}"
        return (
            f"LearningCoefficient {self.estimate:.4g} ± {self.standard_error:.2g} "
            f"({np.isfinite(self.per_chain).sum()} of {len(self.per_chain)} chains, "
            f"R̂ {self.r_hat:.3f}, drift {self.drift:.2g} ± {self.drift_error:.2g})\n"
            f"  nβ {self.nbeta:.4g}, precision {self.precision:.3g}, step {step}, "
            f"loss {self.loss:.4g}, {self.share_below:.1%} of draws below it"
        )


def complaints(found: LearningCoefficient) -> tuple[str, ...]:
    """What is known to go wrong, each with its remedy."""
    said = []
    if found.run.interrupted:
        said.append(
            f"Ctrl-C ended the run after {found.run.num_samples:,} of "
            f"{found.run.config['num_samples']:,} draws a chain"
        )
    lost = np.flatnonzero(~np.isfinite(found.per_chain)).tolist()
    if lost:
        said.append(
            f"chains {lost} left the finite numbers and are left out; try a smaller step_size"
        )
    if not found.fall <= LARGEST_FALL:
        said.append(
            f"params: not at a minimum: the gradient of nβL has norm {found.gradient_norm:.3g}, "
            f"and the potential falls by {found.fall:.3g} nats along it; train longer"
        )
    if found.estimate < 0:
        said.append(
            f"the estimate {found.estimate:.3g} is negative, and {found.share_below:.0%} of the "
            "draws have a lower loss than params: not a local minimum, or a step too large"
        )
    elif found.share_below > LARGEST_SHARE_BELOW:
        said.append(
            f"{found.share_below:.0%} of the draws have a lower loss than params: a saddle, or a "
            "minimum that was not reached; train longer"
        )
    apart = chains_apart(found.per_chain)
    if apart:
        said.append(
            f"chains {apart} are far from the others, and finite: a step_size at the edge of "
            "what is stable where they went; try a smaller one"
        )
    if drifts(found):
        said.append(
            f"the second half of the draws gives {found.drift:.3g} ± {found.drift_error:.2g} more "
            "than the first: a longer num_burnin, or a larger precision if chains escape"
        )
    return tuple(said)


def drifts(found: LearningCoefficient) -> bool:
    """Whether the halves of the chains differ, by their errors and by a share of λ̂."""
    enough = np.isfinite(found.per_chain).sum() >= 4
    far = abs(found.drift) > DRIFT_ERRORS * found.drift_error
    return bool(enough and far and abs(found.drift) > DRIFT_SHARE * abs(found.estimate))


def chains_apart(per_chain: np.ndarray) -> list[int]:
    """Chains beyond ten robust standard deviations, which rank-based R̂ does not see."""
    if np.isfinite(per_chain).sum() < 8:
        return []
    away = np.abs(per_chain - np.nanmedian(per_chain))
    # 1.4826: of a normal law, the standard deviation over the median deviation.
    return np.flatnonzero(away > 10 * 1.4826 * np.nanmedian(away)).tolist()
