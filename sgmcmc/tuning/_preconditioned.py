"""`step_size=None` under a metric that changes with the position: Euler's rule in it, frozen.

The metric is that of the mode. RMSprop's V has there the stationary value

    V_i = E[g_i²] = T |∂²U/∂θ_i²| + s_i²

of chains about it: what they move the gradient by, and the variance of its estimate. The rules
of `_by_curvature` are those of SGLD under G = 1/(ε + √V), whose trial they are; then `psgld`
itself is tried with V from there, and the step halved where chains are lost, or hotter by a
quarter than twice T. Twice, because the law of a metric with a short memory is another: at most
e^{−U/T} (ε + |g|), for which ⟨θ·∇U⟩ is 2dT on a Gaussian at any step (`sgmcmc.metrics`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from sgmcmc._curvature import whitened_hessian
from sgmcmc.kernels._euler import EulerStep
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import table
from sgmcmc.metrics import _constant as metrics
from sgmcmc.metrics._base import AbstractMetric, AbstractPreconditioner
from sgmcmc.metrics._position_dependent import RMSProp, RMSPropMemory
from sgmcmc.tuning._by_curvature import choose_by_curvature
from sgmcmc.tuning._mode import ModeKeys, measure_mode
from sgmcmc.tuning._problem import Problem, temperature_of
from sgmcmc.tuning._record import Tuning
from sgmcmc.tuning._rules import RULES
from sgmcmc.tuning._trial import halved_until_good
from sgmcmc.types import Array, Key, PyTree


def choose_preconditioned(key: Key, kernel: SplittingKernel, problem: Problem) -> Tuning:
    """Choose h; arguments and errors as `choose_by_curvature`.

    `curvature` of what is returned is in the frozen metric.
    """
    metric = kernel.metric
    assert isinstance(metric, AbstractPreconditioner)
    mode_key, probe_key, frozen_key, trial_key = jax.random.split(key, 4)
    plain = _frozen(kernel, metrics.identity())
    mode = measure_mode(ModeKeys(*jax.random.split(mode_key, 3)), plain, problem)
    square = _stationary_square(plain, mode.position, mode.batches, problem.data, probe_key)
    memory = _memory(metric, square, mode.position)
    # With g² = V there the running mean stays where it is.
    root = jax.tree.map(jnp.sqrt, square)
    scale = metric.evaluate(lambda x: root, mode.position, root, memory)[0]
    frozen = _frozen(kernel, metrics.diagonal(jax.tree.map(jnp.sqrt, scale)))
    from_mode = problem._replace(start=mode.position)
    tuning, position = choose_by_curvature(frozen_key, frozen, from_mode)
    tuning = tuning.costing(mode.gradient_evaluations + 2 * RULES.probes * problem.num_measured)
    warm = dataclasses.replace(kernel, metric=Begun(metric, memory))
    hottest = RULES.warmer * temperature_of(kernel)
    return halved_until_good(warm, tuning, position, problem.source(kernel), trial_key, hottest)[0]


class Begun(AbstractPreconditioner):
    """A preconditioner whose memory begins with what is given."""

    metric: AbstractPreconditioner
    memory: PyTree

    def check(self, position: PyTree) -> None:
        self.metric.check(position)

    def init(self, position: PyTree) -> PyTree:
        return self.memory

    def scale(self, position: PyTree, memory: PyTree) -> PyTree | None:
        return self.metric.scale(position, memory)

    def evaluate(self, *arguments: Any) -> tuple[PyTree, PyTree, PyTree]:
        return self.metric.evaluate(*arguments)


def _frozen(kernel: SplittingKernel, metric: AbstractMetric) -> SplittingKernel:
    """SGLD under a constant metric."""
    return dataclasses.replace(kernel, metric=metric, flows=table(EulerStep()))


def _memory(metric: AbstractPreconditioner, square: PyTree, position: PyTree) -> PyTree:
    """The preconditioner's memory with V at its stationary value, `square`."""
    if not isinstance(metric, RMSProp):
        return metric.init(position)
    filled = jnp.ceil(1 / (1 - metric.decay)).astype(jnp.int32)
    if metric.freeze_after is not None:
        filled = jnp.maximum(filled, metric.freeze_after)
    empty = metric.init(position)
    square = jax.tree.map(lambda v, like: v.astype(like.dtype), square, empty.square)
    return RMSPropMemory(square, filled)


@eqx.filter_jit
def _stationary_square(
    kernel: SplittingKernel, position: PyTree, batches: PyTree, data: PyTree, key: Key
) -> PyTree:
    """T |H_ii| + s_i²: Hutchinson's estimate of the Hessian's diagonal, and the batches' variance.

    Args:
        kernel: settled, with the identity as metric.
        position: the mode.
        batches: those measured on, with a leading axis; None without data.
        data: all data.
        key: for the random signs.
    """
    product = whitened_hessian(kernel, position, batches)
    leaves, structure = jax.tree.flatten(position)

    def probe(key: Key) -> PyTree:
        keys = jax.random.split(key, len(leaves))
        signs = [
            jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)
        ]
        vector = jax.tree.unflatten(structure, signs)
        return jax.tree.map(jnp.multiply, vector, product(vector))

    products = jax.lax.map(probe, jax.random.split(key, RULES.probes))
    temperature = kernel.temperature(jnp.zeros((), jnp.int32))

    def heat(x: Array) -> Array:
        return temperature.astype(x.dtype) * jnp.abs(jnp.mean(x, axis=0))

    square = jax.tree.map(heat, products)
    if batches is None or jax.tree.leaves(batches)[0].shape[0] < 2:
        return square
    memory = kernel.gradient.init(kernel.posterior, position, data)
    estimate = lambda batch: kernel.gradient(kernel.posterior, position, batch, memory)[1]  # noqa: E731
    gradients = jax.lax.map(estimate, batches)
    return jax.tree.map(lambda v, g: v + jnp.var(g, axis=0, ddof=1), square, gradients)
