"""The records that every part of the library passes on: batch, blocks, state, info.

They hold arrays only, so that they jit, vmap, shard and save without further ado.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
from jaxtyping import Bool, Float, Int

__all__ = [
    "Array",
    "Batch",
    "Batches",
    "Blocks",
    "ClockState",
    "Info",
    "Key",
    "NoiseKind",
    "PyTree",
    "State",
    "as_batch",
]

Array: TypeAlias = jax.Array
"""A JAX array, traced or not."""

PyTree: TypeAlias = Any
"""Nested containers of arrays, as JAX takes them."""

Key: TypeAlias = jax.Array
"""A typed key, `jax.random.key(seed)`."""

NoiseKind: TypeAlias = Literal["gaussian", "fast"]
"""What `noise=` of a kernel may be; see `sgmcmc.noise`."""

Batches: TypeAlias = Literal["any", "all data", "independent", "noisy", "reversible"]
"""Which streams of batches an estimator, a letter or a kernel bears.

"any"; "all data" every step; "independent": each batch is independent of all before, as drawn
with replacement or all the data; "noisy": independent, and never all the data, for a known noise
is taken off; "reversible": blocks of batches have the same law read backwards.
"""


class Batch(NamedTuple):
    """The examples of one step.

    Attributes:
        data: pytree of arrays with a common leading axis of length n.
        index: rows of the full data, shape (n,), or None where `data` is all of it.
        mask: bool (n,), False where a row only pads a short batch; None: no padding.
        share: () factor on the step's gradient, or None for 1. Streams that visit
            batches of unequal size in a fixed order use it (n_j K / N), so that the
            gradients of one sweep still sum to K full gradients.
    """

    data: PyTree
    index: Int[Array, " n"] | None = None  # type: ignore[assignment]  # hides tuple.index
    mask: Bool[Array, " n"] | None = None
    share: Float[Array, ""] | None = None


def as_batch(batch: PyTree) -> Batch | None:
    """A pytree of arrays as a `Batch` of all its rows; a `Batch`, or None, as it is."""
    return batch if batch is None or isinstance(batch, Batch) else Batch(batch)


class Blocks(NamedTuple):
    """What a kernel whose `traits.needs_data` is True is given each step.

    Attributes:
        batches: its L = `traits.batches_per_step` batches, each leaf with a leading axis L; None
            where each of them is all the data.
        data: all data, without a `Batch` around it; no chain axis, vmap it as
            `in_axes=Blocks(0, None)`.
    """

    batches: PyTree
    data: PyTree


class ClockState(NamedTuple):
    """Where a clock stands.

    Attributes:
        count: () int32, steps made so far, burn-in included.
        memory: of an adaptive clock: () its ζ, or one for each leaf; () without.
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count
    memory: PyTree = ()


class State(NamedTuple):
    """What the next step needs, and nothing else.

    Attributes:
        position: θ, a pytree of floating arrays.
        momentum: the whitened momentum M^{-1/2} p, a pytree like θ, whose law is N(0, T) in
            every coordinate whatever the metric; () for overdamped kernels.
        estimator: what the gradient estimator remembers; () without a memory.
        metric: what a preconditioner remembers; () without.
        clock: the step count, and what an adaptive clock remembers.
        extra: of words and short lists of sub-steps {name: memory} of the letters that have
            one: "last" (`leimkuhler_matthews`: the last noise), "thermostat" (`sgnht`),
            "noise_estimate" (`sghmc`). Of other kernels what they keep beside the above: the
            energy of all data (`amagold`, `sggmc`), all replicas (`replica_exchange`),
            BlackJAX's own state; () where there is nothing.
    """

    position: PyTree
    momentum: PyTree
    estimator: PyTree
    metric: PyTree
    clock: ClockState
    extra: PyTree = ()


class Info(NamedTuple):
    """What one step reports. Collectors read only `position` and `weight`.

    Attributes:
        position: the position to record.
        weight: () physical time of the draw over the nominal step; 1 for a fixed step.
        time: () physical time of the step, in units of `step_size`.
        energy: () estimate of U, in nats, where the step took its last gradient.
        gradient_norm: () Euclidean norm of that gradient estimate.
        kinetic_energy: () p·M⁻¹p/2 at the end of the word; 0 for overdamped kernels.
        finite: () bool, False once energy, gradient or momentum is not finite.
        acceptance: () acceptance probability of exact samplers, None elsewhere.
        clipped: () share of coordinates whose gradient noise was too large to be taken off
            the injected noise (`sghmc(noise_estimate=…)`), None elsewhere.
        thermostat: () ξ of `sgnht` as the step began, in 1/time, None elsewhere.
        metric_min, metric_max: () the least and the largest G of a metric that changes with the
            position (`psgld`), None elsewhere.
        elapsed: () physical time since the end of the burn-in; the loop fills it in.
    """

    position: PyTree
    weight: Float[Array, ""]
    time: Float[Array, ""]
    energy: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    kinetic_energy: Float[Array, ""]
    finite: Bool[Array, ""]
    acceptance: Float[Array, ""] | None = None
    clipped: Float[Array, ""] | None = None
    thermostat: Float[Array, ""] | None = None
    metric_min: Float[Array, ""] | None = None
    metric_max: Float[Array, ""] | None = None
    elapsed: Float[Array, ""] | None = None


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
