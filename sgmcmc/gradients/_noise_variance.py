"""The variance V̂ of a gradient's noise in each coordinate: given, or estimated as a chain goes.

    V̂ ← β V̂ + (1 − β) (g_k − g_{k−1})²/2

after its use, so that V̂ never knows of the batch whose noise it stands for. Differences of
successive gradients hold the movement of the true gradient to O(h²) only.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import check_range
from sgmcmc.types import Array, Batches, PyTree


def running_variance(decay: float | Array = 0.99) -> RunningVariance:
    """V̂ for `sghmc(noise_estimate=…)`, estimated as the chain goes, from independent batches.

    Args:
        decay: β in [0, 1), the weight of the *old* estimate: a memory of about 1/(1 − β)
            steps; default 0.99. It keeps two more copies of the parameters.

    Raises:
        ValueError: `decay` out of range.
    """
    number = jnp.asarray(decay, dtype=float)
    check_range(number, "decay", above_zero=False, below=1.0)
    return RunningVariance(number)


class Given(eqx.Module):
    """A known V̂: one number, or a pytree like the parameters; `nothing` where it is 0."""

    variance: PyTree
    nothing: bool = eqx.field(static=True, default=False)

    @property
    def batches(self) -> Batches:
        """Independent, and with the noise that is taken off."""
        return "any" if self.nothing else "noisy"

    def check(self, position: PyTree) -> None:
        """Raise a ValueError unless V̂ is a scalar or fits `position`, leaf by leaf."""
        if not self.is_scalar:
            checks.require_same_structure(
                self.variance, position, "noise_estimate", "the parameters"
            )

    def init(self, position: PyTree) -> PyTree:
        return ()

    def estimate(self, memory: PyTree, position: PyTree) -> PyTree:
        """V̂, like `position`."""
        if self.is_scalar:
            return jax.tree.map(lambda x: jnp.full_like(x, self.variance), position)
        return jax.tree.map(lambda v, x: v.astype(x.dtype), self.variance, position)

    def update(self, memory: PyTree, gradient: PyTree, least: Array | float = 0.0) -> PyTree:
        return memory

    @property
    def is_scalar(self) -> bool:
        """Whether V̂ is one number for all coordinates."""
        return isinstance(self.variance, jax.Array) and self.variance.ndim == 0


class Memory(NamedTuple):
    """V̂ and the last gradient, like θ in float32 at least, and () int32 the gradients seen."""

    variance: PyTree
    gradient: PyTree
    seen: Array


class RunningVariance(eqx.Module):
    """V̂ from the differences of successive gradients; see `running_variance`."""

    decay: Array

    @property
    def batches(self) -> Batches:
        """Independent: without replacement differences hold 2VK/(K − 1), and sweeps add no heat.

        Of all data they hold the movement of ∇U alone, h²k²⟨p²⟩/2.
        """
        return "independent"

    def check(self, position: PyTree) -> None:
        pass

    def init(self, position: PyTree) -> Memory:
        zero = trees.wide(trees.zeros_like(position))
        return Memory(zero, zero, jnp.zeros((), jnp.int32))

    def estimate(self, memory: Memory, position: PyTree) -> PyTree:
        """V̂, like `position`; 0 until two gradients have been seen."""
        return memory.variance

    def update(self, memory: Memory, gradient: PyTree, least: Array | float = 0.0) -> Memory:
        """The memory with one gradient more, whose difference weighs at least `least`."""
        # The first difference is the estimate, the later ones are averaged in.
        share = jnp.where(memory.seen == 1, 1.0, 1 - self.decay)
        share = jnp.where(memory.seen == 0, 0.0, jnp.maximum(share, least))

        def average(v: Array, g: Array, last: Array) -> Array:
            return v + share.astype(v.dtype) * ((g - last) ** 2 / 2 - v)

        variance = jax.tree.map(average, memory.variance, gradient, memory.gradient)
        return Memory(variance, gradient, memory.seen + 1)


def given(estimate: PyTree) -> Given:
    """A known V̂, checked.

    Raises:
        TypeError: neither a number nor a pytree of numbers.
        ValueError: a number is negative or not finite; its leaf is named.
    """
    try:
        variance = jax.tree.map(lambda v: jnp.asarray(v, dtype=float), estimate)
    except (TypeError, ValueError):
        variance = None
    if not jax.tree.leaves(variance):
        raise TypeError(
            f"noise_estimate: got {estimate!r}; expected None, numbers ≥ 0 (one, or a pytree "
            "like the parameters), or gradients.running_variance()"
        )
    nothing = True
    for path, leaf in trees.named_leaves(variance):
        if isinstance(leaf, jax.core.Tracer):
            nothing = False
            continue
        values = np.asarray(leaf, dtype=np.float64)
        nothing = nothing and not np.any(values)
        if not np.all((values >= 0) & np.isfinite(values)):
            raise ValueError(f"noise_estimate: {path} must be finite and ≥ 0, got {leaf}")
    return Given(variance, nothing)
