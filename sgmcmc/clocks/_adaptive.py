"""The adaptive clock: steps are short where the gradient is large (SamAdams time rescaling).

Time is measured twice, τ in equal steps Δτ and physical time t in steps of their own,

    dt = ψ(ζ) dτ,   dζ = −α ζ dτ + g(∇U) dτ,   g = ‖∇U‖^s / Ω,

so that ζ is an average of the monitor g over the last 1/α of τ, and its mean is E[g]/α. The
letter Z is the exact flow of ζ at a position that stands still,

    Z   ζ ← e^{−αt} ζ + (1 − e^{−αt}) g/α.

A draw weighs ψ(ζ): averages over physical time are averages over the posterior, averages over
draws are not (Leimkuhler, Lohmann and Whalley 2025, arXiv 2504.18911).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._checks import check_range, positive
from sgmcmc._schedule import Constant, Rate, ScalarOrSchedule, Unchosen, as_rate
from sgmcmc.clocks._base import AbstractClock, Clock, StepSize, nominal, ticked
from sgmcmc.types import Array, ClockState, PyTree

FORMS = ("sum", "ratio")

_SHARED = {"alpha": 1.0, "power": 0.25, "exponent": 2.0}

SAMADAMS_CODE: Mapping[str, PyTree] = MappingProxyType(
    {**_SHARED, "shortest": 0.1, "longest": 10.0, "scale": 1.0, "form": "sum"}
)
"""Arguments of `adaptive` that SamAdams' published code (arXiv 2504.18911) sets by default."""

SA_SGLD_CODE: Mapping[str, PyTree] = MappingProxyType(
    {**_SHARED, "shortest": 1e-6, "longest": 1.0, "scale": 5e4, "form": "ratio"}
)
"""Arguments of `adaptive` that SA-SGLD's published code (arXiv 2511.11666) sets by default."""


class AdaptiveClock(AbstractClock):
    """Steps ψ(ζ) Δτ; `step_size` is Δτ. See `adaptive`."""

    step_size: Rate
    alpha: Array
    shortest: Array
    longest: Array
    power: Array
    exponent: Array
    scale: Array | None
    start: Array
    monitor: Callable[[PyTree], PyTree] | None
    form: str = eqx.field(static=True)
    per_leaf: bool = eqx.field(static=True)

    @property
    def adaptive(self) -> bool:
        return True

    @property
    def splits_leaves(self) -> bool:
        return self.per_leaf

    def init(self, position: PyTree = ()) -> ClockState:
        """The first state; ζ is one number, or one for each leaf."""
        start = self.start.astype(trees.accumulator_dtype(position))
        memory = jax.tree.map(lambda _: start, position) if self.per_leaf else start
        return ClockState(jnp.zeros((), jnp.int32), memory)

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        """(Δτ_k, Δτ_k/Δτ_0, next state); `pace` and `account` multiply both by ψ(ζ)."""
        return ticked(self.step_size, state)

    def pace(self, memory: PyTree, dt: Array) -> PyTree:
        """ψ(ζ) Δτ, for each leaf where each has its own clock."""
        if not self.per_leaf:
            return self.factor(memory) * dt
        return jax.tree.map(lambda factor: dt * factor, self.factor(memory))

    def account(self, before: ClockState, memory: PyTree, overdamped: bool) -> tuple[Array, Array]:
        """(time, weight): the weight is ψ where the word records; the time that of its letters.

        Overdamped, the draw is the position that the step is about to leave.
        """
        step, share = nominal(self.step_size, before.count)
        weight = self.weight(memory)
        factor = weight if overdamped else self.weight(before.memory)
        return factor * step, weight * share

    def factor(self, memory: PyTree) -> PyTree:
        """ψ(ζ): m (ζ^r + M)/(ζ^r + m), or as "ratio" m (ζ^r + M/m)/(ζ^r + 1)."""
        m, most = self.shortest, self.longest

        def psi(level: Array) -> Array:
            # Both forms as m (1 + …), which has its limit m where ζ overflows.
            raised = level ** self.power.astype(level.dtype)
            if self.form == "sum":
                return m * (1 + (most - m) / (raised + m))
            return m * (1 + (most / m - 1) / (raised + 1))

        return jax.tree.map(psi, memory)

    def weight(self, memory: PyTree) -> Array:
        """ψ(ζ), averaged over the leaves where each has its own clock."""
        return jnp.mean(jnp.stack(jax.tree.leaves(self.factor(memory))))

    def flow(self, memory: PyTree, gradient: PyTree, t: Array) -> PyTree:
        """Z: ζ after t units of τ at a gradient that stands still."""

        def relax(level: Array, part: PyTree) -> Array:
            t_ = jnp.asarray(t).astype(level.dtype)
            stay, gain = jnp.exp(-self.alpha * t_), -jnp.expm1(-self.alpha * t_) / self.alpha
            return (stay * level + gain * self.observe(part)).astype(level.dtype)

        if not self.per_leaf:
            return relax(memory, gradient)
        return jax.tree.map(relax, memory, gradient)

    def observe(self, gradient: PyTree) -> Array:
        """g: ‖∇U‖^s / Ω, or what the user's monitor makes of the gradient."""
        if self.monitor is not None:
            value = jnp.asarray(self.monitor(gradient))
            if value.shape != ():
                raise ValueError(
                    f"monitor: got an array of shape {value.shape}; expected one number ≥ 0"
                )
            return value
        size = trees.size(gradient) if self.scale is None else self.scale
        return trees.dot(gradient, gradient) ** (self.exponent / 2) / size

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless the monitor gives a number ≥ 0 for a gradient of ones."""
        ones = jax.tree.map(jnp.ones_like, position)
        for part in jax.tree.leaves(ones) if self.per_leaf else [ones]:
            value = self.observe(part)
            if not isinstance(value, jax.core.Tracer) and not (jnp.isfinite(value) & (value >= 0)):
                raise ValueError(
                    f"monitor: got {value} for a gradient of ones; expected a finite number ≥ 0"
                )


def adaptive(
    step_size: ScalarOrSchedule | None,
    *,
    alpha: float | Array = 1.0,
    shortest: float | Array = 0.1,
    longest: float | Array = 10.0,
    power: float | Array = 0.25,
    exponent: float | Array = 2.0,
    scale: float | Array | None = None,
    monitor: Callable[[PyTree], PyTree] | None = None,
    form: str = "sum",
    start: float | Array | None = None,
    per_leaf: bool = False,
) -> AbstractClock:
    """The adaptive clock of `sgmcmc.samadams` and `sgmcmc.sa_sgld` (arXiv 2504.18911, 2511.11666).

    Steps lie between m Δτ and M Δτ and shrink as ζ, the recent mean of ‖∇U‖^s/Ω, grows. The
    papers' defaults conflict; these were chosen so that ζ is of order 1 where a gradient has
    entries of order 1, whatever the number of parameters. `clocks.SAMADAMS_CODE` and
    `clocks.SA_SGLD_CODE` have those of the papers' codes: `adaptive(h, **SA_SGLD_CODE)`.

    Args:
        step_size: Δτ > 0, a number or a schedule of the step index; None: `sample` chooses it.
        alpha: α > 0, in 1/τ: ζ remembers 1/α of τ; its mean level is E[g]/α.
        shortest, longest: m and M, 0 < m ≤ M, the bounds of ψ. With m = M the clock is fixed,
            at m Δτ.
        power: r > 0, ζ's power: how sharply ψ falls, from M to m, around its crossover.
        exponent: s > 0, the power of the gradient's norm: 2 its square (default), 1 the norm
            itself.
        scale: Ω > 0; default the number of parameters (those of the leaf, if `per_leaf`).
        monitor: in the place of ‖∇U‖^s/Ω, a function of the gradient (a pytree like the
            parameters, of U, not of the mean loss) that returns one number ≥ 0.
        form: of ψ: "sum", m (ζ^r + M)/(ζ^r + m), with its crossover at ζ^r = m; or "ratio",
            m (ζ^r + M/m)/(ζ^r + 1), with its crossover at ζ = 1.
        start: ζ ≥ 0 at the start; default where ψ = 2m, or (if M < 2m) 1: small steps at
            first, since a chain that begins where the gradient vanishes would else begin
            with its longest. It is forgotten within a few 1/α of τ.
        per_leaf: **biased**: one clock for each leaf of the parameters, as the code of
            2511.11666 has it. That is a preconditioner that varies with the position, whose
            missing divergence term no weight makes good. `sa_sgld` only, for comparison.

    Raises:
        TypeError, ValueError: an argument out of range, named, with what is allowed.
    """
    if form not in FORMS:
        raise ValueError(f"form: got {form!r}; allowed: {', '.join(FORMS)}")
    lower, upper = positive(shortest, "shortest"), positive(longest, "longest")
    known = not any(isinstance(x, jax.core.Tracer) for x in (lower, upper))
    if known and bool(jnp.any(lower > upper)):
        raise ValueError(f"shortest: got {shortest}, above longest = {longest}; expected m ≤ M")
    sharpness = positive(power, "power")
    if start is None:
        # ψ = 2m, solved for ζ^r in either form.
        reach = upper - 2 * lower if form == "sum" else upper / lower - 2
        begin = jnp.where(reach > 0, jnp.where(reach > 0, reach, 1.0) ** (1 / sharpness), 1.0)
    else:
        begin = jnp.asarray(start, dtype=float)
        check_range(begin, "start", above_zero=False)
    if monitor is not None and (scale is not None or per_leaf):
        raise ValueError("monitor: got one beside scale or per_leaf; expected one of them")
    step: Rate = Unchosen()
    if step_size is not None:
        step = as_rate(step_size, "step_size", above_zero=True)
    clock = AdaptiveClock(
        step_size=step,
        alpha=positive(alpha, "alpha"),
        shortest=lower,
        longest=upper,
        power=sharpness,
        exponent=positive(exponent, "exponent"),
        scale=None if scale is None else positive(scale, "scale"),
        start=begin,
        monitor=None if monitor is None else trees.as_callable(monitor, "monitor"),
        form=form,
        per_leaf=per_leaf,
    )
    return Untuned(clock) if step_size is None else clock


class Untuned(AbstractClock):
    """The clock of `step_size=None`: no step is chosen yet.

    `template`: the adaptive clock whose Δτ is to be chosen; None: a plain clock.
    """

    template: AdaptiveClock | None = None

    @property
    def step_size(self) -> Unchosen:
        return Unchosen()

    @property
    def adaptive(self) -> bool:
        return self.template is not None

    @property
    def splits_leaves(self) -> bool:
        return self.template is not None and self.template.per_leaf

    @property
    def untuned(self) -> bool:
        return True

    def tick(self, state: ClockState) -> tuple[Array, Array, ClockState]:
        raise ValueError(
            "step_size: None is chosen by sgmcmc.sample or sgmcmc.tune, from the data; to make "
            "steps yourself give a number, a schedule or a clock"
        )

    def check(self, position: PyTree) -> None:
        if self.template is not None:
            self.template.check(position)

    def check_run(self, num_burnin: int, num_samples: int, thinning: int) -> None:
        """Nothing: the clock that tuning puts in this one's place is checked."""

    def at(self, step_size: float) -> AbstractClock:
        """The clock with the step (Δτ) that was chosen."""
        chosen = Constant(jnp.asarray(step_size, dtype=float))
        if self.template is None:
            return Clock(chosen)
        return eqx.tree_at(lambda c: c.step_size, self.template, chosen)


def as_adaptive(step_size: StepSize) -> AbstractClock:
    """An adaptive clock from one, or `adaptive` with its defaults from a number, schedule or None.

    Raises:
        TypeError: another kind of clock.
    """
    if not isinstance(step_size, AbstractClock):
        return adaptive(step_size)
    if not step_size.adaptive:
        raise TypeError(
            f"step_size: got {type(step_size).__name__}; expected a number or schedule for Δτ, "
            "or clocks.adaptive(…)"
        )
    return step_size
