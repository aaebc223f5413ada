"""Running chunk after chunk on the host: draws into arrays, failures, interruption, resuming."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _tree as trees
from sgmcmc.loop._chunk import Carry, Inputs, Recorded, Span, run_chunk
from sgmcmc.loop._driver import CHUNK_SECONDS, interrupts
from sgmcmc.loop._progress import Progress
from sgmcmc.sampling import _describe as describe
from sgmcmc.sampling._draws import DrawnArrays
from sgmcmc.sampling._run import NonFiniteError, Run
from sgmcmc.types import Array, Key, PyTree, State

# Draws to make room for at first, where it is not known how many there will be.
ROOM = 1024


class Settings(NamedTuple):
    """What was asked of a run; `num_samples` grows when a run is resumed for more.

    With a `total_time`, `num_samples` is the most draws to make until it is covered, and
    afterwards those that were made.
    """

    num_chains: int
    num_burnin: int
    num_samples: int
    thinning: int
    on_nonfinite: str
    chunk_steps: int | None
    chain_method: str
    total_time: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Continuation:
    """All that a run needs to go on: `counter` steps are made, `carry` stands after them."""

    settings: Settings
    inputs: Inputs
    carry: Carry
    counter: int
    key: Key
    tuning: Any = None


class _Piece(NamedTuple):
    """One chunk of the plan: groups of steps, and whether each ends in a draw."""

    num_draws: int
    steps_per_draw: int
    record: bool

    @property
    def steps(self) -> int:
        return self.num_draws * self.steps_per_draw


@dataclasses.dataclass
class _Times:
    compile: float = 0.0
    burnin: float = 0.0
    draws: float = 0.0


def execute(continuation: Continuation, previous: Run | None, progress: bool) -> Run:
    """Run until the settings' number of draws, from wherever `continuation` stands."""
    settings, inputs = continuation.settings, continuation.inputs
    total = settings.num_burnin + settings.num_samples * settings.thinning
    counter = continuation.counter
    # `run_chunk` donates what it is given; the continuation must outlive this run.
    carry = trees.copy(continuation.carry) if previous is not None else continuation.carry
    times = _Times()
    began = time.perf_counter()
    carry, _ = run_chunk(inputs, _span(counter, _Piece(0, 1, False)), carry)
    jax.block_until_ready(carry)
    times.compile = time.perf_counter() - began
    made = 0 if previous is None else previous.num_draws
    room = settings.num_samples if settings.total_time is None else made + ROOM
    draws = DrawnArrays(settings.num_chains, room, previous)
    bar = Progress(None if settings.total_time else total - counter, progress)
    chunk_steps, failed = settings.chunk_steps or 1, np.asarray(carry.failed)
    try:
        with interrupts() as interrupted:
            while counter < total and not interrupted and not _must_stop(settings, failed):
                if counter == settings.num_burnin:
                    carry = carry._replace(elapsed=jax.tree.map(jnp.zeros_like, carry.elapsed))
                piece = next_piece(settings, counter, chunk_steps, inputs.program.capacity)
                began = time.perf_counter()
                before = trees.copy(carry) if settings.total_time and piece.record else carry
                carry, recorded = run_chunk(inputs, _span(counter, piece), carry)
                failed = np.asarray(carry.failed)
                needed = draws_until(settings, recorded, piece, counter, failed)
                if needed is not None:
                    # Where a run ends must not depend on where a chunk would have ended.
                    if needed < piece.num_draws:
                        piece = piece._replace(num_draws=needed)
                        carry, recorded = run_chunk(inputs, _span(counter, piece), before)
                        failed = np.asarray(carry.failed)
                    settings = settings._replace(num_samples=draws.made + needed)
                    total = settings.num_burnin + settings.num_samples * settings.thinning
                counter += piece.steps
                if piece.record:
                    draws.add(recorded, piece.num_draws)
                seconds = time.perf_counter() - began
                if counter <= settings.num_burnin:
                    times.burnin += seconds
                else:
                    times.draws += seconds
                if settings.chunk_steps is None:
                    # At most ten times the last, since a first chunk's rate says little.
                    wanted = max(1.0, CHUNK_SECONDS * piece.steps / seconds)
                    chunk_steps = int(min(10 * chunk_steps, wanted))
                bar.update(piece.steps, _facts(carry.state, failed), _share(settings, carry))
    except BaseException as error:
        # Whatever it was (a second Ctrl-C, memory), draws that were made are not lost.
        after = dataclasses.replace(continuation, settings=settings, carry=carry, counter=counter)
        error.run = _finish(after, failed, draws, times, previous)  # type: ignore[attr-defined]
        error.add_note("The draws made so far are in this error's `.run`.")
        raise
    finally:
        bar.close()
    after = dataclasses.replace(continuation, settings=settings, carry=carry, counter=counter)
    run = _finish(after, failed, draws, times, previous)
    if _must_stop(settings, failed):
        lost = np.flatnonzero(failed >= 0)
        chain = int(lost[np.argmin(failed[lost])])
        raise NonFiniteError(
            f"chain {chain} is not finite from step {failed[chain]} on (steps count from 0, "
            f"burn-in included); so are {lost.size} of {settings.num_chains} chains by step "
            f"{counter}. Try a smaller step_size, look for NaN in the data, "
            'or keep the other chains with on_nonfinite="stop_chain". '
            "The run so far is in this error's `.run`.",
            run,
        )
    return run


def next_piece(settings: Settings, counter: int, chunk_steps: int, capacity: int) -> _Piece:
    """The chunk that begins at step `counter`, of about `chunk_steps` steps."""
    thinning = settings.thinning
    if counter < settings.num_burnin:
        return _Piece(1, min(chunk_steps, settings.num_burnin - counter), False)
    made, within = divmod(counter - settings.num_burnin, thinning)
    if within == 0 and chunk_steps >= thinning:
        draws = min(chunk_steps // thinning, settings.num_samples - made, capacity)
        return _Piece(draws, thinning, True)
    steps = min(chunk_steps, thinning - within)
    return _Piece(1, steps, within + steps == thinning)


def draws_until(
    settings: Settings, recorded: Recorded, piece: _Piece, counter: int, failed: np.ndarray
) -> int | None:
    """How many of a chunk's draws it takes until every chain has covered `total_time`."""
    if settings.total_time is None or not piece.record:
        return None
    info: Any = recorded.info
    elapsed = np.asarray(info.elapsed)[:, : piece.num_draws]
    # A chain is not waited for from the draw on at which it has failed.
    last_steps = counter + piece.steps_per_draw * np.arange(1, piece.num_draws + 1)
    lost = (failed[:, None] >= 0) & (failed[:, None] < last_steps)
    there = (lost | ~(elapsed < settings.total_time)).all(axis=0)
    return int(np.argmax(there)) + 1 if there.any() else None


def _share(settings: Settings, carry: Carry) -> float | None:
    """How much of `total_time` the slowest chain has covered."""
    if settings.total_time is None:
        return None
    return float(np.nanmin(np.asarray(carry.elapsed[0]))) / settings.total_time


def _span(start: int, piece: _Piece) -> Span:
    number = lambda x: jnp.asarray(x, jnp.int32)  # noqa: E731
    return Span(
        number(start),
        number(piece.num_draws),
        number(piece.steps_per_draw),
        jnp.asarray(piece.record),
    )


def _must_stop(settings: Settings, failed: np.ndarray) -> bool:
    if settings.on_nonfinite == "raise":
        return bool(np.any(failed >= 0))
    return settings.on_nonfinite == "stop_chain" and bool(np.all(failed >= 0))


def _finish(
    after: Continuation, failed: np.ndarray, draws: DrawnArrays, times: _Times, previous: Run | None
) -> Run:
    settings, inputs, states = after.settings, after.inputs, after.carry.reduced
    recorded = draws.finished()
    if recorded is None:
        recorded = no_draws(after)
    info: Any = recorded.info
    stopped = {int(c): int(failed[c]) for c in np.flatnonzero(failed >= 0)}
    if settings.on_nonfinite != "ignore":
        _blank(recorded, settings, stopped)
    # A chunk that broke off has taken the carry with it.
    lost = any(x.is_deleted() for x in jax.tree.leaves(after.carry))
    reduced = {
        name: jax.tree.map(np.asarray, reducer.result(states[name]))
        for name, reducer in inputs.reducers.items()
        if not lost
    }
    before = previous or _NOTHING
    return Run(
        draws=recorded.values,
        weights=np.asarray(info.weight),
        info=info._replace(weight=()),
        reduced=reduced,
        config=describe.configuration(inputs, settings, after.key),
        versions=describe.versions(),
        stopped=stopped,
        num_steps=after.counter,
        gradient_evaluations=_gradient_evaluations(after),
        compile_time=before.compile_time + times.compile,
        burnin_time=before.burnin_time + times.burnin,
        wall_time=before.wall_time + times.draws,
        tuning=after.tuning,
        continuation=None if lost else after,
    )


def _gradient_evaluations(after: Continuation) -> float:
    """Minibatch gradients of all chains' steps; a refresh from all data counts as N/n of them.

    An energy of all data counts as N/(3n): an evaluation without the backward pass, which
    costs about twice as much.
    """
    traits, program = after.inputs.kernel.traits, after.inputs.program
    count = traits.gradient_evaluations * after.counter
    every = traits.refresh_every
    passes = program.data_size / program.batch_size if program.batch_size else 1
    if every is not None:
        refreshes = max(0, after.counter - 1) // every
        count += refreshes * traits.refresh_passes * passes
    count += traits.full_energies * after.counter * passes / 3
    spent = 0.0 if after.tuning is None else after.tuning.gradient_evaluations
    return float(count * after.settings.num_chains + spent)


class _Before(NamedTuple):
    compile_time: float = 0.0
    burnin_time: float = 0.0
    wall_time: float = 0.0


_NOTHING = _Before()


def no_draws(after: Continuation) -> Recorded:
    """Arrays of no draw, with the right shapes all the same."""
    span = _span(after.counter, _Piece(0, 1, False))
    shapes = eqx.filter_eval_shape(run_chunk, after.inputs, span, after.carry)[1]
    return jax.tree.map(lambda s: np.empty((s.shape[0], 0, *s.shape[2:]), s.dtype), shapes)


def _blank(recorded: Recorded, settings: Settings, stopped: dict[int, int]) -> None:
    """NaN and weight 0, in place, for what a chain did from its first step that was not finite."""
    info: Any = recorded.info
    for chain, step in stopped.items():
        valid = max(0, (step - settings.num_burnin) // settings.thinning)
        for x in jax.tree.leaves(recorded):
            if jnp.issubdtype(x.dtype, jnp.floating):
                x[chain, valid:] = np.nan
        info.weight[chain, valid:] = 0
        info.finite[chain, valid:] = False


def _facts(state: State, failed: np.ndarray) -> str:
    """Kinetic temperature, where there are momenta, and finite flags, for the progress bar."""
    finite = f"finite {int(np.sum(failed < 0))}/{failed.size}"
    if not jax.tree.leaves(state.momentum):
        return finite
    return f"T {float(_kinetic_temperature(state.momentum)):.3g}, {finite}"


@jax.jit
def _kinetic_temperature(momentum: PyTree) -> Array:
    """Mean square of the whitened momenta, whose law is N(0, T)."""
    return trees.dot(momentum, momentum) / trees.size(momentum)
