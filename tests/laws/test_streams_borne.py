"""What reasons about gradient noise, under the stream that it asks for, as users run it.

Runs are made by `sample` with its defaults and judged in both moments, a chain's mean being one of
many independent numbers: a false alarm in 10⁶ a comparison (5 standard errors of 256 chains).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import gradients, local, streams
from sgmcmc.diagnostics import stationary_law, sweeps
from sgmcmc.loop._start import placed
from sgmcmc.sampling._inputs import warn_of_places
from sgmcmc.streams import _source as source
from tests.laws import oracle

# U = Σ (x − m_i)²/12: N(0, 1), and gradients of one example have noise of variance 35/3.
CENTRES = np.array([-5.0, -3.0, -1.0, 1.0, 3.0, 5.0])
SIX = 35 / 3
# Orthogonal columns of ±1/2 that sum to 0: a batch of one pushes N(0, I) by noise of variance 16 I.
ROOT = np.array([[1.0, 1.0], [1.0, -1.0]])
COLUMNS = np.kron(np.kron(ROOT, ROOT), ROOT)[:, 1:] / 2


def _near(x, centres):
    return -((x[0] - centres) ** 2) / 12


def _flat(x):
    return 0.0 * jnp.sum(x)


def _pushed(x, rows):
    return rows @ x


def _standard(x):
    return -0.5 * jnp.sum(x**2)


def six():
    return sgmcmc.Posterior(_near, _flat, data_size=6)


def seven():
    return sgmcmc.Posterior(_pushed, _standard, data_size=8)


def run(kernel, start, data, *, time, h, **options):
    """256 chains; 50 draws each over `time` units, after a third of it."""
    thinning = max(1, round(time / h / 50))
    given = {
        "batch_size": 1, "num_chains": 256, "num_burnin": 17 * thinning, "num_samples": 50,
        "thinning": thinning, "chain_method": "vmap", "progress": False,
    }  # fmt: skip
    return sgmcmc.sample(jax.random.key(3), kernel, start, data, **given | options)


def check_moments(draws, variance, bias=0.0, precision=0.1):
    """E x and E x² over all coordinates are 0 and `variance`, within 5 errors and a `bias`."""
    for values, wanted in ((draws, 0.0), (draws**2 / variance, 1.0)):
        by_chain = values.reshape(len(draws), -1).mean(axis=1)
        error = by_chain.std(ddof=1) / np.sqrt(len(by_chain))
        assert 5 * error < precision
        assert abs(by_chain.mean() - wanted) < 5 * error + bias


def dispersed():
    """Starts of 256 chains in seven dimensions."""
    return jax.random.normal(jax.random.key(0), (256, 7))


def test_known_noise_is_taken_off_of_independent_batches():
    """Exact laws: with replacement 1.0028, as without noise; over sweeps .7185, so those go."""
    posterior = six()
    parts = [sgmcmc.Batch(jnp.asarray(CENTRES[i : i + 1])) for i in range(6)]
    kernel = sgmcmc.sghmc(posterior, 0.1, friction=2.0, noise_estimate=SIX)

    def variance(stream):
        law = stationary_law(kernel, jnp.zeros(1), parts, epochs=sweeps(stream, 6))
        np.testing.assert_allclose(law.mean, 0.0, atol=1e-9)
        return law.covariance[0, 0]

    exact = oracle.moments("sghmc", 0.1, gamma=2.0)[0]
    np.testing.assert_allclose(variance("with_replacement"), exact, rtol=1e-6)
    np.testing.assert_allclose(variance("reshuffled"), 0.7185, atol=5e-3)
    for stream in ("reshuffled", "symmetric", "cyclic"):
        with pytest.raises(ValueError, match=f'stream: got "{stream}" with sghmc'):
            run(kernel, jnp.zeros(1), CENTRES, time=10, h=0.1, stream=stream)


def test_sghmc_less_the_noise_that_it_finds():
    """By default both moments are right; V̂ found from differences is V (1 + h²) + h²/2."""
    running = gradients.running_variance()
    kernel = sgmcmc.sghmc(six(), 0.1, friction=2.0, noise_estimate=running)
    made = run(kernel, jnp.zeros(1), CENTRES, time=50, h=0.1, num_chains=1024)
    assert made.config["stream"] == "with_replacement"
    check_moments(made.draws, oracle.moments("sghmc", 0.1, gamma=2.0)[0], bias=0.005)


@pytest.mark.parametrize("step_size", [0.1, None])
def test_the_thermostat_by_default(step_size):
    """N(0, I) whatever the noise, at a given step and at the one that is chosen."""
    kernel = sgmcmc.sgnht(seven(), step_size)
    made = run(kernel, dispersed(), COLUMNS, time=30, h=0.1 if step_size else 0.006)
    assert made.config["stream"] == "with_replacement"
    check_moments(made.draws, 1.0, bias=0.005, precision=0.05)


def wrapped(make):
    """A kernel by itself, and inside those that hand its batches on."""
    inner = make(seven())
    entropy = local.local_entropy(inner, 1.0, num_steps=3)
    return {
        "alone": inner,
        "replicas": sgmcmc.replica_exchange(inner, (1.0, 2.0), swap_every=3),
        "gibbs": local.gibbs_posterior(entropy, 0.1),
    }


NOISY = {
    "sgnht": lambda target: sgmcmc.sgnht(target, 0.1),
    "known": lambda target: sgmcmc.sghmc(target, 0.1, noise_estimate=1.0),
    "running": lambda target: sgmcmc.sghmc(
        target, 0.1, noise_estimate=gradients.running_variance()
    ),
}


def place(kernel, data=COLUMNS, **options):
    """A step, for what `sample` says before."""
    return sgmcmc.sample(
        jax.random.key(0), kernel, jnp.zeros(7), data, num_chains=1, num_burnin=0, num_samples=1,
        progress=False, **options,
    )  # fmt: skip


def stream_of(kernel, stream=None):
    """The stream that a run would have."""
    start = placed(jax.random.key(0), kernel, jnp.zeros(7), COLUMNS, 2, stream, 1)
    return start.stream


def own_sweep(order, key, counter, data_size, batch_size):
    return streams.reshuffled().rows(order, key, counter, data_size, batch_size)


@pytest.mark.parametrize("name", NOISY)
def test_sweeps_are_refused_by_their_law(name):
    """Every stream that sweeps, under any name, by every door; all that it bears is taken."""
    mine = streams.reshuffled()._replace(name="mine", rows=own_sweep)
    for kernel in wrapped(NOISY[name]).values():
        for stream in ("reshuffled", "symmetric", "cyclic", mine):
            with pytest.raises(ValueError, match=r'stream: got .*"with_replacement"') as caught:
                place(kernel, batch_size=2, stream=stream)
            assert len(str(caught.value)) < 300
            with pytest.raises(ValueError, match="stream: got"):
                sgmcmc.to_blackjax(kernel, COLUMNS, batch_size=2, stream=stream)
            with pytest.raises(ValueError, match="stream: got"):
                sgmcmc.loop.chains(
                    jax.random.key(0), kernel, jnp.zeros(7), COLUMNS, batch_size=2, stream=stream
                )
        for given in (None, "with_replacement"):
            assert stream_of(kernel, given).law == "independent"


def test_the_default_of_other_kernels_is_reshuffled():
    """Also of a V̂ that is 0, which takes nothing off; SAGA asks for independent batches."""
    target = seven()
    default = {
        "reshuffled": [
            sgmcmc.sghmc(target, 0.1), sgmcmc.sghmc(target, 0.1, noise_estimate=0.0),
            sgmcmc.replica_exchange(sgmcmc.baoab(target, 0.1), (1.0, 2.0), swap_every=2),
        ],
        "with_replacement": [sgmcmc.sgld(target, 0.1, gradient=gradients.saga())],
    }  # fmt: skip
    for stream, kernels in default.items():
        for kernel in kernels:
            assert stream_of(kernel).name == stream


def test_all_data_have_no_noise_to_be_taken_off():
    """A known V̂ > 0 is refused there, and an estimate finds next to nothing."""
    known = sgmcmc.sghmc(seven(), 0.1, noise_estimate=1.0)
    entropy = local.local_entropy(known, 1.0, num_steps=3)
    for kernel in (known, local.gibbs_posterior(entropy, 0.1)):
        for options in ({}, {"stream": "full"}):
            with pytest.raises(ValueError, match=r"batch_size: got all 8 .*sghmc") as caught:
                place(kernel, **options)
            assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="gradient: got full, which has no noise"):
        sgmcmc.sghmc(seven(), 0.1, noise_estimate=1.0, gradient=gradients.full())
    # Noise of the target's own, of which nobody but the user knows.
    free = sgmcmc.sghmc(sgmcmc.Posterior.from_log_density(_standard), 0.1, noise_estimate=1.0)
    place(free, None)
    made = run(NOISY["running"](seven()), dispersed(), COLUMNS, time=20, h=0.1, batch_size=None)
    check_moments(made.draws, 1.0, bias=0.01)


# --- several batches a step -----------------------------------------------------------------


def pulled(num_steps):
    """About the mean of six centres: exp(βF/T) at T near 0, whose steps are deterministic."""
    inner = sgmcmc.sgld(six(), 0.3, temperature=1e-24)
    entropy = local.local_entropy(inner, 2.0, num_steps=num_steps, averaging=0.5)
    return local.gibbs_posterior(entropy, 0.3)


def cold_replicas(swap_every):
    inner = sgmcmc.sgld(six(), 0.3)
    return sgmcmc.replica_exchange(inner, (1e-24, 2e-24), swap_every=swap_every)


def two_kicks(_):
    return sgmcmc.langevin(
        six(), 0.3, word="BAOAB", reuse_gradient=False, batches_per_step=2, temperature=0.0,
        friction=5.0,
    )  # fmt: skip


def in_turn(kernel, batch_size=1, **options):
    """Draws of one chain, over the last of many whole turns of the batches."""
    made = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.ones(1), CENTRES + 1.5, batch_size=batch_size,
        stream="cyclic", num_chains=1, num_burnin=240, progress=False, **options,
    )  # fmt: skip
    return made.draws[0, :, 0]


@pytest.mark.parametrize(
    ("make", "right", "wrong"), [(pulled, 5, (2, 6)), (cold_replicas, 5, (3, 6))]
)
def test_a_fixed_order_and_several_batches_a_step(make, right, wrong):
    """K = 6 batches of different means in turn, L a step: without a common factor each place sees
    all of them, and the average over K steps is the mode to rounding; with one it is refused.
    """
    np.testing.assert_allclose(in_turn(make(right), num_samples=6).mean(), 1.5, atol=1e-9)
    for num_steps in wrong:
        with pytest.raises(ValueError, match=rf"stream: got .*takes {num_steps} a step") as caught:
            in_turn(make(num_steps), num_samples=6)
        assert len(str(caught.value)) < 300


def test_two_kicks_a_step_in_a_fixed_order():
    """Two batches a step: three in turn (n = 2) are right, six are refused."""
    kernel = two_kicks(None)
    np.testing.assert_allclose(in_turn(kernel, 2, num_samples=3).mean(), 1.5, atol=1e-9)
    with pytest.raises(ValueError, match="takes 2 a step: by the common factor 2"):
        in_turn(kernel, num_samples=6)


# --- replicas -------------------------------------------------------------------------------


def one_of(stream, size, examples):
    """Step 7's batches of 8 examples: two of the stream, and so many examples apart."""
    given = source.Source(stream, size, jnp.arange(8.0), 3, False, examples)
    key, t = jax.random.key(5), jnp.asarray(7)
    order = streams.order_at(stream, key, 2 * t, 8, size)
    return key, t, source.next_batch(given, key, t, order, source.no_vmap)[1]


@pytest.mark.parametrize("stream", [streams.reshuffled(), streams.cyclic(), streams.symmetric()])
@pytest.mark.parametrize("size", [3])
def test_batches_apart_take_no_turn_of_the_stream(stream, size):
    """Two batches of the stream in turn, and two that neither change them nor are theirs."""
    key, t, batch = one_of(stream, size, 2 * size)
    for i in range(2):
        rows = streams.rows_at(stream, key, 2 * t + i, 8, size)
        np.testing.assert_array_equal(batch.index[i], rows.index)
        if rows.mask is not None:
            np.testing.assert_array_equal(batch.mask[i], rows.mask)
        if rows.share is not None:
            np.testing.assert_allclose(batch.share[i], rows.share)
    for i in range(2):
        own = jax.random.fold_in(jax.random.fold_in(key, source.APART), i)
        apart = streams.rows_at(streams.with_replacement(), own, t, 8, size).index
        np.testing.assert_array_equal(batch.index[2 + i], apart)
    assert batch.index.shape == (4, size)
    assert batch.mask is None or bool(batch.mask[2:].all())
    assert batch.share is None or np.all(np.asarray(batch.share[2:]) == 1)
    np.testing.assert_array_equal(batch.data, batch.index.astype(float))


@pytest.mark.parametrize(("size", "count"), [(3, 3), (4, 2), (11, 1)])
def test_batches_apart_with_room_for_all_the_data_hold_them(size, count):
    """32 examples of 8: each once, so that energies are exact; what is left over is masked."""
    _, _, batch = one_of(streams.with_replacement(), size, 32)
    index = np.asarray(batch.index[2:])
    mask = np.ones(index.shape, bool) if batch.mask is None else np.asarray(batch.mask[2:])
    assert sorted(index[mask]) == list(range(8))
    assert len(index) == count
    target = seven()
    kernel = sgmcmc.replica_exchange(sgmcmc.sgld(target, 0.1), (1.0, 2.0), swap_every=2)
    positions = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7)))
    batch = batch._replace(data=jnp.asarray(COLUMNS)[batch.index])
    measured = kernel.measure(positions, kernel._swap_batch(batch))
    direct = [target.potential(x, sgmcmc.Batch(jnp.asarray(COLUMNS))) for x in positions]
    np.testing.assert_allclose(measured.energies, direct, rtol=1e-9)
    assert np.all(np.asarray(measured.noise.variance) == 0)


def test_the_variance_of_energies_is_that_of_the_batches_they_come_from():
    """Over all batches of 3 of 8 that the loop draws, the estimate's mean is the true variance."""
    kernel = sgmcmc.replica_exchange(sgmcmc.sgld(seven(), 0.1), (1.0, 2.0), swap_every=1)
    positions = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7)))
    index = jnp.asarray(list(itertools.product(range(8), repeat=3)))
    rows = jnp.asarray(COLUMNS)[index]
    found = jax.vmap(lambda rows, index: kernel.measure(positions, sgmcmc.Batch(rows, index)))(
        rows, index
    )
    true = np.var(found.differences[:, 0])
    np.testing.assert_allclose(np.mean(found.noise.variance), true, rtol=1e-10)


def test_replicas_under_sweeps_are_no_hotter_than_promised():
    """step_size=None: heat of 5% at most, and energies whose noise knows nothing of the position.

    Of (Ũ − |x|²/2), the noise of the swap's batch at the position recorded, the mean is 0: of a
    batch of the sweep it would be −⟨x·ε⟩, many standard errors.
    """
    many = sgmcmc.Posterior(_pushed, _standard, data_size=64)
    kernel = sgmcmc.replica_exchange(sgmcmc.baoab(many, None), (1.0, 2.0), swap_every=5)
    # Batches of 16 of 64, whose noise has variance 16 (64 − 16)/63; energies from 32.
    rows = np.tile(COLUMNS, (8, 1)) / 2
    made = run(kernel, dispersed(), rows, time=25, h=0.5, batch_size=16)
    assert made.config["stream"] == "reshuffled"
    check_moments(made.draws, 1.0, bias=0.05, precision=0.06)
    noise = made.info.energy - np.sum(np.square(made.draws), axis=-1) / 2
    error = noise.mean(axis=1).std(ddof=1) / np.sqrt(256)
    assert abs(noise.mean()) < 5 * error < 1.0


# --- places of a sweep ------------------------------------------------------------------------


@pytest.mark.parametrize(("thinning", "coprime"), [(2, 5), (3, 5), (6, 7), (9, 11)])
def test_a_thinning_that_sees_some_places_of_a_sweep_is_warned_of(thinning, coprime):
    """Draws at each sixth of cyclic steps are off by their place; the thinning named is right."""
    kernel = sgmcmc.sgld(six(), 0.3, temperature=0.0)
    with pytest.warns(UserWarning, match=f"thinning: got {thinning} .* such as {coprime},") as seen:
        off = in_turn(kernel, num_samples=6, thinning=thinning)
    assert len(seen) == 1
    assert len(str(seen[0].message)) < 300
    assert seen[0].filename == __file__
    assert abs(off.mean() - 1.5) > 0.05
    right = in_turn(kernel, num_samples=6, thinning=coprime)
    np.testing.assert_allclose(right.mean(), 1.5, atol=1e-9)


def test_other_thinnings_are_not_warned_of():
    """Random orders have the right mean at every place, and exact kernels the right law."""
    target = six()
    kernels = {
        "reshuffled": sgmcmc.sgld(target, 0.1),
        "symmetric": sgmcmc.sgld(target, 0.1),
        "cyclic": sgmcmc.amagold(target, 0.1, 1),
    }
    for stream, kernel in kernels.items():
        warn_of_places(streams.from_name(stream), kernel.traits, (6, 1), 6)
