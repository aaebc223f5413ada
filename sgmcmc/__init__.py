"""Stochastic-gradient MCMC on JAX: posteriors of neural networks, by proven samplers."""

from typing import Any

from sgmcmc import clocks, convert, gradients, local, metrics, reducers, streams
from sgmcmc.adaptive import sa_sghmc, sa_sgld, samadams
from sgmcmc.archive import load
from sgmcmc.batch_statistics import refresh_batch_statistics
from sgmcmc.chains import use_cpu_devices
from sgmcmc.compensation import running_variance
from sgmcmc.entropy_optimiser import entropy_sgd, entropy_sgld
from sgmcmc.eulers import euler_maruyama, leimkuhler_matthews, sghmc, sgld, symplectic_euler
from sgmcmc.exact import amagold, sggmc
from sgmcmc.exchange import replica_exchange
from sgmcmc.fitted import Fitted, NonFiniteLossError, Snapshot
from sgmcmc.fitting import fit
from sgmcmc.full_gradient import hmc, mala
from sgmcmc.gibbs import gibbs_posterior
from sgmcmc.integrators import babo, bub, quicsort, should, sort
from sgmcmc.interop import from_blackjax
from sgmcmc.kernels import aboba, baoab, langevin, obabo, ubu
from sgmcmc.local import local_entropy
from sgmcmc.modes import find_mode
from sgmcmc.parle import parle
from sgmcmc.posterior import Posterior
from sgmcmc.preconditioned import psgld
from sgmcmc.run import NonFiniteError, Run
from sgmcmc.sampler import sample
from sgmcmc.thermostats import sgnht
from sgmcmc.types import Batch, Blocks, Info, Kernel, State
from sgmcmc.version import __version__
from sgmcmc.weight_averages import cyclical_schedule, swa_schedule, weight_average

__all__ = [
    "Batch",
    "Blocks",
    "Fitted",
    "Info",
    "Kernel",
    "NonFiniteError",
    "NonFiniteLossError",
    "Posterior",
    "Run",
    "Snapshot",
    "State",
    "__version__",
    "aboba",
    "amagold",
    "babo",
    "baoab",
    "bub",
    "clocks",
    "convert",
    "cyclical_schedule",
    "entropy_sgd",
    "entropy_sgld",
    "euler_maruyama",
    "find_mode",
    "fit",
    "from_blackjax",
    "gibbs_posterior",
    "gradients",
    "hmc",
    "langevin",
    "leimkuhler_matthews",
    "load",
    "local",
    "local_entropy",
    "mala",
    "metrics",
    "obabo",
    "parle",
    "psgld",
    "quicsort",
    "reducers",
    "refresh_batch_statistics",
    "replica_exchange",
    "running_variance",
    "sa_sghmc",
    "sa_sgld",
    "samadams",
    "sample",
    "sggmc",
    "sghmc",
    "sgld",
    "sgnht",
    "should",
    "sort",
    "streams",
    "swa_schedule",
    "symplectic_euler",
    "ubu",
    "use_cpu_devices",
    "weight_average",
]


def __getattr__(name: str) -> Any:
    """`sgmcmc.models` and `sgmcmc.diagnostics` are loaded when they are first asked for."""
    if name in ("models", "diagnostics"):
        from importlib import import_module

        return import_module(f"sgmcmc.{name}")
    raise AttributeError(f"module 'sgmcmc' has no attribute {name!r}")
