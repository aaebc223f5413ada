"""Two-dimensional toys with exact truth, and five samplers at one mean step size.

The toys of the paper of SA-SGLD (arXiv 2511.11666): banana and funnel as there; its mixtures and
its Laplace prior are not given there in numbers that we know of, so that ours stand in. Each has
four functions of known mean and standard deviation:

    banana    u = (x − 1)/√20 and v = (y − x²)/√.2, both N(0, 1);     u, v, u², v²
    funnel    u = y − 1/2 and v = x e^{−y/2}, both N(0, 1);           u, v, u², v²
    mixtures, Laplace                                                 x, y, x², y² (quadrature)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import sgmcmc
from sgmcmc import clocks, metrics

from .star_chains import OWN, PLAIN, averages, divergence, mean_step, of_single_chains, run

SGLD, GAMMA, NO_GAMMA = "sgld", "psgld", "psgld, no Γ"
PAPER, FAST = "sa_sgld, paper's", "sa_sgld, fast"
METHODS = (SGLD, GAMMA, NO_GAMMA, PAPER, FAST)
# The paper's toy runs (their code): ζ remembers 100 units of τ.
PAPER_CLOCK = {
    "shortest": 0.5,
    "longest": 50.0,
    "power": 0.25,
    "alpha": 0.01,
    "exponent": 2.0,
    "scale": 1.0,
}
# A clock that follows: the default bounds at r = 1, ζ remembers some ten steps.
FAST_CLOCK = {"shortest": 0.1, "longest": 10.0, "power": 1.0, "exponent": 2.0}
FAST_MEMORY = 10  # steps
GRID = 400  # cells a side of the quadrature


def banana(z):
    return -((1 - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2) / 40


def funnel(z):
    return -(z[1] ** 2 + jnp.exp(-z[1]) * z[0] ** 2) / 2


def _mixture(z, spreads):
    centres = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
    scales = jnp.array(spreads)
    squares = jnp.sum((z - centres) ** 2, axis=-1)
    return jax.nn.logsumexp(-squares / (2 * scales**2) - 2 * jnp.log(scales))


def equal_mixture(z):
    """Two Gaussians at (±1, 0), of standard deviation .5 both."""
    return _mixture(z, [0.5, 0.5])


def unequal_mixture(z):
    """Two Gaussians at (±1, 0), of standard deviations .1 and .7."""
    return _mixture(z, [0.1, 0.7])


def laplace(z):
    """Two coefficients of a regression under a sharp Laplace prior: ½ (z−c)ᵀA(z−c) + 5 Σ|z|."""
    a, c = jnp.array([[4.0, 2.0], [2.0, 4.0]]), jnp.array([1.5, -0.2])
    return -(z - c) @ a @ (z - c) / 2 - 5 * jnp.sum(jnp.abs(z))


def banana_functions(z):
    u, v = (z[0] - 1) / jnp.sqrt(20.0), (z[1] - z[0] ** 2) / jnp.sqrt(0.2)
    return jnp.stack([u, v, u**2, v**2])


def funnel_functions(z):
    u, v = z[1] - 0.5, z[0] * jnp.exp(-z[1] / 2)
    return jnp.stack([u, v, u**2, v**2])


def moments(z):
    return jnp.concatenate([z, z**2])


class Toy(NamedTuple):
    """A density, its functions, a box for its quadrature (None: N(0, 1) coordinates), SGLD's h."""

    density: Any
    functions: Any
    box: tuple[float, float] | None
    steps: tuple[float, ...]


def _steps(most: float, count: int = 6) -> tuple[float, ...]:
    return tuple(most / 2**i for i in range(count))[::-1]


TOYS = {
    "banana": Toy(banana, banana_functions, None, _steps(0.02, 8)),
    "funnel": Toy(funnel, funnel_functions, None, _steps(0.32)),
    "equal mixture": Toy(equal_mixture, moments, (-5.0, 5.0), _steps(0.32)),
    "unequal mixture": Toy(unequal_mixture, moments, (-5.0, 5.0), _steps(0.08)),
    "Laplace prior": Toy(laplace, moments, (-3.0, 3.0), _steps(0.04)),
}


def truth(toy: Toy) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means and standard deviations of the functions; grid points and their masses."""
    if toy.box is None:
        root = np.sqrt(2.0)
        return np.array([0.0, 0, 1, 1]), np.array([1, 1, root, root]), np.empty(0), np.empty(0)
    low, high = toy.box
    width = (high - low) / GRID
    # Midpoints; the kinks of the Laplace prior lie on cells' edges.
    axis = low + width * (np.arange(GRID) + 0.5)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    log_mass = np.asarray(jax.vmap(toy.density)(jnp.asarray(points)), np.float64)
    mass = np.exp(log_mass - log_mass.max())
    mass /= mass.sum()
    values = np.concatenate([points, points**2], axis=-1)
    mean = mass @ values
    return mean, np.sqrt(mass @ (values - mean) ** 2), points, mass


def draws(name: str, count: int, seed: int) -> np.ndarray:
    """Exact draws (from the quadrature's cells, uniform within each, where there is a box)."""
    toy, rng = TOYS[name], np.random.default_rng(seed)
    u, v = rng.standard_normal((2, count))
    if name == "banana":
        x = 1 + np.sqrt(20) * u
        return np.stack([x, x**2 + np.sqrt(0.2) * v], -1).astype(np.float32)
    if name == "funnel":
        y = 0.5 + u
        return np.stack([v * np.exp(y / 2), y], -1).astype(np.float32)
    _, _, points, mass = truth(toy)
    low, high = toy.box
    jitter = (rng.uniform(size=(count, 2)) - 0.5) * (high - low) / GRID
    return (points[rng.choice(len(points), count, p=mass)] + jitter).astype(np.float32)


def kernel_of(method: str, target: Any, step: float, square: float) -> Any:
    """The kernel whose own step is `step`: h, or Δτ. `square` is E‖∇U‖²."""
    if method == SGLD:
        return sgmcmc.sgld(target, step)
    if method in (GAMMA, NO_GAMMA):
        return sgmcmc.psgld(target, step, metric=metrics.rmsprop(gamma=method == GAMMA))
    if method == PAPER:
        # Where it lives: from anywhere else so long a memory would take most of a run.
        start = square / (PAPER_CLOCK["alpha"] * PAPER_CLOCK["scale"])
        return sgmcmc.sa_sgld(target, clocks.adaptive(step, **PAPER_CLOCK, start=start))
    # ζ is the mean gradient's square over some steps: α and Ω go with Δτ.
    alpha = 1 / (FAST_MEMORY * step)
    size = 2 / alpha
    return sgmcmc.sa_sgld(target, clocks.adaptive(step, **FAST_CLOCK, alpha=alpha, scale=size))


def cost(method: str) -> int:
    """Gradients that a step costs; Γ takes a Jacobian-vector product a parameter."""
    return 3 if method == GAMMA else 1


def cell(name: str, method: str, mean: float, chains: int, gradients: int, seed: int) -> dict:
    """One sampler on one toy at a mean step near `mean`.

    The kernel's own step is found by two short pilots, as the one that makes the wanted mean;
    the mean that came out is reported.
    """
    toy, steps = TOYS[name], gradients // cost(method)
    target = sgmcmc.Posterior.from_log_density(toy.density)
    starts = jnp.asarray(draws(name, chains, seed))
    slopes = jax.vmap(jax.grad(toy.density))(jnp.asarray(draws(name, 100_000, seed + 3)))
    square, step, memory = float(jnp.mean(jnp.sum(slopes**2, axis=-1))), mean, None
    if method in (GAMMA, NO_GAMMA):
        # V at its mean: from the first gradient, where that is small, Γ throws chains far off.
        memory = {"square": jnp.mean(slopes**2, axis=0), "steps": jnp.asarray(1, jnp.int32)}
    for _ in range(0 if method == SGLD else 2):
        kernel = kernel_of(method, target, step, square)
        pilot = run(kernel, toy.functions, starts, seed + 1, 500, 500, 20, memory)
        found = mean_step(pilot)
        step = step * mean / found if np.isfinite(found) else step
    kernel, burnin = kernel_of(method, target, step, square), steps // 10
    made = run(kernel, toy.functions, starts, seed + 2, burnin, steps - burnin, 20, memory)
    exact, spread = truth(toy)[:2]
    result = {"step": step, "mean_step": mean_step(made)} | divergence(made)
    if result["diverged"] == chains:
        return result
    for label, pairing in (("weighted", OWN), ("plain", PLAIN)):
        value, error = averages(made, pairing)
        bias, error = (value - exact) / spread, error / spread
        single = (of_single_chains(made, pairing) - exact) / spread
        result[label] = {
            "bias": float(np.sqrt(np.mean(bias**2))),
            "floor": float(np.sqrt(np.mean(error**2))),
            "single": float(np.sqrt(np.mean(single**2))),
            "biases": bias.tolist(),
            "errors": error.tolist(),
        }
    return result


def cells_of(rows: dict[str, Any], toy: str, method: str) -> list[dict[str, Any]]:
    return [rows[f"{toy} {method} {h:g}"] for h in TOYS[toy].steps
            if f"{toy} {method} {h:g}" in rows]  # fmt: skip


def toy_table(rows: dict[str, Any]) -> str:
    """Part D, as Markdown: the error of the pooled chains, †how many were lost, and the
    mean step where it is a tenth or more off @."""
    lines = []
    for toy in TOYS:
        first = cells_of(rows, toy, SGLD)
        if not first:
            continue
        heads = " | ".join(f"{row['mean_step']:.3g}" for row in first)
        lines += [f"| {toy}, mean dt ≈ | {heads} |", "|---|" + "---|" * len(first)]
        for method in METHODS:
            labels = {"weighted": method}
            if method.startswith("sa_"):
                labels["plain"] = f"{method}, no weights"
            for label, words in labels.items():
                texts = []
                for row, other in zip(cells_of(rows, toy, method), first, strict=True):
                    text = f"{row[label]['bias']:.3g}({row[label]['floor']:.1g})" \
                        if label in row else "–"  # fmt: skip
                    if abs(np.log(row["mean_step"] / other["mean_step"])) > 0.1:
                        text += f" @{row['mean_step']:.2g}"
                    lost = f" †{row['diverged']}" if row["diverged"] else ""
                    texts.append(text + lost)
                lines.append(f"| {words} | " + " | ".join(texts) + " |")
        lines.append("")
    return "\n".join(lines)


def draw_toys(rows: dict[str, Any], path: Path) -> None:
    """Errors against the mean step that was made: of all chains pooled, and of a single one."""
    from matplotlib.figure import Figure

    toys = [toy for toy in TOYS if cells_of(rows, toy, SGLD)]
    figure = Figure(figsize=(3.3 * len(toys) + 2.6, 6), layout="constrained")
    grid = figure.subplots(2, len(toys), squeeze=False, sharex="col")
    for axes, toy in zip(grid.T, toys, strict=True):
        for i, method in enumerate(METHODS):
            for label, line in (("weighted", "-"), ("plain", ":")):
                if label == "plain" and not method.startswith("sa_"):
                    continue
                cells = [c for c in cells_of(rows, toy, method) if label in c]
                words = method + (", no weights" if label == "plain" else "")
                for axis, figure_of in zip(axes, ("bias", "single"), strict=True):
                    points = np.array([(c["mean_step"], c[label][figure_of]) for c in cells])
                    if len(points):
                        axis.plot(*points.T, f"C{i}o{line}", ms=4, lw=1.2, label=words)
                        lost = np.array([c["diverged"] > 0 for c in cells])
                        axis.plot(*points[lost].T, "kx", ms=6)
        floors = [c["weighted"]["floor"] for m in METHODS for c in cells_of(rows, toy, m)
                  if "weighted" in c]  # fmt: skip
        axes[0].axhspan(0, 2 * float(np.median(floors)), color="0.9", zorder=0)
        for axis in axes:
            axis.set(xscale="log", yscale="log", ylim=(3e-3, 5))
            labels = [f"{h:.2g}" for h in TOYS[toy].steps]
            axis.set_xticks(TOYS[toy].steps, labels, fontsize=7, rotation=45)
            axis.set_xticks([], minor=True)
        axes[0].set_title(toy)
        axes[1].set_xlabel("mean dt (×: chains lost)")
    grid[0, 0].set_ylabel("error, all chains pooled")
    grid[1, 0].set_ylabel("rms error of one chain")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=100)
