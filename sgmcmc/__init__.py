"""Stochastic-gradient MCMC on JAX: posteriors of neural networks, by proven samplers."""

from sgmcmc import (
    clocks,
    convert,
    exact,
    gradients,
    kernels,
    local,
    loop,
    metrics,
    noise,
    optim,
    reducers,
    sampling,
    streams,
    tuning,
    types,
)
from sgmcmc._interop import from_blackjax, to_blackjax
from sgmcmc._posterior import Posterior
from sgmcmc._version import __version__
from sgmcmc.exact import amagold, hmc, mala, sggmc
from sgmcmc.kernels import (
    aboba,
    babo,
    baoab,
    bub,
    euler_maruyama,
    langevin,
    leimkuhler_matthews,
    obabo,
    psgld,
    quicsort,
    replica_exchange,
    sa_sghmc,
    sa_sgld,
    samadams,
    sghmc,
    sgld,
    sgnht,
    should,
    sort,
    symplectic_euler,
    ubu,
)
from sgmcmc.loop import use_cpu_devices
from sgmcmc.sampling import NonFiniteError, Run, concat, load, sample
from sgmcmc.tuning import tune
from sgmcmc.types import Batch, Blocks, Info, State

__all__ = [
    "Batch",
    "Blocks",
    "Info",
    "NonFiniteError",
    "Posterior",
    "Run",
    "State",
    "__version__",
    "aboba",
    "amagold",
    "babo",
    "baoab",
    "bub",
    "clocks",
    "concat",
    "convert",
    "demo",
    "diagnostics",
    "euler_maruyama",
    "exact",
    "from_blackjax",
    "gradients",
    "hmc",
    "kernels",
    "langevin",
    "leimkuhler_matthews",
    "load",
    "local",
    "loop",
    "mala",
    "metrics",
    "models",
    "noise",
    "obabo",
    "optim",
    "psgld",
    "quicsort",
    "reducers",
    "replica_exchange",
    "sa_sghmc",
    "sa_sgld",
    "samadams",
    "sample",
    "sampling",
    "sggmc",
    "sghmc",
    "sgld",
    "sgnht",
    "should",
    "sort",
    "streams",
    "symplectic_euler",
    "to_blackjax",
    "tune",
    "tuning",
    "types",
    "ubu",
    "use_cpu_devices",
]


def __getattr__(name):  # type: ignore[no-untyped-def]
    """`models`, `diagnostics` and `demo` are loaded when they are first asked for."""
    if name in ("models", "diagnostics", "demo"):
        import importlib

        return importlib.import_module(f"sgmcmc.{name}")
    raise AttributeError(f"module 'sgmcmc' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What tab completion shows: the public names, those not loaded yet among them."""
    return __all__
