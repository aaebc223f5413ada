"""The law of a plan on one oscillator, in NumPy: what a word's own error is at a step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sgmcmc.kernels._words import Plan

LETTERS = "GABOUFEM"


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


def has_law(plan: Plan) -> bool:
    """Whether a plan is made of `LETTERS`, and of some."""
    return bool(plan.substeps) and all(step.letter in LETTERS for step in plan.substeps)


def variance(plan: Plan, kappa: float, friction: float, heat: float = 0.0) -> float:
    """Stationary ⟨x²⟩ of the record on U = x²/2 at T = 1, step κ = hω and friction γ/ω.

    `heat`: variance of the gradient's noise, drawn anew for every gradient. Infinite beyond
    the limit of stability, NaN for plans without a law here (`has_law`).
    """
    if not has_law(plan):
        return float("nan")
    rows = _rows(plan, kappa, friction)
    if not rows.stable:
        return float("inf")
    kicks = np.hstack([rows.b, np.sqrt(heat) * rows.c])
    covariance = _stationary(rows.a, kicks @ kicks.T)
    state, normals, errors = rows.record
    return float(state @ covariance @ state + normals @ normals + heat * (errors @ errors))


def swept_heat(plan: Plan, kappa: float, friction: float, sweep: int) -> float:
    """What the noise of sweeps adds to ⟨x²⟩, on average over a sweep, at noise of variance 1.

    A sweep is `sweep` ≥ 2 steps, whose gradients' errors are exchangeable and add up to 0, as
    with batches in a fresh random order of all the data; the gradients of one step share their
    batch. Infinite and NaN as `variance`.
    """
    if not has_law(plan):
        return float("nan")
    rows = _rows(plan, kappa, friction)
    if not rows.stable:
        return float("inf")
    state, _, errors = rows.record
    # What one error has moved after 1, 2, … steps, and Aᵏ as it moves the record.
    moved = _powers(rows.a, np.sum(rows.c, axis=1), sweep)
    seen = _powers(rows.a.T, state, sweep)
    answer = np.concatenate([[np.sum(errors)], (moved @ state)[:-1]])
    # Errors η_i of covariance (δ_ij − 1/K) K/(K − 1).
    counts = sweep / (sweep - 1)
    total = np.sum(moved, axis=0)
    left = counts * (moved.T @ moved - np.outer(total, total) / sweep)
    before = _stationary(np.linalg.matrix_power(rows.a, sweep), left)
    within = counts * (np.cumsum(answer**2) - np.cumsum(answer) ** 2 / sweep)
    return float(np.mean(np.einsum("ki,ij,kj->k", seen, before, seen) + within))


def _rows(plan: Plan, kappa: float, friction: float) -> Rows:
    """A plan's sub-steps as rows of coefficients over (x, p, last normal; normals; errors)."""
    gradients = sum(step.letter == "G" for step in plan.substeps)
    letters = {step.letter for step in plan.substeps}
    used = [True, bool(letters & set("OUF")), "M" in letters]
    basis = np.eye(3 + plan.num_normals + gradients)
    x, p, last = basis[:3]
    normals, errors = basis[3 : 3 + plan.num_normals], iter(basis[3 + plan.num_normals :])
    g, record = np.zeros(len(basis)), x
    for step in plan.substeps:
        shares = [step.fraction] if step.end is None else [step.end, step.fraction]
        before = (x, p, last)
        if step.letter == "G":
            g = x + next(errors)
        for share in shares:
            x, p, last = _move(step.letter, share * kappa, before, g, normals, step.noise, friction)
            if step.end is not None and share is shares[0]:
                record = x
    parts = (
        np.flatnonzero(used),
        slice(3, 3 + plan.num_normals),
        slice(3 + plan.num_normals, None),
    )
    state = np.stack([x, p, last])[used]
    a, b, c = (state[:, part] for part in parts)
    return Rows(a, b, c, tuple(record[part] for part in parts))


def _stationary(a: np.ndarray, kicks: np.ndarray) -> np.ndarray:
    """Σ = A Σ Aᵀ + `kicks`."""
    size = len(a)
    return np.linalg.solve(np.eye(size**2) - np.kron(a, a), kicks.ravel()).reshape(size, size)


def _powers(a: np.ndarray, vector: np.ndarray, count: int) -> np.ndarray:
    """Aᵏ v for k < count, by doubling."""
    found, power = vector[None], a
    while len(found) < count:
        found, power = np.concatenate([found, found @ power.T]), power @ power
    return found[:count]


def _move(letter, t, before, g, normals, row, friction):  # type: ignore[no-untyped-def]
    """One sub-step of `sgmcmc.kernels._flows` on rows of coefficients."""
    x, p, last = before
    c = np.exp(-friction * t)
    match letter:
        case "A":
            x = x + t * p
        case "B":
            p = p - t * g
        case "O":
            p = c * p + np.sqrt(1 - c**2) * normals[row]
        case "F":
            p = (1 - friction * t) * p + np.sqrt(2 * friction * t) * normals[row]
        case "E":
            x = x - t * g + np.sqrt(2 * t) * normals[row]
        case "M":
            x = x - t * g + np.sqrt(t / 2) * (last + normals[row])
            last = normals[row]
        case "U":
            if friction == 0:
                return x + t * p, p, last
            z = friction * t
            kicked = np.sqrt(1 - c**2) * normals[row]
            rest = np.sqrt(max(2 * (z - 2 * np.tanh(z / 2)), 0.0)) / friction
            x = x + (1 - c) / friction * p + np.tanh(z / 2) / friction * kicked
            x = x + rest * normals[row + 1]
            p = c * p + kicked
    return x, p, last
