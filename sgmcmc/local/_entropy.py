"""Local entropy: how much of exp(−f/T) there is about a point.

    F(x; γ) = T log ∫ exp(−[f(y) + (γ/2)‖x − y‖²]/T) dy,    ∇F = −γ (x − ⟨y⟩)

f is the potential U of the kernel's posterior, T the kernel's temperature and ⟨·⟩ the mean
under the localised posterior. The gradient comes from L steps of that kernel, begun at x:

    y ← kernel(y),   μ ← (1 − a) μ + a y,   begun at y = μ = x;     ∇F ≈ −γ (x − μ)

With a = None μ is Σ w y/Σ w, w the physical time of a step over the nominal one. Of a running mean
w has two parts: the share h_k/h_0 of a schedule multiplies a, and the a's of all points and of x
are divided by their sum; an adaptive clock's ψ goes with y itself, which enters as
x + (ψ/ψ̄) (y − x), ψ̄ the mean of ψ so far. (Divided by the ψ of the last 1/a steps it would be a
mean over steps, not over time.) With w = 1 both are what stands above.

Entropy-SGD climbs F (Chaudhari et al., arXiv 1611.01838, eqs 2 to 5). Its f is the mean loss,
which is `Posterior(…).with_likelihood_power(1 / N)` without a prior.
`sgmcmc.convert.entropy_sgd` has the numbers of its three published forms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise
from sgmcmc._checks import check_range, positive
from sgmcmc._schedule import Rate, ScalarOrSchedule, as_rate
from sgmcmc.clocks._base import nominal
from sgmcmc.kernels._base import AbstractDynamics, require_kernel
from sgmcmc.kernels._phases import AbstractPhaseKernel
from sgmcmc.types import Array, Info, Key, PyTree, State, as_batch


class LocalGradient(NamedTuple):
    """One estimate of ∇F.

    Attributes:
        gradient: −γ (x − μ), a pytree like x. F is to be climbed, so descend along −gradient.
        mean: μ, the estimate of ⟨y⟩.
        position: the last inner position.
        finite: () bool, whether every inner step was finite.
        energy: () the localised potential where the last inner step took its gradient.
    """

    gradient: PyTree
    mean: PyTree
    position: PyTree
    finite: Array
    energy: Array


class LocalValue(NamedTuple):
    """One estimate of F.

    Attributes:
        value: () F, in the units of f and T.
        standard_error: () of it.
        effective_samples: () Kish's count of the draws that carried weight.
    """

    value: Array
    standard_error: Array
    effective_samples: Array


class _Average(NamedTuple):
    """The mean μ of the inner loop.

    Attributes:
        mean: μ.
        total: () of the weights: their sum for a plain mean; for a running one the running mean of
            s, 0 as long as nothing has weight.
        pace: () sum of ψ, and () how many were summed; of an adaptive clock's running mean only.
    """

    mean: PyTree
    total: Array
    pace: tuple[Array, Array]


class LocalEntropy(trees.ByIdentity):
    """F and ∇F; made by `local_entropy`. A pytree: its numbers are leaves.

    Attributes:
        kernel: of the inner steps.
        precision: γ, a number or a schedule of the outer step.
        averaging: weight of the *new* inner point; None: the mean of all L.
        num_steps: L, inner steps that are averaged.
        num_burnin: inner steps before.
    """

    kernel: AbstractDynamics
    precision: Rate
    averaging: Array | None
    num_steps: int = eqx.field(static=True)
    num_burnin: int = eqx.field(static=True)

    def gradient(
        self, key: Key, params: PyTree, batches: PyTree = None, *, step: int | Array = 0
    ) -> LocalGradient:
        """∇F at `params`, by `num_burnin + num_steps` inner steps.

        Args:
            key: consumed.
            params: x, a pytree of floating arrays.
            batches: what the inner steps see, one after another: a `Batch` or a pytree of arrays
                with leading axes (num_burnin + num_steps, n, …); None for targets without data.
            step: outer steps so far, where the precision is a schedule.

        Raises:
            ValueError: `batches` has another leading axis, is missing, or holds integers beyond
                32 bits without x64.
        """
        checks.require_in_range(batches, "batches")
        return self._gradient(key, params, batches, step)

    @eqx.filter_jit
    def _gradient(
        self, key: Key, params: PyTree, batches: PyTree, step: int | Array
    ) -> LocalGradient:
        length = self.num_burnin + self.num_steps
        for path, leaf in trees.named_leaves(batches):
            if jnp.shape(leaf)[:1] != (length,):
                raise ValueError(
                    f"batches: leaf {path} has shape {jnp.shape(leaf)}; expected a leading axis "
                    f"of {length}, one batch for each of num_burnin + num_steps inner steps"
                )
        precision = self.precision(jnp.asarray(step))
        kernel = self.about(params, precision)
        begin_key, step_key = jax.random.split(key)
        state = kernel.init(params, begin_key)
        first = as_batch(jax.tree.map(lambda x: x[0], batches))
        if isinstance(kernel, AbstractPhaseKernel) and first is not None:
            measure_key = jax.random.fold_in(step_key, length)
            state = kernel.measured(state, first.data, measure_key)
        start = self.start(params)
        zero = jnp.zeros(())
        carry = (state, _Average(start, zero, (zero, zero)), jnp.asarray(True))

        def inner(
            carry: tuple[State, _Average, Array], given: tuple[Array, PyTree]
        ) -> tuple[tuple[State, _Average, Array], Array]:
            state, average, finite = carry
            t, batch = given
            scheduled = nominal(kernel.clock.step_size, state.clock.count)[1]
            state, info = kernel.step(jax.random.fold_in(step_key, t), state, batch)
            counts = t >= self.num_burnin
            average = self._averaged(average, params, info, scheduled, counts)
            return (state, average, finite & info.finite), info.energy

        (state, average, finite), energies = jax.lax.scan(
            inner, carry, (jnp.arange(length), batches)
        )
        mean = average.mean
        pull = lambda x, m: -precision.astype(m.dtype) * (x - m)  # noqa: E731
        gradient = jax.tree.map(pull, params, mean)
        return LocalGradient(gradient, mean, state.position, finite, energies[-1])

    def value(
        self,
        key: Key,
        params: PyTree,
        data: PyTree = None,
        *,
        num_samples: int = 10_000,
        step: int | Array = 0,
    ) -> LocalValue:
        """F at `params` from `num_samples` independent draws of N(x, T/γ).

        F = (T d/2) log(2πT/γ) + T log E exp(−f(y)/T), f over all data. Few of the draws carry
        weight where the localised posterior is much narrower than √(T/γ) in many directions:
        `effective_samples` says how many, and below a hundred the error is no guide.

        Args:
            key: consumed.
            params: x, a pytree of floating arrays.
            data: all N examples; None for targets without data.
            num_samples: draws, ≥ 2.
            step: outer steps so far, where the precision is a schedule.

        Raises:
            ValueError: the kernel's temperature is 0, where F is −min(f + (γ/2)‖x − y‖²).
        """
        checks.count(num_samples, "num_samples", least=2)
        checks.require_in_range(data, "data")
        return self._value(key, params, data, num_samples, step)

    @eqx.filter_jit
    def _value(
        self, key: Key, params: PyTree, data: PyTree, num_samples: int, step: int | Array
    ) -> LocalValue:
        step = jnp.asarray(step)
        temperature = self.kernel.temperature(step)
        check_range(temperature, "temperature", above_zero=True)
        precision = self.precision(step)
        spread = jnp.sqrt(temperature / precision)

        def log_weight(key: Key) -> Array:
            normals = noise.to_tree(noise.draw(key, params, 1, "gaussian")[0], params)
            y = trees.axpy(spread, normals, params)
            return self.kernel.posterior.log_density(y, data) / temperature

        logs = jax.lax.map(log_weight, jax.random.split(key, num_samples), batch_size=256)
        total = jax.nn.logsumexp(logs)
        effective = jnp.exp(2 * total - jax.nn.logsumexp(2 * logs))
        volume = trees.size(params) / 2 * jnp.log(2 * jnp.pi * temperature / precision)
        value = temperature * (volume + total - jnp.log(num_samples))
        # The delta method on the logarithm of a mean of weights.
        error = temperature * jnp.sqrt(jnp.maximum(1 / effective - 1 / num_samples, 0))
        return LocalValue(value, error, effective)

    def about(self, center: PyTree, precision: Array) -> AbstractDynamics:
        """The kernel, its posterior localised about `center`."""
        posterior = self.kernel.posterior.localized(center, precision)
        return eqx.tree_at(lambda k: k.posterior, self.kernel, posterior)

    def start(self, params: PyTree) -> PyTree:
        """Where the average begins: at x, of which L steps of weight a leave (1 − a)^L."""
        return jax.tree.map(jnp.asarray, params)

    def _averaged(
        self, average: _Average, center: PyTree, info: Info, scheduled: Array, counts: Array
    ) -> _Average:
        """The mean with one more inner step, or as it was where the step does not count.

        `scheduled` is s, () the weight that the schedule of an adaptive clock alone gives.
        """
        dtype = average.total.dtype
        weight = jnp.where(counts, info.weight, 0).astype(dtype)
        if self.averaging is None:
            total = average.total + weight
            mean = _moved(average.mean, _share(weight, total), info.position)
            return average._replace(mean=mean, total=total)
        position, pace = info.position, average.pace
        if self.kernel.clock.adaptive:
            factor = weight / scheduled
            weight = jnp.where(counts, scheduled, 0).astype(dtype)
            pace = (pace[0] + factor, pace[1] + counts)
            excess = _share(factor * pace[1], pace[0]) - 1
            apart = lambda y, x: y + excess.astype(y.dtype) * (y - x)  # noqa: E731
            position = jax.tree.map(apart, position, center)
        # x weighs as much as the first point that has a weight.
        before = jnp.where(average.total > 0, average.total, weight)
        total = jnp.where(counts, before + self.averaging * (weight - before), average.total)
        share = _share(self.averaging * weight, total)
        return _Average(_moved(average.mean, share, position), total, pace)


def _share(part: Array, total: Array) -> Array:
    """part/total, 0 as long as the total is."""
    return jnp.where(total > 0, part / jnp.where(total > 0, total, 1), 0)


def _moved(mean: PyTree, share: Array, position: PyTree) -> PyTree:
    """μ + share (y − μ)."""
    move = lambda m, y: m + share.astype(m.dtype) * (y - m)  # noqa: E731
    return jax.tree.map(move, mean, position)


def local_entropy(
    kernel: AbstractDynamics,
    precision: ScalarOrSchedule,
    *,
    num_steps: int = 20,
    averaging: float | None = 0.25,
    num_burnin: int = 0,
) -> LocalEntropy:
    """Local entropy about any point, by a sampler of this library.

    Args:
        kernel: what makes the inner steps, with f as its posterior's potential, its step and
            its temperature T, for example `sgmcmc.sgld(posterior, 0.1, temperature=1e-8)`. At
            T = 0 it optimises, and the gradient is that of the proximal point.
        precision: γ > 0, in 1/units²; a number, or a schedule of the outer step (`scoping`).
        num_steps: L ≥ 1, the inner steps that are averaged. Each costs a step of `kernel`.
        averaging: a in (0, 1], the weight of the *new* point, μ ← (1 − a) μ + a y; default
            0.25. None: the mean of the L points, x not among them. Points count by the physical
            time of their steps, which a clock or a schedule varies; μ of a few steps of an
            adaptive clock is right on average alone.
        num_burnin: inner steps before the average begins, ≥ 0.

    Returns:
        A `LocalEntropy`, with `gradient` and `value`.

    Raises:
        TypeError, ValueError: bad input, by name; kernels that need all data, several batches
            a step, or a step size that is still to be chosen.
    """
    require_kernel(kernel)
    if not isinstance(kernel, AbstractDynamics):
        raise TypeError(
            f"kernel: got {type(kernel).__name__} without a posterior and a temperature; expected "
            "a sampler such as sgmcmc.sgld(posterior, step_size)"
        )
    if kernel.posterior.precision is not None:
        raise ValueError("kernel: its posterior is localised already; pass one that is not")
    if kernel.clock.untuned:
        raise ValueError("step_size: got None; expected a number, nothing is tuned here")
    traits = kernel.traits
    for name, plain in (("needs_data", False), ("refresh_every", None), ("batches_per_step", 1)):
        asked = traits._asdict()[name]
        if asked != plain:
            raise ValueError(
                f"kernel: got one with {name}={asked}; the inner loop has one "
                "minibatch a step and nothing else"
            )
    checks.count(num_steps, "num_steps", least=1)
    checks.count(num_burnin, "num_burnin", least=0)
    share = None if averaging is None else positive(averaging, "averaging", most=1.0)
    rate = as_rate(precision, "precision", above_zero=True)
    kernel = kernel.for_burnin(int(num_burnin))
    return LocalEntropy(kernel, rate, share, int(num_steps), int(num_burnin))


def scoping(initial: float, growth: float, limit: float = math.inf) -> Partial:
    """γ_t = γ₀ (1 + γ₁)^t of the outer step t: a wide view first, a narrow one later.

    Args:
        initial: γ₀ > 0, in 1/units².
        growth: γ₁ ≥ 0, per outer step.
        limit: the most that γ_t becomes, > 0; default no limit.

    Returns:
        A schedule, step () -> γ_t (), for `precision` and `coupling` arguments.

    Raises:
        ValueError: an argument out of range.
    """
    check_range(initial, "initial", above_zero=True)
    check_range(growth, "growth", above_zero=False)
    if limit != math.inf:
        check_range(limit, "limit", above_zero=True)
    return Partial(_grown, *(jnp.asarray(x, float) for x in (initial, growth, limit)))


def _grown(initial: Array, growth: Array, limit: Array, step: Array) -> Array:
    return jnp.minimum(initial * jnp.exp(step * jnp.log1p(growth)), limit)


class Privacy(NamedTuple):
    """What `gibbs_privacy` returns.

    Attributes:
        epsilon: ε of ε-differential privacy, for one draw.
        thermal_noise: √(2T).
    """

    epsilon: float
    thermal_noise: float


def gibbs_privacy(
    temperature: float, data_size: int, loss_range: float, power: float = 1.0
) -> Privacy:
    """The differential privacy of one draw from exp(βF/T): ε = 2β L_max/(T N).

    F is the local entropy of the mean loss of N examples, at temperature T, which one example
    changes by at most L_max/N. **It holds for the exact stationary law only**, by the
    exponential mechanism: draws of `entropy_sgld` have that law approximately, and nothing is
    guaranteed about them (Dziugaite and Roy, arXiv 1712.09376, whose τ is 1/T).

    Args:
        temperature: T > 0; the paper's is 1/√N.
        data_size: N ≥ 1.
        loss_range: L_max > 0, the most by which the loss of an example can vary; a cross
            entropy has none unless it is bounded.
        power: β > 0.

    Returns:
        `Privacy(epsilon, thermal_noise)`, the latter √(2T), by which the paper sets T.

    Raises:
        TypeError, ValueError: an argument out of range, by name.
    """
    numbers = {"temperature": temperature, "loss_range": loss_range, "power": power}
    for name, value in numbers.items():
        check_range(value, name, above_zero=True)
    checks.count(data_size, "data_size", least=1)
    return Privacy(2 * power * loss_range / (temperature * data_size), math.sqrt(2 * temperature))
