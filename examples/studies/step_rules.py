"""`step_size=None` on kernels that are no words: the chosen step against a grid of others.

    make study NAME=step_rules [ARGS="--only hmc"]

One Gaussian of 20 coordinates, condition number 100, as a density and as 64 examples whose tilts
give minibatches of 8 a gradient noise of variance λ_i/2 in coordinate i (the posterior is the
same: the tilts add up to 0). Each kernel's step is chosen, and steps 1/4, 1/2, 2 and 4 times as
long are run beside it at the same friction, for as many gradients, 16 chains begun in the target.

Bulk ESS of the worst coordinate per 1,000 gradients (energies of all data count as the library's
runs count them). A step is biased where a variance is off by more than 10%, one standard
error over the chains aside. Asked: the chosen step is not, and has half the ESS per gradient of the
best step that is not. Metropolis-corrected kernels have no bias; where they differ is error.

Writes results/step_rules.json, from which an interrupted study goes on, and results/step_rules.png.
Exit code 1 where a kernel misses what is asked, as `--small` does not judge: its chains are short.
"""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _study import FRESH, Given, Outcome, Rows, Study

import sgmcmc
from sgmcmc import diagnostics, metrics

STUDY = Study(
    __file__, __doc__, small="two kernels, short chains", estimate=("1 minute", "15 minutes"),
    options={**FRESH, "--only": {"help": "kernels whose name has this in it"}},
)  # fmt: skip

SEED, SIZE, EXAMPLES, BATCH, CHAINS, DRAWS = 2911, 20, 64, 8, 16, 1_000
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
ALLOWED, SHARE, NOISE = 0.1, 0.5, 0.5
CURVATURES = np.geomspace(1.0, 100.0, SIZE)
SMALL = ("samadams", "hmc")


def tilt(x, row):
    return row @ x


def gaussian(x):
    return -0.5 * jnp.sum(jnp.asarray(CURVATURES) * x**2)


def target(noisy: bool):
    """(posterior, data): N(0, diag(1/λ)), with or without gradient noise."""
    if not noisy:
        return sgmcmc.Posterior.from_log_density(gaussian), None
    rows = np.random.default_rng(SEED).normal(size=(EXAMPLES, SIZE))
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    rows *= np.sqrt(NOISE * CURVATURES * BATCH) / EXAMPLES
    return sgmcmc.Posterior(tilt, gaussian, data_size=EXAMPLES), jnp.asarray(rows)


def kernels(posterior) -> dict:
    """name -> (kernel of a step and a friction, steps between two draws)."""
    burnin = DRAWS  # psgld's V stands still before the first draw
    frozen = metrics.rmsprop(gamma=False, freeze_after=burnin)

    def scaled(x):
        return jnp.asarray(1 / np.sqrt(CURVATURES)) * jnp.ones_like(x)

    replicas = lambda h, f: sgmcmc.replica_exchange(  # noqa: E731
        sgmcmc.baoab(posterior, h, friction=f), (1.0, 1.5), swap_every=10
    )
    clock = lambda h: sgmcmc.clocks.adaptive(h, alpha=10.0)  # noqa: E731
    return {
        "samadams": (lambda h, f: sgmcmc.samadams(posterior, clock(h), friction=f), 5),
        "sa_sghmc": (lambda h, f: sgmcmc.sa_sghmc(posterior, clock(h), friction=f), 5),
        "sa_sgld": (lambda h, f: sgmcmc.sa_sgld(posterior, clock(h)), 100),
        "psgld": (lambda h, f: sgmcmc.psgld(posterior, h, metric=frozen), 20),
        "psgld, own metric": (
            lambda h, f: sgmcmc.psgld(posterior, h, metric=metrics.position_dependent(scaled)), 20,
        ),
        "amagold": (lambda h, f: sgmcmc.amagold(posterior, h, 10, friction=f), 1),
        "sggmc": (lambda h, f: sgmcmc.sggmc(posterior, h, 10, friction=f), 1),
        "mala": (lambda h, f: sgmcmc.mala(posterior, h), 10),
        "hmc": (lambda h, f: sgmcmc.hmc(posterior, h, 3), 5),
        "replica_exchange": (replicas, 1),
    }  # fmt: skip


def cases() -> list[tuple[str, bool]]:
    quiet = [(name, False) for name in kernels(target(False)[0])]
    loud = ("samadams", "sa_sgld", "psgld", "amagold", "sggmc")
    return quiet + [(name, True) for name in loud]


def start(key):
    return jax.random.normal(key, (SIZE,)) / jnp.sqrt(jnp.asarray(CURVATURES))


def run(kernel, data, seed: int, draws: int, thinning: int):
    key = jax.random.key(seed)
    full = kernel.traits.batches == "all data"
    return sgmcmc.sample(
        key, kernel, start, data,
        batch_size=None if data is None or full else BATCH,
        stream="full" if full else "with_replacement", num_chains=CHAINS,
        num_burnin=DRAWS, num_samples=draws, thinning=thinning, progress=False,
    )  # fmt: skip


def judged(done) -> dict:
    """ESS of the worst coordinate; each variance over the true one, with its standard error."""
    weights = done.weights[..., None]
    squares = (weights * done.draws**2).sum(axis=1) / weights.sum(axis=1) * CURVATURES
    error = squares.std(axis=0, ddof=1) / np.sqrt(CHAINS)
    off = np.abs(squares.mean(axis=0) - 1)
    at = int(np.argmax(off - error))
    return {
        "ess": float(np.min(diagnostics.summary(done).table["ess_bulk"])),
        "worst_variance": float(squares.mean(axis=0)[at]),
        "its_error": float(error[at]),
        "biased": bool(np.any(off - error > ALLOWED)),
        "dt": float(done.info.time.mean()),
    }


def result_of(name: str, noisy: bool, draws: int) -> dict:
    """The chosen step, and the grid about it."""
    posterior, data = target(noisy)
    make, thinning = kernels(posterior)[name]
    thinning *= 4 if noisy else 1
    auto = make(None, "auto")
    chosen = run(auto, data, SEED, 1, 1).tuning
    friction = 1.0 if chosen.friction is None else chosen.friction
    rows = []
    for factor in FACTORS:
        kernel = make(factor * chosen.step_size, friction)
        try:
            done = run(kernel, data, SEED + 1, draws, thinning)
        except sgmcmc.NonFiniteError:
            rows.append({"lost": True})
            continue
        gradients = done.gradient_evaluations * draws * thinning / done.num_steps
        found = judged(done)
        rows.append({**found, "ess_per_1000": 1000 * found["ess"] / gradients})
    fits = [row["ess_per_1000"] for row in rows if not row.get("lost") and not row["biased"]]
    middle = rows[FACTORS.index(1.0)]
    fair = not middle.get("lost") and not middle["biased"]
    share = middle["ess_per_1000"] / max(fits) if fair else None
    return {"tuning": chosen._asdict(), "text": repr(chosen), "grid": rows, "share": share}


def table(results: dict) -> str:
    """Markdown, as on the page."""
    heads = " | ".join(f"× {f:g}" for f in FACTORS)
    lines = [f"| kernel | h or Δτ | decided by | {heads} | share | worst variance |",
             "|---" * (5 + len(FACTORS)) + "|"]  # fmt: skip
    for name, result in results.items():
        tuning, rows = result["tuning"], result["grid"]
        cells = [
            "lost" if r.get("lost") else f"{r['ess_per_1000']:.3g}{' ✗' if r['biased'] else ''}"
            for r in rows
        ]
        middle = rows[FACTORS.index(1.0)]
        worst = ""
        if not middle.get("lost"):
            worst = f"{middle['worst_variance']:.3f} ± {middle['its_error']:.3f}"
        share = "none" if result["share"] is None else f"{result['share']:.2f}"
        halved = f", halved {tuning['halvings']}" if tuning["halvings"] else ""
        lines.append(
            f"| {name} | {tuning['step_size']:.3g} | {tuning['reason']}{halved} | "
            + " | ".join([*cells, share, worst]) + " |"
        )  # fmt: skip
    return "\n".join(lines)


def draw(results: dict, path: Path) -> None:
    """ESS per gradient as a share of the best, against the step; biased ones hollow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for i, (name, result) in enumerate(results.items()):
        rows = [(f, r) for f, r in zip(FACTORS, result["grid"], strict=True) if not r.get("lost")]
        best = max(r["ess_per_1000"] for _, r in rows)
        axis.plot([f for f, _ in rows], [r["ess_per_1000"] / best for _, r in rows], f"C{i % 10}",
                  label=name, linewidth=1)  # fmt: skip
        for factor, row in rows:
            style = "none" if row["biased"] else "full"
            axis.plot(factor, row["ess_per_1000"] / best, f"oC{i % 10}", fillstyle=style)
    axis.set(xscale="log", yscale="log", xlabel="step / the chosen step", ylabel="ESS / the best")
    axis.legend(fontsize=6)
    figure.savefig(path, dpi=110)


def measure(given: Given) -> Outcome:
    head = {"seed": SEED, "small": given.small, **STUDY.versions()}
    rows = Rows(given.json, head, "kernels", given.options.fresh)
    for name, noisy in cases():
        title = f"{name}, minibatches" if noisy else name
        only = given.options.only or ""
        if (name in SMALL and not noisy) if given.small else only in title:
            row = rows.get(title, result_of, name, noisy, 100 if given.small else DRAWS)
            print(title, row["text"], flush=True)
    print(table(rows.rows))
    missed = [
        f"{name}: share {row['share']}"
        for name, row in rows.rows.items()
        if row["share"] is None or row["share"] < SHARE
    ]
    asked = [] if given.small else missed
    return Outcome(rows.record(missed=missed), asked, functools.partial(draw, rows.rows))


if __name__ == "__main__":
    raise SystemExit(STUDY.main(measure))
