"""Every public sampler, how to build it, and what it bears: a row here, and all of
`tests/contract/test_samplers.py` holds for it. `test_registry.py` sees a missing row."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import sgmcmc
from sgmcmc import gradients, metrics
from tests.problems import Problem

NOISES = ("gaussian", "fast")
USUAL = ("posterior", "step_size", "temperature", "metric", "gradient", "noise")


class Row(NamedTuple):
    """A sampler under test.

    Attributes:
        name: the public function.
        build: `build(problem, step_size=…, temperature=…, **options)` gives a kernel.
        step_size: one that suits `problems.regression()`, of curvatures from 8 to 30.
        variant: tells rows of one function apart.
        shown: what its `repr` must contain.
        takes: those of its arguments that every sampler refuses alike when they are bad.
        noises: kinds of noise that it bears; () where it has no such argument.
        affine: its step is affine on a Gaussian: the law is exact algebra.
        bias: largest error of a variance, relative, at `step_size` with gradients of all data.
        spread: variance that the law has beyond the target's, in each coordinate.
        far: where in every coordinate the far start of `test_its_law` is; as far as 1,000 steps go.
        freezes: bears temperature 0, where it optimises.
        stream, batch_size: what it is run with; None: the stream it asks for, and all data.
        needs_data: its `sample` is given data.
        leaves: its numbers are leaves, not closures.
        extra: the package it needs.
    """

    name: str
    build: Callable[..., Any]
    step_size: float
    variant: str = ""
    shown: str = ""
    takes: tuple[str, ...] = USUAL
    noises: tuple[str, ...] = NOISES
    affine: bool = False
    bias: float = 0.0
    spread: float = 0.0
    far: float = 20.0
    freezes: bool = True
    stream: str | None = None
    batch_size: int | None = 6
    needs_data: bool = True
    leaves: bool = True
    extra: str | None = None

    @property
    def id(self) -> str:
        """How pytest calls it."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def kernel(self, problem: Problem, **numbers: Any) -> Any:
        """The kernel at `step_size`, or with the given numbers in its place."""
        return self.build(problem, **{"step_size": self.step_size, **numbers})

    def available(self) -> bool:
        """Whether the package that it needs is there."""
        return self.extra is None or importlib.util.find_spec(self.extra) is not None


def plain(name: str, **fixed: Any) -> Callable[..., Any]:
    """A sampler of `(posterior, step_size, …)`, with these arguments by default."""

    def build(problem: Problem, **numbers: Any) -> Any:
        given = {"posterior": problem.posterior, **fixed, **numbers}
        return getattr(sgmcmc, name)(**given)

    return build


def over(name: str, **about: Any) -> Row:
    """An overdamped sampler of the usual arguments."""
    fixed = about.pop("fixed", {})
    return Row(**{"name": name, "build": plain(name, **fixed), "step_size": 0.01, **about})


def under(name: str, **about: Any) -> Row:
    """A sampler with friction; damped critically here, so that draws soon forget each other."""
    fixed = {"friction": 8.0, **about.pop("fixed", {})}
    given = {"takes": (*USUAL, "friction"), "step_size": 0.05, **about}
    return Row(**{"name": name, "build": plain(name, **fixed), **given})


def _replicas(problem: Problem, step_size: Any, temperature: Any = 1.0, **options: Any) -> Any:
    swap_every = options.pop("swap_every", 2)
    inner = sgmcmc.baoab(problem.posterior, step_size, friction=8.0, **options)
    ladder = temperature * np.array([1.0, 1.5, 2.0])
    return sgmcmc.replica_exchange(inner, ladder, swap_every=swap_every)


def _replicas_with_snapshots(problem: Problem, **numbers: Any) -> Any:
    return _replicas(problem, **numbers, swap_every=1, gradient=gradients.svrg(3))


PULL = 100.0  # γ of the local entropy


def _gibbs(problem: Problem, step_size: Any, temperature: Any = 1.0, **options: Any) -> Any:
    inner = sgmcmc.sgld(problem.posterior, 1e-3, temperature=temperature, **options)
    entropy = sgmcmc.local.local_entropy(inner, PULL, num_steps=20)
    return sgmcmc.local.gibbs_posterior(entropy, step_size)


def _from_blackjax(problem: Problem, step_size: Any) -> Any:
    import blackjax

    data = jnp.asarray(problem.data)
    algorithm = blackjax.hmc(
        lambda params: problem.posterior.log_density(params, data),
        step_size=step_size,
        inverse_mass_matrix=jnp.ones(problem.size),
        num_integration_steps=4,
    )
    return sgmcmc.from_blackjax(algorithm, name="their hmc")


ALL = (
    over("sgld", affine=True, bias=0.3),
    over("leimkuhler_matthews", affine=True),
    # A step of psgld is as long as h at most.
    over("psgld", far=4.0, bias=0.25),
    over(
        "psgld",
        variant="frozen",
        # After seven steps G is for ever that of the start.
        far=0.5,
        fixed={"metric": metrics.rmsprop(decay=0.9, gamma=False, freeze_after=7)},
        bias=0.25,
    ),
    over("sa_sgld", bias=0.25),
    under("euler_maruyama", affine=True, bias=0.5),
    under("symplectic_euler", affine=True, bias=0.5),
    under("sghmc", affine=True, bias=0.5),
    under(
        "sghmc",
        variant="compensated",
        step_size=0.02,
        fixed={"friction": 20.0, "noise_estimate": gradients.running_variance(0.9)},
        bias=0.3,
    ),
    under(
        "langevin", variant="OABAO", fixed={"word": "OABAO"}, shown="oabao", affine=True, bias=0.1
    ),
    under("baoab", affine=True),
    under("aboba", affine=True, bias=0.1),
    under("obabo", affine=True, bias=0.1),
    under("babo", affine=True, bias=0.3),
    under("ubu", affine=True, bias=0.1),
    under("bub", affine=True, bias=0.1),
    under("sort", affine=True, bias=0.1),
    under("should", affine=True, bias=0.1),
    under("quicsort", affine=True, bias=0.1),
    under("sgnht", bias=0.05),
    under("samadams", bias=0.1),
    under("sa_sghmc", bias=0.1),
    Row("replica_exchange", _replicas, 0.05, takes=("step_size",), freezes=False),
    Row(
        "replica_exchange",
        _replicas_with_snapshots,
        0.05,
        variant="svrg",
        takes=("step_size",),
        freezes=False,
    ),
    under(
        "amagold",
        # Farther out its energy is off by more than it may be, and it stays where it is.
        far=4.0,
        fixed={"num_steps": 3},
        noises=("gaussian",),
        freezes=False,
        stream="with_replacement",
    ),
    under(
        "sggmc",
        fixed={"num_steps": 3},
        noises=("gaussian",),
        freezes=False,
        stream="with_replacement",
    ),
    over(
        "mala",
        step_size=0.02,
        takes=("posterior", "step_size", "temperature"),
        noises=(),
        freezes=False,
        batch_size=None,
        extra="blackjax",
    ),
    over(
        "hmc",
        step_size=0.1,
        fixed={"num_steps": 4},
        takes=("posterior", "step_size", "temperature", "metric"),
        noises=(),
        freezes=False,
        batch_size=None,
        extra="blackjax",
    ),
    Row(
        "gibbs_posterior",
        _gibbs,
        # η: the noise of μ, γ² T/(2(k + γ)) and more, heats by η times a half of it.
        0.002,
        takes=("step_size",),
        bias=0.3,
        spread=1 / PULL,
        freezes=False,
    ),
    Row(
        "from_blackjax",
        _from_blackjax,
        0.1,
        shown="their hmc",
        takes=(),
        noises=(),
        freezes=False,
        batch_size=None,
        needs_data=False,
        leaves=False,
        extra="blackjax",
    ),
)


def public_samplers() -> set[str]:
    """Names of every public function that makes a sampler."""
    names = {
        name
        for door in (sgmcmc.kernels, sgmcmc.exact)
        for name in door.__all__
        if inspect.isfunction(getattr(door, name))
    }
    return names | {"gibbs_posterior", "from_blackjax"}
