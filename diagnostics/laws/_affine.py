"""Stationary moments of a Markov chain whose steps are affine maps, in a given order of maps.

A step with minibatch i makes of the state z, with standard normals ξ,

    z' = A_i z + B_i ξ + c_i,        recorded: w = C_i z + D_i ξ + e_i.

Batches come in epochs: sequences of batches, each as likely as the others, drawn anew after
the last one ended. A batch drawn anew every step is an epoch of one step. From (z, z zᵀ) at
an epoch's start the moments after it are affine in them, which gives their fixed point, and
from there those of each record. The law is that of a record at a random step of an epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg


class Affine(NamedTuple):
    """z' = a z + b ξ + c and the recorded w = record_a z + record_b ξ + record_c."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    record_a: np.ndarray
    record_b: np.ndarray
    record_c: np.ndarray


class Moments(NamedTuple):
    """Mean (d,) and covariance (d, d) of the records; growth of second moments, a step."""

    mean: np.ndarray
    covariance: np.ndarray
    spectral_radius: float


def stationary_moments(maps: Sequence[Affine], epochs: Sequence[Sequence[int]]) -> Moments:
    """The stationary law of the records, averaged over the steps of an epoch.

    Args:
        maps: one a batch.
        epochs: equally likely sequences of indices into `maps`, all of one length.

    Raises:
        ValueError: second moments grow, so that there is no stationary law.
    """
    size, length = len(maps[0].c), len(epochs[0])
    products = [_product([maps[i].a for i in epoch]) for epoch in epochs]
    single = len(epochs) == 1
    if single:
        # The eigenvalues of A ⊗ A are the products of those of A.
        radius = float(np.max(np.abs(np.linalg.eigvals(products[0])))) ** 2
    else:
        second = np.mean([np.kron(a, a) for a in products], axis=0)
        radius = float(np.max(np.abs(np.linalg.eigvals(second))))
    if not radius < 1 - 1e-12:
        raise ValueError(
            f"kernel: no stationary law; second moments grow by {radius ** (1 / length):.6g} "
            "a step. The step size is beyond the limit of stability, or the friction is 0"
        )
    # The mean at an epoch's start, and from here on the maps about it: large means cost no digits.
    origin, nothing = np.zeros(size), np.zeros((size, size))
    shifts = [_end(maps, epoch, origin, nothing)[0] for epoch in epochs]
    start = np.linalg.solve(np.eye(size) - np.mean(products, axis=0), np.mean(shifts, axis=0))
    centred = [m._replace(c=m.a @ start + m.c - start) for m in maps]
    ends = [_end(centred, epoch, origin, nothing) for epoch in epochs]
    source = np.mean([spread + np.outer(mean, mean) for mean, spread in ends], axis=0)
    if single:
        covariance = scipy.linalg.solve_discrete_lyapunov(products[0], source)
    else:
        flat = np.linalg.solve(np.eye(size * size) - second, source.ravel())
        covariance = flat.reshape(size, size)
    records = [
        (m.record_a @ (start + mean) + m.record_c, _through(m.record_a, spread, m.record_b))
        for epoch in epochs
        for m, mean, spread in _follow(centred, epoch, origin, covariance)
    ]
    average = np.mean([mean for mean, _ in records], axis=0)
    between = [np.outer(mean - average, mean - average) for mean, _ in records]
    within = [spread for _, spread in records]
    total = np.mean(within, axis=0) + np.mean(between, axis=0)
    return Moments(average, (total + total.T) / 2, radius ** (1 / length))


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


def _follow(
    maps: Sequence[Affine], epoch: Sequence[int], mean: np.ndarray, covariance: np.ndarray
) -> Iterator[tuple[Affine, np.ndarray, np.ndarray]]:
    """Each step's map, with mean and covariance of the state before it."""
    for i in epoch:
        yield maps[i], mean, covariance
        mean, covariance = _step(maps[i], mean, covariance)


def _end(
    maps: Sequence[Affine], epoch: Sequence[int], mean: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    for i in epoch:
        mean, covariance = _step(maps[i], mean, covariance)
    return mean, covariance


def _step(m: Affine, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return m.a @ mean + m.c, _through(m.a, covariance, m.b)


def _through(a: np.ndarray, covariance: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ covariance @ a.T + b @ b.T


def _product(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The product of the matrices, the first applied first."""
    result = matrices[0]
    for matrix in matrices[1:]:
        result = matrix @ result
    return result
