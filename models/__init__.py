"""Models to sample: exact references, regressions and small Bayesian neural networks.

Each builder returns a `Model(init, predict, log_likelihood, log_prior)`;
`model.posterior(data_size)` is what the samplers take.
"""

from sgmcmc.models import posteriordb, priors
from sgmcmc.models._gaussian import gaussian
from sgmcmc.models._model import Model
from sgmcmc.models._networks import cnn, mlp
from sgmcmc.models._problem import Problem, linear_problem, logistic_problem
from sgmcmc.models._regression import linear_regression, logistic_regression
from sgmcmc.optim import Laplace, laplace

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
