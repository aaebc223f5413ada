"""Averages of the weights along training: SWA, and the mean over cycles of a learning rate.

    w_swa ← w_swa + (w − w_swa)/(n + 1),   n ← n + 1

after every c-th epoch from a start on (Izmailov et al., arXiv 1803.05407). The rates are optax
schedules and the average is an optax transformation, for an ordinary training loop. Statistics
of batch normalisation belong to the weights they were taken with: see
`sgmcmc.optim.refresh_batch_statistics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jax.typing import ArrayLike

if TYPE_CHECKING:
    import optax

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import check_range
from sgmcmc.types import Array, PyTree


class AverageState(NamedTuple):
    """The state of `weight_average`.

    Attributes:
        average: what to evaluate, float32 at least; the last parameters while `number` is 0.
        number: () int32, how many parameters it is the mean of.
        step: () int32, steps made.
        rest: what rounding has taken from `average`; the mean of many parameters far from 0 would
            stand still without.
    """

    average: PyTree
    number: Array
    step: Array
    rest: PyTree

    @property
    def to_evaluate(self) -> PyTree:
        """What `sgmcmc.optim.fit` evaluates and returns."""
        return self.average


def weight_average(start: int, period: int) -> optax.GradientTransformation:
    """The running mean of the parameters after steps start, start + period, …, as optax has it.

    Last in a chain: it leaves the updates as they are, and anything after it would change the
    parameters that it has averaged. With B batches an epoch, the authors' rule "at the end of
    epoch e ≥ swa_start where c divides e − swa_start" is `weight_average(B * swa_start, B * c)`;
    for the end of each cycle of `cyclical_schedule(…, period)` it is
    `weight_average(period, period)`.

    Args:
        start: the first step, counted from 1, after which the parameters are averaged; ≥ 1.
        period: steps from one to the next, ≥ 1.

    Returns:
        An `optax.GradientTransformation` with an `AverageState`: evaluate
        `state[-1].average`, never the parameters.

    Raises:
        TypeError, ValueError: bad input, by name; from `update`, where `params` is missing.
    """
    import optax  # not at the top: `import sgmcmc` is quick without it

    checks.count(start, "start", least=1)
    checks.count(period, "period", least=1)
    update = Partial(_update, jnp.asarray(start, jnp.int32), jnp.asarray(period, jnp.int32))
    return optax.GradientTransformation(_init, update)


def _init(params: PyTree) -> AverageState:
    checks.require_floating(params, "params")
    average = jax.tree.map(_wide, params)
    return AverageState(average, jnp.int32(0), jnp.int32(0), trees.zeros_like(average))


def _update(
    start: Array, period: Array, updates: PyTree, state: AverageState, params: PyTree = None
) -> tuple[PyTree, AverageState]:
    import optax

    if params is None:
        raise ValueError("params: got None; call update(gradient, state, params)")
    following = jax.tree.map(_wide, optax.apply_updates(params, updates))
    step = state.step + 1
    taken = (step >= start) & ((step - start) % period == 0)

    def move(mean: Array, rest: Array, x: Array) -> tuple[Array, Array]:
        wanted = rest + ((x - mean) - rest) / (state.number + 1).astype(x.dtype)
        moved = mean + wanted
        left = wanted - (moved - mean)
        # Until there is a mean it is the parameters, and so is the mean of one.
        first = state.number == 0
        return (
            jnp.where(first, x, jnp.where(taken, moved, mean)),
            jnp.where(first, 0, jnp.where(taken, left, rest)),
        )

    both = jax.tree.map(move, state.average, state.rest, following)
    average, rest = (jax.tree.map(lambda _, b, i=i: b[i], following, both) for i in range(2))
    number = state.number + taken.astype(jnp.int32)
    return updates, AverageState(average, number, step, rest)


def _wide(x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    # A copy: buffers of the parameters may be donated.
    return jnp.array(x, trees.common_dtype(x.dtype, jnp.float32))


def swa_schedule(
    learning_rate: float,
    swa_learning_rate: float | None = None,
    *,
    start: int,
    steps_per_epoch: int = 1,
) -> Callable[[ArrayLike], Array]:
    """SWA's learning rate: constant, then linear down, then constant from .9 of `start` on.

    With t = e/start, e the epoch counted from 0: η₀ up to t = .5, swa_learning_rate from
    t = .9, between them a straight line.

    Args:
        learning_rate: η₀ > 0.
        swa_learning_rate: > 0, at most η₀; default η₀/100 with `start` the whole budget of
            epochs: the authors' plain SGD.
        start: swa_start, in epochs, ≥ 1.
        steps_per_epoch: B ≥ 1; the rate changes between epochs. Default 1: steps are epochs.

    Returns:
        An optax schedule, step -> rate.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    check_range(learning_rate, "learning_rate", above_zero=True)
    final = learning_rate / 100 if swa_learning_rate is None else swa_learning_rate
    check_range(final, "swa_learning_rate", above_zero=True, most=float(learning_rate))
    checks.count(start, "start", least=1)
    checks.count(steps_per_epoch, "steps_per_epoch", least=1)
    numbers = (jnp.asarray(x, float) for x in (learning_rate, final, start))
    return Partial(_swa_rate, *numbers, jnp.asarray(steps_per_epoch, jnp.int32))


def _swa_rate(first: Array, final: Array, start: Array, per_epoch: Array, step: ArrayLike) -> Array:
    fallen = jnp.clip(((jnp.asarray(step) // per_epoch) / start - 0.5) / 0.4, 0, 1)
    return (1 - fallen) * first + fallen * final  # exact at both ends


def cyclical_schedule(
    highest: float, lowest: float, *, period: int, shape: str = "sawtooth"
) -> Callable[[ArrayLike], Array]:
    """A learning rate in cycles, whose ends are averaged (SWA) or gathered (fast geometric).

    With t = (i mod period + 1)/period of the step i counted from 0: "sawtooth" falls from
    `highest` to `lowest`, (1 − t) highest + t lowest, in every cycle; the mean of its ends is
    `weight_average(period, period)`. "triangle" falls to `lowest` at t = ½ and rises again
    (Garipov et al., arXiv 1802.10026); its middles are `weight_average(period // 2, period)`.
    After a burn-in of K steps: `optax.join_schedules([before, cyclical_schedule(…)], [K])`, and
    K more for the average's `start`.

    Args:
        highest: > 0.
        lowest: > 0, at most `highest`.
        period: steps of a cycle, ≥ 1; a triangle's is even.
        shape: "sawtooth" (default) or "triangle".

    Returns:
        An optax schedule, step -> rate.

    Raises:
        TypeError, ValueError: bad input, by name.
    """
    check_range(highest, "highest", above_zero=True)
    check_range(lowest, "lowest", above_zero=True, most=float(highest))
    checks.count(period, "period", least=1)
    checks.choice(shape, "shape", ("sawtooth", "triangle"))
    if shape == "triangle" and period % 2:
        raise ValueError(f"period: got {period}; a triangle's is even")
    rate = _sawtooth if shape == "sawtooth" else _triangle
    numbers = (jnp.asarray(x, float) for x in (highest, lowest))
    return Partial(rate, *numbers, jnp.asarray(period, jnp.int32))


def _sawtooth(highest: Array, lowest: Array, period: Array, step: ArrayLike) -> Array:
    return highest + (lowest - highest) * _phase(period, step)


def _triangle(highest: Array, lowest: Array, period: Array, step: ArrayLike) -> Array:
    return lowest + (highest - lowest) * jnp.abs(1 - 2 * _phase(period, step))


def _phase(period: Array, step: ArrayLike) -> Array:
    return (jnp.asarray(step) % period + 1) / period
