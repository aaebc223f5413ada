"""The sampler loop: `sample` makes draws, `load` reads a saved run, both can go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._tree import leading_axis
from sgmcmc.kernels._base import require_kernel
from sgmcmc.loop._chunk import Carry, Inputs, Program
from sgmcmc.loop._devices import choose_method
from sgmcmc.sampling import _describe as describe
from sgmcmc.sampling import _draws as draws
from sgmcmc.sampling._archive import Saved
from sgmcmc.sampling._draws import collector
from sgmcmc.sampling._execution import Continuation, Settings, execute, no_draws
from sgmcmc.sampling._inputs import (
    check_settings,
    derive,
    most_draws,
    positions,
    total_steps,
)
from sgmcmc.sampling._run import NonFiniteError, Run
from sgmcmc.streams import _source as batches
from sgmcmc.streams._streams import Stream
from sgmcmc.tuning._choose import choose, require_tunable, with_choice
from sgmcmc.tuning._record import HALVINGS, Tuning, is_untuned
from sgmcmc.types import Key, PyTree

# Of fewer draws a mean acceptance says little.
FEWEST = 20


def sample(
    key: Key,
    kernel: Any,
    params: PyTree | Callable[[Key], PyTree],
    data: PyTree = None,
    *,
    batch_size: int | None = None,
    stream: str | Stream = "reshuffled",
    num_chains: int = 4,
    num_burnin: int = 1_000,
    num_samples: int | None = None,
    thinning: int = 1,
    total_time: float | None = None,
    collect: Callable[[PyTree], PyTree] | Sequence[str] | bool = True,
    reducers: Mapping[str, Any] | None = None,
    on_nonfinite: str = "raise",
    chain_method: str = "auto",
    chunk_steps: int | None = None,
    progress: bool = True,
) -> Run:
    """Draw from a posterior: `num_chains` chains of `num_burnin + num_samples · thinning` steps.

    Args:
        key: `jax.random.key(seed)`, or a legacy uint32 key, which gives the same draws.
        kernel: a sampler, for example `sgmcmc.baoab(posterior, step_size=0.01)`.
        params: where chains begin: one pytree of floating arrays for all, one with a leading
            chain axis (each leaf's first axis `num_chains`, where the target takes a slice and
            not the whole), or `init(key) -> params`, called once a chain for dispersed starts.
            Never changed, and still usable afterwards.
        data: pytree of arrays with one leading axis, NumPy's or JAX's; None for targets
            without data.
        batch_size: examples a step; None: all of them. Streams that sweep end in a short
            batch where it does not divide the data; one much shorter than the others brings
            back the noise that a sweep cancels (`docs/posteriordb.md`, "A batch of two").
        stream: "reshuffled" (default), "with_replacement", "symmetric", "cyclic", "full", or
            one of `sgmcmc.streams`. Each chain has its own batches.
        num_chains, num_burnin, num_samples, thinning: `num_samples` draws of each chain, one
            every `thinning` steps, after `num_burnin` steps. Default 1,000 draws.
        total_time: draw until every chain has covered this much physical time (in units of
            `step_size`) after the burn-in, or has made `num_samples` draws where that is
            given too. With an adaptive clock steps vary, and so does what a draw covers.
        collect: what to keep of a draw: True all of it, False nothing, a function of the
            position, or the names of leaves ("layers/0/weight", or a part of the path before
            a "/").
        reducers: {name: reducer} of `sgmcmc.reducers`, folded draw by draw.
        on_nonfinite: "raise" a `NonFiniteError` that carries the draws so far; "stop_chain":
            keep the other chains; "ignore".
        chain_method: "vmap", "map" (whole chains in turn), "sharded_vmap", "sharded_map"
            (chains spread over the devices), or "auto", a fixed rule of sizes, backend and
            device count (`sgmcmc.loop`).
        chunk_steps: steps between two looks at the clock; None: about half a second. Changes
            no draw.
        progress: show a progress bar; plain lines where the output is no terminal.

    Returns:
        A `Run`. Ctrl-C ends the run early and keeps the draws made so far.

    Raises:
        TypeError, ValueError: bad input, by name, with what was given and what is allowed.
        MemoryError: the draws would take more than half of the free memory.
        FloatingPointError: with `step_size=None`, no step was found that stays finite.
        NonFiniteError: a chain diverged, with chain and step, and the run so far in `.run`.
    """
    if num_samples is None:
        num_samples = 1_000 if total_time is None else most_draws(kernel, num_burnin, thinning)
    settings = Settings(
        num_chains, num_burnin, num_samples, thinning, on_nonfinite, chunk_steps, chain_method,
        total_time,
    )  # fmt: skip
    tuning = None
    if is_untuned(kernel):
        tuning = _tuning(key, kernel, params, data, batch_size, stream, num_chains, num_burnin)
    while True:
        chosen = kernel if tuning is None else with_choice(kernel, tuning)
        # The same numbers each time that a step is tried: a copy of the key each.
        continuation = _prepare(
            _copied(key), chosen, params, data, batch_size, stream, settings, collect, reducers
        )
        continuation = dataclasses.replace(continuation, tuning=tuning)
        try:
            run = execute(continuation, None, progress)
        except NonFiniteError as error:
            if tuning is None or not _try_again(tuning, error.run):
                raise
            run = error.run
        if tuning is None or not _try_again(tuning, run):
            return run
        tuning = tuning.halved()


def _copied(key: Any) -> Any:
    """A key that JAX's check of reuse takes for another."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.clone(key) if typed else key


def _try_again(tuning: Tuning, run: Run) -> bool:
    """Whether a chain was lost in the burn-in, or got stuck, by a step that was chosen here."""
    early = any(step < run.config["num_burnin"] for step in run.stopped.values())
    stuck = _stuck(tuning, run)
    if stuck and tuning.halvings == HALVINGS:
        raise FloatingPointError(
            f"step_size: none found; {tuning}: of chain {stuck[0]} hardly a step is accepted. "
            "Give a step_size, rescale the parameters (metric=), or start elsewhere"
        )
    return (early or bool(stuck)) and tuning.halvings < HALVINGS


def _stuck(tuning: Tuning, run: Run) -> list[int]:
    """Chains that accept less than a tenth of what their step was chosen for."""
    acceptance = run.info.acceptance
    if "acceptance" not in (tuning.found or {}) or acceptance is None or run.num_draws < FEWEST:
        return []
    shares = np.mean(acceptance, axis=1)
    return [int(c) for c in np.flatnonzero(shares < tuning.found["acceptance"] / 10)]  # type: ignore[index]


def _tuning(
    key: Any,
    kernel: Any,
    params: Any,
    data: PyTree,
    batch_size: int | None,
    stream: str | Stream,
    num_chains: int,
    num_burnin: int,
) -> Tuning:
    """What `tune` chooses from the first chain's start."""
    require_tunable(kernel)
    key = checks.typed_key(_copied(key))
    checks.count(num_chains, "num_chains", least=1)
    checks.count(num_burnin, "num_burnin", least=0)
    data, chosen, batch_size = batches.data_and_stream(
        kernel.posterior, data, stream, batch_size, kernel.traits.batches,
        kernel.traits.batches_per_step,
    )  # fmt: skip
    start_keys, _, _ = derive(_copied(key), num_chains)
    start = jax.tree.map(lambda x: x[0], positions(start_keys, kernel, params, data)[0])
    return choose(
        jax.random.fold_in(key, 2**31 - 1), kernel, start, data, chosen, batch_size, num_burnin
    )


def resume(
    run: Run,
    num_samples: int | None,
    *,
    kernel: Any,
    params: PyTree,
    data: PyTree,
    stream: str | Stream | None,
    collect: Any,
    reducers: Mapping[str, Any] | None,
    progress: bool,
) -> Run:
    """Go on with a run; see `Run.resume`."""
    unfinished = num_samples is None
    if num_samples is None:
        num_samples = run.config["num_samples"] - run.num_draws
        if num_samples < 1:
            raise ValueError("num_samples: this run has all its draws; say how many to add")
    checks.count(num_samples, "num_samples", least=1)
    continuation = run.continuation
    if continuation is None or (isinstance(continuation, Saved) and not continuation.leaves):
        raise ValueError("run: it broke off inside a chunk, so its draws are all that is left")
    if isinstance(continuation, Saved):
        continuation = _thaw(run, continuation, kernel, params, data, stream, collect, reducers)
    settings = continuation.settings._replace(num_samples=run.num_draws + int(num_samples))
    if not unfinished:
        settings = settings._replace(total_time=None)
    total_steps(settings, continuation.inputs.kernel)
    kept = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), run.draws)
    if settings.total_time is None:
        draws.draws_fit(kept, settings.num_chains, settings.num_samples)
    return execute(dataclasses.replace(continuation, settings=settings), run, progress)


def _thaw(
    run: Run,
    saved: Saved,
    kernel: Any,
    params: Any,
    data: Any,
    stream: str | Stream | None,
    collect: Any,
    reducers: Any,
) -> Continuation:
    """A loaded run's continuation, built anew from its configuration and checked against it."""
    if kernel is None:
        raise ValueError("kernel: got None; a loaded run needs the kernel that made it")
    if is_untuned(kernel) and run.tuning is not None:
        kernel = with_choice(kernel, run.tuning)
    if describe.fingerprint(kernel) != saved.fingerprint:
        raise ValueError("kernel: its numbers or sub-steps are not those that made this run")
    if params is None:
        if not saved.plain_position:
            raise ValueError(
                "params: got None; these parameters are no dicts, lists and tuples, so resuming "
                "a loaded run needs a pytree of their structure"
            )
        params = jax.tree.map(lambda x: x[0], saved.position)
    config = run.config
    asked: dict[str, Any] = {name: config.get(name) for name in Settings._fields}
    settings = Settings(**asked)
    key = jax.random.wrap_key_data(jnp.asarray(config["key"], jnp.uint32), impl=config["key_type"])
    fresh = _prepare(
        key, kernel, params, data, config["requested_batch_size"],
        config["stream"] or "full" if stream is None else stream,
        settings, collect, reducers,
    )  # fmt: skip
    leaves, structure = jax.tree.flatten(fresh.carry)
    if _shapes(leaves) != _shapes(saved.leaves):
        raise ValueError(
            "reducers: what a chain carries differs from what was saved; pass the params "
            "and reducers of the run that was saved"
        )
    if _shapes(no_draws(fresh).values) != _shapes(jax.tree.map(lambda x: x[:, :0], run.draws)):
        raise ValueError(
            "collect: what it keeps of a draw differs in shape from the draws that were saved; "
            "pass the collect of the run that was saved"
        )
    carry = jax.tree.unflatten(structure, [jnp.asarray(x) for x in saved.leaves])
    return dataclasses.replace(fresh, carry=carry, counter=saved.counter, tuning=run.tuning)


def _shapes(tree: PyTree) -> list[Any]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _prepare(
    key: Any,
    kernel: Any,
    params: Any,
    data: PyTree,
    batch_size: int | None,
    stream: str | Stream,
    settings: Settings,
    collect: Any,
    reducers: Mapping[str, Any] | None,
) -> Continuation:
    """Check everything, and stand at step 0."""
    key = checks.typed_key(key)
    require_kernel(kernel)
    settings = check_settings(settings)
    total_steps(settings, kernel)
    num_chains = settings.num_chains
    data, chosen, batch_size = batches.data_and_stream(
        kernel.posterior, data, stream, batch_size, kernel.traits.batches,
        kernel.traits.batches_per_step,
    )  # fmt: skip
    start_keys, momentum_keys, keys = derive(key, num_chains)
    position, template = positions(start_keys, kernel, params, data)
    if kernel.posterior is not None:
        kernel.posterior.check_shapes(template, data, batch_size)
    if kernel.clock is not None:
        kernel.clock.check(template)
    keep = collector(collect, template)
    kept = () if keep is None else jax.eval_shape(lambda p: keep(kernel.recorded(p)), template)
    room = settings.num_samples if settings.total_time is None else 1
    draw_bytes = draws.draws_fit(kept, num_chains, room)
    num_parameters = trees.size(template)
    reducers = _reducers(reducers)
    method, vmapped, devices = choose_method(settings.chain_method, num_chains, num_parameters)
    program = Program(
        stream=chosen,
        data_size=0 if data is None else leading_axis(data),
        batch_size=batch_size,
        num_parameters=num_parameters,
        capacity=_capacity(draw_bytes),
        vmapped=vmapped,
        devices=devices,
        protect=settings.on_nonfinite != "ignore",
    )
    inputs = Inputs(program, kernel, data, keys, keep, reducers)
    carry = _start(inputs, momentum_keys, position)
    return Continuation(settings._replace(chain_method=method), inputs, carry, 0, key)


@eqx.filter_jit
def _start(inputs: Inputs, momentum_keys: Key, position: PyTree) -> Carry:
    program, kernel = inputs.program, inputs.kernel
    begin = lambda p, k: kernel.init(p, k, inputs.data)  # noqa: E731
    state = jax.vmap(begin)(position, momentum_keys)
    source = kernel.source(program.stream, program.batch_size, inputs.data)
    order = jax.vmap(lambda key: batches.empty_order(source, key))(inputs.keys.stream)
    recorded = jax.vmap(kernel.recorded)(position)
    reduced = {name: jax.vmap(r.init)(recorded) for name, r in inputs.reducers.items()}
    failed, zero = jnp.full(momentum_keys.shape, -1, jnp.int32), jnp.zeros(momentum_keys.shape)
    return Carry(state, order, failed, (zero, zero), reduced)


def _reducers(reducers: Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(reducers, Mapping | None):
        raise TypeError(f"reducers: got {type(reducers).__name__}; expected {{name: reducer}}")
    for name, reducer in (reducers or {}).items():
        if not all(hasattr(reducer, part) for part in ("init", "update", "result")):
            raise TypeError(
                f"reducers: {name!r} has no init, update and result; see sgmcmc.reducers"
            )
    return dict(reducers or {})


def _capacity(draw_bytes: int) -> int:
    """Draws that a chunk can hold: 32 MiB of them. Not of `num_samples`: one trace for any."""
    return max(1, min(2**16, 2**25 // max(draw_bytes, 1)))
