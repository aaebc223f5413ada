"""`step_size=None` with a Metropolis correction: a step by how often it is accepted.

Such kernels are exact at any step: it is a matter of efficiency alone.

    mala            .574 of all steps accepted (Roberts and Rosenthal 1998), first try d^{−1/3}/λ
    hmc             .8 (Hoffman and Gelman 2014, arXiv 1111.4246), first try d^{−1/4}/ω
    amagold, sggmc  .8 of all blocks, first try the step of OBABO by `sgmcmc.tuning`

λ = ω² is the largest curvature. Chains of BAOAB (of OBABO) with a step by the rules of
`sgmcmc.tuning` go from the mode to where acceptance is measured, over 50 steps (blocks) of each
of 8 chains; the same places and numbers for every step. The step is doubled or halved until the
target lies between two, then bisected (its logarithm) until it is met within .05. It is at most
9/10 of the limit of stability, which is 2/ω, for `mala` 2/λ.

`friction="auto"` is ω/10, what 1/(10 h) is where curvature decides: heat from gradient noise,
which more friction would take up, is refused instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._schedule import Constant
from sgmcmc.clocks._adaptive import Untuned
from sgmcmc.exact._base import AbstractCorrectedKernel
from sgmcmc.exact._blackjax import AbstractFullGradientKernel, Hmc, Mala
from sgmcmc.kernels._flows import LANGEVIN
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import plan, table
from sgmcmc.streams import _source as batches
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._record import Tuning, tuned
from sgmcmc.tuning._rules import settled, tune_and_mode
from sgmcmc.tuning._trial import TRIAL_STEPS, WALKERS, mean_along_chains
from sgmcmc.types import Array, Key, PyTree

MALA_TARGET, TARGET, BAND = 0.574, 0.8, 0.05

BLOCKS, TRIES, MOST, NARROWEST = 50, 30, 1.8, 1.02


def tune_acceptance(
    key: Key,
    kernel: AbstractCorrectedKernel | AbstractFullGradientKernel,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int,
) -> Tuning:
    """Choose h; arguments and errors as `tuning.tune`. `found`: the acceptance, and its target."""
    look_key, walk_key, steps_key = jax.random.split(key, 3)
    kernel, word = settled(kernel, count), _uncorrected(kernel)
    choice, mode = tune_and_mode(look_key, word, params, data, stream, batch_size, count)
    source = word.source(stream, batch_size, data)
    made = tuned(settled(word, count), choice)
    _, places = mean_along_chains(made, _nothing, mode, source, walk_key)
    spent = choice.gradient_evaluations + 2 * WALKERS * TRIAL_STEPS
    target, guess, most = _aims(kernel, choice, trees.size(mode))
    friction = None
    if isinstance(kernel, AbstractCorrectedKernel) and choice.friction is not None:
        friction = math.sqrt(choice.curvature) / 10
    choice = choice._replace(friction=friction)
    source = kernel.source(stream, batch_size, data)
    passes = streams.num_batches(*source.sizes) if data is not None else 1
    cost = kernel.traits.gradient_evaluations + kernel.traits.full_energies * passes / 3

    def measure(step: float) -> float:
        made = tuned(kernel, choice._replace(step_size=step))
        return float(_acceptance(made, places, source, jax.random.clone(steps_key)))

    step, found, tries = _met(measure, guess, most, target)
    return choice._replace(
        step_size=step,
        limits={"stability": most, "acceptance": step},
        reason="acceptance" if step < most else "stability",
        halvings=0,
        gradient_evaluations=float(spent + tries * WALKERS * BLOCKS * cost),
        found={"acceptance": found, "target": target},
    )


def _aims(kernel: Any, choice: Tuning, size: int) -> tuple[float, float, float]:
    """The acceptance to meet, the first step to try, and the longest."""
    if isinstance(kernel, Mala):
        unit = 1 / choice.curvature
        return MALA_TARGET, unit * size ** (-1 / 3), MOST * unit
    unit = 1 / math.sqrt(choice.curvature)
    guess = unit * size ** (-1 / 4) if isinstance(kernel, Hmc) else choice.step_size
    return TARGET, guess, MOST * unit


def _met(
    measure: Callable[[float], float], guess: float, most: float, target: float
) -> tuple[float, float, int]:
    """(step, its acceptance, tries), by doubling or halving, and then between two."""
    step, short, long = min(guess, most), 0.0, math.inf
    for tries in range(1, TRIES + 1):
        found = measure(step)
        good = abs(found - target) <= BAND or (found > target and step >= most)
        if good or (found > target and long / step < NARROWEST):
            return step, found, tries
        if found > target:
            short = step
        else:
            long = step
        if short == 0:
            step = long / 2
        else:
            step = min(2 * short, most) if math.isinf(long) else math.sqrt(short * long)
    raise FloatingPointError(
        f"step_size: none found; of the steps of {step:.3g} a share of {found:.3g} is accepted, "
        f"after {TRIES} tries for {target:g}. Give a step_size, rescale the parameters (metric=), "
        "or look for NaN in the data"
    )


@eqx.filter_jit
def _acceptance(kernel: Any, places: PyTree, source: batches.Source, key: Key) -> Array:
    """Mean acceptance over `BLOCKS` steps from each of `places`; 0 where it is not a number."""

    def one(key: Key, place: PyTree) -> Array:
        state_key, steps_key, stream_key = jax.random.split(key, 3)
        state = kernel.init(place, state_key, source.data)

        def step(t: Array, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            state, order, total = carry
            order, given, _ = batches.next_batch(source, stream_key, t, order, batches.no_vmap)
            state, info = kernel.step(jax.random.fold_in(steps_key, t), state, given)
            return state, order, total + jnp.nan_to_num(info.acceptance).astype(total.dtype)

        begin = (state, batches.empty_order(source, stream_key), jnp.zeros(()))
        total: Array = jax.lax.fori_loop(0, BLOCKS, step, begin)[2]
        return total / BLOCKS

    return jnp.mean(jax.vmap(one)(jax.random.split(key, WALKERS), places))


def _uncorrected(kernel: Any) -> SplittingKernel:
    """What the kernel does but for its correction, untuned; where it has no friction, `auto`'s."""
    nothing = Constant(jnp.asarray(jnp.nan, dtype=float))
    corrected = isinstance(kernel, AbstractCorrectedKernel)
    name = "obabo" if corrected else "baoab"
    word = plan(name.upper(), table(*LANGEVIN))
    return SplittingKernel(
        posterior=kernel.posterior,
        clock=Untuned(),
        friction=kernel.friction if corrected else nothing,
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


def _nothing(gradient: PyTree) -> PyTree:
    return ()
