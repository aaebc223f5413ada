"""The chunks of a run, and what is kept of it whatever breaks in."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _tree as trees
from sgmcmc.loop._chunk import NO_STEP, Carry, Piece, Recorded, run_chunk
from sgmcmc.loop._diagnose import why_not_finite
from sgmcmc.loop._driver import AbstractJob, Facts
from sgmcmc.loop._start import derive, positions
from sgmcmc.sampling import _describe as describe
from sgmcmc.sampling._draws import DrawnArrays, blank
from sgmcmc.sampling._plan import draws_until, next_piece
from sgmcmc.sampling._run import AbstractContinuation, Frozen, NonFiniteError, Run, Unsaved
from sgmcmc.tuning._record import Tuning
from sgmcmc.tuning._rules import RULES
from sgmcmc.types import Array, Info, PyTree

if TYPE_CHECKING:
    from sgmcmc.sampling._continuation import Live

# Draws to make room for at first, where it is not known how many there will be.
ROOM = 1024

# Of fewer steps a mean acceptance says little.
FEWEST = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Lost(AbstractContinuation):
    """None: a chunk that broke off has taken the chains with it, and the draws are left."""

    def resume(self, run: Run, num_samples: int | None, given: Unsaved, progress: bool) -> Run:
        """Raise a ValueError."""
        raise ValueError("run: it broke off inside a chunk, so its draws are all that is left")

    def frozen(self) -> Frozen:
        """Nothing."""
        return Frozen([], {}, (), True)


class Standing(NamedTuple):
    """Where a run stands. It is replaced as one, so that steps, chains and draws belong together
    wherever something breaks in.

    Attributes:
        carry: the chains after `steps` steps.
        goal: draws with which the run is complete, as far as is known.
        drawn: draws made.
        failed: each chain's first step that was not finite, or −1.
    """

    carry: Carry
    steps: int
    goal: int
    drawn: int
    failed: np.ndarray


class Sampling(AbstractJob[Run]):
    """The chunks of a run: draws into host arrays, failures, and a time that is to be covered."""

    name, kept_as = "sampling", "run"

    def __init__(self, live: Live, before: Run | None) -> None:
        # Its shapes in the place of the carry: that of the start need not outlive the first chunk.
        self.live = dataclasses.replace(live, carry=jax.eval_shape(lambda: live.carry))
        self.settings, drawn = live.settings, 0 if before is None else before.num_samples
        self.at = Standing(live.carry, live.steps, live.goal, drawn, np.asarray(live.carry.failed))
        self.spent = _Spent() if before is None else _spent(before)
        made = None if before is None else Recorded(before.draws, _weighted(before))
        timed = self.settings.total_time is not None
        self.draws = DrawnArrays(drawn + ROOM if timed else live.goal, made)
        self.empty: Recorded | None = None
        self.reduced: dict[str, Any] = {}
        self.tried: set[str] = set()
        # A run that goes on keeps its step, for better or worse.
        self.judged = live.tuning if before is None else None
        self.total = None if timed else self.settings.steps_until(live.goal) - live.steps
        # Here, since nothing that a kernel says of itself may come between a run and its draws.
        self.config = describe.configuration(live.inputs, self.settings, live.goal, live.key)

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self.at.steps

    @property
    def carry(self) -> Carry:
        return self.at.carry

    def begin(self) -> None:
        carry, recorded = self._chunk(NO_STEP, self.at.carry)
        self.at = self.at._replace(carry=carry)
        none = lambda x: np.empty((x.shape[0], 0, *x.shape[2:]), x.dtype)  # noqa: E731
        self.empty = jax.tree.map(none, recorded)

    def finished(self) -> bool:
        at = self.at
        end = self.settings.steps_until(at.goal)
        return at.steps >= end or self.settings.must_stop(at.failed) or self.unsuited()

    def unsuited(self) -> bool:
        """Whether the burn-in shows that the step which was chosen does not suit these chains.

        It has lost one, where the step may be halved still, or one of them is stuck. Never after
        Ctrl-C, nor once there are draws.
        """
        at, tuning = self.at, self.judged
        if tuning is None or self.pressed or at.steps > self.settings.num_burnin:
            return False
        lost = bool(np.any(at.failed >= 0)) and tuning.halvings < RULES.max_halvings
        return lost or bool(self.stuck())

    def stuck(self) -> list[int]:
        """Chains that, in the second half of the burn-in, accepted less than a tenth of what their
        step was chosen for; known at its end.
        """
        steps = self.settings.num_burnin - self._half()
        if self.at.steps != self.settings.num_burnin or steps < FEWEST:
            return []
        shares = np.asarray(self.at.carry.accepted) / steps
        return hardly_moving(shares, self.judged)

    def advance(self, wanted: int) -> int:
        settings, inputs, at, carry = self.settings, self.live.inputs, self.at, self.at.carry
        if at.steps == settings.num_burnin:
            carry = carry._replace(elapsed=jax.tree.map(jnp.zeros_like, carry.elapsed))
        if self.judged is not None and at.steps <= self._half():
            # The half begins with a chunk of its own, wherever chunks end.
            wanted = min(wanted, self._half() - at.steps or wanted)
            carry = carry._replace(accepted=jnp.zeros_like(carry.accepted))
        piece = next_piece(settings, at.goal, at.steps, wanted, inputs.program.capacity)
        made, recorded = self._chunk(piece, carry)
        goal, drawn, failed = at.goal, at.drawn, np.asarray(made.failed)
        if settings.total_time is not None and piece.record:
            elapsed = recorded.info.elapsed
            needed = draws_until(settings.total_time, elapsed, piece, at.steps, failed)
            if needed is not None:
                # Where a run ends must not depend on where a chunk would have ended.
                if needed < piece.num_draws:
                    piece = piece._replace(num_draws=needed)
                    made, recorded = self._chunk(piece, carry)
                    failed = np.asarray(made.failed)
                goal = drawn + needed
        if piece.record:
            self.draws.write(recorded, drawn, piece.num_draws)
            drawn += piece.num_draws
        self.at = Standing(made, at.steps + piece.steps, goal, drawn, failed)
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
        failed, carry = self.at.failed, self.at.carry
        text = f"finite {int(np.sum(failed < 0))}/{failed.size}"
        momentum = carry.state.momentum
        if jax.tree.leaves(momentum):
            text = f"T {float(_kinetic_temperature(momentum)):.3g}, {text}"
        if self.settings.total_time is None:
            return Facts(text)
        slowest = float(np.nanmin(np.asarray(carry.elapsed[0])))
        return Facts(text, slowest / self.settings.total_time)

    def result(self, interrupted: bool) -> Run:
        self._reduce()
        run = self.kept()
        assert run is not None
        return run

    def kept(self) -> Run | None:
        """The run; without the reducers whose result cannot be made."""
        if self.empty is None:
            return None
        with contextlib.suppress(Exception):
            self._reduce()
        at, settings, live = self.at, self.settings, self.live
        drawn = self.draws.first(at.drawn)
        recorded = self.empty if drawn is None else drawn
        stopped = {int(c): int(at.failed[c]) for c in np.flatnonzero(at.failed >= 0)}
        if settings.on_nonfinite != "ignore":
            blank(recorded, settings, stopped)
        after = dataclasses.replace(live, carry=at.carry, steps=at.steps, goal=at.goal)
        return Run(
            draws=recorded.values,
            weights=np.asarray(recorded.info.weight),
            info=recorded.info._replace(weight=()),  # type: ignore[arg-type]
            reduced={
                name: self.reduced[name] for name in live.inputs.reducers if name in self.reduced
            },
            config={**self.config, "num_samples": at.goal},
            versions=describe.versions(),
            stopped=stopped,
            num_steps=at.steps,
            gradient_evaluations=describe.gradient_evaluations(
                live.inputs, settings.num_chains, at.steps, live.tuning
            ),
            compile_time=self.spent.compile_time + self.compile_time,
            burnin_time=self.spent.burnin_time,
            wall_time=self.spent.wall_time,
            tuning=live.tuning,
            continuation=Lost() if self.carry_is_lost() else after,
        )

    def failure(self, run: Run) -> NonFiniteError | None:
        failed = self.at.failed
        if self.unsuited() or not self.settings.must_stop(failed):
            return None
        lost = np.flatnonzero(failed >= 0)
        chain = int(lost[np.argmin(failed[lost])])
        why = _reason(self.live, chain, int(failed[chain])) or (
            f"(steps count from 0, burn-in included); so are {lost.size} of {failed.size} "
            f"chains by step {self.steps}. Try a smaller step_size, look for NaN in the data, "
            'or keep the other chains with on_nonfinite="stop_chain"'
        )
        return NonFiniteError(
            f"chain {chain} is not finite from step {failed[chain]} on {why}. "
            "The run so far is in this error's `.run`.",
            run,
        )

    def _half(self) -> int:
        """The step from which on the burn-in is judged."""
        return self.settings.num_burnin // 2

    def _reduce(self) -> None:
        """Make the reducers' results, each tried once; the first error is raised after the last."""
        errors = []
        for name, reducer in self.live.inputs.reducers.items():
            if name in self.tried or self.carry_is_lost():
                continue
            self.tried.add(name)
            try:
                result = reducer.result(self.at.carry.reduced[name])
                self.reduced[name] = jax.tree.map(np.asarray, result)
            except Exception as error:  # a user's function: whatever it raises
                errors.append(error)
        if errors:
            raise errors[0]

    def _chunk(self, piece: Piece, carry: Carry) -> tuple[Carry, Recorded]:
        """A finished chunk, waited for: an error of the device is raised here, not later."""
        made = run_chunk(self.live.inputs, piece.from_step(self.at.steps), carry)
        return jax.block_until_ready(made)


def hardly_moving(shares: np.ndarray, tuning: Tuning | None) -> list[int]:
    """Chains whose share of accepted steps is below a tenth of what their step was chosen for."""
    measured = {} if tuning is None else tuning.measured or {}
    return np.flatnonzero(shares < measured.get("acceptance", 0) / 10).tolist()


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
