"""What a run says of itself: its configuration, what it cost, and versions."""

from __future__ import annotations

import platform
from typing import Any

import jax
import numpy as np

from sgmcmc._version import __version__
from sgmcmc.loop._chunk import Inputs
from sgmcmc.loop._devices import method_name
from sgmcmc.sampling._fingerprint import x64_enabled
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
        "chain_method": method_name(program.vmapped, program.devices),
        "requested_chain_method": settings.chain_method,
        "num_samples": goal,
        "num_devices": program.devices,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "key_type": str(jax.random.key_impl(key)),
        "x64": x64_enabled(),
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
