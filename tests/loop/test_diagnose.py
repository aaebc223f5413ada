"""What is not finite at a start is named: prior, likelihood and its first example, gradient."""

# ruff: noqa: E501 (tables, a row a line)

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from sgmcmc import Posterior, models
from sgmcmc.loop._diagnose import why_not_finite

N = 2_500
X = np.linspace(-1, 1, N, dtype=np.float32)


def normal(params, batch):
    return -0.5 * (batch["y"] - params["w"] * batch["x"]) ** 2


def flat(params):
    return 0.0 * params["w"]


def positive(params):
    """Exponential: −inf below 0."""
    return jnp.where(params["w"] > 0, -params["w"], -jnp.inf)


def root(params):
    """Finite at 0 with a slope that is not."""
    return -jnp.sqrt(params["w"])


def masked(params, batch):
    """log x where x > 0, else 0: the value is masked, and its gradient is NaN."""
    inside = batch["x"] > 0
    return jnp.where(inside, params["w"] * jnp.log(batch["x"] * params["w"]), 0.0)


def with_y(**changes):
    y = X.copy()
    for index, value in changes.items():
        y[int(index[1:])] = value
    return {"x": X, "y": y}


def with_x(*zeros):
    x = np.ones(N, np.float32)
    x[list(zeros)] = -1.0
    return {"x": x, "y": X}


CASES = {
    "support": (normal, positive, -1.0, with_y(), "log_prior: it is -inf at the start.*support"),
    "slope of the prior": (normal, root, 0.0, with_y(), "log_prior: .*gradient is not.*leaf w"),
    "start": (normal, flat, np.nan, with_y(), "params: leaf w is not finite at the start"),
    "NaN in the data": (
        normal, flat, 1.0, with_y(_1700=np.nan, _2400=np.nan),
        "log_likelihood: .*2 of 2,500 examples, first at index 1700: NaN in the data, leaf y"),
    "masked after the fact": (
        masked, flat, 1.0, with_x(2049, 2100),
        "log_likelihood: .*gradient is not .*`where`.*first at index 2049"),
    "nothing": (normal, flat, 1.0, with_y(), None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_finite_at_the_start(name):
    """In words of at most 200 characters; nothing where all is finite."""
    likelihood, prior, start, data, message = CASES[name]
    target = Posterior(likelihood, prior, data_size=N)
    data = jax.tree.map(jnp.asarray, data)
    said = why_not_finite(target, {"w": jnp.asarray(start, jnp.float32)}, data)
    if message is None:
        assert said is None
        return
    assert re.search(message, said)
    assert len(said) <= 200


def test_an_error_within_explains_nothing():
    """A likelihood that raises on other batches than its own leaves the first error as it was."""
    target = Posterior(lambda p, b: 1 / 0, flat, data_size=N)
    assert why_not_finite(target, {"w": jnp.ones(())}, {"x": jnp.ones(N)}) is None


BAD = with_y(_7=np.nan)
TARGET = Posterior(normal, flat, data_size=N)
START = {"w": jnp.ones(())}


def key():
    return jax.random.key(0)


SAID = "1 of 2,500 examples, first at index 7: NaN in the data, leaf y"
RUNS = {
    "sample": lambda: sgmcmc.sample(
        key(), sgmcmc.sgld(TARGET, 1e-5), START, BAD, batch_size=500, num_chains=2, progress=False),
    "sample(None)": lambda: sgmcmc.sample(key(), sgmcmc.sgld(TARGET, None), START, BAD),
    "find_mode": lambda: sgmcmc.optim.find_mode(key(), TARGET, START, BAD, num_steps=5),
    "fit": lambda: sgmcmc.optim.fit(
        key(), TARGET, START, BAD, optimizer=optax.sgd(1e-3), num_steps=5, progress=False),
    "fit of a loss": lambda: sgmcmc.optim.fit(
        key(), lambda p, b: -jnp.mean(normal(p, b)), START, BAD, optimizer=optax.sgd(1e-3),
        num_steps=5, progress=False),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_every_run_says_it(name):
    """The example is named wherever a run begins, below 300 characters."""
    with pytest.raises(FloatingPointError, match=SAID) as caught:
        RUNS[name]()
    assert len(str(caught.value)) < 300


def test_the_chain_that_failed_is_looked_at():
    """Two of three starts are inside the support; the run and its steps come with the error."""
    target = Posterior.from_log_density(positive)
    with pytest.raises(
        sgmcmc.NonFiniteError, match=r"chain 1 is .* step 0 on .*log_prior"
    ) as caught:
        sgmcmc.sample(
            key(), sgmcmc.sgld(target, 1e-6), {"w": jnp.array([1.0, -1.0, 1.0])}, num_chains=3,
            num_burnin=0, num_samples=4, progress=False,
        )  # fmt: skip
    assert caught.value.run.stopped == {1: 0}


def labels(first, *, classes=3, size=30):
    """Labels that run through all classes, from `first` on."""
    return np.random.default_rng(0).normal(size=(size, 2)), np.arange(size) % classes + first


LABELS = {
    "from 1": (
        models.mlp((2, 4, 3)), labels(1), r"y: label 3 at index 2, and 10 of 30 .*0 … 2 \(subtract 1"),
    "ignored": (models.mlp((2, 4, 3)), labels(-1), "y: label -1 at index 0, .*0 … 2 .*ignored"),
    "signs": (
        models.logistic_regression(num_features=2),
        (labels(0)[0], 2 * labels(0, classes=2)[1] - 1),
        r"y: label -1 at index 0, .*allowed: 0 … 1 \(\(y \+ 1\) // 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_out_of_range_are_refused_before_a_run(name):
    """Where data enter, in sampling and in training, with the range allowed and the way there."""
    model, data, message = LABELS[name]
    posterior, start = model.posterior(30), model.init(key())
    given = {"optimizer": optax.sgd(0.1), "num_steps": 1, "progress": False}
    for run in (
        lambda: sgmcmc.sample(key(), sgmcmc.sgld(posterior, 0.01), start, data),
        lambda: sgmcmc.sample(
            key(), sgmcmc.sgld(posterior.localized(start, 1.0), None), start, data
        ),
        lambda: sgmcmc.optim.find_mode(key(), posterior, start, data),
        lambda: sgmcmc.optim.fit(key(), posterior, start, data, **given),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            run()
        assert len(str(caught.value)) < 300
    posterior.check_data(labels(0, classes=posterior.check_data.num_classes))
