"""The networks of the study `auto_step`, judged by what they say and not by their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import demo, diagnostics, metrics, models

DIGITS, MNIST = "digits, MLP 64-64-64-10", "MNIST, MLP 784-32-10"
MNIST_SIZES, MNIST_PRIOR, MNIST_TRAIN, MNIST_TEST, MNIST_BATCH = (784, 32, 10), 0.1, 1_000, 300, 100
VARIES = 0.01  # labels whose probability has a smaller standard deviation have no ESS
SETTLING = 2.0  # the friction at which soft weights settle fastest


class Network(NamedTuple):
    """A model, its data, and the steps of its reference: burn-in, draws, thinning."""

    model: Any
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    batch_size: int
    reference: tuple[int, int, int]


def names(folder: Path | None) -> list[str]:
    """MNIST's where its data are there."""
    with_mnist = folder is not None and (folder / "mnist" / "mnist.npz").is_file()
    return [DIGITS, MNIST] if with_mnist else [DIGITS]


def load(name: str, folder: Path | None, seed: int) -> Network:
    if name == DIGITS:
        data = demo.digits()
        model = models.mlp(demo.SIZES, likelihood="categorical", prior=demo.PRIOR_SCALE)
        return Network(model, data.train, data.clean, 256, (2_000, 200, 40))
    assert folder is not None
    rng = np.random.default_rng(seed)
    with np.load(folder / "mnist" / "mnist.npz") as file:
        chosen = rng.permutation(len(file["x_train"]))[:MNIST_TRAIN]
        train, test = (
            ((file[f"x_{part}"][rows] / 255).reshape(-1, 784).astype(np.float32),
             file[f"y_{part}"][rows].astype(np.int32))
            for part, rows in (("train", chosen), ("test", slice(MNIST_TEST)))
        )  # fmt: skip
    model = models.mlp(MNIST_SIZES, likelihood="categorical", prior=MNIST_PRIOR)
    return Network(model, train, test, MNIST_BATCH, (1_000, 100, 20))


def network(name: str, folder: Path | None, seed: int) -> tuple[Any, ...]:
    """The fields of a `Target`."""
    one = load(name, folder, seed)
    size = len(one.train[0])
    posterior = one.model.posterior(size)

    def prepare(made: Any, tuning: dict) -> Any:
        """Chains begin where those of the reference end: it is what takes longest."""

        def chains(start: Any, h: float, batch: int | None, steps: tuple[int, int, int]) -> Any:
            kernel = sgmcmc.baoab(posterior, h, friction=SETTLING)
            burnin, draws, thinning = steps
            return sgmcmc.sample(
                jax.random.key(seed + 2), kernel, start, one.train, batch_size=batch,
                num_chains=4, num_burnin=burnin, num_samples=draws, thinning=thinning,
                progress=False,
            )  # fmt: skip

        warm = chains(one.model.init, tuning["step_size"] / 2, one.batch_size, (3_000, 1, 1))
        exact = chains(last(warm), tuning["limits"]["stability"] / 4, None, one.reference)
        return made._replace(judge=judge_against(one, scores(one, exact)), start=last(exact))

    return (
        posterior, one.model.init, one.train, one.batch_size, "reshuffled", metrics.identity(),
        200 if name == DIGITS else 100, 20, dict, prepare,
    )  # fmt: skip


SCALARS = ("norm", "train", "test")
COLUMNS = ("mean", "sd", "ess_bulk", "r_hat", "mcse_mean")


def last(run: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x[:, -1]), run.draws)


def square_norm(position):
    leaves = jax.tree.leaves(position)
    return sum(jnp.sum(x**2) for x in leaves) / sum(x.size for x in leaves)


def mean_loss(predict, x, y, position):
    logits = jax.nn.log_softmax(predict(position, x))
    return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=1))


def scores(one: Network, run: Any) -> dict:
    """Scalars (mean, its MCSE), and the summary of the test labels' probabilities."""
    losses = {
        name: Partial(mean_loss, one.model.predict, *map(jnp.asarray, data))
        for name, data in (("train", one.train), ("test", one.test))
    }
    scalars = diagnostics.summary(run, functions={"norm": square_norm, **losses}).table
    x, y = one.test
    labels = diagnostics.summary(run, predict=one.model.predict, x=x, y=y).table
    pairs = zip(scalars["mean"], scalars["mcse_mean"], strict=True)
    return {
        **{n: (float(m), float(e)) for n, (m, e) in zip(SCALARS, pairs, strict=True)},
        "labels": {c: labels[c].to_numpy() for c in COLUMNS},
    }


def judge_against(one: Network, exact: dict) -> Callable[[Any], dict]:
    """The judge that compares with the scores of a reference."""

    varies = exact["labels"]["sd"] > VARIES

    def judge(run: Any) -> dict:
        found = scores(one, run)
        ours, theirs = found["labels"], exact["labels"]
        # Monte Carlo errors of both add to the mean square.
        # NaN where a label's probability is the same in every draw.
        noise = np.nan_to_num(ours["mcse_mean"]) ** 2 + np.nan_to_num(theirs["mcse_mean"]) ** 2
        excess = np.mean((ours["mean"] - theirs["mean"]) ** 2 - noise)
        square = float(excess / np.mean(theirs["sd"] ** 2))
        error = lambda key: float(np.hypot(found[key][1], exact[key][1]))  # noqa: E731
        return {
            "ess": float(np.nanmedian(ours["ess_bulk"][varies])),
            "rhat": float(np.nanquantile(ours["r_hat"][varies], 0.95)),
            "norm_ratio": found["norm"][0] / exact["norm"][0],
            "norm_ratio_mcse": error("norm") / exact["norm"][0],
            **{
                f"{name}_{key}": value
                for name in ("train", "test")
                for key, value in (
                    ("loss", found[name][0]),
                    ("error", found[name][0] - exact[name][0]),
                    ("error_mcse", error(name)),
                )
            },
            "label_error": float(np.sqrt(max(square, 0.0))),
            "labels": int(np.sum(varies)),
            "reference_norm": exact["norm"][0],
            "reference_ess": float(np.nanmedian(theirs["ess_bulk"][varies])),
            "reference_rhat": float(np.nanquantile(theirs["r_hat"][varies], 0.95)),
        }

    return judge
