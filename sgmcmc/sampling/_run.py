"""The record of a run: draws, weights, what the steps reported, and how to go on."""

from __future__ import annotations

import copy
import dataclasses
import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc.sampling import _archive as archive
from sgmcmc.sampling import _select as select
from sgmcmc.sampling._arviz import Kind, Options, convert
from sgmcmc.sampling._select import Positions
from sgmcmc.tuning._record import Tuning
from sgmcmc.types import Array, Info, Key, PyTree

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Draws = TypeVar("Draws", default=Any)
else:
    from typing import TypeVar

    Draws = TypeVar("Draws")


class Unsaved(NamedTuple):
    """What a file does not hold of a run, and `Run.resume` is given after `load`."""

    kernel: Any = None
    params: PyTree = None
    data: PyTree = None
    stream: Any = None
    collect: Any = True
    reducers: Any = None


class Frozen(NamedTuple):
    """What a file holds of where a run stands.

    Attributes:
        leaves: the carry's arrays; none where a chunk that broke off has taken them.
        fingerprint: of the kernel, the data and the functions that they belong to.
        position: the positions among them, for their structure.
        plain_position: whether that is of dicts, lists and tuples alone.
    """

    leaves: list[np.ndarray]
    fingerprint: Mapping[str, list[str]]
    position: PyTree
    plain_position: bool


class AbstractContinuation(ABC):
    """How a run goes on: alive, from a file, or not at all."""

    @abstractmethod
    def resume(self, run: Run, num_samples: int | None, given: Unsaved, progress: bool) -> Run:
        """The run with more draws; see `Run.resume`."""

    @abstractmethod
    def frozen(self) -> Frozen:
        """The carry's arrays and the fingerprint, which `Run.save` writes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Derived(AbstractContinuation):
    """None: the draws were taken from other runs, which can go on themselves.

    `made_by`: "run.sel" or "sgmcmc.concat"; `source`: how one of those runs goes on, by whose
    fingerprint this one's kernel is known.
    """

    made_by: str
    source: AbstractContinuation

    def resume(self, run: Run, num_samples: int | None, given: Unsaved, progress: bool) -> Run:
        """Raise a ValueError."""
        raise ValueError(_no_chains(self.made_by))

    def frozen(self) -> Frozen:
        """The fingerprint alone."""
        return Frozen([], self.source.frozen().fingerprint, (), True)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run(Generic[Draws]):
    """What `sgmcmc.sample` returns. All arrays are NumPy's.

    Attributes:
        draws: pytree of arrays [chain, draw, …], what `collect` made of the positions.
        weights: [chain, draw], each draw's physical time over the nominal step: 1 for a
            fixed step; 0 from the step on at which a chain stopped.
        info: `Info` of arrays [chain, draw], what the step of each draw reported
            (energy, gradient_norm, kinetic_energy, time, elapsed, finite, acceptance or None).
        reduced: {name: result} of the reducers.
        config: what was asked for: sampler, numbers, sizes, key.
        versions: of Python, JAX, NumPy and this library, and the backend.
        stopped: {chain: step} of the chains that left the finite numbers; their draws are
            NaN from there on. Steps count from 0, burn-in included.
        num_steps: steps made by each chain, burn-in included.
        gradient_evaluations: minibatch gradients in all, over chains, burn-in included.
        compile_time, burnin_time, wall_time: seconds; `wall_time` is that of the draws.
        tuning: with `step_size=None`, the `sgmcmc.tuning.Tuning` that says what was chosen
            and why; else None.
        continuation: how `resume` goes on.

    A run can be pickled, and is then like one that was saved: code and data do not travel, and
    `resume` asks for them. Draws in containers that cannot be pickled come as {path: array}.
    """

    draws: Draws
    weights: np.ndarray
    info: Info
    reduced: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, str]
    stopped: dict[int, int]
    num_steps: int
    gradient_evaluations: float
    compile_time: float
    burnin_time: float
    wall_time: float
    tuning: Tuning | None
    continuation: AbstractContinuation

    def __getstate__(self) -> dict[str, Any]:
        draws, reduced = trees.portable(self.draws), trees.portable(self.reduced)
        return {**vars(self), "draws": draws, "reduced": reduced}

    def __copy__(self) -> Run[Draws]:
        return dataclasses.replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Run[Draws]:
        return dataclasses.replace(self, **copy.deepcopy(vars(self), memo))

    @property
    def num_chains(self) -> int:
        return self.weights.shape[0]

    @property
    def num_samples(self) -> int:
        """Draws made, of each chain."""
        return self.weights.shape[1]

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C or an error ended it early: draws that were asked for are missing."""
        return bool(self.num_samples < self.config["num_samples"])

    def resume(
        self,
        num_samples: int | None = None,
        *,
        kernel: Any = None,
        params: PyTree = None,
        data: PyTree = None,
        stream: Any = None,
        collect: Any = True,
        reducers: Any = None,
        progress: bool = True,
    ) -> Run[Draws]:
        """Go on, bit for bit as if the run had been asked for more draws at the start.

        Args:
            num_samples: draws to add; None: those that an interrupted run still owes.
            kernel, data, collect, reducers: needed after `load` only, since code and data are
                not saved: those that made the run.
            stream: after `load`, the run's stream where it is one of your own.
            params: after `load`, a pytree of the parameters' structure, where it has other
                containers than dicts, lists and tuples.
            progress: as in `sample`.

        Returns:
            A run with the draws of this one and the new ones.

        Raises:
            ValueError: nothing is left to draw; after `load`, something is missing or is not what
                made the run, by name: the kernel's numbers, the code of its functions, the data
                (content, not shapes alone), `stream`, `collect`, a reducer; or JAX's x64 is on at
                one end only; the run was made by `sel` or `concat`.

        Warns:
            UserWarning: the run was saved by another minor version of Python, whose bytecode is
                another, so that functions' code is not compared.
        """
        checks.on_host("resume", kernel, params, data)
        if "made_by" in self.config:
            raise ValueError(_no_chains(self.config["made_by"]))
        given = Unsaved(kernel, params, data, stream, collect, reducers)
        return self.continuation.resume(self, num_samples, given, progress)

    def resampled(self, key: Key, num_samples: int | None = None) -> Resampled:
        """Draws of equal weight, for what cannot take weights; pooled over chains.

        Systematic resampling: a draw of weight w appears n w/Σ w times, rounded up or down.
        The order of time within chains is kept, chains come one after another.

        Args:
            key: `jax.random.key(seed)`.
            num_samples: n ≥ 1; default as many as there are.

        Raises:
            ValueError: `num_samples` below 1, or no draw of positive weight.
        """
        return resample(self.draws, self.weights, key, num_samples)

    def save(self, path: str | Path) -> Path:
        """Write one file, whole or not at all; `sgmcmc.load` reads it. No pickle inside.

        A `path` that begins with "~" is in the user's home. All data are hashed, about two
        seconds a gigabyte, so that `resume` knows them again.
        """
        frozen = self.continuation.frozen()
        contents = {
            "draws": self.draws,
            "weights": self.weights,
            "info": {k: v for k, v in self.info._asdict().items() if isinstance(v, np.ndarray)},
            "reduced": self.reduced,
            "carry": frozen.leaves,
            "position": frozen.position,
        }
        header = {
            "config": self.config,
            "versions": self.versions,
            "stopped": {str(chain): step for chain, step in self.stopped.items()},
            "counter": self.num_steps,
            "fingerprint": frozen.fingerprint,
            "plain_position": frozen.plain_position,
            "gradient_evaluations": self.gradient_evaluations,
            "tuning": None if self.tuning is None else self.tuning._asdict(),
            "times": [self.compile_time, self.burnin_time, self.wall_time],
        }
        return archive.write(path, contents, header)

    def sel(self, chain: Positions = None, draw: Positions = None) -> Run[Draws]:
        """Some of the chains, and some of the draws of each, as a run.

        Args:
            chain, draw: positions as NumPy takes them, counted from 0: a slice, a list of
                integers, a boolean mask, or one integer, which is kept as an axis of length 1;
                None (default): all. `run.sel(chain=[0, 2], draw=slice(500, None))`.

        Returns:
            A run of those draws, weights and infos, with which all diagnostics work. Its costs
            (times, gradients) are the chains' share of this run's, whatever draws are taken; a
            chain counts as stopped where its draws reach that far. What reducers folded cannot
            be taken apart and is left out; it cannot be resumed.

        Raises:
            IndexError: a position beyond the run.
            ValueError: no chain or no draw is left, or one is taken twice.
        """
        fields = select.fields(self, chain, draw)
        return dataclasses.replace(
            self, **fields, continuation=Derived("run.sel", self.continuation)
        )

    def to_arviz(
        self,
        *,
        posterior: Posterior | None = None,
        data: PyTree = None,
        predictive: Callable[..., PyTree] | None = None,
        observed: ArrayLike | Mapping[str, ArrayLike] | None = None,
        transform: Callable[[PyTree], Mapping[str, Array]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence[object]] | None = None,
        key: Key | None = None,
        kind: Kind = "auto",
    ) -> Any:
        """The run as ArviZ has it: `posterior`, `sample_stats` with weights, and more if asked.

        Variables are called by their paths with "." for "/", "theta" where draws are one array;
        "_" is appended to a name that is taken, as `draw` and `chain` are, and the attribute
        "renamed" says so. Low-precision floats become float32, booleans 0 and 1.

        Args:
            posterior: whose `log_likelihood` makes the group `log_likelihood` for `az.loo`,
                [chain, draw, n], from `data`, at most 4,096 examples at a time. Needs draws
                of whole positions (`collect=True`).
            data: the examples, a pytree of arrays with one leading axis.
            predictive: `(params, data) -> array or {name: array}` of one draw, for the group
                `posterior_predictive`; with `key`, `(params, data, key)`.
            observed: what was observed, an array or {name: array}, for `observed_data`. With one
                name, that of the other groups' variables too; default "y".
            transform: `params -> {name: array}`, in the place of the leaves.
            dims: {variable: names of its dimensions beside chain and draw}.
            coords: {dimension: its labels}.
            key: `jax.random.key(seed)`, split into one for each draw.
            kind: "DataTree", or "InferenceData" of ArviZ before 1.0; "auto" (default): the
                latter where such an ArviZ is installed, since its functions take nothing else.

        Raises:
            TypeError, ValueError: bad input, by name; log likelihoods of draws of unequal
                weights, which ArviZ does not read: see `resampled`.
            MemoryError: log likelihoods that would take more than half of the free memory.
        """
        stats = {name: x for name, x in self.info._asdict().items() if isinstance(x, np.ndarray)}
        if "acceptance" in stats:
            stats["acceptance_rate"] = stats.pop("acceptance")  # ArviZ's name
        stats["weight"] = self.weights
        stats["diverging"] = ~stats["finite"]
        attrs = {
            "sampler": self.config["sampler"],
            "sampling_time": self.wall_time,
            "gradient_evaluations": self.gradient_evaluations,
            **self.versions,
        }
        options = Options(posterior, data, predictive, observed, transform, dims, coords, key, kind)
        return convert(self, stats, attrs, options)

    def __repr__(self) -> str:
        return "\n".join([f"Run of {self.config['sampler']}", *_lines(self._facts())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for name, value in self._facts()
        )
        title = html.escape(f"Run of {self.config['sampler']}")
        return f"<table><caption>{title}</caption>{rows}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        config = self.config
        shapes = [f"{name} {np.shape(x)[2:]}" for name, x in _named(self.draws)]
        listed = ", ".join(shapes[:6]) + (f", and {len(shapes) - 6} more" if shapes[6:] else "")
        numbers = ", ".join(
            f"{name} {config[name]}"
            for name in ("step_size", "friction", "temperature")
            if config.get(name) is not None
        )
        facts = [
            (
                "chains × draws",
                f"{self.num_chains} × {self.num_samples} of {config['num_samples']}",
            ),
            ("steps a chain", f"{self.num_steps}, every {config['thinning']}th kept"),
            ("burn-in", f"{config['num_burnin']} steps"),
            ("kernel", numbers),
            ("draws", f"{listed or 'none kept'} ({trees.num_bytes(self.draws):,} bytes)"),
            (
                "time",
                f"{self.wall_time:.2f} s for draws, {self.burnin_time:.2f} s burn-in, "
                f"{self.compile_time:.2f} s compiling",
            ),
        ]
        if self.tuning is not None:
            facts.append(("tuned", repr(self.tuning)))
        if self.reduced:
            facts.append(("reduced", ", ".join(self.reduced)))
        if self.stopped:
            facts.append(
                ("stopped", ", ".join(f"chain {c} at step {s}" for c, s in self.stopped.items()))
            )
        return facts


class NonFiniteError(FloatingPointError):
    """A chain left the finite numbers. `run` has the draws made until then.

    It can be pickled, and so comes out of another process, as a run does: see `Run`.
    """

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.run), vars(self)


def _no_chains(made_by: str) -> str:
    return (
        f"run: made by {made_by}, so there are no chains to go on with; resume the runs that its "
        "draws are from, and take or join draws afterwards"
    )


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    if isinstance(tree, np.ndarray | jax.Array):
        return [("theta", tree)]
    return trees.named_leaves(tree)


def _lines(facts: list[tuple[str, str]]) -> list[str]:
    return [f"  {name:<15} {value}" for name, value in facts]


class Resampled(NamedTuple):
    """Draws that all weigh 1; diagnostics take it for a run of one chain.

    Attributes:
        draws: pytree of arrays [1, draw, …].
        weights: ones, [1, draw].
        index: [draw, 2], the chain and the draw that each was.
    """

    draws: PyTree
    weights: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index

    def to_arviz(
        self,
        *,
        posterior: Posterior | None = None,
        data: PyTree = None,
        predictive: Callable[..., PyTree] | None = None,
        observed: ArrayLike | Mapping[str, ArrayLike] | None = None,
        transform: Callable[[PyTree], Mapping[str, Array]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Sequence[object]] | None = None,
        key: Key | None = None,
        kind: Kind = "auto",
    ) -> Any:
        """The draws as ArviZ has them, as one chain; see `Run.to_arviz`."""
        options = Options(posterior, data, predictive, observed, transform, dims, coords, key, kind)
        return convert(self, {}, {}, options)


def resample(draws: PyTree, weights: np.ndarray, key: Key, num_samples: int | None) -> Resampled:
    """See `Run.resampled`."""
    weights = np.asarray(weights, np.float64)
    if num_samples is None:
        num_samples = weights.size
    if isinstance(num_samples, bool) or int(num_samples) != num_samples or num_samples < 1:
        raise ValueError(f"num_samples: got {num_samples!r}; expected an integer ≥ 1")
    total = np.cumsum(weights.reshape(-1))
    if not total.size or not total[-1] > 0:
        raise ValueError("weights: all draws weigh 0; expected some that do not")
    # Systematic: one uniform for all, so that a draw of weight w appears n w / Σ w times,
    # rounded up or down.
    first = float(jax.random.uniform(key))
    places = (np.arange(num_samples) + first) / num_samples * total[-1]
    chosen = np.searchsorted(total, places, side="right")
    # Rounding must not carry the last place past the last draw that weighs anything.
    chosen = np.minimum(chosen, np.flatnonzero(weights.reshape(-1))[-1])

    def pick(leaf: Any) -> np.ndarray:
        flat = np.asarray(leaf).reshape(-1, *np.shape(leaf)[2:])
        return flat[chosen][None]

    index = np.stack(np.unravel_index(chosen, weights.shape), axis=1)
    return Resampled(jax.tree.map(pick, draws), np.ones((1, int(num_samples))), index)
