"""Samplers: what one step does, and the contract that all of them keep.

All share their arguments:

    posterior: what to sample, a `Posterior`.
    step_size: h > 0, a float, a schedule of the step index (optax's fit) or a clock; None:
        `sgmcmc.sample` or `sgmcmc.tune` chooses it.
    friction: γ ≥ 0 in 1/time, underdamped kernels only; a float or a schedule. Default 1.
        "auto", with `step_size=None`: 1/(10 h).
    temperature: T ≥ 0, a float or a schedule; 1 (default) samples the posterior, 0 optimises.
    metric: `metrics.identity()` (default), `diagonal(scale)` or `dense(covariance)`.
    gradient: the estimator of ∇U: `gradients.minibatch()` (default), `full()`,
        `control_variate(mode)`, `svrg(refresh_every)`, `saga()`, or one of your own
        (`gradients.AbstractEstimator`). Its memory is `State.estimator`.
    noise: "gaussian" (default: the numbers of `jax.random.normal`) or "fast" (moments of a
        normal through order 5, bounded by 2.74; keeps weak order 2 and costs less).

All raise a TypeError or ValueError at the call that names the argument, what was given and
what is allowed. `kernel.traits.order` is the weak order with exact gradients, and
`repr(kernel)` shows the numbers: `baoab(step_size=0.01, friction=2, minibatch)`.

A letter, a word with a name, or a kernel that is no word, of your own: `AbstractFlow`,
`AbstractKernel`, and `sgmcmc/kernels/README.md`.
"""

from sgmcmc.kernels._base import AbstractDynamics, AbstractKernel, Traits
from sgmcmc.kernels._euler import euler_maruyama, leimkuhler_matthews, sgld, symplectic_euler
from sgmcmc.kernels._flows import AbstractFlow, Pace, Phase
from sgmcmc.kernels._langevin import aboba, babo, baoab, bub, langevin, obabo, ubu
from sgmcmc.kernels._psgld import psgld
from sgmcmc.kernels._replica_exchange import replica_exchange
from sgmcmc.kernels._samadams import sa_sghmc, sa_sgld, samadams
from sgmcmc.kernels._sghmc import sghmc
from sgmcmc.kernels._sgnht import sgnht
from sgmcmc.kernels._shifted_ode import quicsort, should, sort

__all__ = [
    "AbstractDynamics",
    "AbstractFlow",
    "AbstractKernel",
    "Pace",
    "Phase",
    "Traits",
    "aboba",
    "babo",
    "baoab",
    "bub",
    "euler_maruyama",
    "langevin",
    "leimkuhler_matthews",
    "obabo",
    "psgld",
    "quicsort",
    "replica_exchange",
    "sa_sghmc",
    "sa_sgld",
    "samadams",
    "sghmc",
    "sgld",
    "sgnht",
    "should",
    "sort",
    "symplectic_euler",
    "ubu",
]
