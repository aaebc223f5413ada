"""`step_size=None` under a metric that changes with the position: Euler's rule in it, frozen.

The metric is that of the mode. RMSprop's V has there the stationary value

    V_i = E[g_i²] = T |∂²U/∂θ_i²| + s_i²

of chains about it: what they move the gradient by, and the variance of its estimate. The rules
of `sgmcmc.tuning` are those of SGLD under G = 1/(ε + √V), whose trial they are; then `psgld`
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

from sgmcmc._curvature import hessian_product
from sgmcmc.kernels._euler import EulerStep
from sgmcmc.kernels._splitting import SplittingKernel
from sgmcmc.kernels._words import table
from sgmcmc.metrics import _constant as metrics
from sgmcmc.metrics._base import AbstractPreconditioner
from sgmcmc.metrics._position_dependent import RMSProp, RMSPropMemory
from sgmcmc.streams import _source as batches
from sgmcmc.streams import _streams as streams
from sgmcmc.tuning._record import Tuning
from sgmcmc.tuning._rules import look, look_size, settled, tune_and_mode
from sgmcmc.tuning._trial import verified
from sgmcmc.types import Array, Key, PyTree

PROBES, WARMER = 32, 2.0


def tune_preconditioned(
    key: Key,
    kernel: SplittingKernel,
    params: PyTree,
    data: PyTree,
    stream: streams.Stream,
    batch_size: int,
    count: int,
) -> Tuning:
    """Choose h; arguments and errors as `tuning.tune`. `curvature` is in the frozen metric."""
    metric = kernel.metric
    assert isinstance(metric, AbstractPreconditioner)
    look_key, probe_key, tune_key, trial_key = jax.random.split(key, 4)
    plain = settled(_frozen(kernel, metrics.identity()), count)
    source = batches.Source(streams.reshuffled(), batch_size, data)
    sampled = stream.law != "all" and data is not None
    temperature = float(plain.temperature(0))
    keys = tuple(jax.random.split(look_key, 3))
    seen = look(keys, plain, params, source, sampled, temperature)
    square = _stationary_square(plain, seen.mode, seen.given, data, probe_key)
    memory = _memory(metric, square, seen.mode)
    # With g² = V there the running mean stays where it is.
    root = jax.tree.map(jnp.sqrt, square)
    scale = metric.evaluate(lambda x: root, seen.mode, root, memory)[0]
    frozen = _frozen(kernel, metrics.diagonal(jax.tree.map(jnp.sqrt, scale)))
    choice, mode = tune_and_mode(tune_key, frozen, seen.mode, data, stream, batch_size, count)
    spent = seen.spent + 2 * PROBES * (look_size(source) if sampled else 1)
    choice = choice._replace(gradient_evaluations=choice.gradient_evaluations + spent)
    warm = dataclasses.replace(settled(kernel, count), metric=Begun(metric, memory))
    source = kernel.source(stream, batch_size, data)
    return verified(warm, choice, mode, source, trial_key, WARMER)[0]


class Begun(AbstractPreconditioner):
    """A preconditioner whose memory begins with what is given."""

    metric: AbstractPreconditioner
    memory: PyTree

    def check(self, position: PyTree) -> None:
        self.metric.check(position)

    def init(self, position: PyTree) -> PyTree:
        return self.memory

    def evaluate(self, *arguments: Any) -> tuple[PyTree, PyTree, PyTree]:
        return self.metric.evaluate(*arguments)


def _frozen(kernel: SplittingKernel, metric: Any) -> SplittingKernel:
    """SGLD under a constant metric."""
    return dataclasses.replace(kernel, metric=metric, flows=table(EulerStep()))


def _memory(metric: AbstractPreconditioner, square: PyTree, position: PyTree) -> PyTree:
    """What the preconditioner remembers once it has seen enough."""
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
    kernel: Any, position: PyTree, given: PyTree, data: PyTree, key: Key
) -> PyTree:
    """T |H_ii| + s_i²: Hutchinson's estimate of the Hessian's diagonal, and the variance over

    the batches `given`.
    """
    leaves, structure = jax.tree.flatten(position)

    def probe(key: Key) -> PyTree:
        keys = jax.random.split(key, len(leaves))
        signs = [
            jax.random.rademacher(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)
        ]
        vector = jax.tree.unflatten(structure, signs)
        image = hessian_product(kernel, position, given, vector)
        return jax.tree.map(jnp.multiply, vector, image)

    products = jax.lax.map(probe, jax.random.split(key, PROBES))
    temperature = kernel.temperature(jnp.zeros((), jnp.int32))

    def heat(x: Array) -> Array:
        return temperature.astype(x.dtype) * jnp.abs(jnp.mean(x, axis=0))

    square = jax.tree.map(heat, products)
    if given is None or jax.tree.leaves(given)[0].shape[0] < 2:
        return square
    memory = kernel.gradient.init(kernel.posterior, position, data)
    one = lambda batch: kernel.gradient(kernel.posterior, position, batch, memory)[1]  # noqa: E731
    gradients = jax.lax.map(one, given)
    return jax.tree.map(lambda v, g: v + jnp.var(g, axis=0, ddof=1), square, gradients)
