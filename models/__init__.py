"""Models to sample: exact references, regressions and small Bayesian neural networks.

Each builder returns a `Model(init, predict, log_likelihood, log_prior)`;
`model.posterior(data_size)` is what the samplers take.
"""

from sgmcmc.models import posteriordb, priors
from sgmcmc.models.bnn import mlp
from sgmcmc.models.cnn import cnn
from sgmcmc.models.gaussian import gaussian
from sgmcmc.models.laplace import Laplace, laplace
from sgmcmc.models.linear import linear_regression
from sgmcmc.models.logistic import logistic_regression
from sgmcmc.models.model import Model
from sgmcmc.models.problem import Problem, linear_problem, logistic_problem

__all__ = [
    "Laplace",
    "Model",
    "Problem",
    "cnn",
    "gaussian",
    "laplace",
    "linear_problem",
    "linear_regression",
    "logistic_problem",
    "logistic_regression",
    "mlp",
    "posteriordb",
    "priors",
]
