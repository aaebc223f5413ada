"""What Metropolis-corrected kernels owe: the contract, the counts, and errors that say why."""

# ruff: noqa: E501 (a table, a row a line)

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import gradients
from sgmcmc.exact._base import BlockNoise
from sgmcmc.types import Batch, Blocks

N = 12
DATA = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
START = {"b": jnp.zeros(()), "w": jnp.ones(2)}


def _log_likelihood(params, batch):
    return -0.5 * (batch @ params["w"] + params["b"] - 1.0) ** 2


def _log_prior(params):
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


POSTERIOR = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=N)
FREE = sgmcmc.Posterior.from_log_density(_log_prior)
CORRECTED = {"amagold": sgmcmc.amagold, "sggmc": sgmcmc.sggmc}
FULL = {
    "mala": lambda h: sgmcmc.mala(POSTERIOR, h),
    "hmc": lambda h: sgmcmc.hmc(POSTERIOR, h, 3),
}


def make(name, step_size=0.2):
    if name in FULL:
        pytest.importorskip("blackjax")
        return FULL[name](step_size)
    return CORRECTED[name](POSTERIOR, step_size, 3)


def run(kernel, **options):
    batch = {} if kernel.traits.name in FULL else {"batch_size": 4}
    arguments = {"num_chains": 3, "num_burnin": 5, "num_samples": 12, "progress": False}
    return sgmcmc.sample(
        jax.random.key(1), kernel, START, DATA, **{**batch, **arguments, **options}
    )


def flat(draws):
    return np.concatenate([np.reshape(x, (*x.shape[:2], -1)) for x in draws.values()], axis=-1)


@pytest.mark.parametrize("name", ["amagold", "mala"])
def test_numbers_share_a_trace_and_data_are_arguments(name):
    """Another step size compiles nothing anew; a step closes over no array of the data's size."""
    compiled = []

    def listen(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    kernel, others = make(name), [make(name, 0.1), make(name, 0.05)]
    run(kernel)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for other in others:
            run(other)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled
    data = jnp.asarray(DATA)
    state = kernel.init(START, jax.random.key(0), data)
    key = jax.random.key(1)
    traced = jax.make_jaxpr(lambda data: kernel.step(key, state, Blocks(None, data))[1].energy)(
        data
    )
    assert all(np.size(x) < DATA.size for x in traced.consts)


@pytest.mark.parametrize("name", CORRECTED)
def test_info_and_the_costs(name):
    """Energies are those of all data at the draws; gradients and energies are counted."""
    made = run(make(name), chain_method="vmap")
    energies = jax.vmap(jax.vmap(lambda p: -POSTERIOR.log_density(p, DATA)))(made.draws)
    np.testing.assert_allclose(made.info.energy, energies, rtol=1e-5)
    assert np.all((made.info.acceptance >= 0) & (made.info.acceptance <= 1))
    np.testing.assert_allclose(made.info.time, 3 * 0.2, rtol=1e-6)
    np.testing.assert_array_equal(made.weights, 1)
    gradients_a_block = {"amagold": 3, "sggmc": 6}[name]
    # One energy of all data a block: 12/4 batches without the backward pass, a third each.
    np.testing.assert_allclose(made.gradient_evaluations, 3 * 17 * (gradients_a_block + 1))


@pytest.mark.parametrize("name", CORRECTED)
def test_a_proposal_that_is_not_finite_is_refused(name):
    """At h = 1e20 every block overflows: acceptance 0, position kept, momentum turned, no failure."""
    kernel = CORRECTED[name](POSTERIOR, 1e20, 3)
    data = jnp.asarray(DATA)
    state = eqx.filter_jit(kernel.init)(START, jax.random.key(0), data)
    after, info = eqx.filter_jit(kernel.step)(jax.random.key(1), state, Blocks(None, data))
    assert info.acceptance == 0
    assert info.finite
    jax.tree.map(np.testing.assert_array_equal, after.position, state.position)
    jax.tree.map(lambda r, s: np.testing.assert_array_equal(r, -s), after.momentum, state.momentum)
    assert after.extra == state.extra
    made = run(kernel)
    assert not made.stopped
    np.testing.assert_array_equal(made.info.acceptance, 0)
    np.testing.assert_array_equal(made.draws["w"], 1)


@pytest.mark.parametrize("name", CORRECTED)
def test_drive_is_deterministic_and_vmaps(name):
    """The uniform is part of the noise; chains by `vmap` with data unmapped are those of a loop."""
    kernel, data = make(name), jnp.asarray(DATA)
    keys = [jax.random.key(seed) for seed in range(4)]
    states = [kernel.init(START, key, data) for key in keys[:2]]
    noises = [kernel.draw(key, state) for key, state in zip(keys[2:], states, strict=True)]
    assert isinstance(noises[0], BlockNoise)
    batches = [Batch(data[first : first + 12].reshape(3, 4, 2)) for first in (0, 0)]
    drive = eqx.filter_jit(kernel.drive)
    one_by_one = [
        drive(noise, state, Blocks(batch, data))[0]
        for noise, state, batch in zip(noises, states, batches, strict=True)
    ]
    stack = lambda *trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
    over_chains = jax.vmap(lambda *given: kernel.drive(*given), (0, 0, Blocks(0, None)))
    together, _ = jax.jit(over_chains)(
        stack(*noises), stack(*states), Blocks(stack(*batches), data)
    )
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, together, stack(*one_by_one))


@pytest.mark.parametrize("name", [*CORRECTED, *FULL])
def test_bound_for_other_loops(name):
    """`bind` gives the kernel its batches and all data; the acceptance is reported."""
    kernel = make(name)
    asked = {} if name in FULL else {"batch_size": 4, "stream": "with_replacement"}
    algorithm = sgmcmc.to_blackjax(kernel, DATA, **asked)
    state = algorithm.init(START, jax.random.key(0))
    step = jax.jit(algorithm.step)
    for t in range(5):
        state, info = step(jax.random.key(t + 1), state)
        assert 0 <= info.acceptance <= 1
    np.testing.assert_allclose(info.energy, -POSTERIOR.log_density(state.position, DATA), rtol=1e-5)


def test_without_data_blocks_use_the_gradient_itself():
    """Targets without data take no batch; bfloat16 parameters stay so."""
    start = jax.tree.map(lambda x: x.astype(jnp.bfloat16), START)
    for sampler in CORRECTED.values():
        made = sgmcmc.sample(
            jax.random.key(0), sampler(FREE, 0.3, 2), start, num_burnin=2, num_samples=3,
            progress=False,
        )  # fmt: skip
        assert made.draws["w"].dtype == jnp.bfloat16
        assert made.info.energy.dtype == np.float32
        assert made.info.acceptance.mean() > 0.5


def test_several_batches_of_all_data():
    """batches_per_step > 1 under `full`: each of the batches is all the data."""
    one, two = (
        sgmcmc.langevin(POSTERIOR, 0.05, word="OBABO", reuse_gradient=False, batches_per_step=parts)
        for parts in (1, 2)
    )
    options = {"batch_size": None, "chain_method": "vmap"}
    np.testing.assert_allclose(
        flat(run(one, **options).draws), flat(run(two, **options).draws), rtol=1e-4, atol=1e-5
    )


def amagold(num_steps=2, **options):
    return sgmcmc.amagold(POSTERIOR, 0.1, num_steps, **options)


def sample(kernel, data=DATA, **options):
    return lambda: sgmcmc.sample(
        jax.random.key(0), kernel, START, data, num_burnin=1, num_samples=1, progress=False,
        **options,
    )  # fmt: skip


V, T = ValueError, TypeError
ROWS = {
    "steps 0": (lambda: amagold(0), V, "num_steps: got 0; allowed: at least 1"),
    "steps 1.5": (lambda: sgmcmc.sggmc(POSTERIOR, 0.1, 1.5), T, "num_steps: got 1.5; expected an"),
    "block size": (lambda: amagold(block_size=0), V, "block_size: got 0; allowed: at least 1"),
    "fast": (lambda: amagold(noise="fast"), V, "noise: got 'fast'; allowed: 'gaussian', since the"),
    "fast sggmc": (
        lambda: sgmcmc.sggmc(POSTERIOR, 0.1, 2, noise="fast"), V, "noise: got 'fast'.*exact"),
    "svrg": (
        lambda: amagold(gradient=gradients.svrg(5)), V, "gradient: got svrg, which remembers"),
    "saga": (
        lambda: amagold(gradient=gradients.saga()), V, "gradient: got saga.*allowed: minibatch"),
    "posterior": (lambda: sgmcmc.amagold(_log_prior, 0.1, 2), T, "posterior: got function"),
    "step size": (lambda: sgmcmc.sggmc(POSTERIOR, -0.1, 2), V, "step_size: got -0.1"),
    "T 0": (lambda: amagold(temperature=0.0), V, "temperature: got 0.0; expected .* > 0"),
    "no data": (sample(amagold(), None), V, "data: got None; this posterior has a likelihood"),
    "no data at init": (
        lambda: amagold().init(START, jax.random.key(0)), V, "data: got None; this posterior"),
    "cyclic": (
        sample(amagold(), batch_size=4, stream="cyclic"), V, 'stream: got "cyclic" with num_steps=2'),
    "reshuffled": (
        sample(amagold(), batch_size=4), V, 'stream: got "reshuffled".*divides the epoch\'s K = 3'),
    "short batch": (
        sample(amagold(3), batch_size=5, stream=sgmcmc.streams.reshuffled()._replace(even=False)),
        V, "Allowed: .*a batch_size that divides the 12 examples"),
    "symmetric": (
        sample(amagold(3), batch_size=4, stream="symmetric"), V, "multiple of the epoch's 2K = 6"),
    "own stream": (
        sample(amagold(3), batch_size=4, stream=sgmcmc.streams.reshuffled()._replace(
            name="mine", law="fixed",
            rows=lambda *given: sgmcmc.streams.cyclic().rows(*given))),
        V, 'stream: got "mine"'),
    "bound": (lambda: sgmcmc.to_blackjax(amagold(), DATA, batch_size=4), V, 'stream: got "reshuffled"'),
    "plain batch": (
        lambda: amagold().step(jax.random.key(0), amagold().init(START, jax.random.key(1), DATA),
                               DATA[:4]),
        V, "data: amagold evaluates the energy of all data; expected .*Blocks"),
    "too few batches": (
        lambda: amagold().step(
            jax.random.key(0), amagold().init(START, jax.random.key(1), DATA),
            Blocks(Batch(jnp.asarray(DATA[None, :4])), jnp.asarray(DATA))),
        V, "batches: expected a leading axis of num_steps = 2"),
    "mala T": (lambda: sgmcmc.mala(POSTERIOR, 0.1, temperature=0.0), V, "temperature: got 0.0"),
    "hmc steps": (lambda: sgmcmc.hmc(POSTERIOR, 0.1, 0), V, "num_steps: got 0"),
    "mala batch": (
        lambda: sample(sgmcmc.mala(POSTERIOR, 0.1), batch_size=4)(), V, "batch_size: got 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_bad_input(name):
    """The message names the argument, what was given and what is allowed."""
    if name.startswith(("mala", "hmc")):
        pytest.importorskip("blackjax")
    make, error, message = ROWS[name]
    with pytest.raises(error, match=message):
        make()


def test_the_extra_is_named(monkeypatch):
    """Without BlackJAX the error says which extra to install."""
    monkeypatch.setitem(sys.modules, "blackjax", None)
    for build in FULL.values():
        with pytest.raises(ImportError, match=r"pip install 'sgmcmc\[blackjax\]'"):
            build(0.1)


def _drawn_by_hand(order, key, counter, data_size, batch_size):
    return sgmcmc.streams.with_replacement().rows(order, key, counter, data_size, batch_size)


def test_a_stream_of_ones_own_is_known_by_its_law():
    """Independent batches under another name and function: borne by blocks, of any size, by SAGA."""
    own = sgmcmc.streams.Stream("mine", _drawn_by_hand, "independent")
    theirs = sgmcmc.streams.with_replacement()
    saga = sgmcmc.sgld(POSTERIOR, 0.01, gradient=sgmcmc.gradients.saga())
    for kernel, size in ((amagold(3), 5), (amagold(3), 30), (saga, 5)):
        runs = [sample(kernel, batch_size=size, stream=stream)() for stream in (own, theirs)]
        one, other = (np.concatenate(jax.tree.leaves(run.draws), axis=None) for run in runs)
        np.testing.assert_array_equal(one, other)
    renamed = sgmcmc.streams.reshuffled()._replace(name="mine")
    with pytest.raises(ValueError, match="remembers the examples"):
        sample(saga, batch_size=4, stream=renamed)()


def test_an_estimator_that_remembers_is_refused():
    """A running mean, as SVRG's snapshot and SAGA's table, makes blocks irreversible."""
    for gradient in (
        sgmcmc.gradients.averaged(0.99), sgmcmc.gradients.svrg(3), sgmcmc.gradients.saga(),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="remembers where the chain has been"):
            sgmcmc.amagold(POSTERIOR, 0.1, 2, gradient=gradient)
