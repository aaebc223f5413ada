"""The learning coefficient of deep linear networks, in closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

from sgmcmc._checks import count


class Exact(NamedTuple):
    """λ, the learning coefficient, and its multiplicity."""

    coefficient: float
    multiplicity: int


def deep_linear_coefficient(widths: Sequence[int], rank: int) -> Exact:
    """λ of W_L … W_1 at a true matrix of rank r, squared loss (Aoyagi, Neural Networks 2024).

    With deficiencies M_s = H_s − r, let Σ be the ℓ + 1 smallest of them, ℓ ≥ 1, such that
    ΣM ≥ ℓ max M in Σ, and ΣM ≤ ℓ M for each M outside. With M̄ = ⌈ΣM/ℓ⌉ and
    a = ΣM − (M̄ − 1) ℓ,

        λ = [r (H₁ + H_{L+1}) − r²]/2 + a (ℓ − a)/(4ℓ) − ℓ (ℓ − 1)/4 (ΣM/ℓ)² + ½ Σ_{i<j} M_i M_j

    and the multiplicity is a (ℓ − a) + 1.

    Args:
        widths: H₁, …, H_{L+1}, from input to output, two at least, each ≥ 1.
        rank: r of the true matrix, from 0 to the smallest width.

    Returns:
        `Exact(coefficient, multiplicity)`.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    if isinstance(widths, str) or not isinstance(widths, Sequence):
        raise TypeError(f"widths: got {type(widths).__name__}; expected a sequence of integers")
    for width in widths:
        count(width, "widths", least=1)
    if len(widths) < 2:
        raise ValueError(f"widths: got {list(widths)}; expected an input, an output and between")
    count(rank, "rank", least=0)
    if rank > min(widths):
        raise ValueError(f"rank: got {rank}; allowed: at most the smallest width, {min(widths)}")
    missing = sorted(width - rank for width in widths)
    chosen = next(m for m in _prefixes(missing) if _fits(m, missing))
    layers, total = len(chosen) - 1, sum(chosen)
    a = total - (-(-total // layers) - 1) * layers
    known = Fraction(rank * (widths[0] + widths[-1]) - rank**2, 2)
    value = (
        known
        + Fraction(a * (layers - a), 4 * layers)
        - Fraction(layers * (layers - 1), 4) * Fraction(total, layers) ** 2
        + Fraction(sum(x * y for x, y in combinations(chosen, 2)), 2)
    )
    return Exact(float(value), a * (layers - a) + 1)


def _prefixes(ordered: list[int]) -> Iterator[list[int]]:
    """The smallest two, three, … of them."""
    return (ordered[:size] for size in range(2, len(ordered) + 1))


def _fits(chosen: list[int], ordered: list[int]) -> bool:
    layers, total, rest = len(chosen) - 1, sum(chosen), ordered[len(chosen) :]
    return total >= layers * chosen[-1] and (not rest or total <= layers * rest[0])
