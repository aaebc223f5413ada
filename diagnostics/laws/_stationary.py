"""Exact stationary laws of samplers on linear-Gaussian targets, without sampling.

With a gradient linear in θ, one step is affine in the state z and in its standard normals ξ,

    z' = A_i z + B_i ξ + c_i,        recorded: w = C_i z + D_i ξ + e_i,

i the step's minibatch. Here the maps are read off `kernel.drive`; `_affine` makes the law of
them, for batches drawn anew every step and for epochs of batches alike.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.diagnostics.laws._affine import Affine, stationary_moments
from sgmcmc.kernels._base import AbstractKernel, require_kernel
from sgmcmc.kernels._phases import AbstractPhaseKernel
from sgmcmc.types import Array, Batch, Blocks, PyTree, State

# Enough room for rounding in float64, none for arithmetic in float32.
TOLERANCE = 1e-10
NUM_DRAWS = 4096


class StationaryLaw(NamedTuple):
    """What a sampler's draws converge to, in float64; d parameters, raveled in tree order.

    Attributes:
        mean: (d,) mean of the recorded positions.
        covariance: (d, d) covariance of the recorded positions.
        momentum_mean: (d,) mean of the whitened momentum M^{-1/2} p at the word's end, which
            is p itself under the identity metric; (0,) for overdamped kernels.
        momentum_covariance: (d, d) its covariance, T I where the kernel is exact.
        cross_covariance: (d, d) Cov(position, momentum), 0 where the kernel is exact.
        spectral_radius: of the map of second moments, a step, below 1; they settle as its kth
            power after k steps.
    """

    mean: np.ndarray
    covariance: np.ndarray
    momentum_mean: np.ndarray
    momentum_covariance: np.ndarray
    cross_covariance: np.ndarray
    spectral_radius: float


def stationary_law(
    kernel: AbstractKernel,
    position: PyTree,
    batches: Sequence[PyTree] | None = None,
    *,
    data: PyTree = None,
    epochs: Sequence[Sequence[int]] | None = None,
) -> StationaryLaw:
    """Prove your own integrator in one call: the exact law of its draws on a Gaussian target.

    Computed from the Jacobian of `kernel.drive` in state and noise and a discrete Lyapunov
    equation, in float64 whatever JAX's setting, with no sampling. What a kernel gets wrong
    (a noise scale, a half step, the order of letters) is seen in milliseconds, to ten digits.

    Args:
        kernel: any kernel whose `drive` takes standard normals, as an array or a pytree of
            them; one of your own too.
        position: pytree of floating arrays, of the shape of the parameters; where in space
            does not matter.
        batches: what a step may be given: one batch with all data for a full gradient, or all
            minibatches. Kernels with `batches_per_step` = L > 1 take batches
            with a leading axis L. None (default): a target without data.
        data: all data, for gradient estimators that begin with a pass over them, as
            `gradients.control_variate` does; default: those of the first batch.
        epochs: equally likely sequences of indices into `batches`, all of one length, as
            `diagnostics.sweeps` lists them for the library's streams; the law is then averaged
            over the steps of an epoch. Default: every step draws one of `batches` anew.

    Returns:
        A `StationaryLaw`. Its `covariance` is that of the target where the kernel is exact.
        For n state variables the cost is that of a system of n² equations.

    Raises:
        ValueError: the step is not affine in state and noise (the target is not Gaussian, the
            numbers change with the step index, or the code rounds to float32); there is no
            stationary law (the spectral radius is 1 or more: the step size is beyond the
            limit of stability, or the friction is 0); `batches` is empty; `epochs` is empty, of
            several lengths, or names a batch that is not there.
        TypeError: `position` is not floating.

    Examples:
        >>> import numpy as np, sgmcmc, sgmcmc.models
        >>> target = sgmcmc.models.gaussian([0.0], 1.0).posterior()
        >>> law = stationary_law(sgmcmc.langevin(target, 0.2, word="OBABO"), np.zeros(1))
        >>> round(float(law.covariance[0, 0]), 6)  # 1 / (1 − h²/4)
        1.010101
    """
    checks.on_host("stationary_law", kernel, position, batches, data)
    if batches is None:
        batches = [None]
    if not len(batches):
        raise ValueError("batches: got an empty list; expected at least one batch")
    if epochs is None:
        epochs = [(i,) for i in range(len(batches))]
    _check_epochs(epochs, len(batches))
    checks.require_floating(position, "position")
    with _double_precision():
        kernel, position, batches, data = _widen((kernel, position, list(batches), data))
        require_kernel(kernel)
        state = _template(kernel, position, batches[0], data)
        _normals(kernel, state)
        if not isinstance(kernel, AbstractPhaseKernel):
            _require_normal_draws(kernel, state)
        maps = [_affine(kernel, state, batch) for batch in batches]
        momenta = trees.size(state.momentum)
    mean, covariance, radius = stationary_moments(maps, epochs)
    d = trees.size(position)
    return StationaryLaw(
        mean=mean[:d],
        covariance=covariance[:d, :d],
        momentum_mean=mean[d:],
        momentum_covariance=covariance[d:, d:],
        cross_covariance=covariance[:d, d : d + momenta],
        spectral_radius=radius,
    )


def _check_epochs(epochs: Sequence[Sequence[int]], num_batches: int) -> None:
    lengths = {len(epoch) for epoch in epochs}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"epochs: got {len(epochs)} of lengths {sorted(lengths)}; "
            "expected at least one, all of one length ≥ 1"
        )
    odd = [i for epoch in epochs for i in epoch if i not in range(num_batches)]
    if odd:
        raise ValueError(
            f"epochs: got the index {odd[0]}; allowed: 0 to {num_batches - 1}, "
            f"for there are {num_batches} batches"
        )


def _affine(kernel: AbstractKernel, state: State, batch: PyTree) -> Affine:
    """The step's affine map, checked at other points and at a later step."""
    flat, _ = ravel_pytree(_moving(state))
    size, normals = len(flat), trees.size(_normals(kernel, state))
    here = np.concatenate([np.asarray(flat), np.zeros(normals)])
    value, slopes, held = _linearise(kernel, state, batch, jnp.asarray(here))
    if not eqx.tree_equal(held, (state.estimator, state.metric)):
        raise ValueError(
            "kernel: its estimator or metric changes as it steps; expected a fixed one"
        )
    jacobian = np.asarray(slopes)
    offset = np.asarray(value) - jacobian @ here
    rng = np.random.default_rng(0)
    later = state._replace(clock=state.clock._replace(count=state.clock.count + 1_000))
    for other in (state, later):
        there = rng.normal(size=size + normals)
        got = np.asarray(_linearise(kernel, other, batch, jnp.asarray(there))[0])
        wanted = jacobian @ there + offset
        error = np.max(np.abs(got - wanted)) / max(1.0, np.max(np.abs(wanted)))
        if not error < TOLERANCE:
            raise ValueError(
                f"kernel: one step is not affine in state and noise (relative error {error:.2g}). "
                "An exact law needs a Gaussian target, numbers that do not change with the step, "
                "and functions that keep float64"
            )
    left, right = jacobian[:, :size], jacobian[:, size:]
    a, b, c = left[:size], right[:size], offset[:size]
    return Affine(a, b, c, left[size:], right[size:], offset[size:])


@eqx.filter_jit
def _linearise(
    kernel: AbstractKernel, state: State, batch: PyTree, point: Array
) -> tuple[Array, Array, PyTree]:
    """At `point` = (state, normals): outputs, their Jacobian, and the parts' next memories."""
    outputs = Partial(_outputs, kernel, state, batch)
    jacobian, (value, held) = jax.jacfwd(outputs, has_aux=True)(point)
    return value, jacobian, held


def _outputs(
    kernel: AbstractKernel, state: State, batch: PyTree, point: Array
) -> tuple[Array, PyTree]:
    """The next state's numbers, then those that are recorded: position, and momentum if any."""
    flat, unravel = ravel_pytree(_moving(state))
    position, momentum, extra = unravel(point[: len(flat)])
    noise = ravel_pytree(_normals(kernel, state))[1](point[len(flat) :])
    state = state._replace(position=position, momentum=momentum, extra=extra)
    following, info = kernel.drive(noise, state, batch)
    # The state may stand at another phase of the word than the recorded position.
    last = kernel.momentum_at_record(noise, state, batch)
    value = ravel_pytree((_moving(following), (info.position, last)))[0]
    return value, (value, (following.estimator, following.metric))


def _moving(state: State) -> tuple[PyTree, PyTree, PyTree]:
    """The parts of a state that a step on a Gaussian target maps affinely."""
    return state.position, state.momentum, state.extra


def _template(kernel: AbstractKernel, position: PyTree, batch: PyTree, data: PyTree) -> State:
    """A first state whose leaves are all floats; random words in `extra` become normals."""
    if data is None and batch is not None:
        data = batch.data if isinstance(batch, Batch | Blocks) else batch
    state = kernel.init(position, jax.random.key(0), data)
    if all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(state.extra)):
        return state
    return state._replace(extra=kernel.drive(_normals(kernel, state), state, batch)[0].extra)


def _normals(kernel: AbstractKernel, state: State) -> PyTree:
    """Zeros in the place of the standard normals that `drive` takes.

    Raises:
        ValueError: it takes something else.
    """
    shapes = kernel.normals(state)
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(shapes)):
        raise ValueError(
            f"kernel: the noise of {kernel.traits.name} is no array of standard normals, by which "
            "an exact law goes"
        )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _require_normal_draws(kernel: AbstractKernel, state: State) -> None:
    """Raise a ValueError unless `draw` gives standard normals, by the moments of 4,096 draws.

    At six standard errors the chance of a false alarm is 4e-9 a number.
    """
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    drawn = jax.vmap(lambda key: ravel_pytree(kernel.draw(key, state))[0])(keys)
    mean, variance = np.asarray(jnp.mean(drawn, axis=0)), np.asarray(jnp.var(drawn, axis=0))
    error = 6 / np.sqrt(NUM_DRAWS)
    if np.any(np.abs(mean) > error) or np.any(np.abs(variance - 1) > np.sqrt(2) * error):
        raise ValueError(
            f"kernel: what `draw` of {kernel.traits.name} gives is not standard normal (means to "
            f"{np.max(np.abs(mean)):.3g}, variances {np.min(variance):.3g} to "
            f"{np.max(variance):.3g}); draw standard normals and scale them in `drive`"
        )


def _widen(tree: PyTree) -> PyTree:
    """All floating arrays in float64."""

    def widen(leaf: PyTree) -> PyTree:
        return jnp.asarray(leaf, jnp.float64) if eqx.is_inexact_array_like(leaf) else leaf

    return jax.tree.map(widen, tree)


def _double_precision() -> contextlib.AbstractContextManager[object]:
    """`jax.enable_x64(True)`, which older versions keep among the experiments."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64(True)
