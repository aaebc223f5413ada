"""What a run says of itself: its configuration, versions, and its kernel's fingerprint."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.tree_util import Partial

from sgmcmc._version import __version__
from sgmcmc.kernels._base import AbstractKernel
from sgmcmc.loop._chunk import Inputs
from sgmcmc.sampling._plan import Settings
from sgmcmc.streams._streams import num_batches
from sgmcmc.tuning._record import Tuning
from sgmcmc.types import Key


def configuration(inputs: Inputs, settings: Settings, goal: int, key: Key) -> dict[str, Any]:
    """What was asked for, as JSON-able numbers and strings.

    `num_samples` is the number of draws with which the run is complete: what `resume` added, and
    what it took to cover a `total_time`, included.
    """
    traits, program = inputs.kernel.traits, inputs.program
    source = inputs.kernel.source(program.stream, program.batch_size, inputs.data)
    absent = dict.fromkeys(("step_size", "friction", "temperature", "metric", "gradient", "noise"))
    return {
        "sampler": traits.name,
        **absent,
        **inputs.kernel.numbers(),
        "order": traits.order,
        "gradient_evaluations_per_step": float(traits.gradient_evaluations),
        "data_size": program.data_size or None,
        # What a sweep's larger batches have, beside what was asked.
        "batch_size": source.width or None,
        # Without data the batch size is 0; under `full` it is the size of the data.
        "requested_batch_size": None if program.stream.law == "all" else program.batch_size or None,
        "stream": program.stream.name if program.data_size else None,
        "num_parameters": program.num_parameters,
        **settings._asdict(),
        "num_samples": goal,
        "num_devices": program.devices,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "key_type": str(jax.random.key_impl(key)),
    }


def gradient_evaluations(
    inputs: Inputs, num_chains: int, steps: int, tuning: Tuning | None
) -> float:
    """Minibatch gradients of all chains' steps; a refresh from all data counts as N/n of them.

    In even sweeps n is the mean of the batches' sizes, so that N/n is their number K.

    An energy of all data counts as N/(3n): an evaluation without the backward pass, which
    costs about twice as much.
    """
    traits, program = inputs.kernel.traits, inputs.program
    count = traits.gradient_evaluations * steps
    every = traits.refresh_every
    passes: float = 1
    if program.batch_size:
        sizes = program.data_size, program.batch_size
        passes = num_batches(*sizes) if program.stream.even else sizes[0] / sizes[1]
    if every is not None:
        refreshes = max(0, steps - 1) // every
        count += refreshes * traits.refresh_passes * passes
    count += traits.full_energies * steps * passes / 3
    spent = 0.0 if tuning is None else tuning.gradient_evaluations
    return float(count * num_chains + spent)


def versions() -> dict[str, str]:
    """Versions of what made a run."""
    return {
        "sgmcmc": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "backend": jax.default_backend(),
    }


def fingerprint(kernel: AbstractKernel) -> str:
    """A hash of a kernel's structure and numbers, to recognise it after a run is loaded.

    It is of what the kernel says of itself (`traits`, `numbers`), of its arrays in their order,
    of its static choices, and of the names of its functions: not of where a class or a function
    is kept, so that a module may be renamed and saved runs still go on. Functions' code is not
    compared, nor are the constants that they close over.
    """
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(kernel, eqx.is_array)):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    functions = jax.tree.leaves(kernel, is_leaf=lambda x: isinstance(x, Partial))
    for function in functions:
        code = function.func if isinstance(function, Partial) else function
        if callable(code):
            digest.update(getattr(code, "__qualname__", type(code).__name__).encode())
    traits = [item for item in kernel.traits._asdict().items() if item[1] is not None]
    digest.update(repr((traits, kernel.numbers(), _choices(kernel))).encode())
    return digest.hexdigest()


def _choices(part: Any) -> list[Any]:
    """The static fields of a module and its parts, without their names, arrays and functions."""
    if isinstance(part, eqx.Module):
        values = [getattr(part, field.name) for field in dataclasses.fields(part)]
        return [choice for value in values for choice in _choices(value)]
    if isinstance(part, tuple | list):
        return [made for value in part for made in _choices(value)]
    if isinstance(part, dict):
        return [made for name in sorted(part) for made in [name, *_choices(part[name])]]
    return [part] if isinstance(part, str | bool | int | float) else []
