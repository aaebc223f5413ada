"""The law of a plan on one oscillator, in NumPy: what a word's own error is at a step."""

from __future__ import annotations

import numpy as np

from sgmcmc.words import Plan

LETTERS = "GABOUFEM"


def variance(plan: Plan, kappa: float, friction: float, heat: float = 0.0) -> float:
    """Stationary ⟨x²⟩ of the record on U = x²/2 at T = 1, step κ = hω and friction γ/ω.

    `heat`: variance of the gradient's noise, drawn anew for every gradient. Infinite beyond
    the limit of stability, NaN for plans with other letters than `LETTERS`, or none at all.
    """
    if not plan.substeps or any(step.letter not in LETTERS for step in plan.substeps):
        return float("nan")
    gradients = sum(step.letter == "G" for step in plan.substeps)
    letters = {step.letter for step in plan.substeps}
    used = [True, bool(letters & set("OUF")), "M" in letters]
    # Rows over (x, p, last normal; normals; gradient errors).
    basis = np.eye(3 + plan.num_normals + gradients)
    x, p, last = basis[:3]
    normals, errors = basis[3 : 3 + plan.num_normals], iter(basis[3 + plan.num_normals :])
    g, record = np.zeros(len(basis)), x
    for step in plan.substeps:
        shares = [step.fraction] if step.end is None else [step.end, step.fraction]
        before = (x, p, last)
        if step.letter == "G":
            g = x + np.sqrt(heat) * next(errors)
        for share in shares:
            x, p, last = _move(step.letter, share * kappa, before, g, normals, step.noise, friction)
            if step.end is not None and share is shares[0]:
                record = x
    state = np.stack([x, p, last])[used]
    a, b = state[:, :3][:, used], state[:, 3:]
    # At the edge itself the equations are singular.
    if np.max(np.abs(np.linalg.eigvals(a))) >= 1 - 1e-12:
        return float("inf")
    size = len(a)
    covariance = np.linalg.solve(np.eye(size**2) - np.kron(a, a), (b @ b.T).ravel())
    weights = np.zeros((len(basis), len(basis)))
    weights[np.ix_(np.flatnonzero(used), np.flatnonzero(used))] = covariance.reshape(size, size)
    weights[3:, 3:] = np.eye(len(basis) - 3)
    return float(record @ weights @ record)


def _move(letter, t, before, g, normals, row, friction):  # type: ignore[no-untyped-def]
    """One sub-step of `sgmcmc.substeps` on rows of coefficients."""
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
