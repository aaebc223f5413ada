"""The sampler loop: `sample` makes draws."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sgmcmc import _checks as checks
from sgmcmc.kernels._base import require_kernel
from sgmcmc.loop._driver import drive, keep
from sgmcmc.sampling._continuation import prepare
from sgmcmc.sampling._inputs import Request, choice_of_step, most_draws, with_step
from sgmcmc.sampling._job import FEWEST, Sampling, hardly_moving
from sgmcmc.sampling._plan import Settings
from sgmcmc.sampling._run import Run
from sgmcmc.streams._streams import Stream
from sgmcmc.tuning._rules import RULES
from sgmcmc.types import Key, PyTree


def sample(
    key: Key,
    kernel: Any,
    params: PyTree | Callable[[Key], PyTree],
    data: PyTree = None,
    *,
    batch_size: int | None = None,
    stream: str | Stream | None = None,
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
        batch_size: n, examples a step; None: all of them. Streams that sweep cut the N
            examples evenly into ⌈N/n⌉ batches, which differ by one at most and have n at most;
            `run.config["batch_size"]` is the size of the larger ones, `"requested_batch_size"` n.
        stream: "reshuffled", "with_replacement", "symmetric", "cyclic", "full", or one of
            `sgmcmc.streams`. None (default): "reshuffled", but "with_replacement" for what is
            wrong under sweeps (`sgnht`, `sghmc(noise_estimate=…)`, `gradients.saga`), which
            refuses them. Each chain has its own batches; `run.config` has the stream's name.
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
        A `Run`. Ctrl-C ends the run early, after the chunk under way, and keeps the draws made
        so far: `run.interrupted`. With `step_size=None` no other step is tried then.

    Raises:
        TypeError, ValueError: bad input, by name, with what was given and what is allowed.
        MemoryError: the draws would take more than half of the free memory.
        FloatingPointError: with `step_size=None`, no step was found that stays finite, or that
            the chains accept in the burn-in; after seven of those the last is in `.run`.
        NonFiniteError: a chain diverged, with chain and step, and the run so far in `.run`.
        BaseException: whatever else breaks a run off, a second Ctrl-C too, has the draws of all
            chunks before in its `.run`, whose `resume()` gives the straight run bit for bit.
            Reducers whose result cannot be made are absent there.
    """
    checks.on_host("sample", key, kernel, params, data)
    require_kernel(kernel)
    if num_samples is None:
        num_samples = 1_000 if total_time is None else most_draws(kernel, num_burnin, thinning)
    settings = Settings(
        num_chains, num_burnin, num_samples, thinning, on_nonfinite, chunk_steps, chain_method,
        total_time,
    )  # fmt: skip
    request = Request(key, kernel, params, data, batch_size, stream, settings, collect, reducers)
    tuning = choice_of_step(request)
    while True:
        # The same numbers each time that a step is tried: a copy of the key each.
        chosen = dataclasses.replace(request.again(), kernel=with_step(kernel, tuning))
        job = Sampling(prepare(chosen, tuning), None)
        try:
            run = drive(job, job.settings.chunk_steps, progress)
            if tuning is None or not job.unsuited():
                _say_what_is_stuck(run)
                return run
            if tuning.halvings == RULES.max_halvings:
                raise FloatingPointError(
                    f"step_size: none found; {tuning}: of chain {job.stuck()[0]} hardly a step is "
                    "accepted. Give a step_size, rescale the parameters (metric=), or start "
                    "elsewhere"
                )
        except BaseException as error:
            keep(error, job)
            raise
        tuning = tuning.halved()


def _say_what_is_stuck(run: Run) -> None:
    """Warn of chains whose draws accept less than a tenth of what their step was chosen for."""
    if run.info.acceptance is None or run.num_samples < FEWEST:
        return
    stuck = hardly_moving(np.mean(run.info.acceptance, axis=1), run.tuning)
    if stuck:
        assert run.tuning is not None
        assert run.tuning.measured is not None
        chosen = run.tuning.measured["acceptance"]
        warnings.warn(
            f"sample: chains {stuck} are stuck: hardly a step is accepted, of a step_size that was "
            f"chosen for {chosen:.2g}. Give a shorter one, a longer num_burnin, or start elsewhere",
            UserWarning,
            stacklevel=3,
        )
