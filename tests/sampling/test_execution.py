"""Resuming, interruption and failure: what was drawn is kept, and the rest can follow."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import NonFiniteError, Posterior, reducers
from sgmcmc.kernels import AbstractKernel, Traits
from sgmcmc.loop._driver import watching
from sgmcmc.types import ClockState
from tests.compare import assert_same_bits

N = 9
DATA = {"x": np.sin(np.arange(N)).astype(np.float32), "y": np.cos(np.arange(N)).astype(np.float32)}
SEED = 2


def log_likelihood(params, batch):
    return -0.5 * (batch["y"] - batch["x"] * params["a"][0] - params["a"][1]) ** 2


def log_prior(params):
    return -0.5 * jnp.sum(params["a"] ** 2)


POSTERIOR = Posterior(log_likelihood, log_prior, data_size=N)
PARAMS = {"a": jnp.array([0.1, -0.2])}
BAOAB = sgmcmc.baoab(POSTERIOR, 0.05)


def run(kernel=BAOAB, num_samples=12, **options):
    options = {
        "batch_size": 2, "num_chains": 2, "num_burnin": 5, "thinning": 3, "chunk_steps": 4,
        "reducers": {"moments": reducers.covariance()}, "chain_method": "vmap",
        "progress": False, **options,
    }  # fmt: skip
    return sgmcmc.sample(
        jax.random.key(SEED), kernel, PARAMS, DATA, num_samples=num_samples, **options
    )


def ctrl_c_after(steps):
    """Press Ctrl-C as soon as so many steps are made."""

    def press(job):
        if job.steps >= steps:
            os.kill(os.getpid(), signal.SIGINT)

    return watching(press)


@pytest.mark.parametrize("steps", [1, 5, 6, 8, 9, 30])
def test_ctrl_c_keeps_the_draws_and_resumes(steps, tmp_path):
    """Ctrl-C ends a run in burn-in or amid a thinned draw; `resume()` completes it exactly."""
    straight = run()
    handler = signal.getsignal(signal.SIGINT)
    with ctrl_c_after(steps):
        broken = run(chunk_steps=2)
    assert signal.getsignal(signal.SIGINT) is handler
    assert broken.num_samples == max(0, (broken.num_steps - 5) // 3) < 12
    assert steps <= broken.num_steps <= steps + 3
    np.testing.assert_array_equal(broken.draws["a"], straight.draws["a"][:, : broken.num_samples])
    repr(broken)
    assert_same_bits(broken.resume(progress=False), straight)
    loaded = sgmcmc.load(broken.save(tmp_path / "run"))
    given = {"kernel": BAOAB, "data": DATA}
    again = loaded.resume(progress=False, reducers={"moments": reducers.covariance()}, **given)
    assert_same_bits(again, straight)


def test_a_finished_run_owes_nothing():
    """`resume()` without a number is for interrupted runs; a finished one says so."""
    with pytest.raises(ValueError, match="num_samples: this run has all its draws"):
        run().resume(progress=False)


@pytest.mark.integration
def test_ctrl_c_in_a_process_of_its_own(tmp_path):
    """A real SIGINT amid a run of its own process keeps the draws and exits cleanly."""
    script = tmp_path / "long.py"
    script.write_text(
        textwrap.dedent(
            """
            import jax, jax.numpy as jnp, sgmcmc, sys
            target = sgmcmc.Posterior.from_log_density(lambda t: -0.5 * jnp.sum(t ** 2))
            kernel = sgmcmc.sgld(target, 0.1)
            run = sgmcmc.sample(jax.random.key(0), kernel, jnp.zeros(2), num_burnin=10,
                                num_samples=2_000_000, thinning=10, num_chains=2)
            print("draws", run.num_samples)
            """
        )
    )
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    timer = threading.Timer(100, process.kill)
    timer.start()
    process.stderr.readline()  # the first line of progress: the run is under way
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    timer.cancel()
    assert process.returncode == 0, err
    word, count = out.split()
    assert word == "draws"
    assert 0 < int(count) < 2_000_000


def test_resume_checks_what_it_is_given(tmp_path):
    """After `load`, what is missing or differs is an error that names it."""
    path = run(num_samples=4).save(tmp_path / "run")
    loaded = sgmcmc.load(path)
    moments = {"moments": reducers.covariance()}
    given = {"kernel": BAOAB, "data": DATA, "reducers": moments, "progress": False}
    bad = [
        ({"kernel": None}, "kernel: got None"),
        ({"kernel": sgmcmc.baoab(POSTERIOR, 0.06)}, "kernel: its numbers"),
        ({"kernel": sgmcmc.obabo(POSTERIOR, 0.05)}, "kernel: its numbers"),
        ({"data": None}, "data: got None"),
        ({"data": {"x": DATA["x"][:4], "y": DATA["y"][:4]}}, "data_size=9"),
        ({"reducers": None}, "reducers: moments is not what made this run"),
        ({"collect": False}, "collect: not the one that made this run"),
        ({"collect": lambda p: p["a"][0]}, "collect: not the one that made this run"),
    ]
    for change, message in bad:
        with pytest.raises(ValueError, match=message):
            loaded.resume(2, **{**given, **change})
    other = sgmcmc.baoab(Posterior(other_likelihood, log_prior, data_size=N), 0.05)
    with pytest.raises(ValueError, match="kernel: its"):
        loaded.resume(2, **{**given, "kernel": other})
    with pytest.raises(ValueError, match="num_samples: got 0"):
        loaded.resume(0, **given)


def other_likelihood(params, batch):
    return log_likelihood(params, batch)


def test_resume_looks_at_the_memory_too(monkeypatch):
    """More draws than fit in half the free memory are refused before they are made."""
    made = run(num_samples=3)
    monkeypatch.setattr("sgmcmc.sampling._draws.free_memory", lambda: 10_000)
    with pytest.raises(MemoryError, match="bytes"):
        made.resume(1_000, progress=False)


# A target with an edge, beyond which U and its gradient are NaN. Some chains cross it.
def cliff(theta):
    return -0.5 * jnp.sum(theta**2) + jnp.where(theta[0] > 1.9, jnp.nan, 0.0) * theta[0]


CLIFF = sgmcmc.sgld(Posterior.from_log_density(cliff), 0.3)


def walk(**options):
    options = {
        "num_chains": 6, "num_burnin": 4, "num_samples": 15, "thinning": 2,
        "chain_method": "vmap", "progress": False, **options,
    }  # fmt: skip
    return sgmcmc.sample(jax.random.key(options.pop("seed", 3)), CLIFF, jnp.zeros(2), **options)


def first_failures(ignored):
    """{chain: first draw that is not finite}, where nothing was stopped."""
    bad = ~ignored.info.finite
    return {c: int(np.argmax(bad[c])) for c in range(len(bad)) if bad[c].any()}


@pytest.mark.parametrize("chain_method", ["vmap", "map"])
def test_stop_chain_lets_the_others_finish(chain_method):
    """A failed chain is NaN with weight 0 from there on; the others keep their bits."""
    ignored = walk(on_nonfinite="ignore", chain_method=chain_method)
    failures = first_failures(ignored)
    assert 0 < len(failures) < 6, "the test needs a seed with some failures"
    stopped = walk(
        on_nonfinite="stop_chain", chain_method=chain_method,
        reducers={"mean": reducers.mean(), "cov": reducers.covariance()},
    )  # fmt: skip
    assert set(stopped.stopped) == set(failures)
    for chain, step in stopped.stopped.items():
        # Step 4 + 2d + 1 is the one of draw d.
        assert (step - 4) // 2 == failures[chain]
    valid = np.array([failures.get(c, 15) for c in range(6)])
    for c, count in enumerate(valid):
        np.testing.assert_array_equal(stopped.draws[c, :count], ignored.draws[c, :count])
        assert np.isnan(stopped.draws[c, count:]).all()
        assert (stopped.weights[c, count:] == 0).all()
        assert (stopped.weights[c, :count] == 1).all()
        assert not stopped.info.finite[c, count:].any()
    kept = np.concatenate([stopped.draws[c, :count] for c, count in enumerate(valid)])
    np.testing.assert_allclose(stopped.reduced["mean"], kept.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        stopped.reduced["cov"][1], np.cov(kept.T, bias=True), rtol=1e-4, atol=1e-6
    )
    assert "stopped" in repr(stopped)
    assert all(f"chain {c} at step {s}" in repr(stopped) for c, s in stopped.stopped.items())


@pytest.mark.parametrize("chunk_steps", [1, 5, 1000])
def test_failures_do_not_depend_on_chunks(chunk_steps):
    """The step at which a chain failed, and what is blanked, are the same for every chunk."""
    one = walk(on_nonfinite="stop_chain", chunk_steps=7)
    other = walk(on_nonfinite="stop_chain", chunk_steps=chunk_steps)
    assert one.stopped == other.stopped
    np.testing.assert_array_equal(one.draws, other.draws)
    np.testing.assert_array_equal(one.weights, other.weights)


class Leap(AbstractKernel):
    """θ ← 1e20 θ, said to be finite: infinite after the second step."""

    posterior: ClassVar[None] = None
    clock: ClassVar[None] = None

    @property
    def traits(self):
        return Traits("leap", order=1, gradient_evaluations=0.0)

    def init(self, position, rng_key, data=None):
        return sgmcmc.State(position, (), (), (), ClockState(jnp.int32(0)))

    def draw(self, rng_key, state):
        return ()

    def drive(self, noise, state, batch):
        one, zero = jnp.ones(()), jnp.zeros(())
        position = 1e20 * state.position
        info = sgmcmc.Info(position, one, one, zero, zero, zero, jnp.array(True))
        return state._replace(position=position), info


@pytest.mark.parametrize("chunk_steps", [1, 2, 100])
def test_positions_that_overflow_are_caught_at_their_draw(chunk_steps):
    """What a kernel calls finite and is not is caught at the draw, wherever chunks end."""
    with pytest.raises(NonFiniteError) as caught:
        sgmcmc.sample(
            jax.random.key(SEED), Leap(), jnp.ones(2), num_chains=2, num_burnin=0, num_samples=4,
            thinning=4, chunk_steps=chunk_steps, chain_method="vmap", progress=False,
        )  # fmt: skip
    assert caught.value.run.stopped == {0: 3, 1: 3}


def test_raise_names_chain_and_step_and_carries_the_draws():
    """By default the first failure raises, and `.run` has what was drawn until then."""
    ignored = walk(on_nonfinite="ignore")
    with pytest.raises(NonFiniteError) as caught:
        walk(chunk_steps=1)
    run_so_far, stopped = caught.value.run, caught.value.run.stopped
    chain, step = min(stopped.items(), key=lambda item: item[1])
    assert f"chain {chain} is not finite from step {step} on" in str(caught.value)
    assert "step_size" in str(caught.value)
    assert run_so_far.num_steps == step + 1
    draws = run_so_far.num_samples
    assert draws == (step + 1 - 4) // 2
    others = [c for c in range(6) if c not in stopped]
    np.testing.assert_array_equal(run_so_far.draws[others], ignored.draws[others, :draws])
    assert isinstance(caught.value, FloatingPointError)


def test_all_chains_lost_is_an_error_under_stop_chain():
    """With nothing left to finish, stop_chain raises as well."""
    target = Posterior.from_log_density(lambda t: jnp.nan * jnp.sum(t))
    with pytest.raises(NonFiniteError, match="chain 0 is not finite from step 0 on"):
        sgmcmc.sample(
            jax.random.key(SEED),
            sgmcmc.sgld(target, 0.1),
            jnp.zeros(2),
            on_nonfinite="stop_chain",
            progress=False,
        )


def test_nan_data_is_an_error_that_says_where_to_look():
    """One NaN among the data stops the run at the first batch that has it."""
    data = {**DATA, "y": DATA["y"].copy()}
    data["y"][4] = np.nan
    with pytest.raises(NonFiniteError, match="NaN in the data") as caught:
        sgmcmc.sample(
            jax.random.key(SEED),
            BAOAB,
            PARAMS,
            data,
            batch_size=2,
            num_chains=2,
            progress=False,
        )
    # Every example comes once in the five batches of an epoch.
    assert all(step < 5 for step in caught.value.run.stopped.values())


def test_a_stopped_chain_stays_stopped_after_resume(tmp_path):
    """Resuming, in memory or from a file, goes on with the chains that are left."""
    straight = walk(on_nonfinite="stop_chain")
    first = walk(on_nonfinite="stop_chain", num_samples=9)
    for other in (first, sgmcmc.load(first.save(tmp_path / "run"))):
        longer = other.resume(6, kernel=CLIFF, progress=False)
        assert longer.stopped == straight.stopped
        np.testing.assert_array_equal(longer.draws, straight.draws)
        np.testing.assert_array_equal(longer.weights, straight.weights)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("burnt", [False, True])
def test_any_failure_on_the_way_keeps_the_draws(error, burnt, tmp_path):
    """Whatever breaks off a chunk, the draws made are in the error's `.run`, bit for bit.

    Where the failing chunk had not begun, the run can also be resumed; where it had taken
    the state with it, the draws can still be saved, and resuming says why it cannot.
    """
    straight = run(chunk_steps=4)

    def fails(job):
        if job.steps < 15:
            return
        if burnt:
            jax.tree.map(lambda x: x.delete(), job.carry)
        raise error("out of luck")

    with watching(fails), pytest.raises(error) as caught:
        run(chunk_steps=4)
    partial = caught.value.run
    assert "error's `.run`" in caught.value.__notes__[0]
    assert 0 < partial.num_samples < straight.num_samples
    made = slice(None), slice(0, partial.num_samples)
    np.testing.assert_array_equal(partial.draws["a"], straight.draws["a"][made])
    loaded = sgmcmc.load(partial.save(tmp_path / "part.npz"))
    np.testing.assert_array_equal(loaded.draws["a"], partial.draws["a"])
    assert loaded.num_steps == partial.num_steps
    if burnt:
        for broken in (partial, loaded):
            with pytest.raises(ValueError, match="broke off inside a chunk"):
                broken.resume(kernel=BAOAB, progress=False)
    else:
        assert_same_bits(partial.resume(progress=False), straight)


def test_a_failure_inside_a_chunk_keeps_the_draws():
    """An error of the compiled steps themselves comes with all of the chunks before it.

    Their draws, their reduced values, and the chains: what failed once can be tried again.
    """
    straight = run(chunk_steps=4, collect=True)
    allowed = []

    def check(value):
        allowed.append(None)
        if len(allowed) > 10:
            allowed.clear()
            raise RuntimeError("out of luck")
        return value

    def through_python(params):
        shape = jax.ShapeDtypeStruct(params["a"].shape, params["a"].dtype)
        kept = jax.pure_callback(check, shape, params["a"], vmap_method="sequential")
        return {"a": kept}

    with pytest.raises(Exception, match="out of luck") as caught:
        run(chunk_steps=4, collect=through_python)
    partial = caught.value.run
    assert 0 < partial.num_samples < straight.num_samples
    made = slice(None), slice(0, partial.num_samples)
    np.testing.assert_array_equal(partial.draws["a"], straight.draws["a"][made])
    mean = partial.draws["a"].mean(axis=(0, 1))
    np.testing.assert_allclose(partial.reduced["moments"][0], mean, rtol=1e-5)
    while partial.interrupted:
        before = partial.num_samples
        try:
            partial = partial.resume(progress=False)
        except Exception as error:
            partial = error.run
        assert partial.num_samples > before
    assert_same_bits(partial, straight)
