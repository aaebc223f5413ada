"""The epochs of the library's streams, as lists of orders."""

from __future__ import annotations

import itertools


def sweeps(stream: str, num_batches: int) -> list[tuple[int, ...]]:
    """The equally likely epochs of a batch stream over K batches, for `stationary_law(epochs=…)`.

    Args:
        stream: "with_replacement", "reshuffled", "symmetric" or "cyclic".
        num_batches: K ≥ 1; at most 6 where all K! orders are listed.

    Returns:
        Tuples of indices 0 … K−1, all of one length: 1 ("with_replacement"), K, or 2K
        ("symmetric").

    Raises:
        ValueError: no stream has that name, or K is out of range.
    """
    allowed = ("with_replacement", "reshuffled", "symmetric", "cyclic")
    if stream not in allowed:
        raise ValueError(f"stream: got {stream!r}; allowed: {', '.join(allowed)}")
    most = 6 if stream in ("reshuffled", "symmetric") else None
    if num_batches < 1 or (most is not None and num_batches > most):
        raise ValueError(
            f"num_batches: got {num_batches}; allowed: at least 1"
            + (f" and at most {most}, for {stream!r} lists all orders" if most else "")
        )
    batches = range(num_batches)
    if stream == "with_replacement":
        return [(i,) for i in batches]
    if stream == "cyclic":
        return [tuple(batches)]
    orders = list(itertools.permutations(batches))
    if stream == "reshuffled":
        return orders
    return [order + order[::-1] for order in orders]
