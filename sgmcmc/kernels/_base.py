"""The contract of a kernel: one step, and the traits that the loop and tuning read."""

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar

from sgmcmc import _tree as trees
from sgmcmc._checks import as_arrays, require_floating
from sgmcmc._posterior import Posterior
from sgmcmc._schedule import Constant, Rate, Unchosen
from sgmcmc.clocks._base import AbstractClock
from sgmcmc.gradients._base import AbstractEstimator
from sgmcmc.metrics._base import AbstractMetric, AbstractPreconditioner
from sgmcmc.streams._source import Source
from sgmcmc.streams._streams import Stream
from sgmcmc.types import Batches, Info, Key, NoiseKind, PyTree, State


class Traits(NamedTuple):
    """What a kernel says of itself; read by the loop, tuning, cost counts and docs.

    A kernel of one's own returns one from its property `traits`; the first three fields must
    be given, the others have the values of a plain minibatch sampler.

    Attributes:
        name: as `repr(kernel)` and a run's `config` have it.
        order: weak order in the step size with exact gradients; None where there is no step
            size that it could be one of.
        gradient_evaluations: minibatch gradients of a step (gradients of all data under
            `gradients.full()`), without what `refresh` and `full_energies` cost.
        exact: its law is the target's at any step size.
        batches_per_step: L, batches that a step is given; L > 1 with a leading axis L.
        needs_data: the step is given `Blocks(batches, data)`, all data beside its batches.
        full_energies: energies over all data that a step evaluates, for the count of costs.
        refresh_every: m, the loop calls `refresh` before each step > 0 that is a multiple of
            it; None: never.
        refresh_passes: passes over the data that a refresh takes.
        batches: which streams it bears: "any", "all data", "independent", "noisy", or
            "reversible" in blocks of L (`sgmcmc.types.Batches`).
        independent_examples: 0 (default): all L batches are the stream's. Above: the last is
            drawn apart, with replacement, independent of the stream and of all before; and where
            n is smaller than that many examples, more such batches follow, until there are as
            many, or all the data once.
    """

    name: str
    order: int | None
    gradient_evaluations: float
    exact: bool = False
    batches_per_step: int = 1
    needs_data: bool = False
    full_energies: int = 0
    refresh_every: int | None = None
    refresh_passes: int = 1
    batches: Batches = "any"
    independent_examples: int = 0

    @property
    def stream_batches(self) -> int:
        """Batches of the stream that a step takes."""
        return self.batches_per_step - (self.independent_examples > 0)


class AbstractKernel(trees.ByIdentity):
    """A sampler: `traits`, `init`, `draw`, `drive`; all else is given.

    A kernel is a pytree. Its numbers are array leaves, so that kernels which differ in
    numbers alone share one trace and can be vmapped; everything else is static.

    To write one, subclass, give those four, and the two attributes as fields or as
    `ClassVar`s; the page "The house" has one in fifteen lines, and `sgmcmc/kernels/README.md`
    says when a letter does instead. Then `sgmcmc.sample`, `to_blackjax` and, where `draw`
    gives standard normals, `diagnostics.stationary_law` take it.

    Attributes:
        posterior: the target, a `Posterior`; None for a kernel with a target of its own.
        clock: the `AbstractClock` of its steps; None for a kernel whose steps all weigh 1.
    """

    if TYPE_CHECKING:  # declared fields or properties, which mypy takes for fields alone

        @property
        def posterior(self) -> Posterior | None: ...

        @property
        def clock(self) -> AbstractClock | None: ...

    else:
        posterior: AbstractVar[Posterior | None]
        clock: AbstractVar[AbstractClock | None]

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """Its name, order, costs, and the batches that it is given."""

    @abstractmethod
    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state; draws the momentum where there is one.

        Args:
            position: pytree of floating arrays, of one chain.
            rng_key: consumed.
            data: all data, a pytree of arrays with a leading axis N; None for a target
                without data. `sample` always hands them in.
        """

    @abstractmethod
    def draw(self, rng_key: Key, state: State) -> PyTree:
        """Every random number of one step; reads the shapes of `state`, never its values."""

    @abstractmethod
    def drive(self, noise: PyTree, state: State, batch: PyTree) -> tuple[State, Info]:
        """One step, a deterministic function of its arguments: (next state, its report).

        Args:
            noise: what `draw` returned.
            state: what `init` or the step before returned.
            batch: a `Batch` of n examples; with `traits.batches_per_step` = L > 1 each leaf
                has a leading axis L; `Blocks` with `traits.needs_data`; None without data.
        """

    def step(self, rng_key: Key, state: State, batch: PyTree = None) -> tuple[State, Info]:
        """`drive(draw(rng_key, state), state, batch)`."""
        return self.drive(self.draw(rng_key, state), state, batch)

    def for_burnin(self, num_burnin: int) -> Self:
        """The kernel for a run whose first `num_burnin` steps are no draws; itself by default.

        `sample` asks for it. One that finds a number of its own in the burn-in (`sgnht`'s friction,
        the variance of `sghmc`'s gradients) keeps as array leaves when that begins and ends. In a
        loop of your own call it yourself: without it such numbers start as they do at step 0 of
        a run without burn-in.
        """
        return self

    def refresh(self, state: State, data: PyTree) -> State:
        """Recompute what depends on all data (a snapshot's gradient), at the state's position.

        The loop calls it under a `cond` outside the chains' vmap, where `traits.refresh_every`
        says so; what step 0 needs is made by `init`.
        """
        return state

    def recorded(self, position: PyTree) -> PyTree:
        """A position as `Info.position` shows it."""
        return position

    def normals(self, state: State) -> PyTree:
        """Shapes of standard normals that `drive` takes; default: those of what `draw` returns.

        `diagnostics.stationary_law` goes by it, which checks that a `draw` of one's own gives
        standard normals.
        """
        return jax.eval_shape(self.draw, jax.random.key(0), state)

    def momentum_at_record(self, noise: PyTree, state: State, batch: PyTree) -> PyTree:
        """The momentum that belongs to the recorded position; default: that of the next state."""
        return self.drive(noise, state, batch)[0].momentum

    def numbers(self) -> dict[str, float | str | None]:
        """What its `repr` and a run's `config` show: numbers and choices by name."""
        return {}

    def source(self, stream: Stream, batch_size: int, data: PyTree) -> Source:
        """Where the batches of its steps come from."""
        traits = self.traits
        return Source(
            stream, batch_size, data, traits.batches_per_step, traits.needs_data,
            traits.independent_examples,
        )  # fmt: skip

    def __repr__(self) -> str:
        shown = [
            str(value) if name in ("metric", "gradient", "noise") else f"{name}={_short(value)}"
            for name, value in self.numbers().items()
            if value is not None and (name, value) not in DEFAULTS
        ]
        return f"{self.traits.name}({', '.join(shown)})"


def _short(value: object) -> str:
    """A number to six digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


# What a kernel's repr leaves out.
DEFAULTS = (("temperature", 1.0), ("metric", "identity"), ("noise", "gaussian"))


class AbstractDynamics(AbstractKernel):
    """A kernel with the usual parts, which tuning and `repr` read.

    Attributes:
        posterior, clock: as in `AbstractKernel`, both given.
        friction: γ ≥ 0 in 1/time, a number or schedule; None: overdamped, no momentum.
        temperature: T ≥ 0, a number or schedule.
        metric: constant, or a preconditioner that changes with the position.
        gradient: the estimator of ∇U.
        noise: "gaussian" or "fast".
    """

    if TYPE_CHECKING:  # declared fields or properties, which mypy takes for fields alone

        @property
        def posterior(self) -> Posterior: ...

        @property
        def clock(self) -> AbstractClock: ...

        @property
        def friction(self) -> Rate | None: ...

        @property
        def temperature(self) -> Rate: ...

        @property
        def metric(self) -> AbstractMetric | AbstractPreconditioner: ...

        @property
        def gradient(self) -> AbstractEstimator: ...

        @property
        def noise(self) -> NoiseKind: ...

    else:
        posterior: AbstractVar[Posterior]
        clock: AbstractVar[AbstractClock]
        friction: AbstractVar[Rate | None]
        temperature: AbstractVar[Rate]
        metric: AbstractVar[AbstractMetric | AbstractPreconditioner]
        gradient: AbstractVar[AbstractEstimator]
        noise: AbstractVar[NoiseKind]

    def numbers(self) -> dict[str, float | str | None]:
        """Step size, friction, temperature, metric, gradient, noise."""
        return {
            "step_size": shown(self.clock.step_size),
            "friction": shown(self.friction),
            "temperature": shown(self.temperature),
            "metric": self.metric.name,
            "gradient": self.gradient.traits.name,
            "noise": self.noise,
        }

    def placed(self, position: PyTree) -> PyTree:
        """A first position, checked, as arrays.

        Raises:
            TypeError, ValueError: `position` is empty or not floating, or the metric's shape is
                not that of `position`; the leaf's path is named.
        """
        require_floating(position, "params")
        self.metric.check(position)
        return as_arrays(position, "params")


def shown(rate: Rate | None) -> float | str | None:
    """A rate as a run's `config` has it: a number, "schedule", or None for none or an array.

    "auto" where it is still to be chosen.
    """
    if isinstance(rate, Constant):
        value = np.asarray(rate.value)
        # The shortest number that rounds to this one: 0.2, not 0.20000000298.
        return float(str(value)) if value.ndim == 0 else None
    if isinstance(rate, Unchosen):
        return "auto"
    return None if rate is None else "schedule"


def require_kernel(kernel: object) -> None:
    """Raise a TypeError unless `kernel` is one, a ValueError if its step, γ or T is an array."""
    if not isinstance(kernel, AbstractKernel):
        raise TypeError(
            f"kernel: got {type(kernel).__name__}; expected a sampler such as "
            "sgmcmc.sgld(posterior, step_size), an sgmcmc.kernels.AbstractKernel of your own, or "
            "for BlackJAX's sgmcmc.from_blackjax(algorithm)"
        )
    rates: dict[str, Rate | None] = (
        {} if kernel.clock is None else {"step_size": kernel.clock.step_size}
    )
    if isinstance(kernel, AbstractDynamics):
        rates |= {"friction": kernel.friction, "temperature": kernel.temperature}
    for name, rate in rates.items():
        shape = jnp.shape(rate.value) if isinstance(rate, Constant) else ()
        if shape != ():
            raise ValueError(
                f"{name}: got an array of shape {shape}; expected a number (a grid is for "
                "jax.vmap over kernels, or for one `sample` each, which share one trace)"
            )
