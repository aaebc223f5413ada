"""Checks of what users hand to `sample`: each error names the argument, the value, the allowed."""

from __future__ import annotations

import contextlib
import operator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import streams, trees
from sgmcmc.posterior import Posterior, check_data, leading_axis
from sgmcmc.rates import check_range
from sgmcmc.streams import Stream
from sgmcmc.types import Batch, Key, PyTree


def typed_key(key: Any) -> Key:
    """A typed key; legacy uint32 keys become the typed key with the same draws."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return jnp.asarray(key)
        if key.dtype == jnp.uint32 and key.ndim == 1:
            with contextlib.suppress(TypeError):  # words of another number than a key has
                return jax.random.wrap_key_data(jnp.asarray(key))
    shape = getattr(key, "shape", None)
    raise TypeError(
        f"key: got {type(key).__name__}{'' if shape is None else f' of shape {shape}'}; "
        "expected one jax.random.key(seed)"
    )


def require_kernel(kernel: Any) -> None:
    missing = [name for name in ("init", "draw", "drive", "step") if not hasattr(kernel, name)]
    if missing:
        raise TypeError(
            f"kernel: got {type(kernel).__name__} without {', '.join(missing)}; expected a "
            "sampler such as sgmcmc.sgld(posterior, step_size), or for BlackJAX's "
            "sgmcmc.from_blackjax(algorithm)"
        )
    clock = getattr(kernel, "clock", None)
    for name, owner in (("step_size", clock), ("friction", kernel), ("temperature", kernel)):
        shape = jnp.shape(getattr(getattr(owner, name, None), "value", 0.0))
        if shape != ():
            raise ValueError(
                f"{name}: got an array of shape {shape}; expected a number (a grid is for "
                "jax.vmap over kernels, or for one `sample` each, which share one trace)"
            )


def count(value: Any, name: str, *, least: int) -> None:
    if isinstance(value, bool) or not _is_index(value):
        raise TypeError(f"{name}: got {value!r}; expected an integer ≥ {least}")
    if value < least:
        raise ValueError(f"{name}: got {value}; allowed: at least {least}")


def _is_index(value: Any) -> bool:
    # NumPy's float arrays have an __index__ too, and refuse only when asked.
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}; allowed: {', '.join(allowed)}")


def settings(asked: Any) -> Any:
    """An `execution.Settings` with its numbers checked, as Python's own integers."""
    for name in ("num_chains", "num_samples", "thinning"):
        count(getattr(asked, name), name, least=1)
    count(asked.num_burnin, "num_burnin", least=0)
    if asked.chunk_steps is not None:
        count(asked.chunk_steps, "chunk_steps", least=1)
    if asked.total_time is not None:
        check_range(asked.total_time, "total_time", above_zero=True)
        asked = asked._replace(total_time=float(asked.total_time))
    choice(asked.on_nonfinite, "on_nonfinite", ("raise", "stop_chain", "ignore"))
    plain = {name: operator.index(x) for name, x in asked._asdict().items() if _is_index(x)}
    return asked._replace(**plain)


def total_steps(asked: Any, kernel: Any) -> None:
    """Raise a ValueError unless the steps, and their batches, can be counted in an int32."""
    steps = asked.num_burnin + asked.num_samples * asked.thinning
    if (steps + 1) * getattr(kernel, "batches_per_step", 1) >= 2**31:
        raise ValueError(f"num_samples: burn-in and draws make {steps:,} steps; allowed: < 2³¹")
    clock = getattr(kernel, "clock", None)
    if clock is not None and hasattr(clock, "check_run"):
        # Until a time is covered: how many steps that takes is not known yet.
        most = asked.num_samples if asked.total_time is None else 2**20 // asked.thinning
        clock.check_run(asked.num_burnin, min(asked.num_samples, most), asked.thinning)


def most_draws(kernel: Any, num_burnin: int, thinning: int) -> int:
    """The most draws a run can make; see `total_steps`."""
    count(num_burnin, "num_burnin", least=0)
    count(thinning, "thinning", least=1)
    steps = (2**31 - 1) // getattr(kernel, "batches_per_step", 1) - 2
    return max(1, (steps - num_burnin) // thinning)


def data_and_stream(
    kernel: Any, data: PyTree, stream: str | Stream, batch_size: int | None
) -> tuple[PyTree, Stream, int]:
    """Data as JAX arrays, the stream, and the batch size (0 without data)."""
    chosen = streams.from_name(stream)
    posterior = getattr(kernel, "posterior", None)
    has_likelihood = isinstance(posterior, Posterior) and posterior.log_likelihood is not None
    if data is None:
        if has_likelihood:
            raise ValueError(
                "data: got None; this posterior has a likelihood and needs its data: "
                "sample(key, kernel, params, data)"
            )
        if batch_size is not None:
            raise ValueError(f"batch_size: got {batch_size} without data; allowed: None")
        return None, chosen, 0
    if isinstance(posterior, Posterior) and not has_likelihood:
        raise ValueError("data: this posterior has no likelihood; allowed: None")
    data_size = leading_axis(data)
    check_data(data, posterior.data_size if isinstance(posterior, Posterior) else None)
    for path, leaf in trees.named_leaves(data):
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if getattr(dtype, "kind", "") in "OSUMm" and not isinstance(leaf, jax.Array):
            raise TypeError(f"data: leaf {path} is {dtype}; expected numbers")
    data = jax.tree.map(jnp.asarray, data)
    needs_all = getattr(getattr(kernel, "gradient", None), "needs_full_batch", False)
    if batch_size is None or needs_all:
        if batch_size not in (None, data_size):
            raise ValueError(
                f"batch_size: got {batch_size}; allowed: None, since the `full` gradient "
                "estimator uses all data every step"
            )
        return data, streams.full(), data_size
    streams.check_batch_size(batch_size, data_size, chosen)
    remembers = getattr(getattr(kernel, "gradient", None), "needs_fresh_batches", False)
    if remembers and chosen.name in ("reshuffled", "symmetric", "cyclic"):
        raise ValueError(
            f'stream: got "{chosen.name}" with a gradient estimator that remembers the examples '
            "it has seen; where a sweep leaves some for later this biases every step. Allowed: "
            '"with_replacement"'
        )
    if chosen.name == "full" and batch_size != data_size:
        raise ValueError(
            f'batch_size: got {batch_size}; allowed with stream="full": None or {data_size}'
        )
    if hasattr(kernel, "check_stream"):
        kernel.check_stream(chosen, data_size, batch_size)
    return data, chosen, int(batch_size)


def _batch_shape(data: PyTree, batch_size: int) -> Any:
    if data is None:
        return None
    rows = lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)  # noqa: E731
    return Batch(jax.tree.map(rows, data))


def log_density_shape(kernel: Any, params: PyTree, data: PyTree, batch_size: int) -> None:
    """Trace the potential once, so that a wrong shape is an error before anything runs."""
    posterior = getattr(kernel, "posterior", None)
    if isinstance(posterior, Posterior):
        eqx.filter_eval_shape(posterior.potential, params, _batch_shape(data, batch_size))


def require_tunable(kernel: Any) -> None:
    """Raise unless `step_size=None` can be chosen for this kernel."""
    require_kernel(kernel)
    missing = [p for p in ("posterior", "metric", "gradient") if not hasattr(kernel, p)]
    if missing:
        raise ValueError(
            f"step_size: got None; it is not chosen for {type(kernel).__name__}; allowed: a number"
        )


def clock_monitor(kernel: Any, params: PyTree) -> None:
    """Try an adaptive clock's monitor, outside of jit, where its numbers can be looked at."""
    check = getattr(getattr(kernel, "clock", None), "check", None)
    if check is not None:
        check(params)


def has_chain_axis(kernel: Any, params: PyTree, data: PyTree, num_chains: int) -> bool:
    """Whether `params` has a leading chain axis.

    So it is if every leaf's first axis is `num_chains` and the target takes a slice but not
    the whole. Where it takes both, `params` is one position: pass `init(key)` to say otherwise.
    """
    leaves = jax.tree.leaves(params)
    if any(leaf.ndim == 0 or leaf.shape[0] != num_chains for leaf in leaves):
        return False
    posterior = getattr(kernel, "posterior", None)
    if not isinstance(posterior, Posterior):
        return False
    batch = _batch_shape(data, 1)

    def takes(tree: PyTree) -> bool:
        try:
            eqx.filter_eval_shape(posterior.potential, tree, batch)
        except Exception:  # whatever the user's function raises, it does not take this
            return False
        return True

    return takes(jax.tree.map(lambda x: x[0], params)) and not takes(params)


def draws_fit(kept: PyTree, num_chains: int, num_samples: int) -> int:
    """Bytes of one draw of all chains; a MemoryError if all take over half the free memory.

    `kept` has the shapes of what is kept of one chain's draw.
    """
    # Beside what is kept, the weight and the info: at most eight numbers a draw.
    one = (trees.num_bytes(kept) + 64) * num_chains
    free, needed = free_memory(), one * num_samples
    if free is not None and needed > free / 2:
        raise MemoryError(
            f"num_samples: {num_chains} chains of {num_samples:,} draws take {needed:,} bytes, "
            f"over half of the {free:,} free. Keep less of a draw (collect=), fold draws into "
            "reducers (reducers=, collect=False), thin them (thinning=), or run in parts and "
            "save each (a disk store, store=, is not in this version)"
        )
    return one


def free_memory() -> int | None:
    """Bytes of main memory that are free to use; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
