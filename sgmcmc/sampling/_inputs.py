"""What users hand to `sample`, checked."""

from __future__ import annotations

import operator
from typing import Any

from sgmcmc._checks import _is_index, check_range, choice, count


def check_settings(asked: Any) -> Any:
    """An `execution.Settings` with its numbers checked, as Python's own integers."""
    for name in ("num_chains", "num_samples", "thinning"):
        count(getattr(asked, name), name, least=1)
    count(asked.num_burnin, "num_burnin", least=0)
    if asked.chunk_steps is not None:
        count(asked.chunk_steps, "chunk_steps", least=1)
    if asked.total_time is not None:
        check_range(asked.total_time, "total_time", above_zero=True)
        asked = asked._replace(total_time=float(asked.total_time))
    choice(asked.on_nonfinite, "on_nonfinite", ("raise", "stop_chain", "ignore"))
    plain = {name: operator.index(x) for name, x in asked._asdict().items() if _is_index(x)}
    return asked._replace(**plain)


def total_steps(asked: Any, kernel: Any) -> None:
    """Raise a ValueError unless the steps, and their batches, can be counted in an int32."""
    steps = asked.num_burnin + asked.num_samples * asked.thinning
    if (steps + 1) * kernel.traits.batches_per_step >= 2**31:
        raise ValueError(f"num_samples: burn-in and draws make {steps:,} steps; allowed: < 2³¹")
    if kernel.clock is not None:
        # Until a time is covered: how many steps that takes is not known yet.
        most = asked.num_samples if asked.total_time is None else 2**20 // asked.thinning
        kernel.clock.check_run(asked.num_burnin, min(asked.num_samples, most), asked.thinning)


def most_draws(kernel: Any, num_burnin: int, thinning: int) -> int:
    """The most draws a run can make; see `total_steps`."""
    count(num_burnin, "num_burnin", least=0)
    count(thinning, "thinning", least=1)
    steps = (2**31 - 1) // kernel.traits.batches_per_step - 2
    return max(1, (steps - num_burnin) // thinning)
