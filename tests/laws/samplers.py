"""The kernels under test, by the names that the oracle uses, and their targets."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

import sgmcmc

WORDS = ("BAOAB", "OBABO", "ABOBA", "OABAO", "BAOA", "AOAB", "UBU", "BUB", "BAO", "OBA", "ABO")
EULERS = ("sghmc", "euler_maruyama")
OVERDAMPED = ("sgld", "leimkuhler_matthews")
THIRD_ORDER = ("sort", "should", "quicsort")
NAMES = (*WORDS, *EULERS, *OVERDAMPED)


def make(name: str, posterior: Any, step_size: Any, **numbers: Any) -> Any:
    """The kernel called `name`: a word in capitals, or a function of `sgmcmc`."""
    if name.isupper():
        return sgmcmc.langevin(posterior, step_size, word=name, **numbers)
    if name in OVERDAMPED:
        numbers.pop("friction", None)
    return getattr(sgmcmc, name)(posterior, step_size, **numbers)


def harmonic(k: float = 1.0) -> Any:
    """U = k |x|²/2."""
    return sgmcmc.Posterior.from_log_density(Partial(_harmonic, jnp.asarray(k, float)))


def noisy_harmonic() -> tuple[Any, Any]:
    """U = x²/2 with gradient errors ±1: the posterior, and its two batches of one example."""
    posterior = sgmcmc.Posterior(_tilt, _standard, data_size=1)
    return posterior, [sgmcmc.Batch(jnp.array([sign])) for sign in (1.0, -1.0)]


def quadratics(stiffness: Any, centres: Any) -> tuple[Any, Any]:
    """U = Σ k_i (x − m_i)²/2: the posterior, and its batches of one example."""
    posterior = sgmcmc.Posterior(_quadratic, _flat, data_size=len(stiffness))
    batches = [
        sgmcmc.Batch((jnp.array([k]), jnp.array([m])))
        for k, m in zip(stiffness, centres, strict=True)
    ]
    return posterior, batches


def _harmonic(k: Any, x: Any) -> Any:
    return -0.5 * k * jnp.sum(x**2)


def _standard(x: Any) -> Any:
    return -0.5 * jnp.sum(x**2)


def _flat(x: Any) -> Any:
    return 0.0 * jnp.sum(x)


def _tilt(x: Any, sign: Any) -> Any:
    return sign * jnp.sum(x)


def _quadratic(x: Any, example: Any) -> Any:
    k, m = example
    return -0.5 * k * (x[0] - m) ** 2
