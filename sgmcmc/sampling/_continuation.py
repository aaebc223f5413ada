"""How a run goes on: live chains and their chunks, those of a file, or none that are left."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc.kernels._base import require_kernel
from sgmcmc.loop._chunk import NO_STEP, Carry, Inputs, Recorded, run_chunk
from sgmcmc.loop._driver import drive
from sgmcmc.loop._start import begun, kept, placed
from sgmcmc.sampling import _archive as archive
from sgmcmc.sampling import _fingerprint as fingerprints
from sgmcmc.sampling._draws import collector, require_room
from sgmcmc.sampling._inputs import Request, total_steps, warn_of_places, with_step
from sgmcmc.sampling._job import Lost, Sampling
from sgmcmc.sampling._plan import Settings
from sgmcmc.sampling._run import AbstractContinuation, Frozen, Run, Unsaved
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._record import Tuning
from sgmcmc.types import Info, Key, PyTree


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
        live = dataclasses.replace(self, settings=settings, goal=goal)
        return drive(Sampling(live, run), settings.chunk_steps, progress)

    def frozen(self) -> Frozen:
        """The carry's arrays, and the fingerprint of what the run reads."""
        carry = jax.tree.map(np.asarray, _lasting(self.carry))
        position = carry.state.position
        return Frozen(
            leaves=jax.tree.leaves(carry),
            fingerprint=fingerprints.fingerprint(self.inputs),
            position=position,
            plain_position=not archive.has_own_containers(archive.containers(position)),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what a file holds: code and data do not travel."""
        frozen = self.frozen()
        if trees.portable(frozen.position) is not frozen.position:
            frozen = frozen._replace(position=(), plain_position=False)
        return Saved, (frozen,)

    def __deepcopy__(self, memo: Any) -> Live:
        """Itself: nothing of it is ever changed."""
        return self


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
        kernel = with_step(given.kernel, run.tuning).for_burnin(config["num_burnin"])
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
        leaves, structure = jax.tree.flatten(_lasting(fresh.carry))
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
        carry = carry._replace(accepted=fresh.carry.accepted)
        return dataclasses.replace(fresh, carry=carry, steps=run.num_steps, tuning=run.tuning)


def prepare(request: Request, tuning: Tuning | None = None) -> Live:
    """Check everything, and stand at step 0.

    Raises:
        TypeError, ValueError: bad input, by name.
        MemoryError: the draws would take more than half of the free memory.
    """
    request = request.checked()
    settings = request.settings
    start = placed(
        request.key, request.kernel.for_burnin(settings.num_burnin), request.params, request.data,
        request.batch_size, request.stream, settings.num_chains,
    )  # fmt: skip
    sizes = (0, 0) if start.data is None else (trees.leading_axis(start.data), start.batch_size)
    warn_of_places(start.stream, start.kernel.traits, sizes, settings.thinning)
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


def _lasting(carry: Carry) -> Carry:
    """What a file holds of a carry: without what the burn-in alone is judged by."""
    return carry._replace(accepted=())  # type: ignore[arg-type]


def _shapes(tree: PyTree) -> list[Any]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]


def _no_draws(live: Live) -> Recorded:
    """Arrays of no draw, with the right shapes all the same."""
    span = NO_STEP.from_step(live.steps)
    shapes = eqx.filter_eval_shape(run_chunk, live.inputs, span, live.carry)[1]
    return jax.tree.map(lambda s: np.empty((s.shape[0], 0, *s.shape[2:]), s.dtype), shapes)
