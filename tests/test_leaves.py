"""What is handed in where arrays are wanted: the message says what it is, and the way out.

Other packages' classes are stand-ins with the names of their packages: none is imported.
"""

# ruff: noqa: E501 (tables, a row a line)

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.sparse
from jax.experimental import sparse

import sgmcmc
from sgmcmc import Posterior, clocks, metrics, reducers

N = 6
X, Y = np.ones((N, 2), np.float32), np.arange(N, dtype=np.float32)


def log_likelihood(params, batch):
    return -0.5 * (batch["y"] - batch["x"] @ params["w"]) ** 2


def log_prior(params):
    return -0.5 * jnp.sum(params["w"] ** 2)


TARGET = Posterior(log_likelihood, log_prior, data_size=N)
PARAMS = {"w": jnp.zeros(2)}


def sample(params=PARAMS, data=None, kernel=None, **options):
    kernel = sgmcmc.sgld(TARGET, 0.01) if kernel is None else kernel
    data = {"x": X, "y": Y} if data is None else data
    return sgmcmc.sample(
        jax.random.key(0), kernel, params, data, num_burnin=1, num_samples=2, progress=False,
        **options,
    )  # fmt: skip


class Dtype:
    """A dtype without `.kind`, as torch's."""

    def __repr__(self):
        return "torch.float32"


def foreign(package, name, base=object, **held):
    """An object of a class that is called so."""
    kind = type(name, (base,), {"__module__": package, **held})
    return kind()


def tensor(package="torch", name="Tensor"):
    return foreign(package, name, shape=(N, 2), dtype=Dtype(), ndim=2)


def batches():
    yield X


@dataclasses.dataclass
class Weights:
    w: object


class Thing:
    pass


with_x = lambda x: {"x": x, "y": Y}  # noqa: E731
V, T = ValueError, TypeError
DATA = {
    "torch": (with_x(tensor()), T, r"leaf x is a torch.Tensor; .* x.detach\(\).cpu\(\).numpy\(\)"),
    "a child of torch's": (
        with_x(foreign("mine", "Images", type(tensor()))), T, r"leaf x is a mine.Images; .*detach"),
    "tensorflow": (with_x(tensor("tensorflow.python", "EagerTensor")), T, r"x.numpy\(\)"),
    "polars": (foreign("polars.dataframe", "DataFrame"), T, r"a polars.DataFrame; .*x.to_numpy\(\)"),
    "pandas": (pd.DataFrame({"a": Y}), T, r"a pandas.DataFrame; .*x.to_numpy\(\)"),
    "series": (with_x(pd.Series(Y)), T, r"leaf x is a pandas.Series; .*x.to_numpy\(\)"),
    "scipy": (with_x(scipy.sparse.csr_array(X)), T, r"a scipy.csr_array; .*x.toarray\(\)"),
    "sparse": (with_x(sparse.BCOO.fromdense(X)), T, r"a jax.BCOO; .*x.todense\(\)"),
    "generator": (batches(), T, r"a generator; .*all examples.*np.stack"),
    "map": (map(np.asarray, [X]), T, "a map; .*all examples"),
    "loader": (foreign("torch.utils.data", "DataLoader"), T, "torch.DataLoader; .*all examples"),
    "dataset": (foreign("mine", "Dataset"), T, "mine.Dataset; .*all examples"),
    "dataclass": (Weights(X), T, r"dataclass that JAX does not know; .*register_dataclass\(Weights\)"),
    "object": (Thing(), T, "Thing; expected NumPy or JAX arrays in dicts"),
    "text": (with_x("data.csv"), T, "leaf x is a str; expected NumPy or JAX arrays"),
    "strings": (with_x(np.array(list("abcdef"))), T, "leaf x is <U1; expected numbers"),
    "objects": (with_x(np.array([1, "a", None, 2, 3, 4], object)), T, "leaf x is object; expected"),
    "dates": (with_x(np.zeros(N, "M8[s]")), T, r"leaf x is datetime64\[s\]"),
    "records": (with_x(np.zeros(N, "f4,f4")), T, "leaf x is .*expected numbers"),
    "masked": (with_x(np.ma.masked_less(X, 2)), V, "leaf x is a masked array.*filled"),
    "list": (with_x(X.tolist()), V, r"leaf x is a list of 6 lists.*np.asarray"),
    "long list": ([0.0] * 5_000, V, "it is a list of 5000 floats.*np.asarray"),
    "tuple of lists": ((X.tolist(), Y.tolist()), V, "leaf 0 is a list of 6 lists"),
    "ragged list": (with_x([[1.0] * i for i in range(1, 400)]), V, "rows differ in length: pad them"),
    "ragged arrays": ([np.ones(i) for i in range(1, 4_000)], V, "0: 1, 1: 2, .*3,995 more; .*np.stack"),
    "list of rows": ([np.ones(3)] * N, V, "and 2 more have 3 examples.*np.stack"),
    "long names": ({"n" * 500 + str(i): np.ones(i) for i in range(1, 9)}, V, "one leading axis"),
    "no examples": (with_x(np.zeros((0, 2))), V, r"leaf x has no examples, shape \(0, 2\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data_that_are_no_arrays(name):
    """What it is, what is accepted, how to convert: below 300 characters, before anything runs."""
    data, error, message = DATA[name]
    with pytest.raises(error, match=message) as caught:
        sample(data=data)
    assert len(str(caught.value)) < 300
    assert str(caught.value).startswith("data: ")


STARTS = {
    "torch": ({"w": tensor()}, T, r"leaf w is a torch.Tensor; .*w.detach\(\).cpu\(\).numpy\(\)"),
    "module": (foreign("mine", "Net", type(foreign("torch.nn", "Module"))), T, "named_parameters"),
    "generator": (batches(), T, "is a generator"),
    "dataclass": (Weights(X), T, r"register_dataclass\(Weights\), or pass a dict"),
    "object": ({"w": Thing()}, T, "leaf w is a .*Thing; expected"),
    "empty leaf": ({"w": np.zeros((0, 2))}, V, "leaf w is empty, .*put None in its place"),
    "integers": ({"w": [0] * 5_000}, T, "leaf w/0 is int; .*floating"),
    "deep": ({"a" * 400: {"b" * 400: 1}}, T, "is int; .*floating"),
    "four starts": ({"w": np.zeros((4, 2))}, V, "leading axis 4, num_chains=3"),
}


@pytest.mark.parametrize("name", STARTS)
def test_starts_that_are_no_parameters(name):
    """Of `params` likewise; starts of another number of chains are counted."""
    params, error, message = STARTS[name]
    with pytest.raises(error, match=message) as caught:
        sample(params=params, num_chains=3)
    assert len(str(caught.value)) < 300
    assert str(caught.value).startswith("params: ")


@pytest.mark.parametrize("name", ["torch", "loader", "list", "dataclass"])
def test_fit_and_find_mode_say_the_same(name):
    """Data enter training by the same door."""
    data, error, message = DATA[name]
    with pytest.raises(error, match=message):
        sgmcmc.optim.find_mode(jax.random.key(0), TARGET, PARAMS, data)
    given = {"optimizer": optax.sgd(0.1), "num_steps": 1, "progress": False}
    with pytest.raises(error, match=message):
        sgmcmc.optim.fit(jax.random.key(0), TARGET, PARAMS, data, **given)
    with pytest.raises(TypeError, match=r"params: leaf w is a torch.Tensor"):
        sgmcmc.optim.fit(jax.random.key(0), TARGET, {"w": tensor()}, {"x": X, "y": Y}, **given)


def test_what_holds_numbers_is_taken():
    """float64, bfloat16 and booleans are data, NumPy's or JAX's."""
    data = {"x": X.astype(np.float64), "y": Y, "b": Y > 2, "h": jnp.asarray(Y, jnp.bfloat16)}
    assert sample(data=data).draws["w"].shape == (4, 2, 2)


class Half:
    """A metric, clock and reducer of one's own that lacks what is asked of it."""

    def to_position(self, momentum):
        return momentum

    def init(self, position):
        return ()


class Fast(clocks.AbstractClock):
    step_size: clocks.Rate

    @property
    def adaptive(self):
        return True

    def tick(self, state):
        return self.step_size(state.count), jnp.ones(()), state


PARTS = {
    "metric": (lambda: sgmcmc.sgld(TARGET, 0.1, metric=Half()), "AbstractMetric; it has no to_momentum"),
    "metric uncalled": (lambda: sgmcmc.sgld(TARGET, 0.1, metric=metrics.identity), r"called: identity\("),
    "clock": (lambda: sgmcmc.sgld(TARGET, Half()), "step_size: got .*AbstractClock, with tick"),
    "adaptive clock": (
        lambda: sgmcmc.langevin(TARGET, Fast(clocks.as_rate(0.1, "h")), word="ZBAOABZ"),
        "step_size: the adaptive clock Fast has no init, pace, flow, account of its own"),
    "estimator": (lambda: sgmcmc.sgld(TARGET, 0.1, gradient=Half()), "it has no estimate, traits"),
    "reducer": (lambda: sample(reducers={"m": Half()}), "'m' has no update, result; see"),
    "reducer uncalled": (lambda: sample(reducers={"m": reducers.mean}), "'m' has no init.*call it"),
    "reducer's class": (lambda: sample(reducers={"m": reducers.Mean}), "'m' is a class; pass one"),
    "step of many": (lambda: sgmcmc.sgld(TARGET, ["a"] * 900), "step_size: got"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_ones_own_that_lack_something(name):
    """The part, and what it has not, or how to make one."""
    make, message = PARTS[name]
    with pytest.raises(TypeError, match=message) as caught:
        make()
    assert len(str(caught.value)) < 300


def traced(function):
    """Calls under jit with a traced key, under jit without, and under vmap of key and number."""
    keys = jax.random.split(jax.random.key(0), 2)
    return {
        "jit": lambda: jax.jit(lambda key: function(key, 0.1))(jax.random.key(0)),
        "constants": lambda: jax.jit(lambda: function(jax.random.key(0), 0.1))(),
        "vmap of keys": lambda: jax.vmap(lambda key: function(key, 0.1))(keys),
        "vmap of steps": lambda: jax.vmap(lambda h: function(jax.random.key(0), h))(jnp.ones(2)),
    }


def of_scale(h):
    """A target whose function closes over a number."""
    return Posterior.from_log_density(lambda p: -0.5 * jnp.sum(p["w"] ** 2) / h)


HOST = {
    "sample": lambda key, h: sgmcmc.sample(key, sgmcmc.sgld(of_scale(h), 0.1), PARAMS),
    "tune": lambda key, h: sgmcmc.tune(key, sgmcmc.sgld(of_scale(h), None), PARAMS),
    "find_mode": lambda key, h: sgmcmc.optim.find_mode(key, of_scale(h), PARAMS),
    "fit": lambda key, h: sgmcmc.optim.fit(
        key, lambda p: h * p["w"][0], PARAMS, optimizer=optax.sgd(0.1), num_steps=1),
}  # fmt: skip


@pytest.mark.parametrize("how", ["jit", "constants", "vmap of keys", "vmap of steps"])
@pytest.mark.parametrize("name", HOST)
def test_what_runs_on_the_host_says_so(name, how):
    """Under jit or vmap, whatever is traced: the name, and the two ways out."""
    with pytest.raises(TypeError, match=f"{name}: it runs on the host.*one call each.*kernel.step"):
        traced(HOST[name])[how]()
