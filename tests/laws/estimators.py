"""Stationary laws of variance-reduced samplers on four quadratics, twice: from the library's
own steps, and derived anew in NumPy.

U = Σ k_i (x − m_i)²/2, one example a batch. What an estimator remembers (a snapshot s, or a
table τ) is linear too, and joins the state: z = (x, s) or (x, τ_1 … τ_4), and p if there is one.
A step with example i is z' = H_i z + noise in homogeneous coordinates (z, 1), and the second
moments obey a linear equation, averaged over the examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import sgmcmc
from sgmcmc import gradients
from sgmcmc.gradients._saga import Table
from tests.laws import oracle, samplers

STIFFNESS, CENTRES = np.array([0.1, 0.4, 0.2, 0.3]), np.array([-1.0, 0.5, 2.0, 0.0])
K = len(STIFFNESS)

# A step: its matrix on (z, 1), and the covariance of its noise.
Step = tuple[np.ndarray, np.ndarray]
# A map of moments, vec M -> operator vec M + source.
Moments = tuple[np.ndarray, np.ndarray]


def variance_bias(
    steps: Sequence[Step],
    *,
    stream: str = "with_replacement",
    refresh: Step | None = None,
    every: int = 1,
) -> float:
    """Stationary variance of x less 1, averaged over the steps of a period.

    `steps` has one for each example. `refresh` precedes every `every`-th step; under
    "reshuffled" and "symmetric" `every` is the length of the sweep or sweeps.
    """
    n = len(steps[0][0])
    each = [_moments(step) for step in steps]
    if stream == "with_replacement":
        mean = tuple(np.mean([m[part] for m in each], axis=0) for part in (0, 1))
        sequences = [[mean] * every]
    else:
        orders = [list(order) for order in itertools.permutations(range(K))]
        if stream == "symmetric":
            orders = [order + order[::-1] for order in orders]
        sequences = [[each[i] for i in order] for order in orders]
    first = [] if refresh is None else [_moments(refresh)]
    whole = [_composed([*first, *sequence]) for sequence in sequences]
    operator, source = (np.mean([w[part] for w in whole], axis=0) for part in (0, 1))
    state = np.zeros((n, n))
    state[-1, -1] = 1.0
    state = state.ravel()
    for _ in range(16):  # by doubling, 65,535 periods
        state, source = operator @ state + source, operator @ source + source
        operator = operator @ operator
    mean, square, count = 0.0, 0.0, 0
    for sequence in sequences:
        now = state
        for a, b in first:
            now = a @ now + b
        for a, b in sequence:
            now = a @ now + b
            mean, square, count = mean + now[n - 1], square + now[0], count + 1
    return square / count - (mean / count) ** 2 - 1


def _moments(step: Step) -> Moments:
    return np.kron(step[0], step[0]), step[1].ravel()


def _composed(maps: Sequence[Moments]) -> Moments:
    operator, source = np.eye(len(maps[0][1])), np.zeros(len(maps[0][1]))
    for a, b in maps:
        operator, source = a @ operator, a @ source + b
    return operator, source


# ------------------------------------------------------------------- from the library's own steps


def library_steps(name: str, h: float, kind: str) -> tuple[list[Step], Step | None]:
    """The steps of a kernel, by the Jacobian of its `drive`, and its `refresh` if it has one."""
    gradient = {
        "minibatch": gradients.minibatch,
        "control_variate": lambda: gradients.control_variate(jnp.array([0.5])),
        "svrg": lambda: gradients.svrg(1),
        "saga": gradients.saga,
    }[kind]()
    posterior, _ = samplers.quadratics(STIFFNESS, CENTRES)
    kernel = samplers.make(name, posterior, h, gradient=gradient)
    data = (jnp.asarray(STIFFNESS), jnp.asarray(CENTRES))
    start = kernel.init(jnp.zeros(1), jax.random.key(0), data)
    momenta = len(jax.tree.leaves(start.momentum))
    remembered = {"svrg": 1, "saga": K}.get(kind, 0)
    n, normals = 1 + momenta + remembered, kernel.num_normals

    def pack(state: Any) -> Any:
        memory = {"svrg": lambda e: [e.position], "saga": lambda e: [e.rows.ravel()]}
        kept = memory.get(kind, lambda e: [])(state.estimator)
        return jnp.concatenate([state.position, *([state.momentum] if momenta else []), *kept])

    def unpack(z: Any) -> Any:
        estimator = start.estimator
        if kind == "svrg":
            estimator = kernel.gradient.init(posterior, z[-1:], data)
        if kind == "saga":
            estimator = Table(z[-K:, None], jnp.sum(z[-K:], keepdims=True))
        momentum = z[1:2] if momenta else ()
        return start._replace(position=z[:1], momentum=momentum, estimator=estimator)

    @eqx.filter_jit
    def drive(point: Any, i: Any) -> Any:
        batch = sgmcmc.Batch(jax.tree.map(lambda x: x[i][None], data), i[None])
        after, _ = kernel.drive(point[n:].reshape(normals, 1), unpack(point[:n]), batch)
        if kind == "saga":  # the running sum is that of the table
            gap = jnp.max(jnp.abs(after.estimator.total - jnp.sum(after.estimator.rows, 0)))
            return jnp.where(gap < 1e-12, pack(after), jnp.nan)
        return pack(after)

    def refreshed(z: Any) -> Any:
        return pack(kernel.refresh(unpack(z), data))

    def step(function: Any, size: int) -> Step:
        zero = jnp.zeros(size)
        jacobian = np.asarray(jax.jacfwd(function)(zero))
        h, q = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1))
        h[:n, :n], h[:n, n], h[n, n] = jacobian[:, :n], function(zero), 1.0
        q[:n, :n] = jacobian[:, n:] @ jacobian[:, n:].T
        return h, q

    steps = [step(lambda z, i=i: drive(z, jnp.asarray(i)), n + normals) for i in range(K)]
    return steps, step(refreshed, n) if kernel.traits.refresh_every else None


# -------------------------------------------------------------------------------- derived anew


def derived_steps(name: str, h: float, kind: str) -> tuple[list[Step], Step | None]:
    """The same in NumPy, from the equations. z = (x, p, memory, 1), whether p is used or not."""
    remembered = {"svrg": 1, "saga": K}.get(kind, 0)
    n = 2 + remembered + 1
    steps = []
    for i in range(K):
        # The estimated gradient as a row on (x, p, memory, 1).
        slope = np.zeros(n)
        slope[0], slope[-1] = K * STIFFNESS[i], -K * STIFFNESS[i] * CENTRES[i]
        visit = np.eye(n)
        if kind in ("control_variate", "svrg"):
            slope[-1] += K * STIFFNESS[i] * CENTRES[i] - STIFFNESS @ CENTRES
            anchor = np.eye(n)[2] if kind == "svrg" else 0.5 * np.eye(n)[-1]
            slope = slope + (STIFFNESS.sum() - K * STIFFNESS[i]) * anchor
        if kind == "saga":
            slope[2 : 2 + K] += 1.0
            slope[2 + i] -= K
            visit[2 + i] = 0.0
            visit[2 + i, 0], visit[2 + i, -1] = STIFFNESS[i], -STIFFNESS[i] * CENTRES[i]
        steps.append(_derived_step(name, h, slope, visit))
    refresh = None
    if kind == "svrg":
        refresh = np.eye(n), np.zeros((n, n))
        refresh[0][2] = np.eye(n)[0]
    return steps, refresh


def _derived_step(name: str, h: float, slope: np.ndarray, visit: np.ndarray) -> Step:
    """The word's flows from left to right; the memory changes with the one use of the gradient."""
    n = len(slope)
    matrix, spread = np.eye(n), np.zeros((n, n))
    for letter in "E" if name == "sgld" else name:
        t = h if name == "sgld" else h / name.count(letter)
        flow, noise = np.eye(n), np.zeros((n, n))
        match letter:
            case "A":
                flow[0, 1] = t
            case "O":
                flow[1, 1], noise[1, 1] = np.exp(-t), 1 - np.exp(-2 * t)
            case "U":
                flow[:2, :2], noise[:2, :2] = oracle.u_flow(t, 1.0, 1.0)
            case "B":
                flow = visit.copy()
                flow[1] -= t * slope
            case "E":
                flow = visit.copy()
                flow[0] -= t * slope
                flow[1], noise[0, 0] = 0.0, 2 * t
        matrix, spread = flow @ matrix, flow @ spread @ flow.T + noise
    return matrix, spread
