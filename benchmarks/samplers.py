"""What each sampler's step costs, over what its gradients and its noise imply.

    python -m benchmarks.samplers [--rounds 7] [--steps 200] [--quick] [--json results/…json]

A step of `optax.sgd` prices a gradient with its update; what a step of SGLD takes beyond it
prices one standard normal a parameter; an energy of all data, and one with its gradient, are
timed by themselves. A sampler is expected to take as much as its gradients, normals and energies
do; the table gives what it took over that. All run in the library's own loop, interleaved in one
process; median and quartiles over rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks._bench import Bench, spread
from benchmarks.steps import (
    LARGE,
    SMALL,
    interleave,
    library_loop,
    problem,
    sgd_scan,
    summary,
)

ASKED = 1.15


class Price(NamedTuple):
    """What one step is expected to cost: minibatch gradients, normals, energies of all data.

    `full_gradients`: of all data, with the energy. `share`: of the steps that are timed, for
    samplers whose steps are long.
    """

    gradients: float
    normals: float
    energies: float = 0.0
    share: float = 1.0
    full_gradients: float = 0.0


BENCH = Bench(__doc__, "bench_samplers.json", rounds=7, steps=200, quick=5)


def run(given: argparse.Namespace) -> dict[str, Any]:
    rows = measure(given.rounds, given.steps) | measure_saga(given.rounds, given.steps)
    width = max(len(name) for name in rows) + 2
    print(f"{'a step over its price':<{width}}{'median':>8}{'quartiles':>14}   gradients, normals")
    for name, row in rows.items():
        late = "" if row["median"] <= ASKED else f"   above {ASKED}"
        full = f" + {row['full_gradients']:g} of all data" if row["full_gradients"] else ""
        counts = f"{row['gradients']:g}{full}, {row['normals']:g}"
        print(f"{name:<{width}}{spread(row, 8)}   {counts}{late}")
    return {"rows": rows}


def samplers(posterior: Any, params: Any, data: Any, steps: int) -> dict[str, tuple[Any, Price]]:
    """Every sampler on the large network, at steps that hardly move it, and its price."""
    import sgmcmc
    from sgmcmc import clocks, gradients, metrics

    h, step = 1e-4, 1e-7
    overdamped = ("sgld", "leimkuhler_matthews")
    underdamped = (
        "baoab", "obabo", "aboba", "ubu", "bub", "babo", "symplectic_euler", "euler_maruyama",
        "sghmc", "sort", "should", "quicsort", "sgnht",
    )  # fmt: skip
    kernels = {name: getattr(sgmcmc, name)(posterior, step) for name in overdamped}
    kernels |= {name: getattr(sgmcmc, name)(posterior, h) for name in underdamped}
    running = sgmcmc.gradients.running_variance()
    kernels |= {
        "sghmc, running variance": sgmcmc.sghmc(posterior, h, noise_estimate=running),
        "psgld, no Γ": sgmcmc.psgld(posterior, step, metric=metrics.rmsprop(gamma=False)),
        "sgld, cyclical": sgmcmc.sgld(
            posterior, clocks.cyclical(step, num_cycles=1, total_steps=steps)
        ),
        "sgld, control variate": sgmcmc.sgld(
            posterior, step, gradient=gradients.control_variate(params)
        ),
        "sgld, SVRG": sgmcmc.sgld(posterior, step, gradient=gradients.svrg(10**6)),
        "samadams": sgmcmc.samadams(posterior, h),
        "sa_sgld": sgmcmc.sa_sgld(posterior, step),
    }
    made = {
        name: (k, Price(k.gradient_evaluations, k.plan.num_normals)) for name, k in kernels.items()
    }
    rare = 0.05
    for name, block in (("amagold", sgmcmc.amagold), ("sggmc", sgmcmc.sggmc)):
        kernel = block(posterior, step, 10)
        rows = kernel.num_steps + kernel.rows_beside
        made[f"{name}, 10 steps"] = (
            kernel,
            Price(kernel.traits.gradient_evaluations, rows, 1.0, rare),
        )
    inner = sgmcmc.baoab(posterior, h)
    exchange = sgmcmc.replica_exchange(inner, (1.0, 2.0), swap_every=10)
    made["replica exchange, 2 × 10 BAOAB"] = (
        exchange,
        Price(exchange.traits.gradient_evaluations, 2 * 10 * inner.num_normals, 0.0, 0.05),
    )  # fmt: skip
    made["mala"] = (sgmcmc.mala(posterior, step), Price(0.0, 1.0, 0.0, rare, 1.0))
    made["hmc, 5 steps"] = (sgmcmc.hmc(posterior, h, 5), Price(0.0, 1.0, 0.0, rare / 2, 5.0))
    return made


def over_all_data(posterior: Any, params: Any, data: Any, count: int, gradient: bool) -> Callable:
    """The log density over all data, with or without its gradient, `count` times."""
    import jax

    @jax.jit
    def run(params: Any, data: Any) -> Any:
        def body(params: Any, _: Any) -> Any:
            if not gradient:
                value, slope = posterior.log_density(params, data), params
            else:
                value, slope = jax.value_and_grad(posterior.log_density)(params, data)
            # Moved a little by what was computed, so that no turn can be left out.
            step = 1e-12 * value
            return jax.tree.map(lambda x, g: x + step * g, params, slope), None

        return jax.lax.scan(body, params, None, count)[0]

    return lambda: jax.block_until_ready(run(params, data))


def measure(rounds: int, steps: int) -> dict[str, dict[str, float]]:
    posterior, params, data = problem(LARGE)
    made = samplers(posterior, params, data, steps)
    runs: dict[str, Callable[[], Any]] = {"optax.sgd": sgd_scan(posterior, params, data, steps, 1)}
    counts = {name: max(1, round(price.share * steps)) for name, (_, price) in made.items()}
    for name, (kernel, _) in made.items():
        # Blocks that a test may turn back ask for batches of the same law read backwards.
        blocks = getattr(kernel, "check_stream", None) is not None
        stream = "with_replacement" if blocks else None
        runs[name] = library_loop(kernel, params, data, counts[name], stream=stream)
    count = max(1, steps // 20)
    for name, gradient in (("energy", False), ("full gradient", True)):
        runs[name] = over_all_data(posterior, params, data, count, gradient)
    times = {name: np.asarray(t) for name, t in interleave(runs, rounds).items()}
    gradient = times["optax.sgd"] / steps
    energy, whole = times["energy"] / count, times["full gradient"] / count
    normal = times["sgld"] / steps - gradient
    rows = {}
    for name, (_, price) in made.items():
        if name != "sgld":
            expected = price.gradients * gradient + price.normals * normal
            expected = expected + price.energies * energy + price.full_gradients * whole
            rows[name] = {**summary(times[name] / counts[name] / expected), **price._asdict()}
    return rows


def measure_saga(rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """SAGA, whose table of N × d numbers asks for a small network and few examples."""
    import sgmcmc

    posterior, params, data = problem(SMALL, examples=1_000)
    saga = sgmcmc.sgld(posterior, 1e-7, gradient=sgmcmc.gradients.saga())
    runs = {
        "optax.sgd": sgd_scan(posterior, params, data, steps, 1),
        "sgld": library_loop(sgmcmc.sgld(posterior, 1e-7), params, data, steps),
        "saga": library_loop(saga, params, data, steps, stream="with_replacement"),
    }
    times = {name: np.asarray(t) for name, t in interleave(runs, rounds).items()}
    price = Price(saga.gradient_evaluations, saga.plan.num_normals)
    expected = price.gradients * times["optax.sgd"] + (times["sgld"] - times["optax.sgd"])
    name = f"sgld, SAGA ({'-'.join(map(str, SMALL))}, N = 1,000)"
    return {name: {**summary(times["saga"] / expected), **price._asdict()}}


if __name__ == "__main__":
    raise SystemExit(BENCH.main(run))
