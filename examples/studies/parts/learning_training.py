"""A small ReLU network: its λ̂ over training, and after training on ever richer teachers."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sgmcmc
from sgmcmc import diagnostics

from .learning_networks import quietly

EXAMPLES, INPUTS, HIDDEN, NOISE, CHAINS = 2_000, 6, 12, 0.5, 8
TEACHERS = (1, 2, 4, 8)
# Steps of gradient descent at rate .005, from weights of N(0, .05²).
CHECKPOINTS = (0, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
RATE, SCALE = 0.005, 0.05
# Over training the pull must hold what is no minimum yet; for trained networks it is weak.
PULL_IN_TRAINING, PULL_TRAINED = 300.0, 10.0


def forward(weights: Any, x: Any) -> Any:
    a, b, c, d = weights
    return jax.nn.relu(x @ a + b) @ c + d


def log_likelihood(weights: Any, row: Any) -> Any:
    """N(f(x), .5²), without its constant."""
    x, y = row
    return -0.5 * ((y - forward(weights, x)) / NOISE) ** 2


def flat(weights: Any) -> Any:
    return jnp.zeros(())


def teacher(units: int, seed: int) -> tuple[Any, Any]:
    """Data of a network of so many ReLU units, each ±1.5 relu(u·x) with a unit vector u."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(INPUTS, max(TEACHERS)))
    directions /= np.linalg.norm(directions, axis=0)
    signs = 1.5 * rng.choice([-1, 1], max(TEACHERS))
    x = rng.normal(size=(EXAMPLES, INPUTS))
    y = np.maximum(x @ directions[:, :units], 0) @ signs[:units]
    y += NOISE * rng.normal(size=EXAMPLES)
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def start(seed: int, scale: float) -> Any:
    rng = np.random.default_rng(seed)
    shapes = ((INPUTS, HIDDEN), (HIDDEN,), (HIDDEN,), ())
    return [
        jnp.asarray(0 * z if i % 2 else scale * z, jnp.float32)
        for i, z in enumerate(rng.normal(size=shape) for shape in shapes)
    ]


def loss(weights: Any, data: Any) -> Any:
    return -jnp.mean(log_likelihood(weights, data))


@jax.jit
def to_minimum(weights: Any, data: Any) -> Any:
    """Adam on all data, with a rate that falls in three stages from .01 to .0001."""
    rate = optax.piecewise_constant_schedule(0.01, {10_000: 0.1, 20_000: 0.1})
    optimizer = optax.adam(rate)

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        weights, state = carry
        updates, state = optimizer.update(jax.grad(loss)(weights, data), state, weights)
        return (optax.apply_updates(weights, updates), state), None

    return jax.lax.scan(step, (weights, optimizer.init(weights)), None, 30_000)[0][0]


@functools.partial(jax.jit, static_argnames="steps")
def descend(weights: Any, data: Any, steps: int) -> Any:
    """Gradient descent on all data: a minibatch's noise would keep it off any minimum."""

    def step(weights: Any, _: Any) -> tuple[Any, None]:
        slope = jax.grad(loss)(weights, data)
        return jax.tree.map(lambda w, g: w - RATE * g, weights, slope), None

    return jax.lax.scan(step, weights, None, steps)[0]


def estimate(weights: Any, data: Any, pull: float, steps: int, seed: int) -> dict[str, Any]:
    """λ̂ by BAOAB on all data. Batches of 500 at twice this step gave 64 in place of 19."""
    posterior = sgmcmc.Posterior(log_likelihood, flat, data_size=EXAMPLES)
    found = quietly(
        lambda: diagnostics.learning_coefficient(
            jax.random.key(seed), posterior, weights, data, precision=pull,
            step_size=0.005, num_steps=steps, thinning=10, num_chains=CHAINS,
            kernel=functools.partial(sgmcmc.baoab, friction=3.0),
        )
    )  # fmt: skip
    return {
        "estimate": found.estimate,
        "error": found.standard_error,
        "rhat": found.r_hat,
        "below": found.share_below,
        "fall": found.fall,
        "loss": found.loss,
        "warnings": list(found.warnings),
    }


def trained(units: int, seed: int, shorter: int = 1) -> dict[str, Any]:
    """λ̂ at the minimum that a network reaches on a teacher of so many units."""
    data = teacher(units, seed)
    weights = to_minimum(start(seed, 0.3), data)
    return estimate(weights, data, PULL_TRAINED, 2_000 // shorter, seed)


def over_training(seed: int, shorter: int = 1) -> dict[str, dict[str, Any]]:
    """λ̂ at the checkpoints of one training run, on a teacher of four units."""
    data, weights, done, out = teacher(4, seed), start(seed, SCALE), 0, {}
    for count in CHECKPOINTS:
        if count > done:
            weights, done = descend(weights, data, count - done), count
        if shorter == 1 or count in (CHECKPOINTS[0], CHECKPOINTS[3]):
            out[str(count)] = estimate(weights, data, PULL_IN_TRAINING, 1_000 // shorter, seed)
    return out
