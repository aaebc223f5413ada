"""The swap rule of replica exchange, for energies known up to noise.

Two chains at temperatures T₁ < T₂ exchange their positions with probability min(1, e^x),
x = a (U(θ₁) − U(θ₂)), a = 1/T₁ − 1/T₂. With an estimate of the difference that has Gaussian
noise of variance v, E min(1, e^x) at μ and at −μ no longer have the ratio e^μ that detailed
balance asks for. They have it again, exactly, with

    x = a (Ũ₁ − Ũ₂) − a² v/2                      (Deng et al. 2020, arXiv 2008.05367)

(for X ~ N(μ − s²/2, s²), E min(1, e^X) = Φ(μ/s − s/2) + e^μ Φ(−μ/s − s/2)). Where v itself is
the sample variance of n terms, χ² = a² v with ν = n − 1 degrees of freedom, what stands for
e^{−χ²/2} is the function whose mean is e^{−a²v/2}, a Bessel function; to third order

    χ²/2 + χ⁴/(4(ν + 2)) + χ⁶/(3(ν + 2)(ν + 4))   (Ceperley and Dewing 1999, physics/9812035).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgmcmc._posterior import Posterior
from sgmcmc.types import Array, Batch, PyTree


class Noise(NamedTuple):
    """The noise of an energy difference: variance in nats², and how well it is known.

    `dof`: the degrees of freedom of the variance, where it is an estimate; ∞ where it is known.
    """

    variance: Array
    dof: Array | float = float("inf")


class Measured(NamedTuple):
    """Energies by temperature, (R,), the differences of neighbours, (R − 1,), and their noise."""

    energies: Array
    differences: Array
    noise: Noise


def swap_probability(gap: Array, difference: Array, noise: Noise) -> Array:
    """min(1, e^x): with which probability two neighbours swap.

    Args:
        gap: a = 1/T₁ − 1/T₂.
        difference: the estimate of U(θ₁) − U(θ₂), in nats.
        noise: of `difference`; variance 0 for exact energies.
    """
    exponent = gap * difference - penalty(gap**2 * noise.variance, noise.dof)
    return jnp.exp(jnp.minimum(exponent, 0.0))


def penalty(variance: Array, dof: Array | float = float("inf")) -> Array:
    """χ²/2, and its corrections where χ² = a² v = `variance` is itself known from `dof` terms."""
    first, second = dof + 2, dof + 4
    taken = variance / 2 + variance**2 / (4 * first) + variance**3 / (3 * first * second)
    return jnp.where(jnp.isfinite(variance), taken, jnp.inf)


def batch_noise(differences: Array, mask: Array, data_size: int) -> Noise:
    """The noise of (N/n) Σ d_i, estimated from the batch's own d_i, drawn with replacement.

    Var = (N²/n) s². Swapping the two chains
    changes the sign of every d_i and leaves s² as it is, so the estimate is that of the pair
    at hand, in either direction. That it is of the same batch as the sum does no harm to the
    order of the Gaussian approximation itself: mean and variance of normal d_i are
    independent, and the skewness of others changes both by terms of the same size.

    Args:
        differences: (…, n), of the examples' energies, in nats.
        mask: (n,), 1 where a row counts.
        data_size: N.
    """
    n, mask = jnp.sum(mask), jnp.broadcast_to(mask, differences.shape)
    mean = jnp.sum(mask * differences, -1, keepdims=True) / n
    squares = jnp.sum(mask * (differences - mean) ** 2, -1)
    variance = data_size**2 / n * squares / jnp.maximum(n - 1, 1)
    # One example says nothing of a variance: no swap.
    return Noise(jnp.where(n < 2, jnp.inf, variance), jnp.maximum(n - 1, 1))


def exact(
    posterior: Posterior,
    positions: PyTree,
    batch: Batch | None,
    energy_variance: Array | None,
    block_size: int | None = None,
) -> Measured:
    """Energies over all data, which `batch` is, or of a target without data.

    Args:
        posterior: the target.
        positions: with a leading axis R, by temperature.
        batch: all data; None for a target without.
        energy_variance: () σ² of each energy where the target itself is noisy; None: none.
        block_size: examples evaluated at a time.
    """
    if not posterior.has_data:
        energies = jax.vmap(posterior.potential)(positions)
    else:
        data = None if batch is None else batch.data
        size = 4096 if block_size is None else block_size
        log_density = lambda one: posterior.log_density(one, data, block_size=size)  # noqa: E731
        energies = -jax.vmap(log_density)(positions)
    differences = energies[:-1] - energies[1:]
    return Measured(energies, differences, _known(energy_variance, differences))


def estimated(
    posterior: Posterior,
    positions: PyTree,
    batch: Batch | None,
    energy_variance: Array | None,
) -> Measured:
    """Energies from a batch, the same for all positions.

    Args:
        posterior: the target.
        positions: with a leading axis R, by temperature.
        batch: n < N examples drawn with replacement, that led to none of the positions; or all
            N, in n ≥ N rows; None for a target without data.
        energy_variance: () σ² of each energy; None: that of a difference is estimated, and 0
            of all the data.
    """
    if not posterior.has_data:
        return exact(posterior, positions, batch, energy_variance)
    assert posterior.data_size is not None
    assert batch is not None
    examples = jax.vmap(posterior.example_potentials, (0, None))(positions, batch.data)
    mask = jnp.ones(examples.shape[1:], examples.dtype)
    if batch.mask is not None:
        mask = batch.mask.astype(examples.dtype)
    priors = jax.vmap(posterior.prior_potential)(positions).astype(examples.dtype)
    factor, mask = posterior.data_size / jnp.sum(mask), mask[None]
    # Example by example first: sums over all data would lose the digits of a difference.
    pairs = examples[:-1] - examples[1:]
    differences = priors[:-1] - priors[1:] + factor * jnp.sum(mask * pairs, axis=-1)
    energies = priors + factor * jnp.sum(mask * examples, axis=-1)
    if energy_variance is None and mask.shape[-1] < posterior.data_size:
        noise = batch_noise(pairs, mask[0], posterior.data_size)
    else:
        noise = _known(energy_variance, differences)
    return Measured(energies, differences, noise)


def _known(energy_variance: Array | None, differences: Array) -> Noise:
    """2σ², the variance of a difference of two energies whose noises are independent."""
    each = jnp.zeros(()) if energy_variance is None else energy_variance
    return Noise(jnp.broadcast_to(2 * each.astype(differences.dtype), differences.shape))
