"""Stationary moments of a Markov chain whose steps are affine maps, in a given order of maps.

A step at phase p of the period of a sampler's numbers, with minibatch i, makes of the state z,
with standard normals ξ,

    z' = A z + B ξ + c,       recorded with weight w: C z + D ξ + e,       all of them by (p, i).

Batches come in epochs: sequences of batches, each as likely as the others, drawn anew after
the last one ended. A batch drawn anew every step is an epoch of one step. Before every mth step
the state may go through a refresh, one more affine map. All this begins anew after the least
common multiple of period, epoch and m, here a *round* of whole epochs. From (z, z zᵀ) at its start
the moments after it are affine in them, which gives their fixed point, and from there those of
each record. The law is that of a record at a random step of a round, chosen by weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

# Steps of a round, times what each costs: the orders of an epoch, and Python for about 50 more.
MOST_WORK, PYTHON = 10_000_000, 50


class Affine(NamedTuple):
    """Steps, all fields with leading axes [phase, batch].

    z' = a z + b ξ + c, and of weight ≥ 0 the record record_a z + record_b ξ + record_c.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    record_a: np.ndarray
    record_b: np.ndarray
    record_c: np.ndarray
    weight: np.ndarray


class Refresh(NamedTuple):
    """z' = a z + c before each step whose index is a multiple of `every`."""

    a: np.ndarray
    c: np.ndarray
    every: int


class Moments(NamedTuple):
    """Mean (d,) and covariance (d, d) of the records; growth of second moments, a step."""

    mean: np.ndarray
    covariance: np.ndarray
    spectral_radius: float


class _Law(NamedTuple):
    """Mean (M, n) and covariance (M, n, n) of the state, given each of an epoch's M orders."""

    mean: np.ndarray
    covariance: np.ndarray


class _Map(NamedTuple):
    """One map for each of the M orders, or one for all; `record` is None for a refresh."""

    a: np.ndarray
    spread: np.ndarray
    c: np.ndarray
    record: Affine | None


class _Epoch(NamedTuple):
    """Where an epoch leads: the product of its maps (M, n, n), and the law from z = 0."""

    product: np.ndarray
    end: _Law


def stationary_moments(
    steps: Affine, epochs: Sequence[Sequence[int]], refresh: Refresh | None = None
) -> Moments:
    """The stationary law of the records, over all steps of a round by their weights.

    Args:
        steps: of each phase and batch.
        epochs: equally likely sequences of batches, all of one length.
        refresh: what comes before every mth step; None (default): nothing.

    Raises:
        ValueError: second moments grow, so that there is no stationary law; a round is too
            long; all weights are 0.
    """
    orders = np.asarray(epochs)
    length = round_length(len(steps.a), epochs, None if refresh is None else refresh.every)
    firsts = range(0, length, orders.shape[1])
    made = [_epoch(steps, refresh, orders, first) for first in firsts]
    whole = np.eye(steps.c.shape[-1])
    for epoch in made:
        whole = epoch.product.mean(axis=0) @ whole
    second = None if len(orders) == 1 else _second(made)
    # The eigenvalues of A ⊗ A are the products of those of A.
    radius = _radius(whole) ** 2 if second is None else _radius(second)
    if not radius < 1 - 1e-12:
        raise ValueError(
            f"kernel: no stationary law; second moments grow by {radius ** (1 / length):.6g} "
            "a step. The step size is beyond the limit of stability, or the friction is 0"
        )
    centres = _centres(made, whole)
    sources = [_source(made[k], centres[k], centres[k + 1]) for k in range(len(made))]
    covariance = np.zeros_like(whole)
    for epoch, source in zip(made, sources, strict=True):
        covariance = _after(epoch, covariance, source)
    if second is None:
        covariance = scipy.linalg.solve_discrete_lyapunov(whole, covariance)
    else:
        flat = np.linalg.solve(np.eye(len(second)) - second, covariance.ravel())
        covariance = flat.reshape(whole.shape)
    total = _Records(steps.record_a[0, 0] @ centres[0] + steps.record_c[0, 0])
    for k, first in enumerate(firsts):
        for step, law in _follow(steps, refresh, orders, first, centres[k], covariance):
            total.add(step, law)
        covariance = _after(made[k], covariance, sources[k])
    return Moments(*total.moments(), radius ** (1 / length))


class _Records:
    """Weighted moments of the records, summed up about a point near their mean."""

    def __init__(self, about: np.ndarray) -> None:
        self.about = about
        self.weight = 0.0
        self.first = np.zeros_like(about)
        self.second = np.zeros((len(about), len(about)))

    def add(self, step: Affine, law: _Law) -> None:
        """The records of one step, for each order of the epoch."""
        far = _times(step.record_a, law.mean) + step.record_c - self.about
        within = _through(step.record_a, law.covariance) + _through(step.record_b)
        self.weight += float(step.weight.sum())
        self.first += step.weight @ far
        self.second += np.tensordot(step.weight, within, 1) + (far.T * step.weight) @ far

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance.

        Raises:
            ValueError: all weights are 0.
        """
        if not self.weight > 0:
            raise ValueError("kernel: every draw weighs 0, so that there is no law of its draws")
        off = self.first / self.weight
        covariance = self.second / self.weight - np.outer(off, off)
        return self.about + off, (covariance + covariance.T) / 2


def round_length(phases: int, epochs: Sequence[Sequence[int]], every: int | None) -> int:
    """Steps after which phases, epochs and refreshes begin anew together.

    Raises:
        ValueError: so many that it would take minutes.
    """
    length = math.lcm(phases, len(epochs[0]), every or 1)
    if length * (len(epochs) + PYTHON) > MOST_WORK:
        raise ValueError(
            f"kernel: numbers of period {phases:,}, epochs of {len(epochs[0]):,} steps in "
            f"{len(epochs):,} orders and a refresh every {every or 1:,} begin anew together "
            f"after {length:,} steps, too many for an exact law; allowed: periods of common "
            f"factors, {MOST_WORK // (len(epochs) + PYTHON):,} steps together"
        )
    return length


def _maps(steps: Affine, refresh: Refresh | None, orders: np.ndarray, first: int) -> Iterator[_Map]:
    """The maps of an epoch that begins with step `first` of a round."""
    for j in range(orders.shape[1]):
        if refresh is not None and (first + j) % refresh.every == 0:
            yield _Map(refresh.a[None], np.zeros((1, 1, 1)), refresh.c[None], None)
        step = Affine(*(field[(first + j) % len(steps.a)][orders[:, j]] for field in steps))
        yield _Map(step.a, _through(step.b), step.c, step)


def _epoch(steps: Affine, refresh: Refresh | None, orders: np.ndarray, first: int) -> _Epoch:
    size = steps.c.shape[-1]
    product = np.tile(np.eye(size), (len(orders), 1, 1))
    end = _Law(np.zeros((len(orders), size)), np.zeros((len(orders), size, size)))
    for made in _maps(steps, refresh, orders, first):
        product, end = made.a @ product, _moved(made, end)
    return _Epoch(product, end)


def _follow(
    steps: Affine,
    refresh: Refresh | None,
    orders: np.ndarray,
    first: int,
    mean: np.ndarray,
    covariance: np.ndarray,
) -> Iterator[tuple[Affine, _Law]]:
    """Each step of an epoch, with the law of the state before it; moments at its start given."""
    law = _Law(mean[None], covariance[None])
    for made in _maps(steps, refresh, orders, first):
        if made.record is not None:
            yield made.record, law
        law = _moved(made, law)


def _moved(made: _Map, law: _Law) -> _Law:
    return _Law(_times(made.a, law.mean) + made.c, _through(made.a, law.covariance) + made.spread)


def _centres(made: Sequence[_Epoch], whole: np.ndarray) -> list[np.ndarray]:
    """The stationary mean at each epoch's start, and at the end of the last."""
    shift = np.zeros(len(whole))
    for epoch in made:
        shift = epoch.product.mean(axis=0) @ shift + epoch.end.mean.mean(axis=0)
    centres = [np.linalg.solve(np.eye(len(whole)) - whole, shift)]
    for epoch in made:
        centres.append(epoch.product.mean(axis=0) @ centres[-1] + epoch.end.mean.mean(axis=0))
    return centres


def _source(epoch: _Epoch, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The covariance about `there` that an epoch makes of none about `here`."""
    far = epoch.product @ here + epoch.end.mean - there
    return epoch.end.covariance.mean(axis=0) + far.T @ far / len(far)


def _after(epoch: _Epoch, covariance: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The covariance after an epoch, over its orders."""
    return _through(epoch.product, covariance).mean(axis=0) + source


def _second(made: Sequence[_Epoch]) -> np.ndarray:
    """The map of vec(second moments) over a round, (n², n²): products of E[A ⊗ A]."""
    orders, size, _ = made[0].product.shape
    whole = np.eye(size * size)
    for epoch in made:
        flat = epoch.product.reshape(orders, -1)
        pairs = (flat.T @ flat / orders).reshape(size, size, size, size)
        whole = pairs.transpose(0, 2, 1, 3).reshape(size * size, -1) @ whole
    return whole


def _radius(matrix: np.ndarray) -> float:
    return float(np.max(np.abs(np.linalg.eigvals(matrix))))


def _times(a: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    product: np.ndarray = (a @ vectors[..., None])[..., 0]
    return product


def _through(a: np.ndarray, covariance: np.ndarray | None = None) -> np.ndarray:
    """a covariance aᵀ; of the unit matrix if None."""
    product: np.ndarray = (a if covariance is None else a @ covariance) @ np.swapaxes(a, -1, -2)
    return product
