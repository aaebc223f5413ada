"""Stationary moments derived anew in NumPy, with nothing of the library in it.

Each sub-flow is a matrix and a noise covariance on (x, p, e), e the error of the gradient
that is in use; a word composes them in its own order, from left to right.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm


def u_flow(t: float, gamma: float, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact flow and noise covariance of dx = p dt, dp = −γ p dt + √(2γT) dW.

    By Van Loan's exponential of a block matrix (1978), no closed form involved.
    """
    drift = np.array([[0.0, 1.0], [0.0, -gamma]])
    diffusion = np.diag([0.0, 2 * gamma * temperature])
    block = np.block([[-drift, diffusion], [np.zeros((2, 2)), drift.T]])
    e = expm(block * t)
    flow = e[2:, 2:].T
    return flow, flow @ e[:2, 2:]


def word_step(
    word: str,
    h: float,
    *,
    k: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    error: float = 0.0,
    fresh: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """One step's matrix and noise covariance on (x, p, e) for the force −(k x + e).

    e is redrawn as N(0, error²) at each gradient evaluation: at the first kick after the
    position moved, cyclically, or at every kick if `fresh`.
    """
    matrix, noise = np.eye(3), np.zeros((3, 3))
    moved = _ends_moved(word)
    for letter in word:
        t = h / word.count(letter)
        steps = []
        if letter == "B":
            if moved or fresh:
                steps.append((np.diag([1.0, 1.0, 0.0]), np.diag([0.0, 0.0, error**2])))
            steps.append((np.array([[1, 0, 0], [-t * k, 1, -t], [0, 0, 1.0]]), np.zeros((3, 3))))
            moved = False
        else:
            flow, spread = np.eye(3), np.zeros((3, 3))
            if letter == "A":
                flow[0, 1] = t
            elif letter == "O":
                flow[1, 1] = np.exp(-gamma * t)
                spread[1, 1] = temperature * (1 - np.exp(-2 * gamma * t))
            else:
                flow[:2, :2], spread[:2, :2] = u_flow(t, gamma, temperature)
            moved = moved or letter in "AU"
            steps.append((flow, spread))
        for flow, spread in steps:
            matrix, noise = flow @ matrix, flow @ noise @ flow.T + spread
    return matrix, noise


def _ends_moved(word: str) -> bool:
    """Whether the position moves between a step's last kick and its end."""
    return any(letter in "AU" for letter in word[word.rindex("B") + 1 :])


def euler_step(
    kind: str, h: float, *, k: float = 1.0, gamma: float = 1.0, temperature: float = 1.0,
    error: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The schemes that are no words, on (x, p), or (x, last normal), or (x,)."""
    if kind == "sgld":
        return np.array([[1 - h * k]]), np.array([[2 * h * temperature + (h * error) ** 2]])
    if kind == "leimkuhler_matthews":
        a = np.sqrt(h * temperature / 2)
        gain = np.array([[a, -h * error], [1.0, 0.0]])
        return np.array([[1 - h * k, a], [0.0, 0.0]]), gain @ gain.T
    heat = 2 * gamma * temperature * h + (h * error) ** 2
    if kind == "euler_maruyama":
        matrix = np.array([[1.0, h], [-h * k, 1 - h * gamma]])
        return matrix, np.diag([0.0, heat])
    # sghmc: p first, then x with the new p.
    row = np.array([-h * k, 1 - h * gamma])
    gain = np.array([h, 1.0])
    return np.array([[1.0, 0.0] + h * row, row]), heat * np.outer(gain, gain)


def lyapunov(matrix: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """S = matrix S matrixᵀ + noise."""
    n = len(matrix)
    flat = np.linalg.solve(np.eye(n * n) - np.kron(matrix, matrix), noise.ravel())
    return flat.reshape(n, n)


def moments(name: str, h: float, *, fresh: bool = False, **numbers: float) -> np.ndarray:
    """(⟨x²⟩, ⟨p²⟩, ⟨xp⟩) at the end of the step; (⟨x²⟩,) for overdamped schemes."""
    if name.isupper():
        s = lyapunov(*word_step(name, h, fresh=fresh, **numbers))
    else:
        s = lyapunov(*euler_step(name, h, **numbers))
        if name in ("sgld", "leimkuhler_matthews"):
            return s[:1, 0]
    return np.array([s[0, 0], s[1, 1], s[0, 1]])


def contraction(name: str, h: float, **numbers: float) -> float:
    """The factor by which second moments settle each step: the spectral radius, squared."""
    step = word_step(name, h, **numbers) if name.isupper() else euler_step(name, h, **numbers)
    return float(np.max(np.abs(np.linalg.eigvals(step[0]))) ** 2)


def minibatch_variance(
    name: str, h: float, stiffness: np.ndarray, centres: np.ndarray
) -> tuple[float, float]:
    """Mean and variance of x when each step takes one of the quadratics at random (γ = T = 1).

    Iterates the moments of (z, 1) until they settle.
    """
    maps = []
    for k, m in zip(stiffness, centres, strict=True):
        if name.isupper():
            matrix, noise = word_step(name, h, k=k)
            matrix, noise = matrix[:2, :2], noise[:2, :2]
            # The fixed point of the noiseless step is x = m, p = 0.
            rest = np.array([m, 0.0])
        else:
            matrix, noise = euler_step(name, h, k=k)
            rest = np.zeros(len(matrix))
            rest[0] = m
        n = len(matrix)
        whole = np.eye(n + 1)
        whole[:n, :n], whole[:n, n] = matrix, rest - matrix @ rest
        maps.append((whole, np.pad(noise, (0, 1))))
    operator = np.mean([np.kron(a, a) for a, _ in maps], axis=0)
    source = np.mean([q for _, q in maps], axis=0).ravel()
    # Doubling: after j rounds the operator stands for 2^j steps, 16,383 in all.
    start = np.zeros((n + 1, n + 1))
    start[n, n] = 1.0
    state = start.ravel()
    for _ in range(14):
        state, source = operator @ state + source, operator @ source + source
        operator = operator @ operator
    second = state.reshape(n + 1, n + 1)
    return second[0, n], second[0, 0] - second[0, n] ** 2
