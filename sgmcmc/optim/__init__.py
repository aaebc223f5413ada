"""Optimizers and training loops: fits, modes, Entropy-SGD, averages of weights."""

from sgmcmc.optim._batch_norm import refresh_batch_statistics
from sgmcmc.optim._entropy_sgd import EntropyState, entropy_sgd, entropy_sgld, parle
from sgmcmc.optim._find_mode import find_mode
from sgmcmc.optim._fit import Evaluation, Fitted, NonFiniteLossError, Snapshot, fit
from sgmcmc.optim._laplace import Laplace, hessian, laplace
from sgmcmc.optim._swa import AverageState, cyclical_schedule, swa_schedule, weight_average

__all__ = [
    "AverageState",
    "EntropyState",
    "Evaluation",
    "Fitted",
    "Laplace",
    "NonFiniteLossError",
    "Snapshot",
    "cyclical_schedule",
    "entropy_sgd",
    "entropy_sgld",
    "find_mode",
    "fit",
    "hessian",
    "laplace",
    "parle",
    "refresh_batch_statistics",
    "swa_schedule",
    "weight_average",
]
