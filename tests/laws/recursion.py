"""Laws of any combination on small Gaussian targets, in NumPy, with nothing of the library in it.

Every quantity of a step is an expression: a (d, columns) matrix on the state (z, 1) and the
step's normals. Schemes are then written as papers write them, and a step's matrices are read off.
Second moments of (z, 1) obey a linear equation, averaged over the orders of an epoch; its fixed
point gives the law of the draws, each by its weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import expm

D = 2  # parameters
ROWS = 6  # normals of a step and coordinate, at the most


class Target(NamedTuple):
    """U = ½ prior |θ|² + power Σ ½ (θ − m_i)ᵀ K_i (θ − m_i) + Σ ½ ρ |θ − c|² over `pulls`."""

    stiffness: np.ndarray  # (N, d, d)
    centres: np.ndarray  # (N, d)
    prior: float
    power: float = 1.0
    pulls: tuple[tuple[float, np.ndarray], ...] = ()

    @property
    def precision(self) -> np.ndarray:
        """The Hessian of U."""
        plain = self.prior + sum(rho for rho, _ in self.pulls)
        return plain * np.eye(D) + self.power * self.stiffness.sum(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Where U is least."""
        force = self.power * np.einsum("nij,nj->i", self.stiffness, self.centres)
        return np.linalg.solve(self.precision, force + sum(rho * c for rho, c in self.pulls))


class Batch(NamedTuple):
    """The examples of one step, and its share."""

    rows: tuple[int, ...]
    share: float = 1.0


class Numbers(NamedTuple):
    """h, γ, T and the weight of the draw, of one step."""

    h: float
    friction: float
    temperature: float
    weight: float


class Step(NamedTuple):
    """(z, 1)' = matrix (z, 1) + noise of covariance `spread`; the record likewise."""

    matrix: np.ndarray
    spread: np.ndarray
    record: np.ndarray
    record_spread: np.ndarray
    weight: float


# --------------------------------------------------------------------------------- expressions


class Walk:
    """A step under way: expressions of θ, the whitened momentum, the last noise, the memory."""

    def __init__(self, target: Target, estimator: str, batch: Batch, factor: np.ndarray) -> None:
        self.target, self.estimator, self.batch, self.factor = target, estimator, batch, factor
        self.count = len(target.centres)
        self.size = state_size(estimator, self.count)
        self.width = self.size + 1 + ROWS * D
        parts = [self._part(k) for k in range(self.size // D)]
        self.position, self.momentum, self.last, *self.memory = parts
        self.one = np.zeros(self.width)
        self.one[self.size] = 1.0
        self.used = 0

    def _part(self, k: int) -> np.ndarray:
        return np.eye(self.width)[k * D : (k + 1) * D]

    def normals(self) -> np.ndarray:
        """D fresh normals."""
        first = self.size + 1 + self.used * D
        self.used += 1
        return np.eye(self.width)[first : first + D]

    def fixed(self, value: np.ndarray) -> np.ndarray:
        """A constant."""
        return np.outer(value, self.one)

    def example(self, i: int, at: np.ndarray) -> np.ndarray:
        """v_i at a position."""
        pull = at - self.fixed(self.target.centres[i])
        return self.target.power * self.target.stiffness[i] @ pull

    def gradient(self, at: np.ndarray) -> np.ndarray:
        """Lᵀ times the estimate of ∇U, by the batch; SAGA's table changes after its use."""
        target, everyone = self.target, range(self.count)
        free = target.prior * at + sum(rho * (at - self.fixed(c)) for rho, c in target.pulls)
        rows = everyone if self.estimator == "full" else self.batch.rows
        each = {i: self.example(i, at) for i in set(rows)}
        base = 0.0
        before = {i: np.zeros_like(at) for i in each}
        if self.estimator in ("control_variate", "svrg"):
            fixed = self.estimator == "control_variate"
            anchor = self.fixed(ANCHOR) if fixed else self.memory[0]
            base = sum(self.example(i, anchor) for i in everyone)
            before = {i: self.example(i, anchor) for i in each}
        if self.estimator == "saga":
            base = sum(self.memory)
            before = {i: self.memory[i] for i in each}
        noisy = self.count / len(rows) * sum(each[i] - before[i] for i in rows)
        if self.estimator == "saga":
            self.memory = [each.get(i, tau) for i, tau in enumerate(self.memory)]
        return self.factor.T @ (self.batch.share * (free + base + noisy))

    def drift(self, momentum: np.ndarray) -> None:
        self.position = self.position + self.factor @ momentum

    def state(self) -> np.ndarray:
        """(size, width)."""
        return np.concatenate([self.position, self.momentum, self.last, *self.memory])


# The fixed point of control variates.
ANCHOR = np.array([0.4, -0.3])


def state_size(estimator: str, count: int) -> int:
    """θ, momentum and last noise, and the memory, in numbers."""
    return D * (3 + {"svrg": 1, "saga": count}.get(estimator, 0))


# ------------------------------------------------------------------------------------- schemes


def word(letters: str, walk: Walk, n: Numbers) -> np.ndarray:
    """A step of a word; the record, after the last letter.

    The gradient is taken at the first kick after θ has moved, and kept until θ moves again. A
    word whose first kick takes that of the step before begins behind that kick instead.
    """
    end, first = len(letters), letters.index("B")
    turn = 0 if set(letters[:first]) & set("AU") else first + 1
    gradient, record = None, None
    for i in [(turn + k) % end for k in range(end)]:
        letter = letters[i]
        t = n.h / letters.count(letter)
        if letter == "B":
            gradient = walk.gradient(walk.position) if gradient is None else gradient
            walk.momentum = walk.momentum - t * gradient
        elif letter == "A":
            walk.drift(t * walk.momentum)
        elif letter == "O":
            decay = math.exp(-n.friction * t)
            heat = math.sqrt(n.temperature * (1 - decay**2))
            walk.momentum = decay * walk.momentum + heat * walk.normals()
        else:
            _flow(walk, t, n)
        if i == end - 1:
            record = walk.position
    assert record is not None
    return record


def _flow(walk: Walk, t: float, n: Numbers) -> None:
    """U, by Van Loan's exponential of a block matrix."""
    drift = np.array([[0.0, 1.0], [0.0, -n.friction]])
    diffusion = np.diag([0.0, 2 * n.friction])
    e = expm(np.block([[-drift, diffusion], [np.zeros((2, 2)), drift.T]]) * t)
    flow = e[2:, 2:].T
    root = math.sqrt(n.temperature) * np.linalg.cholesky(flow @ e[:2, 2:])
    first, second = walk.normals(), walk.normals()
    walk.drift(flow[0, 1] * walk.momentum + root[0, 0] * first)
    walk.momentum = flow[1, 1] * walk.momentum + root[1, 0] * first + root[1, 1] * second


def overdamped(name: str, walk: Walk, n: Numbers) -> np.ndarray:
    """sgld and leimkuhler_matthews."""
    force = -n.h * walk.gradient(walk.position)
    noise = walk.normals()
    if name == "leimkuhler_matthews":
        walk.drift(force + math.sqrt(n.h * n.temperature / 2) * (walk.last + noise))
        walk.last = noise
    else:
        walk.drift(force + math.sqrt(2 * n.h * n.temperature) * noise)
    return walk.position


def symplectic_euler(name: str, walk: Walk, n: Numbers) -> np.ndarray:
    """sghmc: θ with the new momentum; compensated: less noise, by what V̂ stands for."""
    taken = COMPENSATED * n.h**2 * np.diag(walk.factor.T @ walk.factor)
    heat = 2 * n.friction * n.temperature * n.h - (taken if name == "compensated" else 0.0)
    noise = np.sqrt(np.maximum(heat * np.ones(D), 0.0))[:, None] * walk.normals()
    force = -n.h * walk.gradient(walk.position)
    walk.momentum = (1 - n.h * n.friction) * walk.momentum + force + noise
    walk.drift(n.h * walk.momentum)
    return walk.position


def sort(walk: Walk, n: Numbers) -> np.ndarray:
    """SORT as its paper writes it, begun at its first gradient, where the record is."""
    h, gamma = n.h, n.friction
    sizes = np.sqrt(2 * gamma * n.temperature * h / np.array([1.0, 12.0, 720.0]))
    w, b, k = (size * walk.normals() for size in sizes)
    phi = lambda t: (1 - math.exp(-gamma * t)) / gamma  # noqa: E731
    psi = lambda t: (math.exp(-gamma * t) + gamma * t - 1) / gamma**2  # noqa: E731
    e, half, delta = math.exp(-gamma * h), math.exp(-gamma * h / 2), (w - 12 * k) / h
    start = walk.position
    g0 = walk.gradient(start)
    v1 = walk.momentum - h / 6 * g0 + b + 6 * k
    middle = phi(h / 2) * v1 + psi(h / 2) * (delta - g0)
    g1 = walk.gradient(start + walk.factor @ middle)
    walk.drift(phi(h) * v1 + psi(h) * (delta - g0 / 3 - 2 * g1 / 3))
    kicks = h * (e * g0 / 6 + 2 * half * g1 / 3)
    walk.momentum = e * v1 - kicks + phi(h) * delta - (b - 6 * k)
    return start


# V̂ of the compensated sghmc.
COMPENSATED = 0.5


def step(
    name: str, target: Target, estimator: str, batch: Batch, factor: np.ndarray, n: Numbers
) -> Step:
    """One step of a scheme; a word in capitals."""
    walk = Walk(target, estimator, batch, factor)
    if name.isupper():
        record = word(name, walk, n)
    elif name in ("sgld", "leimkuhler_matthews"):
        record = overdamped(name, walk, n)
    elif name == "sort":
        record = sort(walk, n)
    else:
        record = symplectic_euler(name, walk, n)
    state, cut = walk.state(), walk.size + 1
    matrix, spread = np.eye(cut), np.zeros((cut, cut))
    matrix[:-1] = state[:, :cut]
    spread[:-1, :-1] = state[:, cut:] @ state[:, cut:].T
    return Step(matrix, spread, record[:, :cut], record[:, cut:] @ record[:, cut:].T, n.weight)


def refresh(estimator: str, count: int) -> np.ndarray | None:
    """The matrix of svrg's refresh: its snapshot is θ."""
    if estimator != "svrg":
        return None
    matrix = np.eye(state_size(estimator, count) + 1)
    matrix[3 * D : 4 * D] = np.eye(len(matrix))[:D]
    return matrix


# ----------------------------------------------------------------------------------------- laws


def law(
    steps: Sequence[Sequence[Step]],
    epochs: Sequence[Sequence[int]],
    refreshed: np.ndarray | None = None,
    every: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the draws, `steps` by phase and batch, `refreshed` before each
    `every`th."""
    span = len(epochs[0])
    length = math.lcm(len(steps), span, every)
    unit = np.eye(len(steps[0][0].matrix))

    def walked(moments: np.ndarray, first: int, epoch: Sequence[int], see: Any) -> np.ndarray:
        for t, batch in enumerate(epoch, first):
            if refreshed is not None and t % every == 0:
                moments = refreshed @ moments @ refreshed.T
            one = steps[t % len(steps)][batch]
            see(one, moments)
            moments = one.matrix @ moments @ one.matrix.T + one.spread
        return moments

    def product(first: int, epoch: Sequence[int]) -> np.ndarray:
        whole = unit
        for t, batch in enumerate(epoch, first):
            if refreshed is not None and t % every == 0:
                whole = refreshed @ whole
            whole = steps[t % len(steps)][batch].matrix @ whole
        return whole

    nothing = lambda one, moments: None  # noqa: E731
    operator, source = np.eye(unit.size), np.zeros(unit.size)
    for first in range(0, length, span):
        pairs = [np.kron(p, p) for p in (product(first, e) for e in epochs)]
        here = np.mean(pairs, axis=0)
        made = [walked(0 * unit, first, e, nothing) for e in epochs]
        operator, source = here @ operator, here @ source + np.mean(made, axis=0).ravel()
    # By doubling, 2,047 rounds from θ = 0.
    state = np.zeros(unit.shape)
    state[-1, -1] = 1.0
    for _ in range(11):
        state = (operator @ state.ravel() + source).reshape(unit.shape)
        operator, source = operator @ operator, operator @ source + source
    total, weight = np.zeros((D + 1, D + 1)), 0.0

    def see(one: Step, moments: np.ndarray) -> None:
        nonlocal total, weight
        record = np.concatenate([one.record, unit[-1:]])
        spread = np.pad(one.record_spread, (0, 1))
        total = total + one.weight * (record @ moments @ record.T + spread)
        weight += one.weight

    for first in range(0, length, span):
        state = np.mean([walked(state, first, e, see) for e in epochs], axis=0)
    total = total / weight
    return total[:-1, -1], total[:-1, :-1] - np.outer(total[:-1, -1], total[:-1, -1])


def reduced(
    steps: Sequence[Sequence[Step]], refreshed: np.ndarray | None
) -> tuple[list[list[Step]], np.ndarray | None]:
    """The same without the coordinates that nothing moves, which stay at 0."""
    matrices = [one.matrix for row in steps for one in row]
    matrices += [] if refreshed is None else [refreshed]
    unit = np.eye(len(matrices[0]))
    live = np.any([np.any(m != unit, axis=1) for m in matrices], axis=0)
    live[-1] = True

    def cut(matrix: np.ndarray) -> np.ndarray:
        return matrix[np.ix_(live, live)]

    kept = [
        [
            s._replace(matrix=cut(s.matrix), spread=cut(s.spread), record=s.record[:, live])
            for s in row
        ]
        for row in steps
    ]
    return kept, None if refreshed is None else cut(refreshed)
