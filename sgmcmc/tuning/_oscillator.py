"""The law of a word on one oscillator, in NumPy: what a word's own error is at a step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sgmcmc.kernels._words import GRADIENT, Word


class Rows(NamedTuple):
    """One step z ← A z + B ξ + C η of what moves, and its record ρ_z z + ρ_ξ ξ + ρ_η η.

    ξ are the step's standard normals, η the errors of its gradients.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    record: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def stable(self) -> bool:
        """Whether there is a stationary law; at the edge itself the equations are singular."""
        return bool(np.max(np.abs(np.linalg.eigvals(self.a))) < 1 - 1e-12)


def has_law(word: Word) -> bool:
    """Whether all letters of a word are linear on an oscillator."""
    return all(flow.linear for flow in word.flows.values())


def variance(word: Word, kappa: float, friction: float, heat: float = 0.0) -> float:
    """Stationary ⟨x²⟩ of the record on U = x²/2 at T = 1, step κ = hω and friction γ/ω.

    `heat`: variance of the gradient's noise, drawn anew for every gradient. Infinite beyond
    the limit of stability, NaN for words without a law here (`has_law`).
    """
    if not has_law(word):
        return float("nan")
    rows = _rows(word, kappa, friction)
    if not rows.stable:
        return float("inf")
    kicks = np.hstack([rows.b, np.sqrt(heat) * rows.c])
    covariance = _stationary(rows.a, kicks @ kicks.T)
    state, normals, errors = rows.record
    return float(state @ covariance @ state + normals @ normals + heat * (errors @ errors))


def swept_heat(word: Word, kappa: float, friction: float, sweep: int) -> float:
    """What the noise of sweeps adds to ⟨x²⟩, on average over a sweep, at noise of variance 1.

    A sweep is `sweep` ≥ 2 steps, whose gradients' errors are exchangeable and add up to 0, as
    with batches in a fresh random order of all the data; the gradients of one step share their
    batch. Infinite and NaN as `variance`.
    """
    if not has_law(word):
        return float("nan")
    rows = _rows(word, kappa, friction)
    if not rows.stable:
        return float("inf")
    state, _, errors = rows.record
    # Aᵏ C 1: the state k steps after an error of 1; and ρᵀ Aᵏ: what k steps on is recorded of it.
    displaced = _powers(rows.a, np.sum(rows.c, axis=1), sweep)
    recorded = _powers(rows.a.T, state, sweep)
    response = np.concatenate([[np.sum(errors)], (displaced @ state)[:-1]])
    # Errors η_i of covariance (δ_ij − 1/K) K/(K − 1).
    factor = sweep / (sweep - 1)
    total = np.sum(displaced, axis=0)
    of_one_sweep = factor * (displaced.T @ displaced - np.outer(total, total) / sweep)
    before = _stationary(np.linalg.matrix_power(rows.a, sweep), of_one_sweep)
    within = factor * (np.cumsum(response**2) - np.cumsum(response) ** 2 / sweep)
    return float(np.mean(np.einsum("ki,ij,kj->k", recorded, before, recorded) + within))


def _rows(word: Word, kappa: float, friction: float) -> Rows:
    """A word's sub-steps as rows of coefficients over (x, p, last normal; normals; errors)."""
    plan, flows = word
    width = 3 + plan.num_normals
    basis = np.eye(width + plan.gradient_evaluations)
    oscillator = (basis[0], basis[1], basis[2])
    errors = iter(basis[width:])
    g, record = np.zeros(len(basis)), basis[0]
    for step in plan.substeps:
        if step.letter == GRADIENT:
            g = oscillator[0] + next(errors)
            continue
        flow, before = flows[step.letter], oscillator
        first = 3 + step.noise
        normals = basis[first : first + flow.normals]
        oscillator = flow.oscillate(before, step.fraction * kappa, g, normals, friction)
        if step.end is not None:
            record = flow.oscillate(before, step.end * kappa, g, normals, friction)[0]
    state = np.stack(oscillator)
    # What a word neither moves nor reads is no part of its state: p overdamped, and the last
    # normal where no letter keeps it.
    still = np.eye(3)
    moves = [
        i for i in range(3) if np.any(state[i] != basis[i]) or np.any(state[:, i] != still[:, i])
    ]
    parts = (np.asarray(moves), slice(3, width), slice(width, None))
    a, b, c = (state[moves][:, part] for part in parts)
    return Rows(a, b, c, tuple(record[part] for part in parts))


def _stationary(a: np.ndarray, kicks: np.ndarray) -> np.ndarray:
    """Σ = A Σ Aᵀ + `kicks`."""
    size = len(a)
    return np.linalg.solve(np.eye(size**2) - np.kron(a, a), kicks.ravel()).reshape(size, size)


def _powers(a: np.ndarray, vector: np.ndarray, count: int) -> np.ndarray:
    """Aᵏ v for k < count, by doubling."""
    images, power = vector[None], a
    while len(images) < count:
        images, power = np.concatenate([images, images @ power.T]), power @ power
    return images[:count]
