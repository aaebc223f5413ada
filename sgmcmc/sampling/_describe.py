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

from sgmcmc import _tree as trees
from sgmcmc._schedule import Constant
from sgmcmc._version import __version__
from sgmcmc.clocks._base import Clock


def configuration(inputs: Any, settings: Any, key: jax.Array) -> dict[str, Any]:
    """What was asked for, as JSON-able numbers and strings."""
    kernel, program = inputs.kernel, inputs.program
    numbers = {
        name: _rate(getattr(kernel, name, None)) for name in ("clock", "friction", "temperature")
    }
    return {
        "sampler": getattr(kernel, "name", type(kernel).__name__),
        "step_size": numbers["clock"],
        "friction": numbers["friction"],
        "temperature": numbers["temperature"],
        "metric": type(getattr(kernel, "metric", None)).__name__.lower(),
        "gradient": _estimator(kernel),
        "noise": getattr(kernel, "noise", None),
        "order": kernel.order,
        "gradient_evaluations_per_step": float(kernel.gradient_evaluations),
        "data_size": program.data_size or None,
        "batch_size": program.batch_size or None,
        # Without data the batch size is 0; under `full` it is the size of the data.
        "requested_batch_size": None
        if program.stream.name == "full"
        else program.batch_size or None,
        "stream": program.stream.name if program.data_size else None,
        "num_parameters": program.num_parameters,
        **settings._asdict(),
        "num_devices": program.devices,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "key_type": str(jax.random.key_impl(key)),
    }


def versions() -> dict[str, str]:
    """Versions of what made a run."""
    return {
        "sgmcmc": __version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "backend": jax.default_backend(),
    }


def fingerprint(kernel: Any) -> str:
    """A hash of a kernel's structure and numbers, to recognise it after a run is loaded.

    Functions are known by their module and name alone: their code is not compared, nor are
    the constants that they close over.
    """
    digest = hashlib.sha256()
    for path, leaf in trees.named_leaves(eqx.filter(kernel, eqx.is_array)):
        array = np.asarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    functions = jax.tree.leaves(kernel, is_leaf=lambda x: isinstance(x, Partial))
    for function in functions:
        code = function.func if isinstance(function, Partial) else function
        if callable(code):
            name = getattr(code, "__qualname__", type(code).__name__)
            digest.update(f"{getattr(code, '__module__', '')}.{name}".encode())
    digest.update(repr(_choices(kernel)).encode())
    plan = getattr(kernel, "plan", None)
    digest.update(repr((getattr(kernel, "name", ""), getattr(kernel, "noise", ""), plan)).encode())
    digest.update(repr((_estimator(kernel), getattr(kernel, "refresh_every", None))).encode())
    return digest.hexdigest()


def _choices(module: Any) -> list[Any]:
    """What a module and its parts are, and how they are set, apart from arrays and functions."""
    made: list[Any] = [type(module).__name__]
    for field in dataclasses.fields(module) if isinstance(module, eqx.Module) else ():
        value = getattr(module, field.name)
        if isinstance(value, eqx.Module):
            made.append((field.name, _choices(value)))
        elif isinstance(value, str | bool | int | None):
            made.append((field.name, value))
    return made


def _estimator(kernel: Any) -> str:
    gradient = getattr(kernel, "gradient", None)
    return getattr(gradient, "name", type(gradient).__name__.lower())


def _rate(rate: Any) -> float | str | None:
    if isinstance(rate, Clock):
        rate = rate.step_size
    if isinstance(rate, Constant):
        value = np.asarray(rate.value)
        # The shortest number that rounds to this one: 0.2, not 0.20000000298.
        return float(str(value)) if value.ndim == 0 else None
    return None if rate is None else "schedule"
