"""What the chains of a learning coefficient cost: 16 of them over one, and peak memory.

    python -m benchmarks.learning [--rounds 5] [--steps 200] [--quick] [--json results/…json]

Times: SGLD's step on the localised, tempered posterior and on the plain one in the library's own
loop, two CPU devices, `chain_method="auto"`, interleaved in one process; median and quartiles
over rounds of each round's ratio, by the clock and by processor time, which other work on the
machine does not stretch (but two devices at work count twice). Memory: what a process of its own
has at most while `learning_coefficient` runs, for 2, 4 and 16 chains, beyond what it has just
before.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._bench import Bench, alone, spread
from benchmarks.steps import BATCH, LARGE, SMALL, library_loop, problem, ratio

NETWORKS = {"784-256-256-10": LARGE, "64-128-128-10": SMALL}
CHAINS, STEP = 16, 1e-7


BENCH = Bench(
    __doc__, "bench_learning.json", rounds=5, steps=200, quick=10,
    options={
        "--times-only": {"action": "store_true", "help": "no memory"},
        "--memory": {"nargs": 2, "help": argparse.SUPPRESS},
    },
)  # fmt: skip


def run(given: argparse.Namespace) -> dict[str, Any] | None:
    if given.memory:
        print(json.dumps(memory(given.memory[0], int(given.memory[1]))))
        return None
    used = {
        f"{name}, {chains} chains": alone("benchmarks.learning", "--memory", name, chains)
        for name in (() if given.times_only else NETWORKS)
        for chains in (2, 4, CHAINS)
    }
    report = {"memory": used, "ratios": times(given.rounds, given.steps)}
    for name, row in report["ratios"].items():
        print(f"{name:56}{spread(row, 7)}")
    for name, row in used.items():
        print(f"{name:32}{row['before']:7.0f} MiB, and {row['more']:6.0f} at most while it runs")
    return report


def times(rounds: int, steps: int) -> dict[str, dict[str, float]]:
    import sgmcmc

    sgmcmc.use_cpu_devices(2)
    rows = {}
    for name, sizes in NETWORKS.items():
        posterior, params, data = problem(sizes)
        n = posterior.data_size
        tempered = posterior.with_likelihood_power(1 / np.log(n)).localized(params, 100.0)
        count = steps if sizes is LARGE else 5 * steps
        for noise in ("gaussian", "fast"):
            plain = sgmcmc.sgld(posterior, STEP, noise=noise)
            kernel = sgmcmc.sgld(tempered, STEP, noise=noise)
            runs = {
                "plain": library_loop(plain, params, data, count),
                "plain, many": library_loop(plain, params, data, count // 5, CHAINS),
                "one": library_loop(kernel, params, data, count),
                "many": library_loop(kernel, params, data, count // 5, CHAINS),
            }
            for clock, seconds in zip(("", ", processor"), both_times(runs, rounds), strict=True):
                place = f"{name} {noise}{clock}"
                rows |= {
                    f"{place}: {CHAINS} chains / one": ratio(5 * seconds["many"], seconds["one"]),
                    f"{place}: the same of `sgld`": ratio(
                        5 * seconds["plain, many"], seconds["plain"]
                    ),
                    f"{place}: {CHAINS} chains / {CHAINS} of `sgld`": ratio(
                        seconds["many"], seconds["plain, many"]
                    ),
                }
    return rows


def both_times(
    runs: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Seconds of the clock and of the processor, of each run in each round."""
    for run in runs.values():
        run()
    seconds = {name: np.zeros((2, rounds)) for name in runs}
    for i in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter(), time.process_time()
            run()
            ended = time.perf_counter(), time.process_time()
            seconds[name][:, i] = np.subtract(ended, began)
    wall, processor = ({name: x[k] for name, x in seconds.items()} for k in (0, 1))
    return wall, processor


def memory(name: str, chains: int) -> dict[str, float]:
    """MiB at most in this process, before `learning_coefficient` and beyond that."""
    import warnings

    import jax

    from sgmcmc.diagnostics import learning_coefficient

    posterior, params, data = problem(NETWORKS[name])
    jax.block_until_ready(posterior.log_density(params, data))
    before = _peak()
    with warnings.catch_warnings():
        # The weights are no minimum, and it does not matter here.
        warnings.filterwarnings("ignore", message="learning_coefficient:")
        learning_coefficient(
            jax.random.key(0), posterior, params, data, batch_size=BATCH, num_chains=chains,
            num_steps=20, thinning=5, precision=100.0, step_size=STEP,
        )  # fmt: skip
    return {"before": before, "more": _peak() - before}


def _peak() -> float:
    """MiB; Linux counts in KiB, macOS in bytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    raise SystemExit(BENCH.main(run))
