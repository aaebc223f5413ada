"""Models to sample: exact references, regressions and small Bayesian neural networks.

Each builder returns a `Model(init, predict, log_likelihood, log_prior)`;
`model.posterior(data_size)` is what the samplers take.
"""

from sgmcmc.models import priors
from sgmcmc.models.bnn import mlp
from sgmcmc.models.cnn import cnn
from sgmcmc.models.gaussian import gaussian
from sgmcmc.models.linear import linear_regression
from sgmcmc.models.logistic import logistic_regression
from sgmcmc.models.model import Model

__all__ = [
    "Model",
    "cnn",
    "gaussian",
    "linear_regression",
    "logistic_regression",
    "mlp",
    "priors",
]
