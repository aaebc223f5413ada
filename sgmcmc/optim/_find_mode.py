"""The mode of a posterior, by optax: where control variates are anchored and chains may begin."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.loop._diagnose import why_not_finite
from sgmcmc.streams import _source as batches
from sgmcmc.streams import _streams as streams
from sgmcmc.types import Key, PyTree


def find_mode(
    key: Key,
    posterior: Posterior,
    params: PyTree,
    data: PyTree = None,
    *,
    batch_size: int | None = None,
    num_steps: int = 1_000,
    learning_rate: Any = 0.01,
) -> PyTree:
    """Parameters near the mode of a posterior: Adam on minibatches of U/N.

    The mode is that of the density, prior and likelihood power included. Control variates
    are unbiased about any point, so that a mode found roughly will do.

    Args:
        key: `jax.random.key(seed)`, for the batches.
        posterior: a `Posterior`.
        params: pytree of floating arrays to begin at; never changed.
        data: pytree of arrays with one leading axis; None for targets without data.
        batch_size: examples a step, reshuffled every epoch; None: all of them.
        num_steps: steps, ≥ 1.
        learning_rate: Adam's at the first step, decayed to 0 along a cosine so that the
            batches' noise dies out; or an optax schedule of the step.

    Returns:
        A pytree like `params`.

    Raises:
        TypeError, ValueError: bad input, by name.
        FloatingPointError: the search left the finite numbers.
    """
    checks.on_host("find_mode", key, posterior, params, data)
    key = checks.typed_key(key)
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    checks.require_floating(params, "params")
    checks.count(num_steps, "num_steps", least=1)
    schedule = _schedule(learning_rate, int(num_steps))
    data, stream, batch_size = batches.data_and_stream(posterior, data, "reshuffled", batch_size)
    posterior.check_shapes(params, data, batches.Source(stream, batch_size, data).width)
    params = checks.as_arrays(params, "params")
    found = _descend(posterior, params, data, key, stream, batch_size, int(num_steps), schedule)
    if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(found)):
        said = why_not_finite(posterior, params, data)
        raise FloatingPointError(
            said
            or f"learning_rate: the search for the mode is not finite after {num_steps} steps of "
            f"{learning_rate}; try a smaller one, and look for NaN in the data"
        )
    return found


def _schedule(learning_rate: Any, num_steps: int) -> Any:
    import optax  # not at the top: `import sgmcmc` is quick without it

    if callable(learning_rate):
        return learning_rate
    number = isinstance(learning_rate, int | float | np.number | jax.Array)
    if not number or not 0 < learning_rate < np.inf:
        raise ValueError(
            f"learning_rate: got {learning_rate!r}; allowed: a number > 0, or a schedule"
        )
    return optax.cosine_decay_schedule(learning_rate, num_steps)


@eqx.filter_jit
def _descend(
    posterior: Posterior,
    params: PyTree,
    data: PyTree,
    key: Key,
    stream: streams.Stream,
    batch_size: int,
    num_steps: int,
    schedule: Any,
) -> PyTree:
    import optax

    data_size = 1 if data is None else leading_axis(data)
    optimizer = optax.adam(schedule)
    source = batches.Source(stream, batch_size, data)

    def step(carry: tuple[Any, ...], t: Any) -> tuple[tuple[Any, ...], None]:
        params, memory, order = carry
        order, batch, _ = batches.next_batch(source, key, t, order, batches.no_vmap)
        gradient = posterior.potential_and_gradient(params, batch)[1]
        # Adam's own constants suit gradients of order one, not of order N.
        gradient = trees.scale(1 / data_size, gradient)
        with jax.numpy_dtype_promotion("standard"):  # Adam's own arithmetic asks for it
            updates, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, updates), memory, order), None

    begin = (params, optimizer.init(params), batches.empty_order(source, key))
    (params, _, _), _ = jax.lax.scan(step, begin, jnp.arange(num_steps, dtype=jnp.int32))
    return params
