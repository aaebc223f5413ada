"""A line through ten examples, and the short run of it that tests of `sample` share."""

import jax
import jax.numpy as jnp
import numpy as np

import sgmcmc
from sgmcmc import Posterior

N, D = 10, 3
DATA = {
    "x": np.sin(np.arange(N * D)).reshape(N, D).astype(np.float32),
    "y": np.cos(np.arange(N)).astype(np.float32),
}
SEED = 5


def log_likelihood(params, batch):
    return -0.5 * (batch["y"] - batch["x"] @ params["w"] - params["b"]) ** 2


def log_prior(params):
    return -0.5 * (jnp.sum(params["w"] ** 2) + params["b"] ** 2)


POSTERIOR = Posterior(log_likelihood, log_prior, data_size=N)
PARAMS = {"w": jnp.array([0.1, -0.2, 0.3]), "b": jnp.array(0.5)}
BAOAB = sgmcmc.baoab(POSTERIOR, 0.05)


def run(kernel=BAOAB, params=None, key=None, **options):
    options = {
        "batch_size": 3, "num_chains": 2, "num_burnin": 5, "num_samples": 12,
        "chain_method": "vmap", "progress": False, **options,
    }  # fmt: skip
    key = jax.random.key(SEED) if key is None else key
    return sgmcmc.sample(key, kernel, PARAMS if params is None else params, DATA, **options)
