"""What a loaded run knows again: data by content, functions by what they do, and what it says."""

# ruff: noqa: E501 (tables, a row a line)

import dataclasses
import functools
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import sgmcmc
from sgmcmc import Posterior, reducers, streams
from sgmcmc.models import mlp
from sgmcmc.sampling._fingerprint import of_kernel
from tests import problems
from tests.compare import assert_same_bits

PROBLEM = problems.regression()
KERNEL = sgmcmc.sgld(PROBLEM.posterior, 0.01)


def of(function):
    """The fingerprint of a target with this log density."""
    return of_kernel(sgmcmc.sgld(Posterior.from_log_density(function), 0.1))["log_prior"][:2]


def written(source, **names):
    """The function `f` of a module of this source."""
    made = {"jax": jax, "jnp": jnp, "np": np, "functools": functools, "__name__": "mine", **names}
    exec(textwrap.dedent(source), made)
    return made["f"]


# Two sources that make other draws: a part of a function, and what it is bound to or refers to.
OTHER = {
    "constant": ("def f(x): return -0.5 * x", "def f(x): return -0.6 * x"),
    "operation": ("def f(x): return -x * x", "def f(x): return -x + x"),
    "attribute": ("def f(x): return jnp.tanh(x)", "def f(x): return jnp.sin(x)"),
    "key": ("f = lambda p: p['a']", "f = lambda p: p['b']"),
    "default": ("def f(x, s=1.0): return s * x", "def f(x, s=2.0): return s * x"),
    "closure": (
        "def make(s):\n  return lambda x: s * x\nf = make(1.0)",
        "def make(s):\n  return lambda x: s * x\nf = make(2.0)",
    ),
    "array in a closure": (
        "def make(s):\n  return lambda x: s * x\nf = make(np.arange(3.0))",
        "def make(s):\n  return lambda x: s * x\nf = make(np.arange(3.0) * 2)",
    ),
    "nested function": (
        "def f(x):\n  def g(y): return y\n  return g(x)",
        "def f(x):\n  def g(y): return -y\n  return g(x)",
    ),
    "global number": ("S = 1.0\ndef f(x): return S * x", "S = 2.0\ndef f(x): return S * x"),
    "helper": (
        "def g(x): return x\ndef f(x): return g(x)",
        "def g(x): return -x\ndef f(x): return g(x)",
    ),
    "partial": (
        "f = functools.partial(lambda s, x: s * x, 1.0)",
        "f = functools.partial(lambda s, x: s * x, 2.0)",
    ),
    "function in a partial": (
        "f = functools.partial(lambda a, x: a(x), jax.nn.relu)",
        "f = functools.partial(lambda a, x: a(x), jnp.tanh)",
    ),
    "own function in a jitted one": (
        "f = jax.jit(lambda x: x)",
        "f = jax.jit(lambda x: -x)",
    ),
    "own class": (
        "class A:\n  def __call__(self, x): return x\nf = A()",
        "class A:\n  def __call__(self, x): return -x\nf = A()",
    ),
    "attribute of an object": (
        "class A:\n  def __init__(self, s): self.s = s\n  def g(self, x): return x\nf = A(1.0).g",
        "class A:\n  def __init__(self, s): self.s = s\n  def g(self, x): return x\nf = A(2.0).g",
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_a_function_does_is_compared(name):
    """Code, constants, defaults, closures, what is called and referred to: each tells apart."""
    one, other = OTHER[name]
    assert of(written(one)) == of(written(one))
    assert of(written(one))[0] != of(written(other))[0]


SAME = {
    "name": ("def f(x): return -x * x", "def g(y):\n  return -y * y\nf = g"),
    "docstring": ("def f(x):\n  'one'\n  return x", "def f(x):\n  # here\n\n  'two'\n  return x"),
    "annotation": ("def f(x): return x", "def f(x: float) -> float: return x"),
    "count of its calls": (
        "n = 0\ndef f(x):\n  global n\n  n += 1\n  return x",
        "n = 7\ndef f(x):\n  global n\n  n += 1\n  return x",
    ),
    "recursion": ("def f(x, n=3): return f(x, n - 1) if n else x",) * 2,
    "set": ("f = lambda p: [p[k] for k in p if k in {'b', 'a', 'c'}]",) * 2,
}


@pytest.mark.parametrize("name", SAME)
def test_where_and_how_it_is_written_is_not(name):
    """Names of functions and variables, lines, docstrings and comments are left out."""
    one, other = SAME[name]
    assert of(written(one)) == of(written(other))


def test_helpers_in_a_module_of_ones_own_are_read():
    """`import helpers; helpers.g(x)` follows g, and nothing else of the module."""
    module = type(np)
    made = []
    for sign, other in ((1, 1), (1, 2), (-1, 1)):
        helpers = module("helpers")
        exec(f"def g(x): return {sign} * x\nOTHER = {other}", helpers.__dict__)
        made.append(of(written("def f(x): return helpers.g(x)", helpers=helpers)))
    assert made[0] == made[1] != made[2]


def test_an_activation_inside_a_model_is_read():
    """relu and tanh two partials deep in a network's likelihood."""
    targets = [mlp((2, 3, 2), activation=a).posterior(5) for a in ("relu", "tanh", "relu")]
    one, other, again = (of_kernel(sgmcmc.sgld(t, 0.1)) for t in targets)
    assert one == again
    assert one["log_likelihood"] != other["log_likelihood"]
    assert one["kernel"] == other["kernel"]


def double(params):
    return 2 * params["w"]


def triple(params):
    return 3 * params["w"]


def scaled(scale, params, batch):
    return -0.5 * scale * (batch @ params["w"] + params["b"] - 1.0) ** 2


REDUCERS = {"m": reducers.mean(double)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A short run that collects and reduces, on disk, and the run itself."""
    run = sgmcmc.sample(
        jax.random.key(0), KERNEL, PROBLEM.start, PROBLEM.data, batch_size=6, num_chains=2,
        num_burnin=1, num_samples=3, collect=double, reducers=REDUCERS, progress=False,
    )  # fmt: skip
    return run, run.save(tmp_path_factory.mktemp("saved") / "run")


RIGHT = {"kernel": KERNEL, "data": PROBLEM.data, "collect": double, "reducers": REDUCERS}
WRONG = {
    "other numbers": ({"data": PROBLEM.data + 100}, "data: leaf .* has other numbers"),
    "permuted rows": ({"data": PROBLEM.data[::-1]}, "data: leaf .* has other numbers"),
    "one number": ({"data": np.where(PROBLEM.data == PROBLEM.data[7, 1], 0, PROBLEM.data)}, "data: "),
    "no collect": ({"collect": True}, r"collect: .*it had double, got True"),
    "collect of another": ({"collect": lambda p: 3 * p["w"]}, "collect: not the one"),
    "collect=False": ({"collect": False}, r"collect: .*it had double, got False"),
    "no reducer": ({"reducers": None}, r"reducers: m .*it had Mean, got none"),
    "another name": ({"reducers": {"n": REDUCERS["m"]}}, "reducers: m is not"),
    "reducer of another": ({"reducers": {"m": reducers.mean(triple)}}, "reducers: m is not"),
    "another likelihood": (
        {"kernel": sgmcmc.sgld(Posterior(Partial(scaled, 2.0), lambda p: 0.0, data_size=24), 0.01)},
        "kernel: its log_likelihood.*; kernel: its log_prior",
    ),
    "another step": ({"kernel": sgmcmc.sgld(PROBLEM.posterior, 0.02)}, "kernel: its numbers"),
    "another stream": (
        {"stream": streams.cyclic()}, "stream: not the one.*it had reshuffled, got cyclic"),
    "no kernel": ({"kernel": None}, "kernel: got None"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_loaded_run_refuses_what_did_not_make_it(name, saved):
    """Whatever is given anew and differs is a ValueError, of its name, below 300 characters."""
    given, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        sgmcmc.load(saved[1]).resume(2, progress=False, **{**RIGHT, **given})
    assert len(str(caught.value)) < 300


def test_params_of_another_shape_are_named(tmp_path):
    """A loaded run goes on from its own parameters: others' shapes are refused by their leaf."""
    kernel = sgmcmc.sgld(Posterior.from_log_density(lambda p: -jnp.sum(p["w"] ** 2)), 0.1)
    options = {"num_chains": 2, "num_burnin": 0, "num_samples": 2, "progress": False}
    run = sgmcmc.sample(jax.random.key(0), kernel, {"w": jnp.zeros(2)}, **options)
    loaded = sgmcmc.load(run.save(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"params: leaf w is float32\[3\]; this run has .*\[2\]"):
        loaded.resume(2, kernel=kernel, params={"w": jnp.zeros(3)}, progress=False)


@pytest.mark.filterwarnings("error")
def test_the_right_ones_go_on_bit_for_bit(saved):
    """Equal data in other arrays, equal functions made anew: the straight run's bits."""
    run, path = saved
    target = Posterior(problems.log_likelihood, problems.log_prior, data_size=24)
    anew = {
        "kernel": sgmcmc.sgld(target, 0.01), "data": jnp.array(PROBLEM.data),
        "collect": lambda params: 2 * params["w"], "reducers": {"m": reducers.mean(double)},
    }  # fmt: skip
    longer = sgmcmc.load(path).resume(2, progress=False, **anew)
    assert_same_bits(longer, run.resume(2, progress=False))


def test_a_run_of_another_python_goes_on_with_a_warning(saved):
    """Bytecode of other versions is not compared: numbers and data are, and that is said."""
    loaded = sgmcmc.load(saved[1])
    loaded = dataclasses.replace(loaded, versions={**loaded.versions, "python": "3.99.1"})
    with pytest.warns(UserWarning, match=r"Python 3\.99\.1.*code cannot be compared"):
        loaded.resume(1, progress=False, **RIGHT)
    with pytest.raises(ValueError, match="data: leaf"):
        loaded.resume(1, progress=False, **{**RIGHT, "data": PROBLEM.data + 1})


def test_a_run_of_other_devices_chooses_its_method_anew(saved):
    """Saved on four devices under "auto", resumed on as many as there are: the same draws."""
    run, path = saved
    assert run.config["requested_chain_method"] == "auto"
    loaded = sgmcmc.load(path)
    there = {**loaded.config, "chain_method": "sharded_map", "num_devices": 4}
    longer = dataclasses.replace(loaded, config=there).resume(2, progress=False, **RIGHT)
    np.testing.assert_array_equal(longer.draws, run.resume(2, progress=False).draws)
    assert longer.config["num_devices"] == run.config["num_devices"]


def test_x64_at_one_end_only_is_named(saved):
    """A run made without x64 cannot go on under it, and it is not the kernel's fault."""
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match=r"jax_enable_x64: it was off .* on now"),
    ):
        sgmcmc.load(saved[1]).resume(1, progress=False, **RIGHT)


def even(order, key, counter, data_size, batch_size):
    key = jax.random.fold_in(key, counter)
    return streams.Rows(2 * jax.random.randint(key, (batch_size,), 0, data_size // 2))


def odd(order, key, counter, data_size, batch_size):
    key = jax.random.fold_in(key, counter)
    return streams.Rows(2 * jax.random.randint(key, (batch_size,), 0, data_size // 2) + 1)


def test_a_stream_of_ones_own_is_compared_by_what_it_does(tmp_path):
    """Its name may change and its rows may not; without it the message asks for it."""
    own, other = (streams.Stream("mine", rows, "independent") for rows in (even, odd))
    run = sgmcmc.sample(
        jax.random.key(0), KERNEL, PROBLEM.start, PROBLEM.data, batch_size=6, stream=own,
        num_chains=2, num_burnin=1, num_samples=3, progress=False,
    )  # fmt: skip
    loaded = sgmcmc.load(run.save(tmp_path / "run"))
    given = {"kernel": KERNEL, "data": PROBLEM.data, "progress": False}
    with pytest.raises(ValueError, match=r"stream: got None; .*'mine', one of your own"):
        loaded.resume(2, **given)
    with pytest.raises(ValueError, match="stream: not the one that made this run"):
        loaded.resume(2, stream=other, **given)
    longer = loaded.resume(2, stream=own._replace(name="renamed"), **given)
    np.testing.assert_array_equal(longer.draws["w"], run.resume(2, progress=False).draws["w"])


def test_a_home_is_expanded(saved, tmp_path, monkeypatch):
    """`save("~/x")` writes into the user's home, and `load` reads it there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    written_to = saved[0].save("~/deep/x")
    assert written_to == tmp_path / "deep" / "x"
    np.testing.assert_array_equal(sgmcmc.load("~/deep/x").draws, saved[0].draws)
