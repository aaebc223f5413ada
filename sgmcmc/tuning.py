"""`step_size=None`: a step from the curvature and the noise of the gradient.

Where a search for the mode ends (it goes on while |∇U|² > dλT: a typical draw has less),

    λ     the largest curvature of U, in the metric's coordinates: power iteration on the mean
          Hessian of some minibatches, plus its residual;  ω = √λ
    s²    the largest variance of a coordinate of the gradient estimate, over minibatches

and the step is the largest that keeps all of

    stability        h ω (overdamped: h λ) at half of the word's limit
    discretisation   the word's own error of ⟨x²⟩ on the stiffest mode at 5%
    gradient noise   its heat at 5%, h s²/(2γT) (overdamped: h s²/(2T)); or, where a stream
                     sweeps through the data, a sweep of K steps within half a period, K h ω ≤ π

Then 200 steps are made; where they leave the finite numbers, or are hotter by a quarter than
they should be, and by two standard errors, the step is halved, six times at most. Schedules of
temperature and friction count with what they are at the end of the burn-in. All of it follows
from the key.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import batches, streams, trees
from sgmcmc.curvature import draw_batches, gradient_noise, largest_curvature, slope
from sgmcmc.modes import find_mode
from sgmcmc.oscillator import variance
from sgmcmc.pace import Clock, Untuned
from sgmcmc.rates import Constant
from sgmcmc.types import Array, Batch, Key, PyTree

TOLERANCE = 0.05
MODE_STEPS, POWER_STEPS, BATCHES, TRIAL_STEPS = 500, 30, 32, 200
SEARCHES, FIRST_RATE, FASTER = 8, 0.01, 10
HALVINGS, TOO_HOT, BLOCKS = 6, 1.25, 10


class Tuning(NamedTuple):
    """What was chosen, and why; `run.tuning`.

    Attributes:
        step_size, friction: chosen; `friction` is None where it was given or there is none.
        curvature: λ with its residual, in the metric's coordinates.
        gradient_noise: s², largest over coordinates.
        limits: the step that each rule allows.
        reason: the rule that decided, with how often the step was halved after it.
        halvings: of the trial, and of chains that diverged in the burn-in.
        gradient_evaluations: minibatch gradients spent.
    """

    step_size: float
    friction: float | None
    curvature: float
    gradient_noise: float
    limits: dict[str, float]
    reason: str
    halvings: int
    gradient_evaluations: float

    def halved(self) -> Tuning:
        """The same at half the step."""
        return self._replace(step_size=self.step_size / 2, halvings=self.halvings + 1)

    def __repr__(self) -> str:
        limits = ", ".join(f"{name} {limit:.3g}" for name, limit in self.limits.items())
        friction = "" if self.friction is None else f", friction {self.friction:.3g}"
        return (
            f"step_size {self.step_size:.3g}{friction}: {self.reason}"
            f"{f', halved {self.halvings} times' if self.halvings else ''} "
            f"(limits: {limits}; curvature {self.curvature:.3g}, gradient noise "
            f"{self.gradient_noise:.3g}; {self.gradient_evaluations:,.0f} gradients)"
        )


def is_untuned(kernel: Any) -> bool:
    """Whether a kernel was made with `step_size=None`."""
    return isinstance(getattr(kernel, "clock", None), Untuned)


def tuned(kernel: Any, tuning: Tuning) -> Any:
    """The kernel with the numbers of `tuning`."""
    clock = Clock(Constant(jnp.asarray(tuning.step_size, dtype=float)))
    kernel = eqx.tree_at(lambda k: k.clock, kernel, clock)
    if tuning.friction is not None:
        friction = Constant(jnp.asarray(tuning.friction, dtype=float))
        kernel = eqx.tree_at(lambda k: k.friction, kernel, friction)
    return kernel


class _Seen(NamedTuple):
    """What was found out about U, and where."""

    mode: PyTree
    curvature: float
    noise: float
    spent: int


def tune(
    key: Key,
    kernel: Any,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int = 0,
) -> Tuning:
    """Choose the step of a kernel made with `step_size=None`; see the module.

    Args:
        key: consumed.
        kernel: a word or a list of sub-steps (`sgmcmc.kernels`, `sgmcmc.eulers`).
        params: one chain's start.
        data, stream, batch_size: as `checks.data_and_stream` gives them.
        count: the step at which schedules of temperature and friction are read.

    Raises:
        FloatingPointError: the search for the mode, or even the smallest step tried, did not
            stay finite; or there is no curvature where the search ended.
    """
    mode_key, power_key, noise_key, trial_key = jax.random.split(key, 4)
    kernel = _settled(kernel, count)
    source = batches.Source(streams.with_replacement(), batch_size, data)
    sampled = stream.name != "full" and data is not None
    temperature = float(kernel.temperature(jnp.zeros((), jnp.int32)))
    keys = mode_key, power_key, noise_key
    seen = _look(keys, kernel, params, source, sampled, temperature)
    swept = stream.name not in ("with_replacement", "full") and data is not None
    sweep = streams.num_batches(*source.sizes) if swept else 0
    friction, limits = _limits(kernel, seen.curvature, seen.noise, temperature, sweep)
    reason = min(limits, key=lambda name: limits[name])
    choice = Tuning(
        limits[reason], friction, seen.curvature, seen.noise, limits, reason, 0, float(seen.spent)
    )
    trial = batches.source(stream, batch_size, data, kernel)
    while not _stays(tuned(kernel, choice), seen.mode, trial, trial_key, temperature):
        if choice.halvings == HALVINGS:
            raise FloatingPointError(
                f"step_size: none found; {choice} did not stay finite, or cool, for "
                f"{TRIAL_STEPS} steps from the mode. Give a step_size, rescale the parameters "
                "(metric=), or look for NaN in the data"
            )
        choice = choice.halved()
    trials = (choice.halvings + 1) * 2 * TRIAL_STEPS
    return choice._replace(gradient_evaluations=float(seen.spent + trials))


def _settled(kernel: Any, count: int) -> Any:
    """The kernel with temperature and friction as they are at step `count`."""
    at = jnp.asarray(count, jnp.int32)
    kernel = eqx.tree_at(lambda k: k.temperature, kernel, Constant(kernel.temperature(at)))
    if kernel.friction is None:
        return kernel
    return eqx.tree_at(lambda k: k.friction, kernel, Constant(kernel.friction(at)))


def _look(
    keys: tuple[Key, Key, Key],
    kernel: Any,
    params: PyTree,
    source: batches.Source,
    sampled: bool,
    temperature: float,
) -> _Seen:
    """Search for the mode until it is flat enough, and measure there."""
    mode_key, power_key, noise_key = keys
    count = BATCHES if sampled else 1
    given = draw_batches(source, noise_key, count, sampled)
    mode, rate, spent = params, FIRST_RATE, 0
    for search in range(SEARCHES):
        try:
            found = find_mode(
                jax.random.fold_in(mode_key, search), kernel.posterior, mode, source.data,
                batch_size=source.batch_size if sampled else None, num_steps=MODE_STEPS,
                learning_rate=rate,
            )  # fmt: skip
        except FloatingPointError as error:
            raise FloatingPointError(
                "step_size: none found; the search for the mode left the finite numbers. Give a "
                "step_size, look for NaN in the data, or for a density that is not bounded"
            ) from error
        moved = max(
            float(jnp.max(jnp.abs(x - y)))
            for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(mode), strict=True)
        )
        mode = found
        value, residual = largest_curvature(
            kernel, mode, given, jax.random.clone(power_key), POWER_STEPS
        )
        curvature = float(jnp.abs(value) + residual)
        spent += MODE_STEPS + (2 * POWER_STEPS + 1) * count
        steep = float(slope(kernel, mode, given))
        if steep <= trees.size(mode) * curvature * (temperature or 1.0):
            break
        # Adam's steps are at most the rate, and half of it on average along the cosine: who has
        # moved as far as that is still on the way.
        rate *= FASTER if moved > rate * MODE_STEPS / 4 else 1
    if not (math.isfinite(curvature) and curvature > 0):
        raise FloatingPointError(
            f"step_size: none found; the curvature of U is {value} where the search for the mode "
            "ended, after which no step is measured. Give a step_size"
        )
    noise = float(gradient_noise(kernel, mode, given, source.data)) if sampled else 0.0
    return _Seen(mode, curvature, noise, spent + (2 * count if sampled else 0))


def _limits(
    kernel: Any, curvature: float, noise: float, temperature: float, sweep: int
) -> tuple[float | None, dict[str, float]]:
    """The friction, where it is to be chosen, and the step that each rule allows."""
    omega = math.sqrt(curvature)
    if kernel.friction is None:
        # Overdamped steps come in units of 1/λ: κ = hλ.
        edge = _stability(kernel.plan, 0.0)
        limits = {
            "stability": edge / 2 / curvature,
            "discretisation": _accurate(kernel.plan, 0.0, edge) / curvature,
        }
        heat = noise / (2 * temperature) if temperature > 0 else 0.0
        return None, limits | _noise_limit(heat, sweep, omega)
    asked = float(kernel.friction(jnp.zeros((), jnp.int32)))
    chooses = not math.isfinite(asked)
    # γ = 1/(10 h) with hω near 1 is γ/ω near .1, which the word's limits hardly depend on.
    friction = 0.1 * omega if chooses else asked
    edge = _stability(kernel.plan, friction / omega)
    limits = {
        "stability": edge / 2 / omega,
        "discretisation": _accurate(kernel.plan, friction / omega, edge) / omega,
    }
    if chooses:
        # γ = 1/(10 h), and the heat h s²/(2γT) = 5 h² s²/T.
        heat = math.sqrt(5 * noise / (temperature * TOLERANCE)) * TOLERANCE if temperature else 0.0
        limits |= _noise_limit(heat, sweep, omega)
        return 1 / (10 * min(limits.values())), limits
    heat = noise / (2 * friction * temperature) if friction * temperature > 0 else 0.0
    return None, limits | _noise_limit(heat, sweep, omega)


def _noise_limit(heat: float, sweep: int, omega: float) -> dict[str, float]:
    """The step at which `heat` times it is the tolerance; or a short enough sweep."""
    by_heat = TOLERANCE / heat if heat > 0 else math.inf
    by_sweep = math.pi / (sweep * omega) if sweep else 0.0
    # What a sweep leaves of the noise is less than that of independent batches.
    return {"gradient noise": max(by_heat, by_sweep)} if heat > 0 else {}


def _stability(plan: Any, friction: float) -> float:
    """The largest κ at which the plan's law on one oscillator exists, to 1%; at most 8."""
    if math.isnan(variance(plan, 0.1, friction)):
        return 2.0  # another kernel than a word: that of most of them
    low, high = 0.0, 8.0
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if math.isfinite(variance(plan, middle, friction)) else (low, middle)
        )
    return low


def _accurate(plan: Any, friction: float, edge: float) -> float:
    """The largest κ below half the limit at which ⟨x²⟩ is off by the tolerance at most."""
    if math.isnan(variance(plan, 0.1, friction)):
        return 2 * math.sqrt(TOLERANCE / (1 + TOLERANCE))  # OBABO's
    low, high = 0.0, edge / 2
    if abs(variance(plan, high, friction) - 1) <= TOLERANCE:
        return high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        fits = abs(variance(plan, middle, friction) - 1) <= TOLERANCE
        low, high = (middle, high) if fits else (low, middle)
    return low


def _stays(
    kernel: Any, start: PyTree, source: batches.Source, key: Key, temperature: float
) -> bool:
    """Whether a trial from the mode stays finite and not clearly more than a quarter too hot."""
    finite, blocks = _trial(kernel, start, source, jax.random.clone(key))
    heat = jnp.mean(blocks) - 2 * jnp.std(blocks, ddof=1) / math.sqrt(BLOCKS)
    # Slow directions are still cold after so few steps; that is no fault of the step.
    return bool(finite) and float(heat) <= TOO_HOT * max(temperature, 1e-6)


@eqx.filter_jit
def _trial(kernel: Any, start: PyTree, source: batches.Source, key: Key) -> tuple[Array, Array]:
    """(finite, configurational temperature ⟨(θ − θ₀)·∇U⟩/d over blocks of the second half)."""
    state_key, steps_key, stream_key, other_key = jax.random.split(key, 4)
    state = kernel.init(start, state_key, source.data)

    def unseen(t: Array) -> PyTree:
        """A batch that the chain has not seen: the temperature is biased otherwise."""
        if source.data is None:
            return None
        if source.stream.name == "full":
            return Batch(source.data)
        drawn = streams.with_replacement()
        rows = streams.rows_at(drawn, other_key, t, *source.sizes)
        return streams.gather(drawn, rows, source.data)

    def step(t: Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        state, order, finite, heat = carry
        order, given, _ = batches.following(source, stream_key, t, order, batches.plain)
        state, info = kernel.step(jax.random.fold_in(steps_key, t), state, given)
        gradient = kernel.posterior.potential_and_gradient(info.position, unseen(t))[1]
        away = jax.tree.map(jnp.subtract, info.position, start)
        now = trees.dot(away, gradient) / trees.size(start)
        late = t - TRIAL_STEPS // 2
        heat = heat.at[jnp.maximum(late, 0) // length].add(jnp.where(late >= 0, now / length, 0.0))
        return state, order, finite & info.finite, heat

    length = (TRIAL_STEPS - TRIAL_STEPS // 2) // BLOCKS
    zero = jnp.zeros(BLOCKS, trees.accumulator_dtype(start))
    begin = (state, batches.room(source, stream_key), jnp.asarray(True), zero)
    _, _, finite, heat = jax.lax.fori_loop(0, TRIAL_STEPS, step, begin)
    return finite & jnp.all(jnp.isfinite(heat)), heat
