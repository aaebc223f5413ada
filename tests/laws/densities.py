"""Stationary moments on one-dimensional targets that are not Gaussian, by quadrature.

The density of a kernel's stationary law is sought as μ Σ c_mn P_m(x) He_n(p), μ the exact
one and P, He its orthonormal polynomials. Its coefficients solve ⟨P_m He_n⟩ after a step =
⟨P_m He_n⟩ before; the step is the kernel's own `drive`, its noise is integrated out by
Gauss-Hermite. For the laws near μ that small steps give, this converges fast in the degree.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc.types import State


class Polynomials:
    """The orthonormal polynomials of weights on nodes, up to a degree (Stieltjes)."""

    def __init__(self, nodes: np.ndarray, weights: np.ndarray, degree: int) -> None:
        weights = weights / weights.sum()
        self.alpha, self.beta = np.zeros(degree + 1), np.zeros(degree + 2)
        previous, current = np.zeros_like(nodes), np.ones_like(nodes)
        for n in range(degree + 1):
            self.alpha[n] = np.sum(weights * nodes * current**2)
            following = (nodes - self.alpha[n]) * current - self.beta[n] * previous
            self.beta[n + 1] = np.sqrt(np.sum(weights * following**2))
            previous, current = current, following / self.beta[n + 1]

    def at(self, x: np.ndarray, degree: int) -> np.ndarray:
        """Values [point, 0…degree]."""
        values = [np.ones_like(x)]
        previous = np.zeros_like(x)
        for n in range(degree):
            following = (x - self.alpha[n]) * values[-1] - self.beta[n] * previous
            previous = values[-1]
            values.append(following / self.beta[n + 1])
        return np.stack(values, axis=-1)

    def gauss(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Gauss quadrature of these weights (Golub and Welsch)."""
        off = self.beta[1:count]
        matrix = np.diag(self.alpha[:count]) + np.diag(off, 1) + np.diag(off, -1)
        nodes, vectors = np.linalg.eigh(matrix)
        return nodes, vectors[0] ** 2


def polynomials(potential: Any, degree: int) -> Polynomials:
    """Those of exp(−potential)."""
    nodes = np.linspace(-9, 9, 6001)
    return Polynomials(nodes, np.exp(-np.asarray(jax.vmap(potential)(jnp.asarray(nodes)))), degree)


def second_moment(
    kernel: Any,
    potential: Any,
    degree: int = 14,
    normals: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """Stationary ⟨x²⟩ of the recorded position of `kernel`, whose target is a product of
    exp(−potential) over its coordinates. `normals`: nodes and weights of the law of the
    kernel's numbers; None for the normal's."""
    basis = polynomials(potential, 2 * degree + 12)
    x, wx = basis.gauss(degree + 10)
    hermite = np.polynomial.hermite_e.hermegauss
    p, wp = hermite(degree + 8)
    xi, wxi = hermite(14) if normals is None else normals
    momentum_basis = Polynomials(p, wp, degree)
    rows = kernel.num_normals
    carries = "last" in kernel.init(jnp.zeros(1), jax.random.key(0)).extra
    if kernel.friction is None:
        p, wp = np.zeros(1), np.ones(1)
    # All combinations of (x, p, normals) are coordinates of one position.
    grids = np.meshgrid(x, p, *[xi] * (1 if carries else rows), indexing="ij")
    flat = [grid.ravel() for grid in grids]
    state = kernel.init(jnp.zeros(flat[0].shape), jax.random.key(0))
    if carries:
        # x − σξ is a Markov chain, ξ the normal carried, which is independent of it.
        sigma = np.sqrt(float(kernel.clock.step_size.value) / 2)
        state = state._replace(
            position=jnp.asarray(flat[0] + sigma * flat[2]), extra={"last": flat[2]}
        )
        noise = jnp.zeros((1, len(flat[0])))
    else:
        state = state._replace(position=jnp.asarray(flat[0]))
        noise = jnp.asarray(np.stack(flat[2:]))
    if kernel.friction is not None:
        state = state._replace(momentum=jnp.asarray(flat[1]))
    following: State = jax.jit(lambda n, s: kernel.drive(n, s, None)[0])(noise, state)
    after = basis.at(np.asarray(following.position), degree)
    before = basis.at(x, degree)
    if kernel.friction is not None:
        after = _product(after, momentum_basis.at(np.asarray(following.momentum), degree))
        before = _product(
            np.repeat(before, len(p), axis=0), np.tile(momentum_basis.at(p, degree), (len(x), 1))
        )
        after, before = (
            values[:, [m + n <= degree for m, n in itertools.product(range(degree + 1), repeat=2)]]
            for values in (after, before)
        )
    weights = np.multiply.outer(wx, wp / wp.sum()).ravel()
    average = np.einsum(
        "stb,t->sb", after.reshape(len(weights), -1, after.shape[1]), _powers(wxi, len(grids) - 2)
    )
    operator = (average * weights[:, None]).T @ before - np.eye(after.shape[1])
    coefficients = np.linalg.solve(operator[1:, 1:], -operator[1:, 0])
    density = weights * (before @ np.concatenate([[1.0], coefficients]))
    square = float(density @ np.repeat(x**2, len(p)))
    return square + sigma**2 if carries else square


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("sm,sn->smn", left, right).reshape(len(left), -1)


def _powers(weights: np.ndarray, count: int) -> np.ndarray:
    weights = weights / weights.sum()
    total = np.ones(1)
    for _ in range(count):
        total = np.multiply.outer(total, weights).ravel()
    return total
