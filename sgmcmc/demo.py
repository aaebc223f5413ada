"""A network's posterior, sampled, judged and drawn: `python -m sgmcmc.demo`.

Scikit-learn's digits and an MLP 64-64-64-10 with N(0, 1) priors. Four chains each of SGLD
and BAOAB from dispersed starts, beside the mode (MAP) found by Adam with as many gradients
as an SGLD chain takes. The clean test set is no bar at this size: the exact posterior
loses there to the mode, and a sampler 20% too hot looks better; so |θ|²/(d s²), which is
near 1 for the law itself, stands in the table. Under shift the posterior wins.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas

import sgmcmc
from sgmcmc import diagnostics, models

__all__ = [
    "PRIOR_SCALE",
    "SIZES",
    "Digits",
    "digits",
    "main",
]

SIZES, PRIOR_SCALE, _CLASSES = (64, 64, 64, 10), 1.0, 10

_MAP_BATCH, _MAP_RATE = 64, 1e-3


class _Setting(NamedTuple):
    """How one sampler is run; steps are `num_burnin + num_samples · thinning`."""

    batch_size: int
    num_burnin: int
    num_samples: int
    thinning: int


class Digits(NamedTuple):
    """Training and test sets, and two kinds of shift; pixels in [0, 1]."""

    train: tuple[np.ndarray, np.ndarray]
    clean: tuple[np.ndarray, np.ndarray]
    rotated: tuple[np.ndarray, np.ndarray]
    noise: np.ndarray


class _Row(NamedTuple):
    """One line of the table. R̂ and ESS are of the test labels' probabilities."""

    name: str
    accuracy: float
    nll: float
    ece: float
    rotated_nll: float
    rotated_ece: float
    confidence: float
    r_hat: float
    ess_per_second: float
    norm: float
    seconds: float


class _Judged(NamedTuple):
    """A method's row and its predictions, for the pictures."""

    row: _Row
    clean: Any
    rotated: Any
    noise: Any


def digits(seed: int = 0) -> Digits:
    """The data, split 70/30; rotated digits and random pixels come from the test set."""
    try:
        from scipy.ndimage import rotate
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError('the demo needs its extra: pip install "sgmcmc[demo]"') from error
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, labels.astype(np.int32), test_size=0.3, random_state=seed
    )
    turned = rotate(x_test.reshape(-1, 8, 8), 20, axes=(1, 2), reshape=False, order=1)
    pixels = np.random.default_rng(seed).uniform(size=(500, 64)).astype(np.float32)
    return Digits((x, y), (x_test, y_test), (turned.reshape(-1, 64), y_test), pixels)


def _fit_map(key: jax.Array, model: Any, data: Any, steps: int) -> tuple[Any, float]:
    """Four modes by Adam on the same potential, [chain, 1, …] like draws; and the seconds."""
    posterior = model.posterior(len(data[0]))
    began = time.perf_counter()
    fitted = jax.jit(jax.vmap(partial(_descend, model, posterior, steps), (0, None)))(
        jax.random.split(key, 4), jax.tree.map(jnp.asarray, data)
    )
    jax.block_until_ready(fitted)
    return jax.tree.map(lambda x: np.asarray(x)[:, None], fitted), time.perf_counter() - began


def _descend(model: Any, posterior: Any, steps: int, key: jax.Array, data: Any) -> Any:
    init_key, batch_key = jax.random.split(key)
    optimizer = optax.adam(optax.cosine_decay_schedule(_MAP_RATE, steps))
    params = model.init(init_key)

    def step(carry: Any, t: jax.Array) -> tuple[Any, None]:
        params, state = carry
        rows = jax.random.randint(
            jax.random.fold_in(batch_key, t), (_MAP_BATCH,), 0, posterior.data_size
        )
        batch = jax.tree.map(lambda a: a[rows], data)
        gradient = posterior.potential_and_gradient(params, batch)[1]
        gradient = jax.tree.map(lambda g: g / posterior.data_size, gradient)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params


def _judge_map(model: Any, draws: Any, data: Digits, seconds: float) -> tuple[_Judged, _Judged]:
    """The mean score of four modes taken one by one, and their ensemble's."""
    single = [
        _judge(
            "MAP", model, _Modes(jax.tree.map(lambda x, c=c: x[c : c + 1], draws)), data, seconds
        )
        for c in range(4)
    ]
    numbers = np.mean([judged.row[1:] for judged in single], axis=0)
    average = _Row("MAP (mean of 4)", *map(float, numbers))
    together = _judge("4 MAPs, ensemble", model, _Modes(draws), data, seconds)
    return single[0]._replace(row=average), together


class _Modes:
    """Draws and weights, which is all that `diagnostics.predictive` reads."""

    def __init__(self, draws: Any) -> None:
        self.draws = draws
        self.weights = np.ones(jax.tree.leaves(draws)[0].shape[:2])


def _judge_run(name: str, model: Any, run: Any, data: Digits, seconds: float) -> _Judged:
    judged = _judge(name, model, run, data, seconds)
    x, y = data.clean
    table = diagnostics.summary(run, predict=model.predict, x=x, y=y).table
    r_hat, ess = np.nanquantile(table["r_hat"], 0.95), np.median(table["ess_bulk"])
    row = judged.row._replace(r_hat=float(r_hat), ess_per_second=float(ess / run.wall_time))
    return judged._replace(row=row)


def _judge(name: str, model: Any, run: Any, data: Digits, seconds: float) -> _Judged:
    predict: Any = partial(diagnostics.predictive, run, model.predict)
    clean, rotated, noise = predict(*data.clean), predict(*data.rotated), predict(data.noise)
    squares = sum(
        np.square(x, dtype=np.float64).reshape(*run.weights.shape, -1).sum(axis=-1)
        for x in jax.tree.leaves(run.draws)
    )
    dimension = sum(x[0, 0].size for x in jax.tree.leaves(run.draws))
    norm = float(np.average(squares, weights=run.weights)) / (dimension * PRIOR_SCALE**2)
    row = _Row(
        name, clean.accuracy, clean.nll, clean.ece, rotated.nll, rotated.ece,
        float(noise.confidence.mean()), np.nan, np.nan, norm, seconds,
    )  # fmt: skip
    return _Judged(row, clean, rotated, noise)


def _table(rows: list[_Row]) -> pandas.DataFrame:
    """A row a method; what modes have none of is NaN."""
    return pandas.DataFrame(rows).set_index("name").rename_axis(None)


def _failures(mode: _Row, samplers: list[_Row]) -> list[str]:
    """What does not hold that should; `samplers` are SGLD and BAOAB."""
    missed = []
    for row, most in zip(samplers, (1.15, 1.10), strict=True):
        bars = {
            "accuracy": (row.accuracy, ">=", mode.accuracy - 0.01),
            "clean NLL": (row.nll, "<=", mode.nll + 0.03),
            "rotated ECE": (row.rotated_ece, "<=", mode.rotated_ece / 2),
            "rotated NLL": (row.rotated_nll, "<=", mode.rotated_nll),
            "confidence on random pixels": (row.confidence, "<=", 0.45),
            "95% of predictive R̂": (row.r_hat, "<=", most),
        }
        for name, (value, relation, bar) in bars.items():
            # NaN passes neither.
            if not (value >= bar if relation == ">=" else value <= bar):
                missed.append(f"{row.name}: {name} is {value:.4f}, asked {relation} {bar:.4f}")
    return missed


def _plot(judged: dict[str, _Judged], folder: Path) -> list[Path]:
    """Two pictures: reliability, and predictive entropy of right, wrong and strange inputs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained")
    for ax, kind, title in zip(
        axes, ("clean", "rotated"), ("clean", "rotated by 20°"), strict=True
    ):
        for name, one in judged.items():
            getattr(one, kind).plot_reliability(ax, label=name)
        ax.set_title(f"Digits, {title}")
        ax.legend()
    figure.savefig(folder / "demo_reliability.png", dpi=120)
    figure, axes = plt.subplots(
        1, len(judged), figsize=(12, 3.6), sharey=True, layout="constrained"
    )
    bins = np.linspace(0, np.log(_CLASSES), 24)
    for ax, (name, one) in zip(axes, judged.items(), strict=True):
        right = one.rotated.entropy[one.rotated.correct]
        wrong = one.rotated.entropy[~one.rotated.correct]
        groups = {"right": right, "wrong": wrong, "random pixels": one.noise.entropy}
        for label, values in groups.items():
            ax.hist(values, bins, density=True, histtype="stepfilled", alpha=0.5, label=label)
        ax.set(title=name, xlabel="predictive entropy [nats]")
    axes[0].set_ylabel("density")
    axes[0].legend(title="rotated digits and noise")
    figure.savefig(folder / "demo_entropy.png", dpi=120)
    plt.close("all")
    return [folder / "demo_reliability.png", folder / "demo_entropy.png"]


def _settings(posterior: Any, quick: bool) -> dict[str, tuple[Any, _Setting]]:
    """The samplers and their runs; `quick` ones are far too short to pass."""
    slow = {"SGLD": _Setting(64, 14_000, 500, 110), "BAOAB": _Setting(256, 3_000, 500, 26)}
    short = {"SGLD": _Setting(64, 200, 10, 20), "BAOAB": _Setting(256, 200, 10, 20)}
    chosen = short if quick else slow
    return {
        "SGLD": (sgmcmc.sgld(posterior, 1e-4), chosen["SGLD"]),
        "BAOAB": (sgmcmc.baoab(posterior, 0.006, friction=10.0), chosen["BAOAB"]),
    }


def _run_sampler(
    key: jax.Array, kernel: Any, model: Any, data: Digits, setting: _Setting, progress: bool
) -> tuple[Any, float]:
    began = time.perf_counter()
    run = sgmcmc.sample(key, kernel, model.init, data.train, progress=progress, **setting._asdict())
    return run, time.perf_counter() - began


def main(arguments: list[str] | None = None) -> int:
    """Fits, samples, judges, prints the table and draws; 1 if something asked is missed.

    Args:
        arguments: those of the command line, `sys.argv[1:]` by default.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="too short to pass; shows it runs")
    parser.add_argument("--no-progress", action="store_true")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    data = digits()
    model = models.mlp(SIZES, likelihood="categorical", prior=PRIOR_SCALE)
    posterior = model.posterior(len(data.train[0]))
    keys = jax.random.split(jax.random.key(given.seed), 3)
    print(f"digits: {len(data.train[0])} to train on, {len(data.clean[0])} to test; MLP {SIZES}")
    kernels = _settings(posterior, given.quick)
    _, first = kernels["SGLD"]
    steps = first.num_burnin + first.num_samples * first.thinning
    draws, seconds = _fit_map(keys[0], model, data.train, steps)
    mode, ensemble = _judge_map(model, draws, data, seconds)
    judged = {}
    # One that Ctrl-C has cut short would pass for a bad sampler.
    with sgmcmc.loop.ctrl_c_ends_all():
        for key, (name, (kernel, setting)) in zip(keys[1:], kernels.items(), strict=True):
            run, seconds = _run_sampler(key, kernel, model, data, setting, not given.no_progress)
            judged[name] = _judge_run(name, model, run, data, seconds)
    rows = [mode.row, ensemble.row, *(one.row for one in judged.values())]
    print("\n" + _table(rows).to_string(float_format="{:.3g}".format, na_rep="–"))
    print(
        "r_hat (95%) and ESS are of the test labels' probabilities; confidence is that on random "
        "pixels; norm is |θ|²/(d s²)."
    )
    pictures = _plot({"MAP": mode, **judged}, given.output)
    print(f"pictures: {', '.join(map(str, pictures))}; {time.perf_counter() - began:.0f} s in all")
    missed = _failures(mode.row, rows[2:])
    for line in missed:
        print(f"MISSED {line}", file=sys.stderr)
    return 1 if missed else 0


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__


if __name__ == "__main__":
    # Four chains on two cores: two devices take two chains each.
    sgmcmc.use_cpu_devices(2 if (os.cpu_count() or 1) > 1 else 1)
    sys.exit(main())
