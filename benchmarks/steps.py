"""What a step costs: ratios to `optax.sgd` in the same scan, interleaved in one process.

    python -m benchmarks.steps [--rounds 9] [--steps 300] [--quick] [--json results/bench.json]

Ratios are those of each round's times, so that a machine whose speed drifts does not
matter; the table gives their median, lower and upper quartile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._bench import Bench, alone, num_bytes, spread

LARGE, SMALL, BATCH, EXAMPLES = (784, 256, 256, 10), (64, 128, 128, 10), 128, 10_000


BENCH = Bench(
    __doc__, "bench.json", rounds=9, steps=300, quick=10,
    options={"--part": {"choices": ("one", "many", "cold"), "help": argparse.SUPPRESS}},
)  # fmt: skip


def run(given: argparse.Namespace) -> dict[str, Any] | None:
    parts = {"one": one_chain, "many": many_chains, "cold": cold_start}
    if given.part:
        print(json.dumps(parts[given.part](given.rounds, given.steps)))
        return None
    report = {}
    # Each part in a process of its own: the number of devices is fixed when JAX starts.
    for part in parts:
        report[part] = alone(
            "benchmarks.steps", "--part", part, "--rounds", given.rounds, "--steps", given.steps
        )
        print(table(part, report[part]), flush=True)
    return report


# ------------------------------------------------------------------------------ what is timed


def problem(sizes: tuple[int, ...], examples: int = EXAMPLES) -> tuple[Any, Any, Any]:
    """(posterior, params, data) of a classification network on random data."""
    import jax
    import jax.numpy as jnp

    from sgmcmc import models

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(examples, sizes[0])), jnp.float32)
    y = jnp.asarray(rng.integers(0, sizes[-1], examples), jnp.int32)
    model = models.mlp(sizes, likelihood="categorical")
    return model.posterior(examples), model.init(jax.random.key(0)), (x, y)


def training(optimizer: Any, posterior: Any) -> Callable:
    """(params, state, index, data) -> (params, state): optax in a scan, a row of `index` a step."""
    import jax
    import optax

    def run(params: Any, state: Any, index: Any, data: Any) -> Any:
        def body(carry: Any, rows: Any) -> Any:
            params, state = carry
            batch = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
            gradient = posterior.potential_and_gradient(params, batch)[1]
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, state), index)[0]

    return run


def sgd_scan(posterior: Any, params: Any, data: Any, steps: int, num_chains: int) -> Callable:
    """`optax.sgd` on the same potential and batches, chains by vmap: the yardstick."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.sgd(1e-7)
    examples = len(jax.tree.leaves(data)[0])
    index = jax.random.randint(jax.random.key(1), (num_chains, steps, BATCH), 0, examples)

    one = training(optimizer, posterior)
    run = jax.jit(one if num_chains == 1 else jax.vmap(one, (0, 0, 0, None)))
    start = params
    if num_chains == 1:
        index = index[0]
    else:
        start = jax.tree.map(lambda x: jnp.repeat(x[None], num_chains, 0), params)
    state = optimizer.init(start)
    return lambda: jax.block_until_ready(run(start, state, index, data))


def hand_scan(kernel: Any, params: Any, data: Any, steps: int) -> Callable:
    """The kernel in a scan written by hand, to price the loop."""
    import jax

    index = jax.random.randint(jax.random.key(1), (steps, BATCH), 0, EXAMPLES)

    @jax.jit
    def run(kernel: Any, state: Any, key: Any, index: Any, data: Any) -> Any:
        def body(state: Any, given: Any) -> Any:
            t, rows = given
            batch = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
            state, info = kernel.step(jax.random.fold_in(key, t), state, batch)
            return state, info.finite

        return jax.lax.scan(body, state, (jax.numpy.arange(steps), index))

    state = kernel.init(params, jax.random.key(0), data)
    return lambda: jax.block_until_ready(run(kernel, state, jax.random.key(2), index, data))


def library_loop(
    kernel: Any,
    params: Any,
    data: Any,
    steps: int,
    num_chains: int = 1,
    method: str = "auto",
    stream: str | None = None,
) -> Callable:
    """The same steps by the library's own chunk, with its streams, checks and counters."""
    import jax

    from sgmcmc import loop

    size = None if kernel.traits.batches == "all data" else BATCH
    start = loop.chains(
        jax.random.key(0), kernel, params, data, batch_size=size, stream=stream,
        num_chains=num_chains, chain_method=method,
    )  # fmt: skip

    def run() -> None:
        jax.block_until_ready(loop.advance(start, steps).carry)

    return run


def temporaries(kernel: Any, posterior: Any, params: Any, data: Any) -> float:
    """What XLA sets aside for a step beyond `optax.sgd`'s, in units of the parameters' bytes."""
    import jax
    import optax

    batch = jax.tree.map(lambda a: a[:BATCH], data)
    optimizer = optax.sgd(1e-7)

    def sgd(params: Any, batch: Any) -> Any:
        gradient = posterior.potential_and_gradient(params, batch)[1]
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    def step(state: Any, key: Any, batch: Any) -> Any:
        return kernel.step(key, state, batch)[0]

    state = kernel.init(params, jax.random.key(0), data)
    jitted = jax.jit(sgd, donate_argnums=0), jax.jit(step, donate_argnums=0)
    lowered = jitted[0].lower(params, batch), jitted[1].lower(state, jax.random.key(0), batch)
    one, other = (x.compile().memory_analysis().temp_size_in_bytes for x in lowered)
    return (other - one) / num_bytes(params)


def blackjax_scan(params: Any, posterior: Any, data: Any, steps: int) -> Callable:
    """BlackJAX's `sgld` on the same potential."""
    import blackjax
    import jax

    index = jax.random.randint(jax.random.key(1), (steps, BATCH), 0, EXAMPLES)

    def gradient(params: Any, batch: Any) -> Any:
        value = posterior.potential_and_gradient(params, batch)[1]
        return jax.tree.map(lambda g: -g, value)

    sgld = blackjax.sgld(gradient)

    @jax.jit
    def run(position: Any, key: Any, index: Any, data: Any) -> Any:
        def body(position: Any, given: Any) -> Any:
            t, rows = given
            batch = jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), data)
            key_t = jax.random.fold_in(key, t)
            return sgld.step(key_t, position, batch, 1e-7), None

        return jax.lax.scan(body, position, (jax.numpy.arange(steps), index))[0]

    position = sgld.init(params)
    return lambda: jax.block_until_ready(run(position, jax.random.key(2), index, data))


def one_chain(rounds: int, steps: int) -> dict[str, Any]:
    import sgmcmc

    posterior, params, data = problem(LARGE)
    h = 1e-7
    runs = {"optax.sgd": sgd_scan(posterior, params, data, steps, 1)}
    kernels = {
        "sgld gaussian": sgmcmc.sgld(posterior, h),
        "sgld fast": sgmcmc.sgld(posterior, h, noise="fast"),
        "baoab gaussian": sgmcmc.baoab(posterior, 1e-4),
        "baoab fast": sgmcmc.baoab(posterior, 1e-4, noise="fast"),
    }
    for name, kernel in kernels.items():
        runs[name] = library_loop(kernel, params, data, steps)
    runs["sgld gaussian, hand-written scan"] = hand_scan(
        kernels["sgld gaussian"], params, data, steps
    )
    runs["sgld fast, hand-written scan"] = hand_scan(kernels["sgld fast"], params, data, steps)
    runs["blackjax.sgld"] = blackjax_scan(params, posterior, data, steps)
    times = interleave(runs, rounds)
    rows = ratios(times, "optax.sgd")
    rows["sgld gaussian: loop / hand-written"] = ratio(
        times["sgld gaussian"], times["sgld gaussian, hand-written scan"]
    )
    rows["sgld fast: loop / hand-written"] = ratio(
        times["sgld fast"], times["sgld fast, hand-written scan"]
    )
    rows["baoab / sgld, gaussian"] = ratio(times["baoab gaussian"], times["sgld gaussian"])
    rows["baoab / sgld, fast"] = ratio(times["baoab fast"], times["sgld fast"])
    rows |= {
        f"temporaries of a step over optax.sgd's / parameter bytes, {name}": summary(
            temporaries(kernels[f"sgld {name}"], posterior, params, data)
        )
        for name in ("gaussian", "fast")
    }
    milliseconds = {name: 1e3 * float(np.median(t)) / steps for name, t in times.items()}
    return {"ratios": rows, "milliseconds_per_step": milliseconds}


def many_chains(rounds: int, steps: int) -> dict[str, Any]:
    import sgmcmc

    sgmcmc.use_cpu_devices(2)
    report: dict[str, Any] = {"ratios": {}, "milliseconds_per_step": {}}
    for label, sizes in (("784-256-256-10", LARGE), ("64-128-128-10", SMALL)):
        posterior, params, data = problem(sizes)
        for noise in ("gaussian", "fast"):
            kernel = sgmcmc.sgld(posterior, 1e-7, noise=noise)
            # A network of a tenth of the size takes ten times the steps.
            count = steps if sizes is LARGE else 5 * steps
            runs = {"one": library_loop(kernel, params, data, count)}
            for method in ("auto", "vmap", "map", "sharded_vmap", "sharded_map"):
                runs[method] = library_loop(kernel, params, data, count // 5, 16, method)
            times = interleave(runs, max(2, rounds // 2))
            for method in list(runs)[1:]:
                name = f"{label} {noise}: 16 chains by {method} / one"
                report["ratios"][name] = ratio(5 * np.asarray(times[method]), times["one"])
    return report


def cold_start(rounds: int, steps: int) -> dict[str, Any]:
    """Seconds from starting Python to the first draw, imports and compiling included."""
    code = (
        "import jax, sgmcmc; from benchmarks.steps import problem, LARGE;"
        "p, theta, data = problem(LARGE);"
        "sgmcmc.sample(jax.random.key(0), sgmcmc.sgld(p, 1e-7), theta, data, batch_size=128,"
        "num_chains=1, num_burnin=0, num_samples=1, progress=False)"
    )
    seconds = []
    for _ in range(max(2, rounds // 3)):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - began)
    return {"seconds": {"first draw, cold": summary(seconds)}}


# ------------------------------------------------------------------------------ sums and tables


def interleave(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round; one round first to compile."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return times


def summary(values: Any) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "lower": float(low), "upper": float(high)}


def ratio(times: Any, others: Any) -> dict[str, float]:
    return summary(np.asarray(times) / np.asarray(others))


def ratios(times: dict[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    return {name: ratio(t, times[reference]) for name, t in times.items() if name != reference}


def table(part: str, report: dict[str, Any]) -> str:
    titles = {
        "one": f"one chain, MLP {'-'.join(map(str, LARGE))}, batch {BATCH}, float32, one device",
        "many": "16 chains, two CPU devices",
        "cold": "cold start",
    }
    lines = [titles[part], f"  {'':<52}{'median':>8}{'quartiles':>14}"]
    for name, row in {**report.get("ratios", {}), **report.get("seconds", {})}.items():
        lines.append(f"  {name:<52}{spread(row, 8)}")
    for name, value in report.get("milliseconds_per_step", {}).items():
        lines.append(f"  {name:<52}{value:>8.2f} ms a step")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(BENCH.main(run))
