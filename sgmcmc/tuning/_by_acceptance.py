"""`step_size=None` with a Metropolis correction: a step by how often it is accepted.

Such kernels are exact at any step: it is a matter of efficiency alone.

    mala            .574 of all steps accepted (Roberts and Rosenthal 1998), first try d^{−1/3}/λ
    hmc             .8 (Hoffman and Gelman 2014, arXiv 1111.4246), first try d^{−1/4}/ω
    amagold, sggmc  .8 of all blocks, first try the step of OBABO by `_by_curvature`

λ = ω² is the largest curvature. Chains of BAOAB (of OBABO) with a step by the rules of
`_by_curvature` go from the mode to where acceptance is measured, over 50 steps (blocks) of each
of 8 chains; the same places and numbers for every step. The step is doubled or halved until the
target lies between two, then bisected (its logarithm) until it is met within .05. It is at most
9/10 of the limit of stability, which is 2/ω, for `mala` 2/λ.

`friction="auto"` is ω/10, what 1/(10 h) is where curvature decides: heat from gradient noise,
which more friction would take up, is refused instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._schedule import Unchosen
from sgmcmc.clocks._adaptive import Untuned
from sgmcmc.exact._base import AbstractCorrectedKernel
from sgmcmc.exact._blackjax import AbstractFullGradientKernel, Hmc, Mala
from sgmcmc.kernels._flows import LANGEVIN
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import plan, table
from sgmcmc.loop._chain import ChainKeys, fold
from sgmcmc.streams import _streams as streams
from sgmcmc.streams._source import Source
from sgmcmc.tuning._by_curvature import choose_by_curvature
from sgmcmc.tuning._problem import Problem
from sgmcmc.tuning._record import Tuning, with_tuning
from sgmcmc.tuning._rules import RULES
from sgmcmc.tuning._trial import mean_along_chains, nothing
from sgmcmc.types import Array, Info, Key, PyTree, State

Corrected: TypeAlias = AbstractCorrectedKernel | AbstractFullGradientKernel


class Aim(NamedTuple):
    """The acceptance to meet, the first step to try, and the longest."""

    target: float
    first: float
    longest: float


def choose_by_acceptance(key: Key, kernel: Corrected, problem: Problem) -> Tuning:
    """Choose h; arguments and errors as `choose_by_curvature`.

    `measured` of what is returned: the acceptance, and its target.

    Raises:
        FloatingPointError: after 30 tries no step is accepted as often as it should be.
    """
    mode_key, chains_key, steps_key = jax.random.split(key, 3)
    word = _uncorrected(kernel)
    tuning, mode = choose_by_curvature(mode_key, word, problem)
    made = with_tuning(word, tuning)
    _, places = mean_along_chains(made, nothing, mode, problem.source(made), chains_key)
    aim = _aim(kernel, tuning, trees.size(mode))
    friction = None
    if isinstance(kernel, AbstractCorrectedKernel) and tuning.friction is not None:
        friction = math.sqrt(tuning.curvature) / RULES.friction_steps
    tuning = tuning._replace(friction=friction)
    source = problem.source(kernel)

    def measure(step: float) -> float:
        made = with_tuning(kernel, tuning._replace(step_size=step))
        return float(_acceptance(made, places, source, jax.random.clone(steps_key)))

    step, acceptance, tries = step_at(measure, aim)
    steps = tries * RULES.path_chains * RULES.blocks
    walk = 2 * RULES.path_chains * RULES.trial_steps
    return (
        tuning.costing(walk)
        .costing(steps * _cost(kernel, problem, source))
        ._replace(
            step_size=step,
            limits={"stability": aim.longest, "acceptance": step},
            reason="acceptance" if step < aim.longest else "stability",
            halvings=0,
            measured={"acceptance": acceptance, "target": aim.target},
        )
    )


def _aim(kernel: Corrected, tuning: Tuning, size: int) -> Aim:
    """What to meet, by the kind of kernel, the curvature and the number of parameters."""
    if isinstance(kernel, Mala):
        unit = 1 / tuning.curvature
        return Aim(RULES.mala_target, unit * size ** (-1 / 3), RULES.longest * unit)
    unit = 1 / math.sqrt(tuning.curvature)
    first = unit * size ** (-1 / 4) if isinstance(kernel, Hmc) else tuning.step_size
    return Aim(RULES.target, first, RULES.longest * unit)


def _cost(kernel: Corrected, problem: Problem, source: Source) -> float:
    """Minibatch gradients of a step; an energy counts as a third of a gradient."""
    passes = streams.num_batches(*source.sizes) if problem.data is not None else 1
    return kernel.traits.gradient_evaluations + kernel.traits.full_energies * passes / 3


def step_at(measure: Callable[[float], float], aim: Aim) -> tuple[float, float, int]:
    """(step, its acceptance, tries), by doubling or halving, and then between two.

    Args:
        measure: the acceptance at a step.
        aim: what to meet.

    Raises:
        FloatingPointError: after 30 tries.
    """
    step, short, long = min(aim.first, aim.longest), 0.0, math.inf
    for tries in range(1, RULES.max_tries + 1):
        acceptance = measure(step)
        above = acceptance > aim.target
        met = abs(acceptance - aim.target) <= RULES.band or (above and step >= aim.longest)
        if met or (above and long / step < RULES.narrowest):
            return step, acceptance, tries
        if above:
            short = step
        else:
            long = step
        if short == 0:
            step = long / 2
        else:
            step = min(2 * short, aim.longest) if math.isinf(long) else math.sqrt(short * long)
    raise FloatingPointError(
        f"step_size: none found; of the steps of {step:.3g} a share of {acceptance:.3g} is "
        f"accepted, after {RULES.max_tries} tries for {aim.target:g}. Give a step_size, rescale "
        "the parameters (metric=), or look for NaN in the data"
    )


@eqx.filter_jit
def _acceptance(kernel: Corrected, places: PyTree, source: Source, key: Key) -> Array:
    """Mean acceptance over 50 steps from each of `places`; 0 where it is not a number."""

    def begin(state: State) -> Array:
        return jnp.zeros(())

    def add(t: Array, state: State, info: Info, total: Array) -> Array:
        assert info.acceptance is not None
        return total + jnp.nan_to_num(info.acceptance).astype(total.dtype)

    def chain(key: Key, place: PyTree) -> Array:
        keys = ChainKeys(*jax.random.split(key, 3))
        total: Array = fold(kernel, source, keys, place, RULES.blocks, begin, add)[1]
        return total / RULES.blocks

    return jnp.mean(jax.vmap(chain)(jax.random.split(key, RULES.path_chains), places))


def _uncorrected(kernel: Corrected) -> SplittingKernel:
    """OBABO or BAOAB in the kernel's place, without its correction, untuned; friction "auto"
    where the kernel has none.
    """
    corrected = isinstance(kernel, AbstractCorrectedKernel)
    name = "obabo" if corrected else "baoab"
    word = plan(name.upper(), table(*LANGEVIN))
    return SplittingKernel(
        posterior=kernel.posterior,
        clock=Untuned(),
        friction=kernel.friction if corrected else Unchosen(),
        temperature=kernel.temperature,
        metric=kernel.metric,
        gradient=kernel.gradient,
        flows=dict(word.flows),
        name=name,
        noise="gaussian",
        plan=word.plan,
        order=2,
        batches_per_step=1,
    )
