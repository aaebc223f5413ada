"""Replica exchange: its swap rule by quadrature, its swaps' invariance, and F23 by running it.

The invariance tests start 100,000 pairs from their exact law and make one step; every moment
must be what it was within 5 standard errors (false alarms of a test: below 1e-5). Those of F23
run 1,500 pairs; the tolerance is the row's own, ±.01, at more than 4 standard errors.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import sgmcmc
from sgmcmc.kernels import _replica_exchange as replicas
from sgmcmc.kernels import _swaps as swaps
from sgmcmc.kernels._replica_exchange import ReplicaExchange
from tests.laws import samplers

COLD, HOT = 1.0, 6.0


# --- the rule -----------------------------------------------------------------------------


@jax.jit
def _rule(x, noise):
    return swaps.swap_probability(jnp.ones(()), x, noise)


def acceptance(mu, deviation, noise=None):
    """E of the library's swap probability over energies with Gaussian noise, by quadrature."""
    noise = swaps.Noise(jnp.asarray(deviation**2)) if noise is None else noise
    # The rule has a kink; each side of it is smooth.
    kink = float(swaps.penalty(noise.variance, noise.dof))
    nodes, weights = np.polynomial.legendre.leggauss(200)
    total = 0.0
    for low, high in ((mu - 12 * deviation, kink), (kink, mu + 12 * deviation)):
        if high > low:
            x = (high - low) / 2 * nodes + (high + low) / 2
            density = stats.norm.pdf(x, mu, deviation)
            total += (high - low) / 2 * np.sum(weights * density * np.asarray(_rule(x, noise)))
    return total


@pytest.mark.parametrize("mu", [0.0, 0.3, 0.7, 3.0])
@pytest.mark.parametrize("deviation", [0.1, 0.5, 1.0, 2.0, 4.0])
def test_the_corrected_rule_is_in_detailed_balance(mu, deviation):
    """A(μ)/A(−μ) = e^μ exactly, whatever the known variance of Gaussian noise."""
    ratio = acceptance(mu, deviation) / acceptance(-mu, deviation)
    np.testing.assert_allclose(ratio, np.exp(mu), rtol=1e-9)


@pytest.mark.parametrize(
    ("mu", "deviation", "log_ratio"), [(0.7, 0.5, 0.601), (0.7, 2.0, 0.355), (3.0, 1.0, 2.506)]
)
def test_the_uncorrected_rule_is_not(mu, deviation, log_ratio):
    """Without the correction the log ratio shrinks to the known figures."""
    none = swaps.Noise(jnp.zeros(()))
    ratio = acceptance(mu, deviation, none) / acceptance(-mu, deviation, none)
    np.testing.assert_allclose(np.log(ratio), log_ratio, atol=5e-4)


def estimated_ratio(mu, deviation, dof, third_order=True):
    """log A(μ)/A(−μ) where the variance is a sample variance, independent of the mean."""

    def accept(mu):
        def at(q):
            variance = deviation**2 * stats.chi2.ppf(q, dof) / dof
            u = float(swaps.penalty(variance, dof if third_order else np.inf))
            z = (mu - u) / deviation
            tail = np.exp(mu - u + deviation**2 / 2) * stats.norm.cdf(-z - deviation)
            return stats.norm.cdf(z) + tail

        nodes, weights = np.polynomial.legendre.leggauss(60)
        return 0.5 * sum(w * at((x + 1) / 2) for x, w in zip(nodes, weights, strict=True))

    return np.log(accept(mu) / accept(-mu))


@pytest.mark.parametrize(("dof", "deviation"), [(31, 1.0), (31, 2.0), (127, 2.0), (127, 3.0)])
def test_an_estimated_variance_costs_little(dof, deviation):
    """With the terms for a sample variance the log ratio at μ = 1 is right to .01."""
    assert abs(estimated_ratio(1.0, deviation, dof) - 1.0) < 0.01
    without = estimated_ratio(1.0, deviation, dof, third_order=False)
    assert abs(estimated_ratio(1.0, deviation, dof) - 1.0) <= abs(without - 1.0)


def test_the_penalty_has_the_mean_that_it_should():
    """E e^{−penalty(s²)} = e^{−σ²/2} over sample variances, to the order that is kept."""
    dof, variance = 40, 1.5
    x = np.linspace(0, 160, 20_001)
    density = stats.chi2.pdf(x, dof) * (x[1] - x[0])

    def mean(assumed):
        return density @ np.exp(-np.asarray(swaps.penalty(variance * x / dof, assumed)))

    np.testing.assert_allclose(mean(dof), np.exp(-variance / 2), rtol=1e-4)
    assert abs(mean(np.inf) / np.exp(-variance / 2) - 1) > 0.01


def test_the_noise_of_a_batch_by_enumeration():
    """Over every batch of 3 of 6, drawn with replacement, the estimate's mean is the variance."""
    values = np.array([0.3, -1.2, 2.0, 0.7, 0.1, -0.5])
    grid = np.indices((6, 6, 6)).reshape(3, -1).T
    sums = 6 / 3 * values[grid].sum(axis=1)
    estimate = jax.vmap(lambda d: swaps.batch_noise(d, jnp.ones(3), 6).variance)
    np.testing.assert_allclose(np.mean(estimate(values[grid])), sums.var(), rtol=1e-12)


def test_masks_and_batches_of_one():
    """Rows that only pad count for nothing; one example of many forbids the swap, all do not."""
    d = jnp.array([0.3, -1.2, 2.0, 9.0])
    masked = swaps.batch_noise(d, jnp.array([1.0, 1, 1, 0]), 6)
    plain = swaps.batch_noise(d[:3], jnp.ones(3), 6)
    np.testing.assert_allclose(masked, plain)
    assert float(swaps.batch_noise(d[:1], jnp.ones(1), 6).variance) == np.inf
    positions = jnp.array([[-1.0], [1.0]])
    for rows in (d[:1], d, jnp.tile(d, 2)):
        target = sgmcmc.Posterior(_side, _double_well, data_size=min(4, len(rows)))
        measured = swaps.estimated(target, positions, sgmcmc.Batch(rows), None)
        assert np.all(np.asarray(measured.noise.variance) == 0)
    never = swaps.swap_probability(jnp.ones(()), jnp.ones(()), swaps.Noise(jnp.asarray(jnp.inf)))
    assert float(never) == 0.0


# --- invariance ---------------------------------------------------------------------------


@eqx.filter_jit
def one_step(kernel, states, keys):
    return jax.vmap(lambda state, key: kernel.step(key, state))(states, keys)


def pairs_after_a_step(kernel, h, momentum_variance, kick, count=100_000):
    """(x, r) of both temperatures after one step from the law, [pair, temperature], and the law.

    At the word's end r is N(0, momentum_variance · T), and the state holds r − kick · h x.
    """
    ladder = np.array([COLD, HOT])
    start = jax.vmap(lambda key: kernel.init(jnp.zeros(1), key))(
        jax.random.split(jax.random.key(0), count)
    )
    keys = jax.random.split(jax.random.key(1), 2)
    x = jnp.sqrt(ladder) * jax.random.normal(keys[0], (count, 2))
    r = jnp.sqrt(momentum_variance * ladder) * jax.random.normal(keys[1], (count, 2))
    states = start.extra.states._replace(
        position=x[..., None], momentum=(r - kick * h * x)[..., None]
    )
    start = start._replace(extra=start.extra._replace(states=states))
    after, info = one_step(kernel, start, jax.random.split(jax.random.key(2), count))
    replicas = after.extra
    take = lambda leaf: np.take_along_axis(np.asarray(leaf)[..., 0], np.asarray(replicas.order), 1)  # noqa: E731
    return take(replicas.states.position), take(replicas.states.momentum), info


def check_invariance(kernel, h, momentum_variance, kick):
    x, r, info = pairs_after_a_step(kernel, h, momentum_variance, kick)
    assert 0.2 < float(jnp.mean(info.acceptance)) < 0.9
    r = r + kick * h * x
    ladder = np.array([COLD, HOT])
    values = {
        "x²": (x**2, ladder),
        "r²": (r**2, momentum_variance * ladder),
        "xr": (x * r, 0 * ladder),
    }
    for name, (value, expected) in values.items():
        error = value.std(axis=0) / np.sqrt(len(value))
        assert np.all(abs(value.mean(axis=0) - expected) < 5 * error), (name, value.mean(axis=0))
    products = (x[:, 0] * x[:, 1], r[:, 0] * r[:, 1], x[:, 0] * r[:, 1], x[:, 1] * r[:, 0])
    for value in products:
        assert abs(value.mean()) < 5 * value.std() / np.sqrt(len(value))


H = 0.8
CASES = {
    "BAOAB": (1 - H**2 / 4, 0.5),
    "ABOBA": (1 / (1 - H**2 / 4), 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_swap_leaves_the_law_as_it_is(name):
    """On U = x²/2, where these words are exact, so is exchange, at any step."""
    inner = samplers.make(name, samplers.harmonic(), H)
    kernel = sgmcmc.replica_exchange(inner, (COLD, HOT), swap_every=1)
    check_invariance(kernel, H, *CASES[name])


def scaled(factor, states, kicks):
    """Momenta multiplied by √(T_new/T_old), the kick beyond the word's end with them."""
    return states._replace(momentum=factor[:, None] * states.momentum)


def unscaled(factor, states, kicks):
    """Momenta that keep their old temperature."""
    return states


@pytest.mark.parametrize("defect", [scaled, unscaled])
def test_wrong_momenta_are_caught(defect, monkeypatch):
    """Defects: momenta not scaled, or scaled with a kick that is not theirs, fail at once."""
    inner = samplers.make("BAOAB", samplers.harmonic(), H)
    monkeypatch.setattr(replicas, "rescaled", defect)
    # Another static number: no trace of the right kernel hides the defect.
    kernel = sgmcmc.replica_exchange(inner, (COLD, HOT), swap_every=1, record="all")
    with pytest.raises(AssertionError):
        check_invariance(kernel, H, *CASES["BAOAB"])


@pytest.mark.parametrize(
    ("word", "share"),
    [("BAOAB", 0.5), ("OBABO", 0.5), ("ABOBA", 0.0), ("UBU", 0.0), ("BUB", 0.5), ("BABO", 0.5),
     ("AOAB", 0.0), ("OABAO", 0.0)],
)  # fmt: skip
def test_the_kick_beyond_the_words_end(word, share):
    """Words turned past their last gradient have half a kick too much; others none."""
    kernel = sgmcmc.langevin(samplers.harmonic(), 0.1, word=word)
    assert kernel.pending_kick == share


# --- F23 ----------------------------------------------------------------------------------


def _double_well(x):
    return -(8 * (x[0] ** 2 - 1) ** 2 + x[0])


def exact_share(temperature):
    """P(x > 0) by quadrature."""
    x = np.linspace(-4, 4, 200_001)
    density = np.exp(-(8 * (x**2 - 1) ** 2 + x) / temperature)
    return density[x > 0].sum() / density.sum()


class NoisyEnergies(ReplicaExchange):
    """Energies with Gaussian noise, independent for each replica, from the swap's batch."""

    def measure(self, positions, batch):
        measured = super().measure(positions, batch)
        energies = measured.energies + batch
        return measured._replace(energies=energies, differences=energies[:-1] - energies[1:])


def as_a(kind, kernel):
    return kind(**{f.name: getattr(kernel, f.name) for f in dataclasses.fields(kernel)})


def f23_kernel(energy_variance=0.0, kind=NoisyEnergies, target=None):
    target = sgmcmc.Posterior.from_log_density(_double_well) if target is None else target
    kernel = sgmcmc.replica_exchange(
        sgmcmc.baoab(target, 0.05), (COLD, HOT), swap_every=10, energy_variance=energy_variance,
        record="all",
    )  # fmt: skip
    return as_a(kind, kernel)


def f23(kernel, batches, spread, chains=1_500, steps=400, burnin=100):
    """P(x > 0) of both temperatures with standard errors, and the mean acceptance."""
    length = (jnp.asarray(burnin), jnp.asarray(steps))
    keys = jax.random.split(jax.random.key(23), chains)
    shares, rate = map(
        np.asarray, _shares(kernel, batches, jnp.asarray(spread, float), keys, length)
    )
    return shares.mean(axis=0), shares.std(axis=0) / np.sqrt(chains), rate.mean()


@eqx.filter_jit
def _shares(kernel, batches, spread, keys, length):
    burnin, steps = length

    def chain(key):
        start, init, run = jax.random.split(key, 3)
        # The exact shares to begin with, so that the runs need not find them.
        side = jnp.where(jax.random.uniform(start) < 0.125, 1.0, -1.0)
        state = kernel.init(side[None], init)

        def one(t, carry):
            state, sums, rate = carry
            here, other = jax.random.split(jax.random.fold_in(run, t))
            state, info = kernel.step(here, state, batches(other, spread))
            counts = jnp.where(t >= burnin, 1.0, 0.0)
            sums = sums + counts * (info.position[:, 0] > 0)
            return state, sums, rate + counts * info.acceptance

        zero = (state, jnp.zeros(2), jnp.zeros(()))
        _, sums, rate = jax.lax.fori_loop(0, burnin + steps, one, zero)
        return sums / steps, rate / steps

    return jax.vmap(chain)(keys)


def noisy(key, spread):
    """The errors of the energies of 11 batches, of which the swap's is the last."""
    return spread * jax.random.normal(key, (11, 2))


# Deviation of the noise, the variance that the rule is told: P(x > 0) at both, acceptance.
FIGURES = {
    (0.0, 0.0): (0.1241, 0.4291, 0.347),
    (1.0, 1.0): (0.1235, 0.4292, 0.254),
    (2.0, 4.0): (0.1255, 0.4303, 0.122),
    (1.0, 0.0): (0.1731, 0.4318, None),
    (2.0, 0.0): (0.2401, 0.4364, None),
}


@pytest.mark.parametrize("row", FIGURES)
def test_the_double_well_at_two_temperatures(row):
    """F23: with the correction P(x > 0) is the exact one whatever the noise; without, it is not."""
    deviation, told = row
    shares, errors, rate = f23(f23_kernel(told), noisy, deviation)
    assert np.all(errors < 0.0025)
    assert np.all(abs(shares - FIGURES[row][:2]) < 0.01)
    if FIGURES[row][2] is not None:
        assert abs(rate - FIGURES[row][2]) < 0.005
        assert np.all(abs(shares - [exact_share(COLD), exact_share(HOT)]) < 0.01)
    else:
        assert abs(shares[0] - exact_share(COLD)) > 0.03


# The other kind of noise: examples whose likelihood tells the wells apart, and sums to nothing.
SIZE, BATCH = 4_096, 64


def _side(x, examples):
    return examples * jnp.sign(x[0])


def one_sided(key, spread):
    """Batches of 64 with replacement; `spread` is the data, its examples' sum 0."""
    index = jax.random.randint(key, (11, BATCH), 0, SIZE)
    return sgmcmc.Batch(spread[index], index)


def test_noise_estimated_from_the_batch():
    """The default rule: each pair's own variance. One number for all pairs is wrong.

    Differences of the energies have variance 8 between the wells and 0 within one. Told their
    average the rule is wrong for every pair, as a running average over steps would be.
    """
    data = np.random.default_rng(0).normal(size=SIZE)
    data = (data - data.mean()) / data.std() * np.sqrt(8 * BATCH) / (2 * SIZE)
    target = sgmcmc.Posterior(_side, _double_well, data_size=SIZE)
    kernel = f23_kernel(None, ReplicaExchange, target)
    shares, errors, rate = f23(kernel, one_sided, data)
    assert np.all(errors < 0.0025)
    assert np.all(abs(shares - [exact_share(COLD), exact_share(HOT)]) < 0.01)
    assert rate > 0.1
