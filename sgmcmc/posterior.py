"""The scaling contract: one place that says what is sampled.

    U(θ) = −log p(θ) − λ (N/n) Σ_{i in batch} log p(y_i | x_i, θ) + (ρ/2) ‖θ − c‖²

with N = `data_size`, n the number of examples in the batch (after masking), λ =
`likelihood_power` (default 1) and, for a localised posterior only, its centre c and
precision ρ. Samplers target the density ∝ exp(−U/T), T their `temperature`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import trees
from sgmcmc.types import Array, Batch, PyTree


class Posterior(eqx.Module):
    """A target density, and how minibatches estimate it.

    Args:
        log_likelihood: `(params, batch) -> (n,)`, log p(y_i | x_i, θ) in nats, example by
            example; `batch` has the structure of the data.
        log_prior: `params -> ()`, log p(θ) in nats, up to a constant.
        data_size: N, the number of examples in the full data.
        likelihood_power: λ ≥ 0, multiplies the log likelihood alone; default 1, the
            posterior. It is no temperature: the prior keeps its weight.

    Functions at module level, `jax.tree_util.Partial`s and equinox modules are traced
    once; a lambda made anew on every call is compiled anew.

    Raises:
        TypeError: a function is not callable, or `data_size` is not an integer.
        ValueError: `data_size` < 1 or `likelihood_power` < 0.
    """

    log_likelihood: Callable[..., Any] | None
    log_prior: Callable[..., Any]
    likelihood_power: Array
    center: PyTree
    precision: Array | None
    data_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        log_likelihood: Callable[[PyTree, PyTree], Array],
        log_prior: Callable[[PyTree], Array],
        *,
        data_size: int,
        likelihood_power: float | Array = 1.0,
    ) -> None:
        if isinstance(data_size, bool) or not hasattr(data_size, "__index__"):
            raise TypeError(f"data_size: got {data_size!r}; expected an integer ≥ 1")
        if int(data_size) < 1:
            raise ValueError(f"data_size: got {data_size}; expected an integer ≥ 1")
        self.log_likelihood = trees.as_callable(log_likelihood, "log_likelihood")
        self.log_prior = trees.as_callable(log_prior, "log_prior")
        self.likelihood_power = _power(likelihood_power)
        self.center, self.precision = None, None
        self.data_size = int(data_size)

    @classmethod
    def from_log_density(cls, log_density: Callable[[PyTree], Array]) -> Posterior:
        """A target without data, from `params -> ()`, its log density up to a constant.

        Sample it with `sgmcmc.sample(key, kernel, params)`.
        """
        self = object.__new__(cls)
        for name, value in {
            "log_likelihood": None,
            "log_prior": trees.as_callable(log_density, "log_density"),
            "likelihood_power": _power(1.0),
            "center": None,
            "precision": None,
            "data_size": None,
        }.items():
            object.__setattr__(self, name, value)
        return self

    def with_likelihood_power(self, power: float | Array) -> Posterior:
        """The same posterior with the log likelihood multiplied by `power` ≥ 0."""
        return eqx.tree_at(lambda p: p.likelihood_power, self, _power(power))

    def localized(self, center: PyTree, precision: float | Array) -> Posterior:
        """The posterior times N(center, 1/precision): a local posterior.

        Args:
            center: pytree of the parameters' structure.
            precision: ρ > 0, in 1/units².
        """
        trees.require_floating(center, "center")
        if not isinstance(precision, jax.core.Tracer):
            fits = bool(np.all(np.isfinite(precision) & (np.asarray(precision) > 0)))
            _require(fits, "precision", precision, "a finite number > 0")
        return eqx.tree_at(
            lambda p: (p.center, p.precision),
            self,
            (jax.tree.map(jnp.asarray, center), jnp.asarray(precision, float)),
            is_leaf=lambda x: x is None,
        )

    def potential(self, params: PyTree, batch: Batch | PyTree = None) -> Array:
        """U(θ) estimated from `batch`, in nats: ().

        Args:
            params: pytree of floating arrays.
            batch: a `Batch`, or a pytree of arrays with a common leading axis; None for
                targets without data.

        Raises:
            ValueError: a batch is missing, or `log_likelihood` returns another shape than (n,).
        """
        energy = self.prior_potential(params)
        if self.log_likelihood is None:
            return energy
        return energy + self.data_potential(params, batch)

    def prior_potential(self, params: PyTree) -> Array:
        """U₀(θ), the part of U without data: −log p(θ), and the pull of a localised posterior."""
        return self._pull(params) - _scalar(self.log_prior(params), "log_prior")

    def data_potential(self, params: PyTree, batch: Batch | PyTree) -> Array:
        """U − U₀ estimated from `batch`: −λ (N/n) Σ_{i in batch} log p(y_i | x_i, θ)."""
        total, count = self._log_likelihood_sum(params, batch)
        assert self.data_size is not None
        factor = self.likelihood_power.astype(total.dtype) * (self.data_size / count)
        return -factor * total

    def example_potentials(self, params: PyTree, data: PyTree) -> Array:
        """−λ log p(y_i | x_i, θ) of each example: (n,). Over all data they sum to U − U₀."""
        values = _widened(self._log_likelihoods(params, data))
        return -self.likelihood_power.astype(values.dtype) * values

    def potential_and_gradient(
        self, params: PyTree, batch: Batch | PyTree = None
    ) -> tuple[Array, PyTree]:
        """`potential` and its gradient in θ: ((), pytree like `params`)."""
        return jax.value_and_grad(self.potential)(params, batch)

    def log_density(self, params: PyTree, data: PyTree = None, *, block_size: int = 4096) -> Array:
        """−U(θ) over the full data, summed in blocks of `block_size` examples: ().

        Args:
            params: pytree of floating arrays.
            data: all N examples; None for targets without data.
            block_size: examples evaluated at a time, which bounds the memory.
        """
        log_prior = _scalar(self.log_prior(params), "log_prior") - self._pull(params)
        if self.log_likelihood is None:
            return log_prior
        if data is None:
            raise ValueError("data: got None; this posterior has a likelihood and needs its data")
        if isinstance(block_size, bool) or not hasattr(block_size, "__index__") or block_size < 1:
            raise ValueError(f"block_size: got {block_size!r}; expected an integer ≥ 1")
        check_data(data, self.data_size)
        total = sum_over_blocks(self._log_likelihoods, params, data, block_size)
        return log_prior + self.likelihood_power.astype(total.dtype) * total

    def _log_likelihoods(self, params: PyTree, data: PyTree) -> Array:
        assert self.log_likelihood is not None
        values = self.log_likelihood(params, data)
        n = leading_axis(data)
        shape = jnp.shape(values)
        if shape != (n,):
            raise ValueError(
                f"log_likelihood: expected (n,) = ({n},), one value per example, got {shape}"
            )
        return values

    def _log_likelihood_sum(self, params: PyTree, batch: Any) -> tuple[Array, Array | int]:
        if batch is None:
            raise ValueError("data: got None; this posterior has a likelihood and needs its data")
        if not isinstance(batch, Batch):
            batch = Batch(batch)
        values = _widened(self._log_likelihoods(params, batch.data))
        if batch.mask is None:
            return jnp.sum(values), values.shape[0]
        # A padded row repeats a real one, so its value is finite and may be multiplied by 0.
        mask = batch.mask.astype(values.dtype)
        return jnp.sum(values * mask), jnp.sum(mask)

    def _pull(self, params: PyTree) -> Array | float:
        if self.precision is None:
            return 0.0
        trees.require_same_structure(self.center, params, "center", "the parameters")
        difference = jax.tree.map(jnp.subtract, params, self.center)
        squares = trees.dot(difference, difference)
        return self.precision.astype(squares.dtype) / 2 * squares


def leading_axis(data: PyTree) -> int:
    """The common leading axis of the leaves of `data`.

    Raises:
        ValueError: there is no leaf, a leaf is a scalar, or lengths differ; leaves are named.
    """
    lengths = {path: jnp.shape(leaf)[:1] for path, leaf in trees.named_leaves(data)}
    if not lengths:
        raise ValueError("data: got a pytree without arrays")
    if len(set(lengths.values())) > 1 or () in lengths.values():
        listed = ", ".join(
            f"{path}: {length[0] if length else 'a scalar'}" for path, length in lengths.items()
        )
        raise ValueError(f"data: leaves must share one leading axis, got lengths {listed}")
    return next(iter(lengths.values()))[0]


def check_data(data: PyTree, data_size: int | None) -> None:
    """Raise a ValueError unless `data` has `data_size` examples."""
    length = leading_axis(data)
    if data_size is not None and length != data_size:
        named = ", ".join(path for path, _ in trees.named_leaves(data))
        raise ValueError(
            f"data: leaves {named} have {length} examples, but the posterior was built "
            f"with data_size={data_size}"
        )


def sum_over_blocks(
    function: Callable[[PyTree, PyTree], Array], params: PyTree, data: PyTree, block_size: int
) -> Array:
    """Σ_i function(params, data)_i, at most `block_size` examples at a time.

    Each block is checkpointed, so that the gradient needs the memory of one block too.
    """
    n = leading_axis(data)
    if n <= block_size:
        return jnp.sum(_widened(function(params, data)))
    blocks = math.floor(n / block_size)
    whole = jax.tree.map(
        lambda x: jnp.reshape(x[: blocks * block_size], (blocks, block_size, *x.shape[1:])), data
    )
    block_sum = jax.checkpoint(lambda theta, block: jnp.sum(_widened(function(theta, block))))
    total = jnp.sum(jax.lax.map(lambda block: block_sum(params, block), whole))
    if blocks * block_size < n:
        rest = jax.tree.map(lambda x: x[blocks * block_size :], data)
        total = total + jnp.sum(_widened(function(params, rest)))
    return total


def _widened(values: Array) -> Array:
    """In float32 at least: a sum of N bfloat16 terms, or N/n itself, would lose its digits."""
    return values.astype(trees.accumulator_dtype(values))


def _power(power: float | Array) -> Array:
    if not isinstance(power, jax.core.Tracer):
        fits = bool(np.all(np.isfinite(power) & (np.asarray(power) >= 0)))
        _require(fits, "likelihood_power", power, "a finite number ≥ 0")
    return jnp.asarray(power, float)


def _require(condition: bool, name: str, value: Any, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name}: got {value}; expected {allowed}")


def _scalar(value: Array, name: str) -> Array:
    if jnp.shape(value) != ():
        raise ValueError(f"{name}: expected a scalar (), got shape {jnp.shape(value)}")
    return value
