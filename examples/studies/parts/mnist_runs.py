"""The runs behind `mnist_samplers`: SGD, samplers from its networks, and their scores."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _study import data_folder

import sgmcmc
from sgmcmc import clocks, diagnostics, metrics, streams

CYCLES, MOMENTUM, VALIDATION = 4, 0.9, 5_000
SCORES = ("accuracy", "nll", "ece")
DECAYS = {"SGD": 0.0, "SGD wd 1e-4": 1e-4, "SGD wd 5e-4": 5e-4, "SGD wd prior": None}
LONG, TIMES = "sgld, long", 10  # not at equal gradients: ten times the sampling, a larger step


class Setting(NamedTuple):
    """A network, its data and its budget; a chain's draws are its last draws · thinning steps."""

    sizes: tuple[int, ...]
    prior_scale: float
    batch_size: int
    epochs: int
    draws: int
    thinning: int


class Draws(NamedTuple):
    """What `diagnostics` reads: draws [chain, draw, …] and weights [chain, draw]."""

    draws: Any
    weights: np.ndarray


def load(small: bool) -> tuple[Any, Any]:
    """Training and test set, pixels in [0, 1]: MNIST, or scikit-learn's digits."""
    if small:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        x, y = (x[order] / 16).astype(np.float32), y[order].astype(np.int32)
        return (x[:1258], y[:1258]), (x[1258:], y[1258:])
    with np.load(data_folder("mnist/mnist.npz") / "mnist" / "mnist.npz") as file:
        both = [(file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")]
    train, test = (((x / 255).reshape(-1, 784).astype(np.float32), y.astype(np.int32))
                   for x, y in both)  # fmt: skip
    return train, test


def hold_out(train: Any, seed: int) -> tuple[Any, Any]:
    """Training images without 5,000 of them, and those."""
    order = np.random.default_rng(seed).permutation(len(train[0]))
    rest, held = np.sort(order[VALIDATION:]), order[:VALIDATION]
    return tuple(a[rest] for a in train), tuple(a[held] for a in train)


@eqx.filter_jit
def descend(
    model: Any, keys: Any, data: Any, rate: Any, decay: Any, batch_size: int, epochs: int
) -> Any:
    """SGD with momentum .9 and a cosine schedule from `rate` to 0: a network a key.

    On the mean negative log likelihood plus decay |θ|²/2, reshuffled as the samplers' data.
    """
    stream, size = streams.reshuffled(), len(data[0])
    period = stream.period(size, batch_size)
    schedule = optax.cosine_decay_schedule(rate, epochs * period)
    optimizer = optax.chain(
        optax.add_decayed_weights(decay), optax.sgd(schedule, momentum=MOMENTUM)
    )

    def loss(params: Any, rows: streams.Rows) -> Any:
        batch = jax.tree.map(lambda a: a[rows.index], data)
        mask = jnp.ones(batch_size) if rows.mask is None else rows.mask
        return -jnp.sum(model.log_likelihood(params, batch) * mask) / jnp.sum(mask)

    def one(key: Any) -> Any:
        init_key, stream_key = jax.random.split(key)

        def step(carry: Any, count: Any, order: Any) -> tuple[Any, None]:
            params, state = carry
            rows = stream.rows(order, stream_key, count, size, batch_size)
            updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
            return (optax.apply_updates(params, updates), state), None

        def epoch(carry: Any, number: Any) -> tuple[Any, None]:
            order = stream.order(stream_key, number, size, batch_size)
            counts = number * period + jnp.arange(period)
            return jax.lax.scan(lambda c, t: step(c, t, order), carry, counts)

        params = model.init(init_key)
        return jax.lax.scan(epoch, (params, optimizer.init(params)), jnp.arange(epochs))[0][0]

    return jax.lax.map(one, keys)


def make(name: str, posterior: Any, numbers: tuple[float, ...], burnin: int, steps: int) -> Any:
    """The kernel; `burnin` and `steps` are of the sampling half."""
    if name == "cyclical":
        clock = clocks.cyclical(
            numbers[0], num_cycles=CYCLES, total_steps=steps, exploration=numbers[1]
        )
        return sgmcmc.sgld(posterior, clock, temperature=clock.temperature(1.0))
    if name == "psgld":
        metric = metrics.rmsprop(epsilon=1.0, gamma=False, freeze_after=burnin)
        return sgmcmc.psgld(posterior, numbers[0], metric=metric)
    if name in ("sgld", LONG):
        return sgmcmc.sgld(posterior, numbers[0])
    if name == "sgnht":
        # At the default mass, the number of parameters, a step moves ξ by less than float32's
        # spacing at these frictions, and the chain is BAOAB's. At 1 it has standard deviation 1.
        return sgmcmc.sgnht(posterior, numbers[0], friction=numbers[1], thermostat_mass=1.0)
    return getattr(sgmcmc, name)(posterior, numbers[0], friction=numbers[1])


def scores(predicted: Any) -> dict[str, float]:
    return {name: getattr(predicted, name) for name in SCORES}


def judge(model: Any, draws: Any, weights: np.ndarray, test: Any) -> dict[str, Any]:
    """Scores of each chain and of all together, whose total weights are equal."""
    chains = [
        diagnostics.predictive(
            Draws(jax.tree.map(lambda a, c=c: a[c : c + 1], draws), weights[c : c + 1]),
            model.predict, *test,
        )
        for c in range(len(weights))
    ]  # fmt: skip
    together = np.mean([chain.probabilities for chain in chains], axis=0)
    pooled = diagnostics.classification_scores(together, test[1])
    return {"chains": [scores(chain) for chain in chains], "pooled": scores(pooled)}


class Bench(NamedTuple):
    """One network on one training and one test set."""

    setting: Setting
    model: Any
    train: Any
    test: Any
    keys: Any  # one a chain; they fix SGD's runs and the starts of the samplers

    @property
    def steps(self) -> int:
        return self.setting.epochs * streams.num_batches(
            len(self.train[0]), self.setting.batch_size
        )

    def modes(self, rate: float, decay: float | None, epochs: int) -> tuple[Any, float]:
        """Networks by SGD, one a key, and the seconds."""
        if decay is None:  # SGD then minimises U/N: the mode
            decay = 1 / (len(self.train[0]) * self.setting.prior_scale**2)
        began = time.perf_counter()
        found = descend(
            self.model, self.keys, jax.tree.map(jnp.asarray, self.train), jnp.asarray(rate),
            jnp.asarray(decay), self.setting.batch_size, epochs,
        )  # fmt: skip
        return jax.block_until_ready(found), time.perf_counter() - began

    def norm(self, draws: Any, weights: np.ndarray) -> float:
        """The weighted mean of |θ|²/(d s²), which is 1 under the prior."""
        leaves = [np.asarray(a) for a in jax.tree.leaves(draws)]
        squares = sum(np.square(a).reshape(*a.shape[:2], -1).sum(-1, np.float64) for a in leaves)
        count = sum(a[0, 0].size for a in leaves)
        mean = float((weights * squares).sum() / weights.sum())
        return mean / (count * self.setting.prior_scale**2)


def judge_modes(bench: Bench, found: tuple[Any, float], epochs: int) -> dict[str, Any]:
    """A row of networks by SGD and their seconds; their ensemble is the pooled score."""
    networks, seconds = found
    draws = jax.tree.map(lambda a: np.asarray(a)[:, None], networks)
    weights = np.ones((len(bench.keys), 1))
    return {
        **judge(bench.model, draws, weights, bench.test),
        "norm": bench.norm(draws, weights),
        "gradients": epochs * bench.steps // bench.setting.epochs,
        "seconds": seconds,
    }


def run_sgd(bench: Bench, name: str, numbers: tuple[float, ...]) -> dict[str, Any]:
    epochs = bench.setting.epochs
    return judge_modes(bench, bench.modes(numbers[0], DECAYS[name], epochs), epochs)


def run_sampler(
    bench: Bench, name: str, numbers: tuple[float, ...], start: tuple[Any, float], seed: int
) -> dict[str, Any]:
    """A row of a sampler, from the warm starts."""
    setting, times = bench.setting, TIMES if name == LONG else 1
    steps, thinning = times * (bench.steps - bench.steps // 2), times * bench.setting.thinning
    last = setting.draws * thinning
    posterior = bench.model.posterior(len(bench.train[0]))
    began = time.perf_counter()
    run = sgmcmc.sample(
        jax.random.key(1_000 + seed), make(name, posterior, numbers, steps - last, steps),
        start[0], bench.train, batch_size=setting.batch_size, num_chains=len(bench.keys),
        num_burnin=steps - last, num_samples=setting.draws, thinning=thinning,
        progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began + start[1]
    # R̂ of the draws that count, each as one: that of w(f − f̄) cannot tell chains apart where
    # weights of cycles spread more than chains, and stays below √(1 + 1/var w) ≈ 1.4.
    kept = run.weights.min(axis=0) > 0
    draws = jax.tree.map(lambda a: a[:, kept], run.draws)
    equal = Draws(draws, np.ones((len(bench.keys), kept.sum())))
    x, y = bench.test
    rhat = diagnostics.summary(equal, predict=bench.model.predict, x=x, y=y).table["r_hat"]
    rhat = rhat[np.isfinite(rhat)].to_numpy()
    return {
        **judge(bench.model, run.draws, run.weights, bench.test),
        "rhat": [float(np.quantile(rhat, q)) for q in (0.5, 0.95, 1.0)],
        "norm": bench.norm(run.draws, run.weights),
        "gradients": bench.steps // 2 + run.num_steps,
        "seconds": seconds,
    }
