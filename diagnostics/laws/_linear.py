"""The affine maps of a kernel's steps and refreshes, by the Jacobians of its `drive` and `refresh`.

With a gradient linear in θ, one step is affine in the state z and in its standard normals ξ. z is
all that is floating in `State` but the clock: position, momentum, `extra`, and what the estimator
and the metric remember. A memory's invariants (SAGA's sum less its table's, a fixed mode's
gradient) have no law: z moves in the smallest space that holds where it begins, all positions,
momenta and `extra`, and all that steps and refreshes make of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from sgmcmc import _tree as trees
from sgmcmc.diagnostics.laws._affine import Affine, Refresh
from sgmcmc.kernels._base import AbstractKernel
from sgmcmc.kernels._phases import AbstractPhaseKernel
from sgmcmc.types import Array, PyTree, State

# Enough room for rounding in float64, none for arithmetic in float32.
TOLERANCE = 1e-10
NUM_DRAWS = 4096
# Far steps at which a map is compared with that of its phase, at the least.
CHECKS = 8


def template(kernel: AbstractKernel, position: PyTree, batch: PyTree, data: PyTree) -> State:
    """A first state; random words in `extra` become normals.

    Raises:
        ValueError: the kernel's noise is not of standard normals.
    """
    state = kernel.init(position, jax.random.key(0), data)
    normals = _normals(kernel, state)
    if not isinstance(kernel, AbstractPhaseKernel):
        _require_normal_draws(kernel, state)
    if all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(state.extra)):
        return state
    return state._replace(extra=kernel.drive(normals, state, batch)[0].extra)


def chain(
    kernel: AbstractKernel, state: State, batches: Sequence[PyTree], data: PyTree, period: int
) -> tuple[Affine, Refresh | None]:
    """The maps of each phase of `period` steps with each batch, and of a refresh if there is one.

    Each is checked at another point, and at later steps of the same phase.

    Raises:
        ValueError: a map is not affine, changes from period to period, or changes what is no
            floating number.
    """
    every = kernel.traits.refresh_every
    moving, _ = _split(state)
    size = trees.size(moving)
    normals = trees.size(_normals(kernel, state))
    here = np.concatenate([np.asarray(ravel_pytree(moving)[0]), np.zeros(normals)])
    rng = np.random.default_rng(0)
    made = [_step_maps(kernel, state, batch, period, here, rng) for batch in batches]
    steps = Affine(*(np.stack(field, axis=1) for field in zip(*made, strict=True)))
    refresh = None if every is None else _refresh_map(kernel, state, data, here[:size], every, rng)
    known = trees.size((state.position, state.momentum, state.extra))
    basis = _basis(steps, refresh, here[:size], known)
    return _reduced(steps, refresh, here[:size], basis)


def _step_maps(
    kernel: AbstractKernel,
    state: State,
    batch: PyTree,
    period: int,
    here: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, ...]:
    """The fields of `Affine` for one batch, with a leading axis of phases."""
    size = trees.size(_split(state)[0])
    phases = np.arange(period)
    value, jacobian, weight, _ = _numbers(_linearise, kernel, state, batch, phases, here)
    offset = value - jacobian @ here
    # The next period and the one after, which a wrong period fails, and others as far as 2³⁰ steps.
    leaps = [1, 2, *rng.integers(3, 2**30 // period, size=1 + CHECKS // period).tolist()]
    for leap in leaps:
        there = rng.normal(size=len(here))
        later = phases + period * leap
        got, _, again, same = _numbers(_linearise, kernel, state, batch, later, there)
        if not same.all():
            raise ValueError(
                f"kernel: {kernel.traits.name} keeps a count or another number that is not "
                "floating in its estimator, its metric or `extra`, and it changes with the step; "
                "an exact law needs a memory that is affine in positions and gradients"
            )
        wanted = jacobian @ there + offset
        scale = np.maximum(1.0, np.max(np.abs(wanted), axis=1, keepdims=True))
        error = np.max(np.abs(got - wanted) / scale)
        if not error < TOLERANCE or np.any(np.abs(again - weight) > TOLERANCE):
            raise ValueError(_not_affine(error, f"numbers that repeat every {period:,} steps"))
    a, b = jacobian[..., :size], jacobian[..., size:]
    return (
        a[:, :size], b[:, :size], offset[:, :size],
        a[:, size:], b[:, size:], offset[:, size:], weight,
    )  # fmt: skip


def _refresh_map(
    kernel: AbstractKernel,
    state: State,
    data: PyTree,
    here: np.ndarray,
    every: int,
    rng: np.random.Generator,
) -> Refresh:
    value, jacobian = _numbers(_linearise_refresh, kernel, state, data, here)
    there = rng.normal(size=len(here))
    got = _numbers(_linearise_refresh, kernel, state, data, there)[0]
    offset = value - jacobian @ here
    wanted = jacobian @ there + offset
    error = np.max(np.abs(got - wanted)) / max(1.0, np.max(np.abs(wanted)))
    if not error < TOLERANCE:
        raise ValueError(_not_affine(error, "a refresh that is affine too"))
    return Refresh(jacobian, offset, every)


def _not_affine(error: float, needs: str) -> str:
    return (
        f"kernel: one step is not affine in state and noise (relative error {error:.2g}), or "
        f"changes with the step. An exact law needs a Gaussian target, {needs}, "
        "and functions that keep float64"
    )


def _numbers(function: Callable[..., PyTree], *arguments: PyTree) -> list[np.ndarray]:
    return [np.asarray(x) for x in function(*arguments)]


@eqx.filter_jit
def _linearise(
    kernel: AbstractKernel, state: State, batch: PyTree, counts: Array, point: Array
) -> tuple[Array, Array, Array, Array]:
    """Outputs at `point` = (state, normals), Jacobian, weight, and whether all else stands still.

    All with a leading axis for `counts`.
    """

    def at(count: Array) -> tuple[Array, Array, Array, Array]:
        now = state._replace(clock=state.clock._replace(count=count))
        outputs = Partial(_outputs, kernel, now, batch)
        jacobian, (value, weight, same) = jax.jacfwd(outputs, has_aux=True)(point)
        return value, jacobian, weight, same

    counts = jnp.asarray(counts, state.clock.count.dtype)
    if len(counts) == 1:  # the common case compiles in less time without a loop
        return jax.tree.map(lambda x: x[None], at(counts[0]))
    return jax.lax.map(at, counts)


def _outputs(
    kernel: AbstractKernel, state: State, batch: PyTree, point: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    """The next state's numbers, then those that are recorded: position, and momentum if any."""
    flat = ravel_pytree(_split(state)[0])[0]
    noise = ravel_pytree(_normals(kernel, state))[1](point[len(flat) :])
    state = _placed(state, point[: len(flat)])
    following, info = kernel.drive(noise, state, batch)
    # The state may stand at another phase of the word than the recorded position.
    last = kernel.momentum_at_record(noise, state, batch)
    moving, still = _split(following)
    value = ravel_pytree((moving, (info.position, last)))[0]
    due = state.clock._replace(count=state.clock.count + 1)
    before, after = (_split(state)[1], due), (still, following.clock)
    same = [jnp.all(x == y) for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
    return value, (value, jnp.asarray(info.weight, float), jnp.all(jnp.stack(same)))


@eqx.filter_jit
def _linearise_refresh(
    kernel: AbstractKernel, state: State, data: PyTree, point: Array
) -> tuple[Array, Array]:
    def refreshed(point: Array) -> tuple[Array, Array]:
        value = ravel_pytree(_split(kernel.refresh(_placed(state, point), data))[0])[0]
        return value, value

    jacobian, value = jax.jacfwd(refreshed, has_aux=True)(point)
    return value, jacobian


def _split(state: State) -> tuple[PyTree, PyTree]:
    """The floating parts of a state, its memories last, and the others; without the clock."""
    parts = (state.position, state.momentum, state.extra, state.estimator, state.metric)
    moving, still = eqx.partition(parts, eqx.is_inexact_array)
    return moving, still


def _placed(state: State, flat: Array) -> State:
    """The state with these floating numbers, in the order of `_split`."""
    moving, still = _split(state)
    position, momentum, extra, estimator, metric = eqx.combine(ravel_pytree(moving)[1](flat), still)
    return State(position, momentum, estimator, metric, state.clock, extra)


def _basis(steps: Affine, refresh: Refresh | None, start: np.ndarray, known: int) -> np.ndarray:
    """Orthonormal columns (n, r): the first `known` coordinates, and what is reached from there.

    Only the memories, the coordinates beyond, may stand still or move together.
    """
    maps = steps.a.reshape(-1, *steps.a.shape[-2:])
    forced = [steps.b.reshape(-1, *steps.b.shape[-2:])[:, known:]]
    forced += [(maps @ start + steps.c.reshape(len(maps), -1) - start)[:, known:, None]]
    if refresh is not None:
        forced += [(refresh.a @ start + refresh.c - start)[None, known:, None]]
        maps = np.concatenate([maps, refresh.a[None]])
    size = len(start)
    found = _span(np.concatenate([_columns(x) for x in [maps[:, known:, :known], *forced]], axis=1))
    while 0 < found.shape[1] < size - known:
        more = _span(np.concatenate([found, _columns(maps[:, known:, known:] @ found)], axis=1))
        if more.shape[1] == found.shape[1]:
            break
        found = more
    basis = np.zeros((size, known + found.shape[1]))
    basis[:known, :known] = np.eye(known)
    basis[known:, known:] = found
    return basis


def _columns(matrices: np.ndarray) -> np.ndarray:
    """(k, n, r) as (n, k r)."""
    k, n, r = matrices.shape
    return np.moveaxis(matrices, 0, 1).reshape(n, k * r)


def _span(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns of the same span."""
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > TOLERANCE * np.max(sizes, initial=0.0)]


def _reduced(
    steps: Affine, refresh: Refresh | None, start: np.ndarray, basis: np.ndarray
) -> tuple[Affine, Refresh | None]:
    """The maps of y, z = start + basis y."""
    moved = steps._replace(
        a=basis.T @ steps.a @ basis,
        b=basis.T @ steps.b,
        c=(steps.a @ start + steps.c - start) @ basis,
        record_a=steps.record_a @ basis,
        record_c=steps.record_a @ start + steps.record_c,
    )
    if refresh is None:
        return moved, None
    shift = (refresh.a @ start + refresh.c - start) @ basis
    return moved, Refresh(basis.T @ refresh.a @ basis, shift, refresh.every)


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
