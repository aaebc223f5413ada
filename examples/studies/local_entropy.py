"""Local entropy: the closed forms, and which of two wells Entropy-SGD ends in.

    make study NAME=local_entropy [ARGS=--small]

First the figures of a quadratic and of the inner loop, digit by digit or within standard errors.
Then a sharp deep well and a wide shallow one: from starts from which gradient descent reaches
the sharp one, where does Entropy-SGD end, for which γ and how many inner steps, at equal
gradients? Writes results/local_entropy.json and results/local_entropy.png.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _study import Given, Outcome, Study
from parts import two_wells as wells

import sgmcmc

STUDY = Study(__file__, __doc__, small="one inner loop only", estimate=("20 seconds", "1 minute"))

STIFFNESS = np.array([1.0, 10.0, 100.0])
PRINTED_F = {0.1: -0.895102, 1.0: -2.295861, 10.0: -9.790238, 100.0: -34.590648}
PRINTED_GRADIENT = (-0.909091, -5.0, -9.090909)
PRINTED_INNER = {0.25: (0.144530, 0.770311, 0.986970), 0.75: (0.163910, 0.816902, 0.990099)}
PRINTED_SPREAD = (0.466086, 0.258267, 0.053055)
PRINTED_DIFFERENCE = {0.1: 0.119597, 1: 0.807262, 5: 1.029483, 10: 0.846307, 50: 0.265447,
                      100: 0.029226, 110: -0.000257, 200: -0.163661, 1000: -0.411065,
                      10000: -0.490505}  # fmt: skip
CONSTANT = (0.1, 1.0, 2.0, 3.0, 5.0, 10.0, 50.0, 100.0, 110.0, 200.0, 1000.0)
# L and outer steps: 300,000 gradients but for the last, whose inner loop forgets its start.
INNER = {20: 15_000, 1_000: 300, 100_000: 20}
SMALL = {1_000: 100}
# Finite inner loops are noisy, and a few per cent of the points are thrown back at any time.
MOST = 0.9
SEED = 11


def minus_quadratic(y):
    return -0.5 * jnp.sum(jnp.asarray(STIFFNESS) * y**2)


def quadratic_rows(loops: int) -> list[tuple[str, float, float, float]]:
    """Name, found, printed, and what may lie between: rows L1 and L2 of a quadratic at x = 1."""
    x, out = jnp.ones(3), []
    posterior = sgmcmc.Posterior.from_log_density(minus_quadratic)
    kernel = sgmcmc.sgld(posterior, 0.01)
    for gamma, printed in PRINTED_F.items():
        exact = 0.5 * np.sum(np.log(2 * np.pi / (STIFFNESS + gamma)))
        exact -= 0.5 * np.sum(gamma * STIFFNESS / (STIFFNESS + gamma))
        out.append((f"F, γ={gamma:g}, closed form", exact, printed, 1e-6))
        if gamma < 100:  # there N(x, 1/γ) misses the mass, and `effective_samples` says so
            value = sgmcmc.local.local_entropy(kernel, gamma).value
            found = value(jax.random.key(1), x, num_samples=20 * loops)
            error = 3 * float(found.standard_error)
            out.append((f"F, γ={gamma:g}, sampled", float(found.value), printed, error))
    for averaging, printed_mean in PRINTED_INNER.items():
        still = sgmcmc.sgld(posterior, 0.01, temperature=0.0)
        local = sgmcmc.local.local_entropy(still, 1.0, num_steps=20, averaging=averaging)
        found = -local.gradient(jax.random.key(0), x).gradient
        out += [
            (f"γ(x − Eμ)[{i}], a={averaging}", float(found[i]), printed_mean[i], 1e-6)
            for i in range(3)
        ]
    exact_kernel = sgmcmc.baoab(posterior, 0.1, friction=3.0)  # exact on a Gaussian
    local = sgmcmc.local.local_entropy(
        exact_kernel, 10.0, num_steps=200, averaging=None, num_burnin=100
    )
    found = _loops(local, loops // 10, x).gradient
    error = 3 * found.std(axis=0) / np.sqrt(len(found))
    out += [
        (
            f"∂F/∂x[{i}], γ=10, sampled",
            float(found[:, i].mean()),
            PRINTED_GRADIENT[i],
            float(error[i]),
        )
        for i in range(3)
    ]
    spread = _loops(sgmcmc.local.local_entropy(kernel, 1.0), loops, x).mean.std(axis=0)
    out += [
        (f"sd of μ[{i}]", float(spread[i]), PRINTED_SPREAD[i],
         3 * PRINTED_SPREAD[i] / np.sqrt(2 * loops))
        for i in range(3)
    ]  # fmt: skip
    return out


def _loops(local: Any, count: int, x: Any) -> Any:
    keys = jax.random.split(jax.random.key(3), count)
    return jax.vmap(local.gradient, (0, None))(keys, x)


def closed_form_rows() -> list[tuple[str, float, float, float]]:
    """Row L3: which well wins."""
    rows = [
        (f"F(+1) − F(−1), γ={gamma:g}",
         float(wells.entropy(1.0, gamma) - wells.entropy(-1.0, gamma)), printed, 1e-6)
        for gamma, printed in PRINTED_DIFFERENCE.items()
    ]  # fmt: skip
    return [*rows, ("γ*", wells.crossing(), 109.907213, 1e-5)]


def ends(small: bool) -> dict[str, dict[str, float]]:
    """The share of starts in the sharp well's basin that end in the wide one, for every γ."""
    out: dict[str, dict[str, float]] = {
        "gradient descent": dict.fromkeys(
            map(str, CONSTANT), float(wells.share_wide(wells.descend(wells.STARTS, 300_000)))
        ),
        "exact ⟨y⟩": {
            str(g): float(wells.share_wide(wells.climb(wells.STARTS, np.full(2_000, g))))
            for g in CONSTANT
        },
    }
    gammas = np.array(CONSTANT)[:, None]
    for length, outer in (SMALL if small else INNER).items():
        found = wells.entropy_sgd(SEED, wells.STARTS, np.repeat(gammas, outer, 1), length)
        label = f"Entropy-SGD, L={length:,}, {outer:,} outer"
        out[label] = dict(zip(map(str, CONSTANT), wells.share_wide(found).tolist(), strict=True))
        print(f"{label}: done", file=sys.stderr)
    outer = (SMALL if small else INNER)[1_000]
    scoped = np.array([np.geomspace(min(1.0, g), g, outer) for g in CONSTANT])
    found = wells.entropy_sgd(SEED + 1, wells.STARTS, scoped, 1_000)
    label = f"Entropy-SGD, L=1,000, γ from 1, {outer} outer"
    out[label] = dict(zip(map(str, CONSTANT), wells.share_wide(found).tolist(), strict=True))
    return out


def missed(rows: list[tuple[str, float, float, float]], shares: dict[str, Any]) -> list[str]:
    """What is asked and does not hold."""
    out = [
        f"{name}: {found:.6f}, printed {printed:.6f} ± {most:.1g}"
        for name, found, printed, most in rows
        if not abs(found - printed) <= most
    ]
    for label, share in shares.items():
        for gamma in CONSTANT:
            one_maximum = gamma < wells.single_until()
            if label == "gradient descent" and share[str(gamma)] > 0:
                out.append(f"{label} from the sharp well reaches the wide one")
            if label == "exact ⟨y⟩" and share[str(gamma)] != float(one_maximum):
                out.append(f"{label}, γ={gamma}: {share[str(gamma)]:.2f}")
            scoped = "from" in label
            judged = "L=1,000" in label and (gamma < 109.9 if scoped else one_maximum)
            if judged and share[str(gamma)] < MOST:
                out.append(f"{label}, γ={gamma}: {share[str(gamma)]:.2f} end in the wide well")
    return out


def table(rows: list[tuple[str, float, float, float]], shares: dict[str, Any]) -> str:
    lines = [f"{'':28}{'found':>14}{'printed':>14}{'within':>11}"]
    lines += [f"{name:28}{a:>14.6f}{b:>14.6f}{c:>11.1e}" for name, a, b, c in rows]
    lines += ["", f"F has one maximum up to γ = {wells.single_until():.4f}; then a second, local",
              "one in the sharp well, which is the higher from γ* on. Share of 21 starts in",
              "[−1.25, −.75] that end in the wide well:", ""]  # fmt: skip
    lines.append(f"{'γ':42}" + "".join(f"{g:>7g}" for g in CONSTANT))
    for label, share in shares.items():
        lines.append(f"{label:42}" + "".join(f"{share[str(g)]:>7.2f}" for g in CONSTANT))
    return "\n".join(lines)


def draw(shares: dict[str, Any], path: Path) -> None:
    """The landscape under several γ, and the shares."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = np.linspace(-1.6, 1.8, 1_000)
    height = np.logaddexp(-100 * (x + 1) ** 2, -0.5 - 2 * (x - 1) ** 2)
    left.plot(x, height, "k", label="−f")
    for i, gamma in enumerate((1.0, 3.0, 10.0, 110.0)):
        value = wells.entropy(x, gamma)
        left.plot(x, value - wells.entropy(1.0, gamma) - 0.5, f"C{i}", label=f"F, γ = {gamma:g}")
        top = wells.argmax(gamma)
        left.plot(top, wells.entropy(top, gamma) - wells.entropy(1.0, gamma) - 0.5, f"C{i}o")
    left.axvspan(wells.STARTS[0], wells.STARTS[-1], color="0.9", label="starts")
    left.set(ylim=(-10, 1.5), xlabel="y, x", ylabel="−f; F, level with −f at +1")
    left.set_title("a dot: the highest point of F")
    left.legend(fontsize=8)
    for i, (label, share) in enumerate(shares.items()):
        right.semilogx(CONSTANT, [share[str(g)] for g in CONSTANT], "os^vDP"[i] + "-", label=label,
                       markersize=5, alpha=0.8)  # fmt: skip
    right.axvline(wells.single_until(), color="k", linestyle=":")
    right.axvline(wells.crossing(), color="k", linestyle=":")
    right.set(xlabel="γ, the last one (dotted: one maximum below 3.05; γ* = 109.9)",
              ylabel="share that ends in the wide well", ylim=(-0.03, 1.35))  # fmt: skip
    right.legend(fontsize=7, loc="upper center", ncols=2)
    figure.savefig(path, dpi=130)


def measure(given: Given) -> Outcome:
    rows = quadratic_rows(4_000 if given.small else 40_000) + closed_form_rows()
    shares = ends(given.small)
    print(table(rows, shares))
    print(f"{len(rows)} printed figures")
    record = {"rows": rows, "single_until": wells.single_until(), "ends": shares, "seed": SEED}
    return Outcome(record, missed(rows, shares), functools.partial(draw, shares))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    raise SystemExit(STUDY.main(measure))
