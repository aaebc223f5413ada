"""`Problem`: all that it takes to sample a posterior and to compare it with draws by others.

Parameters that are positive are sampled as logarithms; `transform` turns them back, and the
log prior holds the Jacobian log σ. Builders for the usual kinds: linear regression of unknown
scale, and logistic regression, under any prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc.models import _likelihoods as likelihoods
from sgmcmc.types import Array, PyTree


class Problem(NamedTuple):
    """A posterior with its data.

    Attributes:
        posterior: over parameters on the whole real line, Jacobians included.
        data: pytree of arrays with one leading axis.
        params: a rough place to begin, a pytree of floating arrays.
        transform: `params -> {name: array}`, the parameters as others name them.
    """

    posterior: Posterior
    data: PyTree
    params: PyTree
    transform: Callable[[PyTree], Mapping[str, Array]]


def linear_problem(
    x: ArrayLike,
    y: ArrayLike,
    log_prior: Callable[[Array, Array], Array] | None = None,
    *,
    transform: Callable[[PyTree], Mapping[str, Array]] | None = None,
) -> Problem:
    """y_i ~ N(x_i · β, σ), parameters {"beta": (d,), "log_sigma": ()}.

    Args:
        x: (n, d) features, with a column of ones where there is an intercept.
        y: (n,) responses.
        log_prior: `(beta (d,), sigma ()) -> ()`, log density in β and σ > 0 up to a constant,
            without a Jacobian; a prior cut to σ > 0 has the density of the whole one. None:
            flat in both, which is improper and needs n > d + 1 and independent columns.
        transform: see `Problem`; default {"beta": β, "sigma": σ}.

    Returns:
        A `Problem` that begins at least squares.

    Raises:
        TypeError, ValueError: other shapes, or numbers that are not finite.
    """
    x, y = _design(x, y)
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    scale = max(float(np.std(y - x @ beta)), 1e-6 * (float(np.std(y)) or 1.0))
    params = {"beta": jnp.asarray(beta, float), "log_sigma": jnp.asarray(np.log(scale), float)}
    prior = None if log_prior is None else trees.as_callable(log_prior, "log_prior")
    return Problem(
        Posterior(Partial(_normal), Partial(_log_sigma_prior, prior), data_size=len(y)),
        (x, y),
        params,
        Partial(_beta_and_sigma)
        if transform is None
        else trees.as_callable(transform, "transform"),
    )


def logistic_problem(
    x: ArrayLike,
    y: ArrayLike,
    log_prior: Callable[[Array], Array] | None = None,
    *,
    transform: Callable[[PyTree], Mapping[str, Array]] | None = None,
) -> Problem:
    """P(y_i = 1) = 1/(1 + exp(−x_i · β)), parameters {"beta": (d,)}.

    Args:
        x: (n, d) features, with a column of ones where there is an intercept.
        y: (n,) zeros and ones.
        log_prior: `beta (d,) -> ()`, in nats up to a constant; None: flat, which is improper.
        transform: see `Problem`; default {"beta": β}.

    Raises:
        TypeError, ValueError: other shapes or labels, or numbers that are not finite.
    """
    x, y = _design(x, y)
    if not np.isin(y, (0, 1)).all():
        raise ValueError("y: expected zeros and ones")
    prior = None if log_prior is None else trees.as_callable(log_prior, "log_prior")
    return Problem(
        Posterior(Partial(_bernoulli), Partial(_beta_prior, prior), data_size=len(y)),
        (x, y),
        {"beta": jnp.zeros(x.shape[1])},
        Partial(_beta_alone) if transform is None else trees.as_callable(transform, "transform"),
    )


def _design(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """x (n, d) and y (n,) in float64, checked to be finite."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(y):
        raise ValueError(f"x, y: got shapes {x.shape} and {y.shape}; expected (n, d) and (n,)")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x, y: expected finite numbers")
    return x, y


def _normal(params: PyTree, batch: PyTree) -> Array:
    x, y = likelihoods.split_batch(batch)
    beta, log_sigma = params["beta"], params["log_sigma"]
    error = (y - x @ beta) * jnp.exp(-log_sigma)
    return -0.5 * error**2 - log_sigma - 0.5 * jnp.log(2 * jnp.pi)


def _bernoulli(params: PyTree, batch: PyTree) -> Array:
    x, y = likelihoods.split_batch(batch)
    logits = x @ params["beta"]
    return y * logits - jax.nn.softplus(logits)


def _log_sigma_prior(prior: Callable[..., Array], params: PyTree) -> Array:
    jacobian = params["log_sigma"]
    if prior is None:
        return jacobian
    return prior(params["beta"], jnp.exp(params["log_sigma"])) + jacobian


def _beta_prior(prior: Callable[..., Array], params: PyTree) -> Array:
    return jnp.zeros((), params["beta"].dtype) if prior is None else prior(params["beta"])


def _beta_and_sigma(params: PyTree) -> dict[str, Array]:
    return {"beta": params["beta"], "sigma": jnp.exp(params["log_sigma"])}


def _beta_alone(params: PyTree) -> dict[str, Array]:
    return {"beta": params["beta"]}
