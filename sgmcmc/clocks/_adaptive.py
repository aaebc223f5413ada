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

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import _tree as trees
from sgmcmc._checks import check_range, positive
from sgmcmc._schedule import Constant, as_rate
from sgmcmc.clocks._base import Clock, Untuned
from sgmcmc.types import Array, ClockState, PyTree

FORMS = ("sum", "ratio")

# What the authors' published code sets by default; see the page "Choosing a step size".
SAMADAMS_CODE: Mapping[str, Any] = MappingProxyType(
    {"alpha": 1.0, "m": 0.1, "M": 10.0, "r": 0.25, "s": 2.0, "scale": 1.0, "form": "sum"}
)

SA_SGLD_CODE: Mapping[str, Any] = MappingProxyType(
    {"alpha": 1.0, "m": 1e-6, "M": 1.0, "r": 0.25, "s": 2.0, "scale": 5e4, "form": "ratio"}
)


class AdaptiveClock(Clock):
    """Steps ψ(ζ) Δτ; `step_size` is Δτ. See `samadams`."""

    alpha: Array
    shortest: Array
    longest: Array
    power: Array
    exponent: Array
    scale: Array | None
    start: Array
    monitor: Callable[[PyTree], Any] | None
    form: str = eqx.field(static=True)
    per_leaf: bool = eqx.field(static=True)

    @property
    def adaptive(self) -> bool:
        return True

    def begin(self, position: PyTree) -> ClockState:
        """The first state; ζ is one number, or one for each leaf."""
        start = self.start.astype(trees.accumulator_dtype(position))
        memory = jax.tree.map(lambda _: start, position) if self.per_leaf else start
        return self.init()._replace(memory=memory)

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


class UntunedClock(Untuned, AdaptiveClock):
    """An adaptive clock made with `step_size=None`, until `sample` has chosen Δτ."""

    def at(self, step_size: float) -> AdaptiveClock:
        """The clock with the Δτ that was chosen."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return AdaptiveClock(**{**own, "step_size": super().at(step_size).step_size})


def samadams(
    step_size: Any,
    *,
    alpha: float | Array = 1.0,
    m: float | Array = 0.1,
    M: float | Array = 10.0,
    r: float | Array = 0.25,
    s: float | Array = 2.0,
    scale: float | Array | None = None,
    monitor: Callable[[PyTree], Any] | None = None,
    form: str = "sum",
    start: float | Array | None = None,
    per_leaf: bool = False,
) -> AdaptiveClock:
    """The adaptive clock of `sgmcmc.samadams` and `sgmcmc.sa_sgld` (arXiv 2504.18911, 2511.11666).

    Steps lie between m Δτ and M Δτ and shrink as ζ, the recent mean of ‖∇U‖^s/Ω, grows. The
    papers' defaults conflict; these were chosen so that ζ is of order 1 where a gradient has
    entries of order 1, whatever the number of parameters. `clocks.SAMADAMS_CODE` and
    `clocks.SA_SGLD_CODE` have those of the papers' codes: `samadams(h, **SA_SGLD_CODE)`.

    Args:
        step_size: Δτ > 0, a number or a schedule of the step index; None: `sample` chooses it.
        alpha: α > 0, in 1/τ: ζ remembers 1/α of τ; its mean level is E[g]/α.
        m, M: 0 < m ≤ M, the bounds of ψ. With m = M the clock is fixed, at m Δτ.
        r: ζ's power, > 0: how sharply ψ falls, from M to m, around its crossover.
        s: the power of the gradient's norm, > 0: 2 its square (default), 1 the norm itself.
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
    lower, upper = positive(m, "m"), positive(M, "M")
    known = not any(isinstance(x, jax.core.Tracer) for x in (lower, upper))
    if known and bool(jnp.any(lower > upper)):
        raise ValueError(f"m: got {m}, above M = {M}; expected m ≤ M")
    power = positive(r, "r")
    if start is None:
        # ψ = 2m, solved for ζ^r in either form.
        reach = upper - 2 * lower if form == "sum" else upper / lower - 2
        begin = jnp.where(reach > 0, jnp.where(reach > 0, reach, 1.0) ** (1 / power), 1.0)
    else:
        begin = jnp.asarray(start, dtype=float)
        check_range(begin, "start", above_zero=False)
    if monitor is not None and (scale is not None or per_leaf):
        raise ValueError("monitor: got one beside scale or per_leaf; expected one of them")
    untuned = step_size is None
    kind = UntunedClock if untuned else AdaptiveClock
    step = Constant(jnp.asarray(jnp.nan, dtype=float))
    return kind(
        step_size=step if untuned else as_rate(step_size, "step_size", above_zero=True),
        alpha=positive(alpha, "alpha"),
        shortest=lower,
        longest=upper,
        power=power,
        exponent=positive(s, "s"),
        scale=None if scale is None else positive(scale, "scale"),
        start=begin,
        monitor=None if monitor is None else trees.as_callable(monitor, "monitor"),
        form=form,
        per_leaf=per_leaf,
    )


def as_adaptive(step_size: Any) -> AdaptiveClock:
    """An adaptive clock from one, or `samadams` with its defaults from a number, schedule or None.

    Raises:
        TypeError: another kind of clock.
    """
    if isinstance(step_size, AdaptiveClock):
        return step_size
    if isinstance(step_size, Clock):
        raise TypeError(
            f"step_size: got {type(step_size).__name__}; expected a number or schedule for Δτ, "
            "or clocks.samadams(…)"
        )
    return samadams(step_size)


def nominal(clock: AdaptiveClock, count: Array) -> tuple[Array, Array]:
    """Δτ of step `count`, and its share of the first Δτ."""
    step = clock.step_size(count)
    if isinstance(clock.step_size, Constant):
        return step, jnp.ones_like(step)
    return step, step / clock.step_size(jnp.zeros_like(count))
