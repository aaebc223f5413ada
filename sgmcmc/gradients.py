"""Gradient estimators: unbiased, stateful, unaware of integrators.

    minibatch         g = ∇U₀(x) + (N/n) Σ_B v_i(x),         v_i = −λ ∇ log p(y_i | x_i, θ)
    full              g = ∇U(x)
    control_variate   g = ∇U₀(x) + Σ_all v_i(x*) + (N/n) Σ_B (v_i(x) − v_i(x*)),  x* a fixed mode
    svrg              the same, x* a snapshot of the chain's own, refreshed every m steps
    saga              g = ∇U₀(x) + Σ_all τ_i + (N/n) Σ_B (v_i(x) − τ_i),  then τ_i ← v_i(x) in B

U₀ is the part without data. With a_i = v_i, v_i(x) − v_i(x*) or v_i(x) − τ_i and
S² = (1/N) Σ (a_i − ā)², the variance of g is (N²/n) S² for batches drawn with replacement and
(N²/n) S² (N−n)/(N−1) without.

An estimator is called as `estimator(posterior, position, batch, state)` and returns the
plain estimate of U, its gradient and its own next state, which `init` begins. It may say

    needs_full_batch      the loop hands it all data every step (default False);
    refresh_every         the loop calls its `refresh(posterior, position, state, data)` before
                          each step > 0 that is a multiple of it (default None: never);
    evaluations           minibatch gradients that one call costs (default 1);
    needs_fresh_batches   every call must see a batch that is independent of all before it:
                          no reuse within a step, and no sweeps (default False).
"""

from __future__ import annotations

from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc import trees
from sgmcmc.anchored import BLOCK_SIZE, SVRG, ControlVariate
from sgmcmc.averaged import Averaged
from sgmcmc.posterior import Posterior, leading_axis
from sgmcmc.rates import check_range
from sgmcmc.saga import SAGA
from sgmcmc.types import Array, Batch, PyTree


class Estimator(Protocol):
    """What a gradient estimator offers."""

    needs_full_batch: bool

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree: ...

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]: ...


class Minibatch(eqx.Module):
    """∇U with N/n times the batch's sum; its variance is (N²/n) S² with replacement and
    (N²/n) S² (N−n)/(N−1) without, S² the variance of the examples' gradients.
    """

    needs_full_batch: bool = eqx.field(static=True, default=False)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree:
        return ()

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]:
        energy, gradient = posterior.potential_and_gradient(position, batch)
        if isinstance(batch, Batch) and batch.share is not None:
            gradient = trees.scale(batch.share, gradient)
        return energy, gradient, state


class Full(eqx.Module):
    """∇U over all data every step, `block_size` examples at a time."""

    block_size: int | None = eqx.field(static=True, default=None)
    needs_full_batch: bool = eqx.field(static=True, default=True)

    def init(self, posterior: Posterior, position: PyTree, data: PyTree) -> PyTree:
        if posterior.log_likelihood is not None and data is None:
            raise ValueError("data: got None; the `full` gradient estimator needs all data")
        return ()

    def __call__(
        self, posterior: Posterior, position: PyTree, batch: Batch | PyTree, state: PyTree
    ) -> tuple[Array, PyTree, PyTree]:
        if posterior.log_likelihood is None:
            energy, gradient = posterior.potential_and_gradient(position)
            return energy, gradient, state
        data = batch.data if isinstance(batch, Batch) else batch
        if data is None or leading_axis(data) != posterior.data_size:
            raise ValueError(
                f"data: the `full` gradient estimator got {data and leading_axis(data)} of "
                f"{posterior.data_size} examples"
            )
        if self.block_size is None:
            energy, gradient = posterior.potential_and_gradient(position, batch)
            return energy, gradient, state
        energy, gradient = jax.value_and_grad(_negative_log_density)(
            position, posterior, data, self.block_size
        )
        return energy, gradient, state


def minibatch() -> Minibatch:
    """The plain minibatch estimator, the default."""
    return Minibatch()


def full(block_size: int | None = None) -> Full:
    """The exact gradient, every step.

    Args:
        block_size: examples evaluated at a time, which bounds the memory; None: all at once.
    """
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size: got {block_size}; expected an integer ≥ 1 or None")
    return Full(block_size)


def control_variate(mode: PyTree, *, block_size: int = BLOCK_SIZE) -> ControlVariate:
    """Control variates about a fixed point x* (Baker, Fearnhead, Fox and Nemeth 2019).

        g = ∇U₀(x) + Σ_all v_i(x*) + (N/n) Σ_B (v_i(x) − v_i(x*)),     arXiv 1706.05439

    Unbiased about any x*; where the posterior is narrow around it, the noise of a batch is
    that of the small differences. Costs two minibatch gradients a step, one pass over the
    data at the start for all chains together, and two copies of the parameters.

    Args:
        mode: x*, a pytree like the parameters; `sgmcmc.find_mode` finds one.
        block_size: examples evaluated at a time in the pass over the data.

    Raises:
        TypeError, ValueError: `mode` is no pytree of floating arrays, or, once the parameters
            are known, is not of their structure (the leaf is named); `data` is missing.
    """
    trees.require_floating(mode, "mode")
    _at_least_one(block_size, "block_size")
    return ControlVariate(jax.tree.map(jnp.asarray, mode), block_size)


def svrg(refresh_every: int, *, block_size: int = BLOCK_SIZE) -> SVRG:
    """SVRG-LD (Dubey, Reddi, Póczos, Smola, Xing and Williamson 2016): control variates
    about a snapshot of each chain, taken anew every `refresh_every` steps.

    Costs two minibatch gradients a step, one pass over the data of each chain at the start
    and at each refresh, and two copies of the parameters. No mode is needed, and many
    modes do no harm. Usual values of `refresh_every` are one or two epochs.

    Args:
        refresh_every: m ≥ 1, steps between two snapshots.
        block_size: examples evaluated at a time in a pass over the data.

    Raises:
        TypeError, ValueError: `refresh_every` is no integer ≥ 1; later, `data` is missing.
    """
    _at_least_one(refresh_every, "refresh_every")
    _at_least_one(block_size, "block_size")
    return SVRG(int(refresh_every), block_size)


def saga(*, memory_limit: int = 2**30, block_size: int = 256) -> SAGA:
    """SAGA-LD (Dubey et al. 2016): each example's gradient as it was at its last visit.

        g = ∇U₀(x) + Σ_all τ_i + (N/n) Σ_B (v_i(x) − τ_i),     then τ_i ← v_i(x) for i in B

    One gradient a step, example by example; one pass over the data of each chain at the
    start; and for each chain a table of N × d numbers, d the number of parameters.

    Unbiased given the past where each batch is drawn from all examples alike, and so only
    with `stream="with_replacement"`, on which `sample` insists: in a sweep the examples
    still to come are those with the oldest entries, and the chain cools by O(h).

    Args:
        memory_limit: bytes that the table of one chain may take; default 1 GiB.
        block_size: examples evaluated at a time in the first pass.

    Raises:
        ValueError: an argument is below 1; later, `data` is missing, batches come in sweeps,
            or a batch comes without its index, as under `stream="full"`.
        MemoryError: the table would take more than `memory_limit`.
    """
    _at_least_one(memory_limit, "memory_limit")
    _at_least_one(block_size, "block_size")
    return SAGA(int(memory_limit), block_size)


def averaged(decay: float | Array = 0.9) -> Averaged:
    """**Biased**, for comparison: a running mean of the minibatch gradients, as Adam has it.

        m ← β m + (1 − β) g,   estimate m/(1 − β^k) after k gradients

    With `psgld(metric=metrics.rmsprop(gamma=False))` it is Adam-style SGLD. The mean lags
    behind the position, which acts as a momentum that nothing balances: on U = k x²/2 with
    exact gradients sgld's variance is, for hk ≪ 1, T/k (1 + hk/2 · (1 + β)/(1 − β)) to first
    order in h.

    Args:
        decay: β in [0, 1); 0 is `minibatch()`.

    Raises:
        ValueError: `decay` out of range.
    """
    number = jnp.asarray(decay, dtype=float)
    check_range(number, "decay", above_zero=False, below=1.0)
    return Averaged(number, minibatch())


def _at_least_one(value: Any, name: str) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: got {value!r}; expected an integer ≥ 1")
    if value < 1:
        raise ValueError(f"{name}: got {value}; allowed: an integer ≥ 1")


def _negative_log_density(
    position: PyTree, posterior: Posterior, data: PyTree, block_size: int
) -> Array:
    return jnp.negative(posterior.log_density(position, data, block_size=block_size))
