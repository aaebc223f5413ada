"""How a run goes on: live chains and their chunks, those of a file, or none that are left."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._diagnose import why_not_finite
from sgmcmc.kernels._base import require_kernel
from sgmcmc.loop._chunk import NO_STEP, Carry, Inputs, Piece, Recorded, run_chunk
from sgmcmc.loop._driver import AbstractJob, Facts, drive
from sgmcmc.loop._start import begun, derive, kept, placed, positions
from sgmcmc.sampling import _archive as archive
from sgmcmc.sampling import _describe as describe
from sgmcmc.sampling import _fingerprint as fingerprints
from sgmcmc.sampling._draws import DrawnArrays, blank, collector, require_room
from sgmcmc.sampling._inputs import Request, total_steps, with_step
from sgmcmc.sampling._plan import Settings, draws_until, next_piece
from sgmcmc.sampling._run import AbstractContinuation, Frozen, NonFiniteError, Run, Unsaved
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._record import Tuning
from sgmcmc.types import Array, Info, Key, PyTree

# Draws to make room for at first, where it is not known how many there will be.
ROOM = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Live(AbstractContinuation):
    """All that a run needs to go on.

    Attributes:
        settings, key, tuning: of the run.
        inputs: what its chunks read.
        carry: where the chains stand after `steps` steps.
        goal: draws with which the run is complete: what was asked for, or, once a `total_time`
            is covered, what that took.
        params: what the chains began with, as it was given.
    """

    settings: Settings
    inputs: Inputs
    carry: Carry
    steps: int
    goal: int
    key: Key
    tuning: Tuning | None = None
    params: PyTree = None

    def run(self, progress: bool) -> Run:
        """Make all draws, from step 0 on; the carry is used up."""
        return _finished(_Sampling(self, None), progress)

    def resume(self, run: Run, num_samples: int | None, given: Unsaved, progress: bool) -> Run:
        """The same chains with more draws; nothing has to be given anew."""
        goal = run.num_samples + _owed(run, num_samples)
        settings = self.settings
        if num_samples is not None:
            settings = settings._replace(total_time=None)
        total_steps(settings, goal, self.inputs.kernel)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), run.draws)
        if settings.total_time is None:
            require_room(one, settings.num_chains, goal)
        # Chunks take the carry that they are given, and this run must outlive the longer one.
        live = dataclasses.replace(self, settings=settings, goal=goal, carry=trees.copy(self.carry))
        return _finished(_Sampling(live, run), progress)

    def frozen(self) -> Frozen:
        """The carry's arrays, and the fingerprint of what the run reads."""
        carry = jax.tree.map(np.asarray, self.carry)
        position = carry.state.position
        return Frozen(
            leaves=jax.tree.leaves(carry),
            fingerprint=fingerprints.fingerprint(self.inputs),
            position=position,
            plain_position=not archive.has_own_containers(archive.containers(position)),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Saved(AbstractContinuation):
    """A loaded run's: arrays, which the kernel and the data that are given anew set going."""

    contents: Frozen

    def resume(self, run: Run, num_samples: int | None, given: Unsaved, progress: bool) -> Run:
        """Build the chains anew from the run's configuration, check them, and go on."""
        _owed(run, num_samples)
        return self._thawed(run, given).resume(run, num_samples, given, progress)

    def frozen(self) -> Frozen:
        """What was loaded."""
        return self.contents

    def _thawed(self, run: Run, given: Unsaved) -> Live:
        saved, config = self.contents, run.config
        if given.kernel is None:
            raise ValueError("kernel: got None; a loaded run needs the kernel that made it")
        require_kernel(given.kernel)
        fingerprints.require_x64_of(config["x64"])
        kernel = with_step(given.kernel, run.tuning)
        python = run.versions["python"]
        fingerprints.require_kernel_of(saved.fingerprint, kernel, python)
        params = given.params
        if params is None:
            if not saved.plain_position:
                raise ValueError(
                    "params: got None; these parameters are no dicts, lists and tuples, so "
                    "resuming a loaded run needs a pytree of their structure"
                )
            params = jax.tree.map(lambda x: x[0], saved.position)
        words = jnp.asarray(config["key"], jnp.uint32)
        request = Request(
            key=jax.random.wrap_key_data(words, impl=config["key_type"]),
            kernel=kernel,
            params=params,
            data=given.data,
            batch_size=config["requested_batch_size"],
            stream=_stream_of(config) if given.stream is None else given.stream,
            settings=Settings(
                **{name: config[name] for name in Settings._fields}
                | {"chain_method": config["requested_chain_method"]}
            ),
            collect=given.collect,
            reducers=given.reducers,
        )
        fresh = prepare(request)
        given_fingerprint = fingerprints.fingerprint(fresh.inputs)
        fingerprints.require_same(saved.fingerprint, given_fingerprint, python)
        fingerprints.require_structure_of(saved.position, fresh.carry.state.position)
        leaves, structure = jax.tree.flatten(fresh.carry)
        if _shapes(leaves) != _shapes(saved.leaves):
            raise ValueError(
                "reducers: what a chain carries differs from what was saved; pass the params "
                "and reducers of the run that was saved"
            )
        if _shapes(_no_draws(fresh).values) != _shapes(jax.tree.map(lambda x: x[:, :0], run.draws)):
            raise ValueError(
                "collect: what it keeps of a draw differs in shape from the draws that were "
                "saved; pass the collect of the run that was saved"
            )
        carry = jax.tree.unflatten(structure, [jnp.asarray(x) for x in saved.leaves])
        return dataclasses.replace(fresh, carry=carry, steps=run.num_steps, tuning=run.tuning)


@dataclasses.dataclass(frozen=True, eq=False)
class Lost(AbstractContinuation):
    """None: a chunk that broke off has taken the chains with it, and the draws are left."""

    def resume(self, run: Run, num_samples: int | None, given: Unsaved, progress: bool) -> Run:
        """Raise a ValueError."""
        raise ValueError("run: it broke off inside a chunk, so its draws are all that is left")

    def frozen(self) -> Frozen:
        """Nothing."""
        return Frozen([], {}, (), True)


def prepare(request: Request, tuning: Tuning | None = None) -> Live:
    """Check everything, and stand at step 0.

    Raises:
        TypeError, ValueError: bad input, by name.
        MemoryError: the draws would take more than half of the free memory.
    """
    request = request.checked()
    settings = request.settings
    start = placed(
        request.key, request.kernel, request.params, request.data, request.batch_size,
        request.stream, settings.num_chains,
    )  # fmt: skip
    keep = collector(request.collect, start.template)
    room = settings.num_samples if settings.total_time is None else 1
    draw = kept(start, keep)
    require_room(draw, settings.num_chains, room)
    protect = settings.on_nonfinite != "ignore"
    chains = begun(
        start, settings.chain_method, keep, draw, request.reducers or {}, protect=protect
    )
    return Live(
        settings,
        chains.inputs,
        chains.carry,
        0,
        settings.num_samples,
        request.key,
        tuning,
        request.params,
    )


def load(path: str | Path) -> Run:
    """A run that `Run.save` wrote. Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or foreign, or was written in another format,
            by an older or newer version; it is left as it is.
    """
    contents, header = archive.read(path)
    absent = {"position": (), "weight": (), "acceptance": None}
    times = dict(zip(("compile_time", "burnin_time", "wall_time"), header["times"], strict=True))
    frozen = Frozen(
        contents["carry"], header["fingerprint"], contents["position"], header["plain_position"]
    )
    return Run(
        draws=contents["draws"],
        weights=contents["weights"],
        info=Info(**{**absent, **contents["info"]}),
        reduced=contents["reduced"],
        config=header["config"],
        versions=header["versions"],
        stopped={int(chain): step for chain, step in header["stopped"].items()},
        num_steps=header["counter"],
        gradient_evaluations=header["gradient_evaluations"],
        tuning=None if header["tuning"] is None else Tuning(**header["tuning"]),
        continuation=Saved(frozen) if frozen.leaves else Lost(),
        **times,
    )


def _stream_of(config: dict[str, Any]) -> str:
    """The name of a run's stream, where the library has it."""
    name = config["stream"] or "full"
    try:
        streams.from_name(name)
    except ValueError:
        raise ValueError(
            f"stream: got None; this run's is {name!r}, one of your own: pass it as stream="
        ) from None
    return str(name)


def _owed(run: Run, num_samples: int | None) -> int:
    """How many draws to add."""
    if num_samples is None:
        num_samples = run.config["num_samples"] - run.num_samples
        if num_samples < 1:
            raise ValueError("num_samples: this run has all its draws; say how many to add")
    return checks.count(num_samples, "num_samples", least=1)


def _shapes(tree: PyTree) -> list[Any]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _no_draws(live: Live) -> Recorded:
    """Arrays of no draw, with the right shapes all the same."""
    span = NO_STEP.from_step(live.steps)
    shapes = eqx.filter_eval_shape(run_chunk, live.inputs, span, live.carry)[1]
    return jax.tree.map(lambda s: np.empty((s.shape[0], 0, *s.shape[2:]), s.dtype), shapes)


class _Sampling(AbstractJob[Run]):
    """The chunks of a run: draws into host arrays, failures, and a time that is to be covered."""

    name, kept_as = "sampling", "run"

    def __init__(self, live: Live, before: Run | None) -> None:
        self.live, self.settings = live, live.settings
        self.carry, self.steps, self.goal = live.carry, live.steps, live.goal
        self.spent = _Spent() if before is None else _spent(before)
        made = None if before is None else Recorded(before.draws, _weighted(before))
        timed = self.settings.total_time is not None
        room = (before.num_samples if before else 0) + ROOM if timed else self.goal
        self.draws = DrawnArrays(self.settings.num_chains, room, made)
        self.failed = np.asarray(self.carry.failed)
        self.total = None if timed else self.settings.steps_until(self.goal) - self.steps

    def begin(self) -> None:
        self.carry = self._chunk(NO_STEP, self.carry)[0]

    def finished(self) -> bool:
        end = self.settings.steps_until(self.goal)
        return self.steps >= end or self.settings.must_stop(self.failed)

    def advance(self, wanted: int) -> int:
        settings, inputs = self.settings, self.live.inputs
        if self.steps == settings.num_burnin:
            zeros = jax.tree.map(jnp.zeros_like, self.carry.elapsed)
            self.carry = self.carry._replace(elapsed=zeros)
        piece = next_piece(settings, self.goal, self.steps, wanted, inputs.program.capacity)
        time = settings.total_time if piece.record else None
        before = self.carry if time is None else trees.copy(self.carry)
        carry, recorded = self._chunk(piece, self.carry)
        failed = np.asarray(carry.failed)
        if time is not None:
            needed = draws_until(time, recorded.info.elapsed, piece, self.steps, failed)
            if needed is not None:
                # Where a run ends must not depend on where a chunk would have ended.
                if needed < piece.num_draws:
                    piece = piece._replace(num_draws=needed)
                    carry, recorded = self._chunk(piece, before)
                    failed = np.asarray(carry.failed)
                self.goal = self.draws.made + needed
        self.carry, self.failed = carry, failed
        self.steps += piece.steps
        if piece.record:
            self.draws.add(recorded, piece.num_draws)
        return piece.steps

    def took(self, seconds: float) -> None:
        burnin = self.steps <= self.settings.num_burnin
        spent = self.spent
        if burnin:
            self.spent = spent._replace(burnin_time=spent.burnin_time + seconds)
        else:
            self.spent = spent._replace(wall_time=spent.wall_time + seconds)

    def facts(self) -> Facts:
        """Kinetic temperature, where there are momenta, finite flags, and the slowest clock."""
        text = f"finite {int(np.sum(self.failed < 0))}/{self.failed.size}"
        momentum = self.carry.state.momentum
        if jax.tree.leaves(momentum):
            text = f"T {float(_kinetic_temperature(momentum)):.3g}, {text}"
        if self.settings.total_time is None:
            return Facts(text)
        slowest = float(np.nanmin(np.asarray(self.carry.elapsed[0])))
        return Facts(text, slowest / self.settings.total_time)

    def result(self, interrupted: bool) -> Run:
        settings, inputs, tuning = self.settings, self.live.inputs, self.live.tuning
        after = dataclasses.replace(self.live, carry=self.carry, steps=self.steps, goal=self.goal)
        recorded = self.draws.finished()
        if recorded is None:
            recorded = _no_draws(after)
        stopped = {int(c): int(self.failed[c]) for c in np.flatnonzero(self.failed >= 0)}
        if settings.on_nonfinite != "ignore":
            blank(recorded, settings, stopped)
        lost = self.carry_is_lost()
        reduced = {
            name: jax.tree.map(np.asarray, reducer.result(self.carry.reduced[name]))
            for name, reducer in inputs.reducers.items()
            if not lost
        }
        spent = self.spent
        return Run(
            draws=recorded.values,
            weights=np.asarray(recorded.info.weight),
            info=recorded.info._replace(weight=()),  # type: ignore[arg-type]
            reduced=reduced,
            config=describe.configuration(inputs, settings, self.goal, self.live.key),
            versions=describe.versions(),
            stopped=stopped,
            num_steps=self.steps,
            gradient_evaluations=describe.gradient_evaluations(
                inputs, settings.num_chains, self.steps, tuning
            ),
            compile_time=spent.compile_time + self.compile_time,
            burnin_time=spent.burnin_time,
            wall_time=spent.wall_time,
            tuning=tuning,
            continuation=Lost() if lost else after,
        )

    def _chunk(self, piece: Piece, carry: Carry) -> tuple[Carry, Recorded]:
        """A finished chunk, waited for: an error of the device is raised here, not later."""
        made = run_chunk(self.live.inputs, piece.from_step(self.steps), carry)
        return jax.block_until_ready(made)


def _finished(job: _Sampling, progress: bool) -> Run:
    """The run of a job.

    Raises:
        NonFiniteError: it had to stop.
    """
    run = drive(job, job.settings.chunk_steps, progress)
    if job.settings.must_stop(job.failed):
        lost = np.flatnonzero(job.failed >= 0)
        chain = int(lost[np.argmin(job.failed[lost])])
        why = _reason(job.live, chain, int(job.failed[chain])) or (
            f"(steps count from 0, burn-in included); so are {lost.size} of {job.failed.size} "
            f"chains by step {job.steps}. Try a smaller step_size, look for NaN in the data, "
            'or keep the other chains with on_nonfinite="stop_chain"'
        )
        raise NonFiniteError(
            f"chain {chain} is not finite from step {job.failed[chain]} on {why}. "
            "The run so far is in this error's `.run`.",
            run,
        )
    return run


def _reason(live: Live, chain: int, step: int) -> str | None:
    """What was not finite at a chain's start, where it failed before it had seen all data twice."""
    program, posterior = live.inputs.program, live.inputs.kernel.posterior
    epoch = program.stream.period(program.data_size, program.batch_size) if program.data_size else 1
    if posterior is None or step > 2 * epoch:
        return None
    start_keys = derive(jax.random.clone(live.key), live.settings.num_chains)[0]
    starts, _ = positions(start_keys, live.inputs.kernel, live.params, live.inputs.data)
    start = jax.tree.map(lambda x: x[chain], starts)
    said = why_not_finite(posterior, start, live.inputs.data)
    return None if said is None else f"(of its start): {said}"


class _Spent(NamedTuple):
    """Seconds, of all parts of a run."""

    compile_time: float = 0.0
    burnin_time: float = 0.0
    wall_time: float = 0.0


def _spent(run: Run) -> _Spent:
    return _Spent(run.compile_time, run.burnin_time, run.wall_time)


def _weighted(run: Run) -> Info:
    """`info` with its weights, as the loop records them."""
    info: Any = run.info
    return info._replace(position=(), weight=run.weights)


@jax.jit
def _kinetic_temperature(momentum: PyTree) -> Array:
    """Mean square of the whitened momenta, whose law is N(0, T)."""
    return trees.dot(momentum, momentum) / trees.size(momentum)
