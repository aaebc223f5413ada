"""The scaling contract: one place that says what is sampled.

    U(θ) = −log p(θ) − λ (N/n) Σ_{i in batch} log p(y_i | x_i, θ) + (ρ/2) ‖θ − c‖²

with N = `data_size`, n the number of examples in the batch (after masking), λ =
`likelihood_power` (default 1) and, for a localised posterior only, its centre c and
precision ρ. Samplers target the density ∝ exp(−U/T), T their `temperature`.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import check_data
from sgmcmc._tree import ByIdentity, leading_axis, sum_over_blocks, widened
from sgmcmc.types import Array, Batch, PyTree, as_batch


class Posterior(ByIdentity):
    """A target density, and how minibatches estimate it.

    Args:
        log_likelihood: `(params, batch) -> (n,)`, log p(y_i | x_i, θ) in nats, example by
            example; `batch` has the structure of the data.
        log_prior: `params -> ()`, log p(θ) in nats, up to a constant.
        data_size: N, the number of examples in the full data.
        likelihood_power: λ ≥ 0, multiplies the log likelihood alone; default 1, the
            posterior. It is no temperature: the prior keeps its weight.
        check_data: `data -> None`, called on the host with all data wherever a run begins
            (`sample`, `tune`, `fit`, `find_mode`), as they were given; it raises a ValueError
            that says what is wrong with them. Default None. It takes no part in what is sampled.

    Functions at module level, `jax.tree_util.Partial`s and equinox modules are traced
    once; a lambda made anew on every call is compiled anew.

    Raises:
        TypeError: a function is not callable, or `data_size` is not an integer.
        ValueError: `data_size` < 1 or `likelihood_power` < 0.
    """

    log_likelihood: Callable[..., PyTree] | None
    log_prior: Callable[..., PyTree]
    likelihood_power: Array
    center: PyTree
    precision: Array | None
    offset: Array | None
    check_data: Callable[..., None] | None
    data_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        log_likelihood: Callable[[PyTree, PyTree], Array] | None,
        log_prior: Callable[[PyTree], Array],
        *,
        data_size: int | None,
        likelihood_power: float | Array = 1.0,
        check_data: Callable[[PyTree], None] | None = None,
    ) -> None:
        if log_likelihood is not None or data_size is not None:
            log_likelihood = trees.as_callable(log_likelihood, "log_likelihood")
            data_size = checks.count(data_size, "data_size")
        self.log_likelihood = log_likelihood
        self.log_prior = trees.as_callable(log_prior, "log_prior")
        self.likelihood_power = _power(likelihood_power)
        self.center, self.precision, self.offset = None, None, None
        self.check_data = (
            check_data if check_data is None else trees.as_callable(check_data, "check_data")
        )
        self.data_size = data_size

    @classmethod
    def from_log_density(cls, log_density: Callable[[PyTree], Array]) -> Posterior:
        """A target without data, from `params -> ()`, its log density in nats up to a constant.

        Sample it with `sgmcmc.sample(key, kernel, params)`.

        Raises:
            TypeError: `log_density` is not callable.
        """
        return cls(None, trees.as_callable(log_density, "log_density"), data_size=None)

    @property
    def has_data(self) -> bool:
        """Whether there is a likelihood, and so data; not so for `from_log_density`."""
        return self.log_likelihood is not None

    def with_likelihood_power(self, power: float | Array) -> Posterior:
        """The same posterior with the log likelihood multiplied by `power` ≥ 0.

        It takes the place of a power given before. Raises a ValueError below 0.
        """
        return eqx.tree_at(lambda p: p.likelihood_power, self, _power(power))

    def localized(self, center: PyTree, precision: float | Array) -> Posterior:
        """The posterior times N(center, 1/precision): a local posterior.

        Twice over it is the product of both: about (ρ₁c₁ + ρ₂c₂)/(ρ₁ + ρ₂), with ρ₁ + ρ₂. The
        potential is that of the posterior and all pulls.

        Args:
            center: c, pytree of the parameters' structure.
            precision: ρ > 0, in 1/units²: the pull is (ρ/2) ‖θ − c‖², at every temperature
                and likelihood power.

        Raises:
            TypeError, ValueError: `center` is not of floating arrays, or not of the structure of
                the centre before, or ρ not > 0; from the first potential, `center` is not of the
                parameters' structure.
        """
        checks.require_floating(center, "center")
        if not isinstance(precision, jax.core.Tracer):
            fits = bool(np.all(np.isfinite(precision) & (np.asarray(precision) > 0)))
            _require(fits, "precision", precision, "a finite number > 0")
        center, precision = checks.as_arrays(center, "center"), jnp.asarray(precision, float)
        offset = None
        if self.precision is not None:
            center, precision, offset = self._with_pull(center, precision)
        return eqx.tree_at(
            lambda p: (p.center, p.precision, p.offset),
            self,
            (center, precision, offset),
            is_leaf=lambda x: x is None,
        )

    def _with_pull(self, center: PyTree, precision: Array) -> tuple[PyTree, Array, Array]:
        """(centre, precision, constant) of the pull there is and another, as one quadratic."""
        assert self.precision is not None
        checks.require_same_structure(center, self.center, "center", "the centre before")
        total = self.precision + precision
        away = jax.tree.map(jnp.subtract, trees.wide(center), trees.wide(self.center))
        middle = trees.axpy(precision / total, away, trees.wide(self.center))
        apart = trees.dot(away, away)
        constant = (self.precision * (precision / total)).astype(apart.dtype) / 2 * apart
        if self.offset is not None:
            constant = constant + self.offset.astype(constant.dtype)
        return middle, total, constant

    def potential(self, params: PyTree, batch: Batch | PyTree = None) -> Float[Array, ""]:
        """U(θ) estimated from `batch`, in nats: ().

        Args:
            params: pytree of floating arrays.
            batch: a `Batch`, or a pytree of arrays with a common leading axis; None for
                targets without data.

        Raises:
            ValueError: a batch is missing, or `log_likelihood` returns another shape than (n,).
        """
        energy = self.prior_potential(params)
        if not self.has_data:
            return energy
        return energy + self.data_potential(params, batch)

    def check_shapes(self, params: PyTree, data: PyTree, batch_size: int) -> None:
        """Trace `potential` once on a batch of `data`, so that errors come before anything runs.

        Raises:
            ValueError: `log_likelihood` or `log_prior` returns another shape than it should.
        """
        eqx.filter_eval_shape(self.potential, params, batch_shape(data, batch_size))

    def prior_potential(self, params: PyTree) -> Float[Array, ""]:
        """U₀(θ), the part of U without data: −log p(θ), and the pull of a localised posterior."""
        return self._pull(params) - self._log_prior(params)

    def data_potential(self, params: PyTree, batch: Batch | PyTree) -> Float[Array, ""]:
        """U − U₀ estimated from `batch`: −λ (N/n) Σ_{i in batch} log p(y_i | x_i, θ)."""
        total, count = self._log_likelihood_sum(params, batch)
        assert self.data_size is not None
        factor = self.likelihood_power.astype(total.dtype) * (self.data_size / count)
        return -factor * total

    def example_potentials(self, params: PyTree, data: PyTree) -> Float[Array, " n"]:
        """−λ log p(y_i | x_i, θ) of each example: (n,). Over all data they sum to U − U₀."""
        values = widened(self._log_likelihoods(params, data))
        return -self.likelihood_power.astype(values.dtype) * values

    def potential_and_gradient(
        self, params: PyTree, batch: Batch | PyTree = None
    ) -> tuple[Float[Array, ""], PyTree]:
        """`potential` and its gradient in θ: ((), pytree like `params`)."""
        return jax.value_and_grad(self.potential)(params, batch)

    def log_density(
        self, params: PyTree, data: PyTree = None, *, block_size: int = 4096
    ) -> Float[Array, ""]:
        """−U(θ) over the full data, summed in blocks of `block_size` examples: ().

        Args:
            params: pytree of floating arrays.
            data: all N examples; None for targets without data.
            block_size: examples evaluated at a time, which bounds the memory.
        """
        log_prior = self._log_prior(params) - self._pull(params)
        if not self.has_data:
            return log_prior
        if data is None:
            raise ValueError("data: got None; this posterior has a likelihood and needs its data")
        checks.count(block_size, "block_size")
        check_data(data, self.data_size)
        checks.require_in_range(data, "data")
        total = sum_over_blocks(self._log_likelihoods, params, data, block_size)
        return log_prior + self.likelihood_power.astype(total.dtype) * total

    def _log_prior(self, params: PyTree) -> Array:
        return widened(_scalar(jnp.asarray(self.log_prior(params)), "log_prior"))

    def _log_likelihoods(self, params: PyTree, data: PyTree) -> Float[Array, " n"]:
        assert self.log_likelihood is not None
        values = self.log_likelihood(params, data)
        n = leading_axis(data)
        shape = jnp.shape(values)
        if shape != (n,):
            raise ValueError(
                f"log_likelihood: expected (n,) = ({n},), one value per example, got {shape}"
            )
        return values

    def _log_likelihood_sum(self, params: PyTree, batch: PyTree) -> tuple[Array, Array | int]:
        batch = as_batch(batch)
        if batch is None:
            raise ValueError("data: got None; this posterior has a likelihood and needs its data")
        values = widened(self._log_likelihoods(params, batch.data))
        if batch.mask is None:
            return jnp.sum(values), values.shape[0]
        # A padded row repeats a real one, so its value is finite and may be multiplied by 0.
        mask = batch.mask.astype(values.dtype)
        return jnp.sum(values * mask), jnp.sum(mask)

    def _pull(self, params: PyTree) -> Array | float:
        if self.precision is None:
            return 0.0
        checks.require_same_structure(self.center, params, "center", "the parameters")
        difference = jax.tree.map(_away, params, self.center)
        squares = trees.dot(difference, difference)
        pull = self.precision.astype(squares.dtype) / 2 * squares
        return pull if self.offset is None else pull + self.offset.astype(pull.dtype)


def _away(x: Array, center: Array) -> Array:
    """θ − c, in the wider of their dtypes."""
    dtype = trees.common_dtype(x, center)
    return x.astype(dtype) - center.astype(dtype)


def _power(power: float | Array) -> Array:
    if not isinstance(power, jax.core.Tracer):
        fits = bool(np.all(np.isfinite(power) & (np.asarray(power) >= 0)))
        _require(fits, "likelihood_power", power, "a finite number ≥ 0")
    return jnp.asarray(power, float)


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        said = trees.shortened(" ".join(str(value).split()), 60)
        raise ValueError(f"{name}: got {said}; expected {allowed}")


def _scalar(value: Array, name: str) -> Array:
    if jnp.shape(value) != ():
        raise ValueError(f"{name}: expected a scalar (), got shape {jnp.shape(value)}")
    return value


def batch_shape(data: PyTree, batch_size: int) -> Batch | None:
    """A batch of `batch_size` rows of `data` as `jax.ShapeDtypeStruct`s; None without data."""
    if data is None:
        return None
    rows = lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype)  # noqa: E731
    return Batch(jax.tree.map(rows, data))
