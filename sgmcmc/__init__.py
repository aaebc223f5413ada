"""Stochastic-gradient MCMC on JAX: posteriors of neural networks, by proven samplers."""

from typing import Any

from sgmcmc import clocks, convert, gradients, metrics, reducers, streams
from sgmcmc.archive import load
from sgmcmc.chains import use_cpu_devices
from sgmcmc.compensation import running_variance
from sgmcmc.exchange import replica_exchange
from sgmcmc.integrators import babo, bub, quicsort, should, sort, symplectic_euler
from sgmcmc.interop import from_blackjax
from sgmcmc.kernels import (
    aboba,
    baoab,
    euler_maruyama,
    langevin,
    leimkuhler_matthews,
    obabo,
    sghmc,
    sgld,
    ubu,
)
from sgmcmc.modes import find_mode
from sgmcmc.posterior import Posterior
from sgmcmc.preconditioned import psgld
from sgmcmc.run import NonFiniteError, Run
from sgmcmc.sampler import sample
from sgmcmc.thermostats import sgnht
from sgmcmc.types import Batch, Info, Kernel, State
from sgmcmc.version import __version__

__all__ = [
    "Batch",
    "Info",
    "Kernel",
    "NonFiniteError",
    "Posterior",
    "Run",
    "State",
    "__version__",
    "aboba",
    "babo",
    "baoab",
    "bub",
    "clocks",
    "convert",
    "euler_maruyama",
    "find_mode",
    "from_blackjax",
    "gradients",
    "langevin",
    "leimkuhler_matthews",
    "load",
    "metrics",
    "obabo",
    "psgld",
    "quicsort",
    "reducers",
    "replica_exchange",
    "running_variance",
    "sample",
    "sghmc",
    "sgld",
    "sgnht",
    "should",
    "sort",
    "streams",
    "symplectic_euler",
    "ubu",
    "use_cpu_devices",
]


def __getattr__(name: str) -> Any:
    """`sgmcmc.models` and `sgmcmc.diagnostics` are loaded when they are first asked for."""
    if name in ("models", "diagnostics"):
        from importlib import import_module

        return import_module(f"sgmcmc.{name}")
    raise AttributeError(f"module 'sgmcmc' has no attribute {name!r}")
