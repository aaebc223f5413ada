"""Every choice crossed with every other, two at a time: kernels, their maps read off by steps at
basis points, and the same combinations for the oracle of `recursion`."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import clocks, gradients, metrics, streams
from sgmcmc.gradients._control_variate import Anchor
from sgmcmc.gradients._saga import Table
from sgmcmc.types import ClockState
from tests.laws import recursion
from tests.laws.recursion import ANCHOR, COMPENSATED, Batch, D, Numbers, Step, Target

N, SIZE, H, FRICTION, TEMPERATURE = 5, 2, 0.12, 1.5, 0.8
SVRG_EVERY = 2

_RNG = np.random.default_rng(3)
_ROOTS = 0.4 * _RNG.normal(size=(N, D, D))
STIFFNESS = np.einsum("nij,nkj->nik", _ROOTS, _ROOTS) + 0.1 * np.eye(D)
CENTRES = _RNG.normal(size=(N, D))
DATA = (STIFFNESS, CENTRES)
PRIOR = 0.3
PULLS = ((0.5, np.array([1.0, -1.0])), (0.25, np.array([-2.0, 0.5])))
SCALE = np.array([1.3, 0.8])
COVARIANCE = np.array([[1.2, 0.4], [0.4, 0.7]])

CHOICES: dict[str, tuple[str, ...]] = {
    "kernel": (
        *("sgld", "leimkuhler_matthews", "sghmc", "compensated"),
        *("BAOAB", "ABOBA", "UBU", "sort"),
    ),
    "stream": ("with_replacement", "reshuffled", "symmetric", "cyclic", "full"),
    "estimator": ("minibatch", "full", "control_variate", "svrg", "saga"),
    "metric": ("identity", "diagonal", "dense"),
    "noise": ("gaussian", "fast"),
    "schedule": ("constant", "cyclical", "alternating", "two baths", "own clock"),
    "power": ("1", "0.5"),
    "local": ("none", "once", "twice"),
}
OVERDAMPED = ("sgld", "leimkuhler_matthews")


class Row(NamedTuple):
    """A combination: one of `CHOICES` each."""

    kernel: str
    stream: str
    estimator: str
    metric: str
    noise: str
    schedule: str
    power: str
    local: str


# Two choices that are refused together, in the order of `CHOICES`.
REFUSED = {
    *((("stream", s), ("estimator", "saga")) for s in CHOICES["stream"][1:]),
    (("kernel", "sort"), ("estimator", "saga")),
    *((("stream", s), ("estimator", "full")) for s in CHOICES["stream"][:-1]),
    *((("kernel", "compensated"), ("stream", s)) for s in CHOICES["stream"][1:]),
    (("kernel", "compensated"), ("estimator", "full")),
    (("kernel", "compensated"), ("metric", "dense")),
}


def fits(row: Row) -> bool:
    """Whether no two of its choices are refused together."""
    return not (_pairs(zip(CHOICES, row, strict=True)) & REFUSED)


def crossed(seed: int = 0) -> list[Row]:
    """Rows that fit and hold every pair of choices that does, each the best of 60 at random."""
    rng = np.random.default_rng(seed)
    items = [(name, choice) for name, options in CHOICES.items() for choice in options]
    wanted = {p for p in _pairs(items) if p[0][0] != p[1][0]} - REFUSED
    rows = []
    while wanted:
        first, tries = dict(min(wanted)), []
        while len(tries) < 60:
            picked = {name: str(rng.choice(options)) for name, options in CHOICES.items()}
            row = Row(**{**picked, **first})
            if fits(row):
                tries.append((len(wanted & _pairs(zip(CHOICES, row, strict=True))), row))
        rows.append(max(tries, key=lambda scored: scored[0])[1])
        wanted -= _pairs(zip(CHOICES, rows[-1], strict=True))
    return rows


def _pairs(items: Iterable[tuple[str, str]]) -> set[Any]:
    """All pairs of (name, choice), in the order of `CHOICES`."""
    return set(itertools.combinations(items, 2))


# --------------------------------------------------------------------------------- the library's


class OwnClock(clocks.AbstractClock):
    """h and h/2 in turn; every other draw weighs 3 times as much."""

    step_size: clocks.Rate

    @property
    def period(self) -> int:
        return 2

    def tick(self, state: Any) -> Any:
        odd = state.count % 2
        h = self.step_size(state.count)
        return h / (1 + odd), 1.0 + 2.0 * odd, state._replace(count=state.count + 1)


def log_likelihood(theta: Any, example: Any) -> Any:
    stiffness, centre = example
    away = theta - centre
    return -0.5 * jnp.einsum("ni,nij,nj->n", away, stiffness, away)


def log_prior(theta: Any) -> Any:
    return -PRIOR / 2 * jnp.sum(theta**2)


def posterior(row: Row) -> Any:
    """The target of a row."""
    made = sgmcmc.Posterior(
        log_likelihood, log_prior, data_size=N, likelihood_power=float(row.power)
    )
    for precision, centre in PULLS[: ("none", "once", "twice").index(row.local)]:
        made = made.localized(jnp.asarray(centre), precision)
    return made


def in_turn(one: float, other: float) -> Any:
    """A schedule of two numbers."""
    return clocks.periodic(Partial(_of_two, jnp.asarray([one, other])), 2)


def _of_two(numbers: Any, count: Any) -> Any:
    return numbers[count]


def kernel(row: Row) -> Any:
    """The library's kernel; a TypeError or ValueError where it refuses the combination."""
    cycle = clocks.cyclical(H, num_cycles=1, total_steps=4, exploration=0.25)
    step_size: Any = {
        "cyclical": cycle,
        "alternating": clocks.scheduled(in_turn(H, H / 3)),
        "own clock": OwnClock(clocks.as_rate(H, "step_size")),
    }.get(row.schedule, H)
    temperature = {
        "cyclical": cycle.temperature(TEMPERATURE),
        "two baths": in_turn(TEMPERATURE, 0.5),
    }.get(row.schedule, TEMPERATURE)
    options: dict[str, Any] = {
        "temperature": temperature,
        "noise": row.noise,
        "metric": {
            "identity": metrics.identity(),
            "diagonal": metrics.diagonal(jnp.asarray(SCALE)),
            "dense": metrics.dense(COVARIANCE),
        }[row.metric],
        "gradient": {
            "minibatch": gradients.minibatch(),
            "full": gradients.full(),
            "control_variate": gradients.control_variate(jnp.asarray(ANCHOR)),
            "svrg": gradients.svrg(SVRG_EVERY),
            "saga": gradients.saga(),
        }[row.estimator],
    }
    if row.kernel not in OVERDAMPED:
        friction = in_turn(FRICTION, 0.5) if row.schedule == "two baths" else FRICTION
        options["friction"] = friction
    if row.kernel.isupper():
        return sgmcmc.langevin(posterior(row), step_size, word=row.kernel, **options)
    if row.kernel == "compensated":
        options["noise_estimate"] = COMPENSATED
    name = "sghmc" if row.kernel == "compensated" else row.kernel
    return getattr(sgmcmc, name)(posterior(row), step_size, **options)


@functools.cache
def epochs_of(name: str) -> tuple[list[Any], list[Batch], list[tuple[int, ...]]]:
    """The library's batches of a stream, what they should be, and the orders of an epoch."""
    if name == "full":
        return [sgmcmc.Batch(jax.tree.map(jnp.asarray, DATA))], [Batch(tuple(range(N)))], [(0,)]
    if name == "with_replacement":
        drawn = list(itertools.product(range(N), repeat=SIZE))
        kinds = sorted({tuple(sorted(rows)) for rows in drawn})
        made = [_batch(streams.Rows(np.array(kind))) for kind in kinds]
        return made, [Batch(k) for k in kinds], [(kinds.index(tuple(sorted(r))),) for r in drawn]
    rows = _all_rows(streams.from_name(name))
    kinds, made, orders = [], [], set()
    for i in range(len(rows.index)):
        epoch = []
        for j in range(rows.index.shape[1]):
            row = jax.tree.map(lambda x: x[i, j], rows)  # noqa: B023
            kind = tuple(sorted(row.index[row.mask].tolist()))
            if kind not in kinds:
                kinds.append(kind)
                made.append(_batch(row))
            epoch.append(kinds.index(kind))
        orders.add(tuple(epoch))
    # In a fixed order a batch takes n_j K/N of a step.
    share = streams.num_batches(N, SIZE) / N if name == "cyclic" else None
    wanted = [Batch(kind, 1.0 if share is None else len(kind) * share) for kind in kinds]
    return made, wanted, sorted(orders)


def _all_rows(stream: Any) -> streams.Rows:
    """[order, step, …] of an epoch, for every order of the examples; all as likely."""
    key, orders = jax.random.key(0), np.array(list(itertools.permutations(range(N))))
    if stream.order is None:
        orders = orders[:1]
    else:  # as long as the stream has them: a permutation, and where it is padded, its beginning
        length = len(stream.order(key, 0, N, SIZE))
        orders = np.concatenate([orders, orders[:, : length - N]], axis=1)
    one = lambda order, t: stream.rows(order, key, t, N, SIZE)  # noqa: E731
    over = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))
    return jax.tree.map(np.asarray, over(orders, np.arange(stream.period(N, SIZE))))


def _batch(rows: streams.Rows) -> sgmcmc.Batch:
    data = tuple(x[rows.index] for x in DATA)
    return jax.tree.map(jnp.asarray, sgmcmc.Batch(data, rows.index, rows.mask, rows.share))


def library_steps(row: Row, batches: Sequence[Any]) -> list[list[Step]]:
    """A kernel's steps by phase and batch: `drive` at 0 and at the unit vectors of state and noise.

    Steps are taken a period later than they stand for.
    """
    made, size, phases = kernel(row), recursion.state_size(row.estimator, N), len(numbers(row))
    live = [*range(D)]
    live += [*range(D, 2 * D)] if row.kernel not in OVERDAMPED else []
    live += [*range(2 * D, 3 * D)] if row.kernel == "leimkuhler_matthews" else []
    live += [*range(3 * D, size)]
    rows = made.num_normals
    live += [*range(size, size + rows * D)]
    units = np.concatenate([np.zeros((1, size + rows * D)), np.eye(size + rows * D)[live]])
    points = np.tile(units, (phases * len(batches), 1))
    place = np.repeat(np.arange(phases * len(batches)), len(units))
    state = _state(row, points[:, :size], phases + place // len(batches))
    noise = jnp.asarray(points[:, size:].reshape(-1, rows, D))
    taken = lambda *x: jnp.asarray(np.stack(x)[place % len(batches)])  # noqa: E731
    stacked = jax.tree.map(taken, *batches)
    # A loop, whose body compiles in less time than a batch of steps, or their operations in turn.
    over = lambda given: jax.lax.map(lambda one: made.drive(*one), given)  # noqa: E731
    after, info = jax.jit(over)((noise, state, stacked))
    values = np.concatenate([_flat(row, after), np.asarray(info.position)], axis=1)
    weights, steps = np.asarray(info.weight), []
    for at in range(0, len(points), len(units)):
        value = values[at : at + len(units)]
        # What there is not stands still.
        slopes = np.eye(size + rows * D, value.shape[1])
        slopes[size:] = 0.0
        slopes[live] = value[1:] - value[0]
        whole, spread = np.eye(size + 1), np.zeros((size + 1, size + 1))
        whole[:size, :size], whole[:size, size] = slopes[:size, :size].T, value[0, :size]
        spread[:size, :size] = slopes[size:, :size].T @ slopes[size:, :size]
        record = np.column_stack([slopes[:size, size:].T, value[0, size:]])
        heat = slopes[size:, size:].T @ slopes[size:, size:]
        steps.append(Step(whole, spread, record, heat, float(weights[at])))
    return [steps[p * len(batches) : (p + 1) * len(batches)] for p in range(phases)]


def _state(row: Row, points: np.ndarray, counts: np.ndarray) -> sgmcmc.State:
    """States, [point, …], of θ, momentum, last noise and memory."""
    position, momentum, last = (jnp.asarray(points[:, k * D : (k + 1) * D]) for k in range(3))
    memory = jnp.asarray(points[:, 3 * D :].reshape(len(points), -1, D))
    extra = {"leimkuhler_matthews": {"last": last}, "compensated": {"noise_estimate": ()}}
    return sgmcmc.State(
        position,
        () if row.kernel in OVERDAMPED else momentum,
        _memory(row, memory),
        (),
        ClockState(jnp.asarray(counts, jnp.int32)),
        extra.get(row.kernel, {}),
    )


def _memory(row: Row, memory: Any) -> Any:
    """The estimator's state, of SVRG's snapshots or SAGA's tables."""
    if row.estimator == "saga":
        return Table(memory, memory.sum(axis=1))
    if row.estimator not in ("svrg", "control_variate"):
        return ()
    fixed = row.estimator == "control_variate"
    at = jnp.broadcast_to(ANCHOR, (len(memory), D)) if fixed else memory[:, 0]
    forces = jnp.einsum("nij,pnj->pi", STIFFNESS, at[:, None] - CENTRES) * float(row.power)
    return forces if fixed else Anchor(at, forces)


def _flat(row: Row, state: Any) -> np.ndarray:
    """θ, momentum, last noise and memory of states, zeros where there is none."""
    nothing = jnp.zeros_like(state.position)
    parts = [state.position, nothing if row.kernel in OVERDAMPED else state.momentum]
    parts += [state.extra["last"] if row.kernel == "leimkuhler_matthews" else nothing]
    if row.estimator == "svrg":
        parts += [state.estimator.position]
    if row.estimator == "saga":
        table = state.estimator
        np.testing.assert_allclose(table.total, table.rows.sum(axis=1), atol=1e-12)
        parts += [table.rows.reshape(len(nothing), -1)]
    return np.concatenate([np.asarray(part) for part in parts], axis=1)


# ---------------------------------------------------------------------------------- the oracle's


def target(row: Row) -> Target:
    pulls = PULLS[: ("none", "once", "twice").index(row.local)]
    return Target(STIFFNESS, CENTRES, PRIOR, float(row.power), pulls)


def factor(row: Row) -> np.ndarray:
    """L, whose L Lᵀ is the metric."""
    return {
        "identity": np.eye(D),
        "diagonal": np.diag(SCALE),
        "dense": np.linalg.cholesky(COVARIANCE),
    }[row.metric]


def numbers(row: Row) -> list[Numbers]:
    """h, γ, T and weight at each step of a period."""
    usual = Numbers(H, FRICTION, TEMPERATURE, 1.0)
    if row.schedule == "cyclical":
        steps = [H / 2 * (math.cos(math.pi * k / 4) + 1) for k in range(4)]
        quiet = Numbers(steps[0], FRICTION, 0.0, 0.0)
        return [quiet, *(Numbers(h, FRICTION, TEMPERATURE, h / H) for h in steps[1:])]
    other = {
        "alternating": usual._replace(h=H / 3, weight=1 / 3),
        "two baths": usual._replace(friction=0.5, temperature=0.5),
        "own clock": usual._replace(h=H / 2, weight=3.0),
    }
    return [usual, other[row.schedule]] if row.schedule in other else [usual]


def oracle_steps(row: Row, batches: Sequence[Batch]) -> list[list[Step]]:
    """The same steps from the schemes' own formulas."""
    given = target(row), row.estimator
    return [
        [recursion.step(row.kernel, *given, batch, factor(row), n) for batch in batches]
        for n in numbers(row)
    ]


def law(row: Row, steps: Sequence[Sequence[Step]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the draws, by the oracle's recursion."""
    steps, refreshed = recursion.reduced(steps, recursion.refresh(row.estimator, N))
    return recursion.law(steps, epochs_of(row.stream)[2], refreshed, SVRG_EVERY)
