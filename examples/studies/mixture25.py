"""25 modes: which samplers find them, at the same number of gradients.

    make study NAME=mixture25 [ARGS=--small]

The toy of the cyclical paper (arXiv 1902.03932): 25 equal Gaussians, means {−4, −2, 0, 2, 4}²,
covariance 0.03 I. The budget is that of the authors' published script: 50,000 steps a chain,
starts uniform on [−10, 10]², h₀ = 0.07; and four chains pooled, as in their parallel setting,
for which a quotation of the paper has all modes for cyclical SGLD and 4 for SGLD. Their
gradients have N(0, I) noise, whose variance they take off the noise that is injected: in law
these are steps with exact gradients, which are taken here.

- "30 cycles" and "SGLD, decreasing" are the script's: equal weights, of each cycle the first 50
  steps left out; and .043 for 500 steps, .043 (k − 500)^−.55 then. A cycle ends in one mode, so
  120 of them miss one of 25 now and then, however they are run: 25 (24/25)^120 = .19 on average.
- "cyclical SGLD" is what is asked: 100 cycles in the same steps, of which the second half
  samples. A cycle begins with h/0.03 > 2, a step that is unstable in every mode: that is what
  carries it about, and those draws lie between modes.
- replica exchange, SGLD and BAOAB at one fixed step, at the same number of gradients.

A mode counts as found if the draws within one standard deviation of it carry a tenth at least
of what they should; draws spread evenly over the square would carry a twentieth. Asked: cyclical
SGLD finds all 25 with every seed. Writes results/mixture25.json and results/mixture25.png.
"""

from __future__ import annotations

import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from _study import Given, Outcome, Study

import sgmcmc
from sgmcmc import clocks

STUDY = Study(
    __file__, __doc__, small="two seeds in the place of ten", estimate=("1 minute", "4 minutes")
)

MEANS = np.array(list(itertools.product((-4.0, -2.0, 0.0, 2.0, 4.0), repeat=2)), np.float32)
VARIANCE = 0.03
CLOSE = 1 - np.exp(-0.5)  # of a two-dimensional Gaussian, within one standard deviation
FOUND = 0.1

STEPS, CHAINS, SEEDS = 50_000, 4, 10
CYCLICAL_STEP = 0.07
CYCLES, EXPLORATION = 100, 0.5
THEIR_CYCLES, THEIR_LEFT_OUT = 30, 50
SGLD_STEP, SGLD_CONSTANT, SGLD_POWER = 0.043, 500, 0.55
SMALL_STEP = 0.005
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)
EXCHANGE_STEP, FRICTION, SWAP_EVERY = 0.1, 2.0, 5


def log_density(x):
    """Of the mixture, up to a constant."""
    squares = jnp.sum((x - MEANS) ** 2, axis=-1)
    return jax.nn.logsumexp(-squares / (2 * VARIANCE))


def start(key):
    return jax.random.uniform(key, (2,), minval=-10.0, maxval=10.0)


def sgld_steps(count):
    """The script's decreasing steps; `count` is from 0."""
    late = jnp.maximum(count + 1 - SGLD_CONSTANT, 1).astype(float)
    return SGLD_STEP * late**-SGLD_POWER


def samplers():
    """Name: kernel, and its steps at the common number of gradients."""
    target = sgmcmc.Posterior.from_log_density(log_density)
    ours = clocks.cyclical(
        CYCLICAL_STEP, num_cycles=CYCLES, total_steps=STEPS, exploration=EXPLORATION
    )
    share = THEIR_LEFT_OUT / np.ceil(STEPS / THEIR_CYCLES)
    theirs = clocks.cyclical(
        CYCLICAL_STEP, num_cycles=THEIR_CYCLES, total_steps=STEPS, exploration=share,
        weights="equal",
    )  # fmt: skip
    exchange = sgmcmc.replica_exchange(
        sgmcmc.baoab(target, EXCHANGE_STEP, friction=FRICTION), TEMPERATURES, swap_every=SWAP_EVERY
    )
    groups = int(STEPS // exchange.traits.gradient_evaluations)
    return {
        "cyclical SGLD": (sgmcmc.sgld(target, ours), STEPS),
        "cyclical SGLD, 30 cycles": (sgmcmc.sgld(target, theirs), STEPS),
        "SGLD, decreasing": (sgmcmc.sgld(target, sgld_steps), STEPS),
        f"SGLD, h = {SMALL_STEP}": (sgmcmc.sgld(target, SMALL_STEP), STEPS),
        f"BAOAB, h = {EXCHANGE_STEP}": (
            sgmcmc.baoab(target, EXCHANGE_STEP, friction=FRICTION),
            STEPS,
        ),
        "replica exchange": (exchange, groups),
    }


def judge(draws, weights):
    """Modes found, total variation and KL divergence of the modes' masses from equal ones."""
    weights, count = weights / weights.sum(), len(MEANS)
    column, row = np.clip(np.rint(draws.T / 2), -2, 2).astype(int)
    nearest = (column + 2) * 5 + row + 2
    distance = np.sqrt(np.sum((draws - MEANS[nearest]) ** 2, axis=-1) / VARIANCE)
    close = np.bincount(nearest, weights * (distance < 1), count)
    masses = np.bincount(nearest, weights, count)
    positive = masses[masses > 0]
    return {
        "found": int(np.sum(close >= FOUND * CLOSE / count)),
        "total_variation": float(np.abs(masses - 1 / count).sum() / 2),
        "kl": float(np.sum(positive * np.log(count * positive))),
        "inside": float(np.sum(weights * (distance < 3))),
    }


def run(kernel, steps, seed):
    """Draws of four chains, pooled, and of the first alone; what a run cost."""
    made = sgmcmc.sample(
        jax.random.key(seed), kernel, start, num_chains=CHAINS, num_burnin=0, num_samples=steps,
        progress=False,
    )  # fmt: skip
    draws, weights = np.asarray(made.draws, np.float64), np.asarray(made.weights, np.float64)
    result = judge(draws.reshape(-1, 2), weights.ravel())
    result["found_by_one_chain"] = judge(draws[0], weights[0])["found"]
    result["gradients_a_chain"] = made.gradient_evaluations / CHAINS
    if made.info.acceptance is not None:
        result["acceptance"] = float(np.mean(made.info.acceptance))
    return result, draws.reshape(-1, 2), weights.ravel()


def table(results):
    """One row a sampler: the worst seed's count of modes, medians and ranges over seeds."""
    head = f"{'sampler':30}{'modes found':>16}{'by one chain':>16}{'TV':>20}{'KL':>20}"
    lines = [head + f"{'within 3 sd':>14}{'gradients':>12}"]
    for name, seeds in results.items():
        cells = [f"{name:30}"]
        for key in ("found", "found_by_one_chain"):
            values = [s[key] for s in seeds]
            span = (
                f"{min(values)}" if min(values) == max(values) else f"{min(values)}–{max(values)}"
            )
            cells.append(f"{span:>16}")
        for key in ("total_variation", "kl"):
            values = [s[key] for s in seeds]
            span = f"{np.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"
            cells.append(f"{span:>20}")
        cells.append(f"{np.median([s['inside'] for s in seeds]):>14.3f}")
        cells.append(f"{seeds[0]['gradients_a_chain']:>12,.0f}")
        lines.append("".join(cells))
    return "\n".join(lines)


def draw(pictures, path):
    """The first seed's draws of each sampler, as weighted histograms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(pictures), 3.3), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(pictures), sharey=True))
    edges = np.linspace(-5.5, 5.5, 111)
    for axis, (name, (points, weights, found)) in zip(axes, pictures.items(), strict=True):
        mass = np.histogram2d(*points.T, bins=(edges, edges), weights=weights / weights.sum())[0]
        top = 0.2 / len(MEANS)
        axis.pcolormesh(edges, edges, np.sqrt(mass.T / top), cmap="magma_r", vmin=0, vmax=1)
        axis.set(
            title=f"{name}\n{found} of {len(MEANS)} modes", xticks=(-4, 0, 4), yticks=(-4, 0, 4)
        )
        axis.set_aspect("equal")
    figure.savefig(path, dpi=130)


def measure(given: Given) -> Outcome:
    seeds = range(2 if given.small else SEEDS)
    results, pictures = {}, {}
    for name, (kernel, steps) in samplers().items():
        results[name] = []
        for seed in seeds:
            result, points, weights = run(kernel, steps, seed)
            results[name].append(result)
            if seed == 0:
                pictures[name] = (points, weights, result["found"])
        print(f"{name}: {[s['found'] for s in results[name]]}", file=sys.stderr)
    print(table(results))
    missed = [
        f"cyclical SGLD, seed {seed}: {result['found']} of {len(MEANS)} modes"
        for seed, result in zip(seeds, results["cyclical SGLD"], strict=True)
        if result["found"] < len(MEANS)
    ]
    record = {
        "results": results,
        "budget": {"steps": STEPS, "chains": CHAINS, "cycles": CYCLES, "h0": CYCLICAL_STEP,
                   "exploration": EXPLORATION, "their_cycles": THEIR_CYCLES,
                   "their_left_out": THEIR_LEFT_OUT, "sgld": [SGLD_STEP, SGLD_CONSTANT, SGLD_POWER],
                   "temperatures": TEMPERATURES, "exchange_step": EXCHANGE_STEP,
                   "friction": FRICTION, "swap_every": SWAP_EVERY},
        "seeds": list(seeds),
    }  # fmt: skip
    return Outcome(record, missed, functools.partial(draw, pictures))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
