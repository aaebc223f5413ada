"""Plain training: a loss, data and an optax transformation in, parameters to evaluate out.

How many steps a chunk makes is an argument, so that a fit has one trace however it is cut up.
Step t takes its batch and its key from key and counter alone: where chunks end changes no bit.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._leaves import refuse_foreign
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.loop._diagnose import why_loss_not_finite, why_not_finite
from sgmcmc.loop._driver import AbstractJob, Facts, drive
from sgmcmc.optim._fit_steps import CAPACITY, FitCarry, FitInputs, Loss, advance, start
from sgmcmc.streams import _source as batches
from sgmcmc.streams._streams import Stream
from sgmcmc.types import Array, Batch, Key, PyTree


def fit(
    key: Key,
    loss: Posterior | Callable[..., Array],
    params: PyTree,
    data: PyTree = None,
    *,
    optimizer: Any,
    batch_size: int | None = None,
    num_steps: int | None = None,
    num_epochs: int | None = None,
    stream: str | Stream = "reshuffled",
    num_replicas: int | None = None,
    random_loss: bool = False,
    evaluate: Callable[[Snapshot], Any] | None = None,
    evaluate_every: int | None = None,
    chunk_steps: int | None = None,
    progress: bool = True,
) -> Fitted:
    """Minimise a mean loss with an optax optimizer.

    Args:
        key: `jax.random.key(seed)`, of the batches and of a random loss.
        loss: `(params, batch) -> ()`, the mean loss of a batch with the structure of `data`,
            or `-> (n,)`, the loss of each example; without data `(params) -> ()`. Or a
            `Posterior`, whose loss is U/N.
        params: pytree to begin at; its floating arrays are trained, every other leaf is kept
            as it is, so equinox models and `nnx.State`s fit. Never changed.
        data: pytree of arrays with one leading axis; None for losses without data.
        optimizer: an optax transformation: `optax.adam(1e-3)`, `sgmcmc.optim.entropy_sgd(…)`, a
            chain with schedules and weight decay, … Its `update` is given `value`, `grad` and
            `value_fn` too, the mean loss of the step's own batch, so that `optax.lbfgs()` and
            `optax.polyak_sgd()` work; what a line search evaluates is not counted.
        batch_size: n, examples a step; None: all of them. The N examples of an epoch are cut
            evenly, into ⌈N/n⌉ batches that differ by one at most and have n at most; a loss
            sees and counts the examples of its batch and no others. Where they differ a loss of
            shape () is compiled for both sizes.
        num_steps, num_epochs: how long; one of the two, ≥ 1. A step is one minibatch gradient
            of each replica.
        stream: as in `sample`.
        num_replicas: R ≥ 1: every floating array has a leading axis R, and every replica a
            loss and batches of its own, as `parle` needs; an optimizer that works number by
            number trains R networks at once. None: no such axis.
        random_loss: `loss` takes a key too, `(params, batch, key)`, a new one each step.
        evaluate: called with a `Snapshot` at the start, every `evaluate_every` steps (default:
            every epoch) and at the end; what it returns is kept with what was spent by then.
            It runs outside of jit, and may keep things of its own.
        evaluate_every: steps between two evaluations, ≥ 1.
        chunk_steps: steps between two looks at the clock; None: about half a second. Changes
            no number.
        progress: show a progress bar; plain lines where the output is no terminal.

    Returns:
        A `Fitted`: the parameters to evaluate (the anchor of `entropy_sgd`, the average of
        `optax.contrib.schedule_free`), the trace of the loss, and what it cost. Ctrl-C ends it
        early, after the chunk under way, and keeps what is made: `fitted.interrupted`.

    Raises:
        TypeError, ValueError: bad input, by name; a loss of shape () beside a stream of one's
            own whose batches are padded in another way.
        NonFiniteLossError: the loss was not finite, with the step; what was made until then
            is in `.fitted`.
        BaseException: whatever else breaks a fit off, a second Ctrl-C too, has the parameters
            and the losses of all chunks before in its `.fitted`.
    """
    checks.on_host("fit", key, loss, params, data, optimizer)
    refuse_foreign(params, "params", others=False)
    key = checks.typed_key(key)
    for name in ("init", "update"):
        if not callable(getattr(optimizer, name, None)):
            raise TypeError(
                f"optimizer: got {type(optimizer).__name__}; expected an optax transformation "
                "such as optax.adam(1e-3)"
            )
    moving, fixed = eqx.partition(params, eqx.is_inexact_array)
    checks.require_floating(moving, "params")
    checks.require_in_range(moving, "params")
    if num_replicas is not None:
        checks.count(num_replicas, "num_replicas", least=1)
        for path, leaf in trees.named_leaves(moving):
            if leaf.shape[:1] != (num_replicas,):
                raise ValueError(
                    f"params: leaf {path} has shape {leaf.shape}; expected a leading axis of "
                    f"num_replicas = {num_replicas}"
                )
    for name, number in (("evaluate_every", evaluate_every), ("chunk_steps", chunk_steps)):
        if number is not None:
            checks.count(number, name, least=1)
    target = loss if isinstance(loss, Posterior) else None
    data, chosen, batch_size = batches.data_and_stream(target, data, stream, batch_size)
    if not isinstance(loss, Posterior):
        loss = trees.as_callable(loss, "loss")
    epoch = 1 if data is None else chosen.period(leading_axis(data), batch_size)
    total = _total(num_steps, num_epochs, epoch, data)
    batch_key, loss_key = jax.random.split(key)
    if num_replicas is not None:
        batch_key = jax.random.split(batch_key, num_replicas)
        loss_key = jax.random.split(loss_key, num_replicas)
    inputs = FitInputs(
        Loss(loss, fixed, bool(random_loss)), optimizer, data, batch_key, loss_key, chosen,
        batch_size, num_replicas is not None,
    )  # fmt: skip
    every = total if evaluate is None else (evaluate_every or epoch)
    moving = jax.tree.map(lambda x: jnp.asarray(x, dtype=jnp.result_type(x)), moving)
    job = _Fitting(inputs, moving, total, num_replicas or 1, evaluate, every)
    return drive(job, chunk_steps, progress)


def _reason(inputs: FitInputs, moving: PyTree) -> str | None:
    """What was not finite at the start, of the first replica where there are several."""
    loss, key = inputs.loss, inputs.loss_key
    if inputs.replicated:
        moving, key = jax.tree.map(lambda x: x[0], moving), key[0]
    params = eqx.combine(moving, loss.fixed)
    if isinstance(loss.function, Posterior):
        plain = all(eqx.is_inexact_array(x) for x in jax.tree.leaves(params))
        return why_not_finite(loss.function, params, inputs.data) if plain else None
    if inputs.data is None:
        return why_loss_not_finite(lambda p: loss(p, None, key), moving)
    return why_loss_not_finite(lambda p, rows: loss(p, Batch(rows), key), moving, inputs.data)


def _total(num_steps: int | None, num_epochs: int | None, epoch: int, data: PyTree) -> int:
    if (num_steps is None) == (num_epochs is None):
        raise ValueError(
            f"num_steps, num_epochs: got {num_steps} and {num_epochs}; expected one of the two"
        )
    if num_epochs is not None:
        if data is None:
            raise ValueError(f"num_epochs: got {num_epochs} without data; allowed: num_steps")
        checks.count(num_epochs, "num_epochs", least=1)
        num_steps = int(num_epochs) * epoch
    checks.count(num_steps, "num_steps", least=1)
    assert num_steps is not None
    if num_steps >= 2**31 - CAPACITY:
        raise ValueError(f"num_steps: got {num_steps:,}; allowed: < 2³¹ − {CAPACITY}")
    return int(num_steps)


class _Standing(NamedTuple):
    """Where a fit stands. It is replaced as one, so that steps, parameters and losses belong
    together wherever something breaks in.

    Attributes:
        carry: after `steps` steps.
        chunks: how many of the chunks' losses count.
        bad: whether the last loss was not finite.
    """

    carry: FitCarry
    steps: int
    chunks: int
    bad: bool


class _Fitting(AbstractJob["Fitted"]):
    """The chunks of a fit: its losses, and a look every so often."""

    name, kept_as = "fitting", "fitted"
    total: int

    def __init__(
        self,
        inputs: FitInputs,
        params: PyTree,
        total: int,
        replicas: int,
        evaluate: Callable[[Snapshot], Any] | None,
        every: int,
    ) -> None:
        self.inputs, self.evaluate = inputs, evaluate
        self.total, self.replicas, self.every = total, replicas, every
        self.params: PyTree = params
        self.at: _Standing | None = None
        self.wall_time = 0.0
        self.losses: list[np.ndarray] = []
        self.evaluations: list[Evaluation] = []

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self._at.steps

    @property
    def carry(self) -> FitCarry:
        return self._at.carry

    @property
    def epoch(self) -> int:
        """Steps in which all data are seen; 1 without data."""
        source = self.inputs.source
        return 1 if source.data is None else source.stream.period(*source.sizes)

    @property
    def _at(self) -> _Standing:
        assert self.at is not None
        return self.at

    def begin(self) -> None:
        first = _Standing(start(self.inputs, self.params), 0, 0, False)
        self.at = first._replace(carry=self._chunk(first, 0)[0])

    def finished(self) -> bool:
        return self.steps >= self.total or self._at.bad

    def advance(self, wanted: int) -> int:
        at = self._at
        left = min(self.total - at.steps, self.every - at.steps % self.every)
        carry, values = self._chunk(at, min(wanted, left, CAPACITY))
        # A chunk that broke off here has left one that does not count.
        self.losses[at.chunks :] = [values]
        bad = not np.isfinite(values[-1]).all()
        self.at = _Standing(carry, at.steps + len(values), at.chunks + 1, bad)
        return len(values)

    def took(self, seconds: float) -> None:
        self.wall_time += seconds

    def facts(self) -> Facts:
        return Facts(f"loss {self.losses[-1].mean():.4g}")

    def between(self) -> None:
        due = self.steps % self.every == 0 or self.steps == self.total
        if self.evaluate is None or self._at.bad or not due:
            return
        at = self._snapshot()
        spent = (at.num_steps, at.gradient_evaluations, at.wall_time)
        self.evaluations.append(Evaluation(*spent, self.evaluate(at)))

    def result(self, interrupted: bool) -> Fitted:
        at = self._at
        end = None if self.carry_is_lost() else self._snapshot()
        params, last, state = (None, None, None) if end is None else end[:3]
        losses = np.concatenate(self.losses[: at.chunks]) if at.chunks else np.empty(0)
        return Fitted(
            params, last, state, losses, self.evaluations, at.steps, at.steps * self.replicas,
            self.compile_time, self.wall_time, interrupted,
        )  # fmt: skip

    def kept(self) -> Fitted | None:
        return None if self.at is None else self.result(True)

    def failure(self, fitted: Fitted) -> NonFiniteLossError | None:
        bad = self._at.bad
        if not bad and bool(trees.all_finite(self.carry.params)):
            return None
        what = "the loss is" if bad else "the parameters are"
        advice = _reason(self.inputs, self.params) if self.steps <= 2 * self.epoch else None
        advice = advice or "Try a smaller learning rate, and look for NaN in the data"
        return NonFiniteLossError(
            f"{what} not finite at step {self.steps - 1} of {self.total} (steps count from 0). "
            f"{advice}. The trace of the loss is in this error's `.fitted.losses`.",
            fitted,
        )

    def _snapshot(self) -> Snapshot:
        carry = self.carry
        fixed = self.inputs.loss.fixed
        best = evaluated(carry.state, carry.params)
        return Snapshot(
            eqx.combine(best, fixed), eqx.combine(carry.params, fixed), carry.state,
            self.steps, self.steps * self.replicas, self.wall_time,
        )  # fmt: skip

    def _chunk(self, at: _Standing, steps: int) -> tuple[FitCarry, np.ndarray]:
        """A finished chunk and its losses, waited for: an error of the device is raised here."""
        span = jnp.asarray(at.steps, jnp.int32), jnp.asarray(steps, jnp.int32)
        carry, losses, done = jax.block_until_ready(advance((self.inputs, *span), at.carry))
        return carry, np.asarray(losses)[: int(done)]


class Snapshot(NamedTuple):
    """Where a fit stands; what `evaluate` is called with. Its arrays stay valid afterwards.

    Attributes:
        params: the parameters to evaluate: what a state in the optimizer's own says
            (`evaluated`), else those that it moves.
        last: the parameters that the optimizer moves.
        optimizer_state: its state.
        num_steps: steps made.
        gradient_evaluations: minibatch gradients used, over replicas.
        wall_time: seconds of training, without compiling and without evaluations.
    """

    params: PyTree
    last: PyTree
    optimizer_state: PyTree
    num_steps: int
    gradient_evaluations: int
    wall_time: float


class Evaluation(NamedTuple):
    """What `evaluate` said, and what had been spent by then; see `Snapshot`."""

    num_steps: int
    gradient_evaluations: int
    wall_time: float
    value: Any


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """What `sgmcmc.optim.fit` returns.

    Attributes:
        params: the parameters to evaluate and to keep, like the ones that were given.
        last: the parameters that the optimizer moved: the same for most, the inner iterate of
            `entropy_sgd`, the replicas of `parle`.
        optimizer_state: its state.
        losses: [step] or [step, replica], NumPy: each step's minibatch loss, at `last`.
        evaluations: what `evaluate` returned, in turn.
        num_steps: steps made.
        gradient_evaluations: minibatch gradients used: steps times replicas.
        compile_time, wall_time: seconds; `wall_time` without compiling and evaluations.
        interrupted: whether Ctrl-C, or an error that it is in, ended it early.

    It can be pickled; what is in containers that cannot comes as {path: array}.
    """

    params: PyTree
    last: PyTree
    optimizer_state: PyTree
    losses: np.ndarray
    evaluations: list[Evaluation]
    num_steps: int
    gradient_evaluations: int
    compile_time: float
    wall_time: float
    interrupted: bool

    def __getstate__(self) -> dict[str, Any]:
        parts = ("params", "last", "optimizer_state", "evaluations")
        return {**vars(self), **{name: trees.portable(vars(self)[name]) for name in parts}}

    def __copy__(self) -> Fitted:
        return dataclasses.replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Fitted:
        return dataclasses.replace(self, **copy.deepcopy(vars(self), memo))

    def __repr__(self) -> str:
        end = self.losses[-max(1, len(self.losses) // 10) :]
        mean = float(np.mean(end)) if end.size else float("nan")
        size = trees.size([x for x in jax.tree.leaves(self.params) if hasattr(x, "shape")])
        early = ", interrupted" if self.interrupted else ""
        return (
            f"Fitted: {size:,} parameters, {self.num_steps:,} steps{early}, "
            f"{self.gradient_evaluations:,} gradients, {self.wall_time:.2f} s "
            f"({self.compile_time:.2f} s compiling); loss {mean:.4g} over the last tenth"
        )


class NonFiniteLossError(FloatingPointError):
    """A loss or the parameters left the finite numbers. `fitted` has what was made until then."""

    def __init__(self, message: str, fitted: Fitted) -> None:
        super().__init__(message)
        self.fitted = fitted

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.fitted), vars(self)


def evaluated(state: PyTree, params: PyTree) -> PyTree:
    """The parameters to evaluate: those of the states in `state` that have `to_evaluate`.

    Of `optax.contrib.schedule_free` they are its `schedule_free_eval_params`.

    Such states are found wherever they are, in chains, schedules and wrappers; in a chain the
    last has its say, and leaves that `optax.masked` keeps from one stay those of `params`.

    Args:
        state: an optax state.
        params: the parameters that optax moves, returned where no state knows better.
    """
    import optax  # not at the top: `import sgmcmc` is quick without it
    from optax.contrib import ScheduleFreeState

    def knows(part: Any) -> bool:
        return isinstance(part, ScheduleFreeState) or hasattr(part, "to_evaluate")

    masked = lambda x: isinstance(x, optax.MaskedNode)  # noqa: E731
    for part in jax.tree.leaves(state, is_leaf=knows):
        if isinstance(part, ScheduleFreeState):
            # Each leaf by itself, since some may be masked; a state of one array will do.
            mean = lambda z, y, s=part: y if masked(z) else _mean(s._replace(z=z), y)  # noqa: E731
            params = jax.tree.map(mean, part.z, params, is_leaf=masked)
        elif knows(part):
            fill = lambda new, old: old if masked(new) else new  # noqa: E731
            params = jax.tree.map(fill, part.to_evaluate, params, is_leaf=masked)
    return params


def _mean(state: Any, leaf: Array) -> Array:
    """What `optax.contrib.schedule_free` evaluates in the place of one leaf."""
    from optax.contrib import schedule_free_eval_params

    mean: Array = schedule_free_eval_params(state, leaf)
    return mean.astype(leaf.dtype)
