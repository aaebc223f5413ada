"""Stochastic-gradient MCMC on JAX: posteriors of neural networks, by proven samplers."""

from sgmcmc import clocks, convert, gradients, metrics, reducers, streams
from sgmcmc.archive import load
from sgmcmc.chains import use_cpu_devices
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
from sgmcmc.posterior import Posterior
from sgmcmc.run import NonFiniteError, Run
from sgmcmc.sampler import sample
from sgmcmc.types import Batch, Info, Kernel, State
from sgmcmc.version import __version__
