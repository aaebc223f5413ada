"""What an inner loop of L steps costs, over L steps of SGLD.

    python -m benchmarks.local [--rounds 9] [--steps 200] [--quick] [--json results/…json]

`local_entropy(sgld).gradient` and `entropy_sgd` on the large network of
`benchmarks.steps`, in a scan with minibatches, against the same number of SGLD steps in the
library's own loop; interleaved in one process, median and quartiles over rounds. And what XLA
sets aside for each, in units of the parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._bench import Bench, num_bytes, spread
from benchmarks.steps import (
    BATCH,
    LARGE,
    interleave,
    library_loop,
    problem,
    summary,
    training,
)

INNER, ASKED = 20, 1.1


BENCH = Bench(__doc__, "bench_local.json", rounds=9, steps=200, quick=INNER)  # steps: a multiple


def run(given: argparse.Namespace) -> dict[str, Any]:
    rows = measure(given.rounds, max(1, given.steps // INNER))
    print(f"{'L steps over L of sgld':<26}{'median':>8}{'quartiles':>14}   memory / parameters")
    for name, row in rows.items():
        late = "" if row["median"] <= ASKED else f"   above {ASKED}"
        print(f"{name:<26}{spread(row, 8)}   {row['memory']:.1f}{late}")
    return {"rows": rows}


def nested(posterior: Any, params: Any, data: Any, outer: int) -> tuple[Callable, float]:
    """x ← μ by `local_entropy`, with its batches gathered for each inner loop."""
    import jax

    import sgmcmc

    local = sgmcmc.local.local_entropy(sgmcmc.sgld(posterior, 1e-7), 1.0, num_steps=INNER)
    examples = len(jax.tree.leaves(data)[0])
    index = jax.random.randint(jax.random.key(1), (outer, INNER, BATCH), 0, examples)

    def run(params: Any, index: Any, data: Any) -> Any:
        def body(x: Any, rows: Any) -> Any:
            batches = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
            return local.gradient(jax.random.key(2), x, batches).mean, None

        return jax.lax.scan(body, params, index)[0]

    compiled = jax.jit(run).lower(params, index, data).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes / num_bytes(params)
    return lambda: jax.block_until_ready(compiled(params, index, data)), memory


def flat(
    optimizer: Any, posterior: Any, params: Any, data: Any, steps: int
) -> tuple[Callable, float]:
    """An optax transformation in a scan, one minibatch gradient a step."""
    import jax

    examples = len(jax.tree.leaves(data)[0])
    index = jax.random.randint(jax.random.key(1), (steps, BATCH), 0, examples)

    state = optimizer.init(params)
    run = jax.jit(training(optimizer, posterior))
    compiled = run.lower(params, state, index, data).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes / num_bytes(params)
    return lambda: jax.block_until_ready(compiled(params, state, index, data)), memory


def measure(rounds: int, outer: int) -> dict[str, dict[str, float]]:
    import jax

    import sgmcmc

    posterior, params, data = problem(LARGE)
    steps = outer * INNER
    numbers = {"precision": 1.0, "step_size": 1e-7, "num_steps": INNER, "temperature": 1.0}
    key = jax.random.key(3)
    made = {
        "local_entropy": nested(posterior, params, data, outer),
        "entropy_sgd": flat(
            sgmcmc.optim.entropy_sgd(key, 1.0, **numbers), posterior, params, data, steps
        ),
    }
    runs = {"sgld": library_loop(sgmcmc.sgld(posterior, 1e-7), params, data, steps)}
    times = interleave(runs | {name: run for name, (run, _) in made.items()}, rounds)
    base = np.asarray(times["sgld"])
    return {
        name: {**summary(np.asarray(times[name]) / base), "memory": memory}
        for name, (_, memory) in made.items()
    }


if __name__ == "__main__":
    raise SystemExit(BENCH.main(run))
