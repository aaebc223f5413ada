"""Entropy-SGLD: the exact law of the anchor on a quadratic, and how near it is to exp(βF/T)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from tests.laws.test_local_entropy import STIFFNESS, inner_mean, inner_variance

GAMMA, TEMPERATURE, POWER, STEP, RATE = 2.0, 0.5, 3.0, 0.005, 0.1


def anchor_variance(rate, num_steps, averaging, power=POWER):
    """Of x ← x − ηγ(x − μ) + √(2ηT/β) ξ, with μ the inner loop's: a scalar autoregression."""
    kept = 1 - rate * GAMMA * (1 - inner_mean(STEP, GAMMA, num_steps, averaging))
    spread = inner_variance(STEP, GAMMA, num_steps, averaging, TEMPERATURE)
    noise = (rate * GAMMA) ** 2 * spread + 2 * rate * TEMPERATURE / power
    return noise / (1 - kept**2)


def make(**changed):
    given = {
        "temperature": TEMPERATURE, "precision": GAMMA, "step_size": STEP, "power": POWER,
        "num_steps": 50, "averaging": 0.1,
    } | changed  # fmt: skip
    return sgmcmc.optim.entropy_sgld(jax.random.key(0), given.pop("rate", RATE), **given)


def anchors(transform, chains=4_000):
    """[draw, coordinate, chain]: four anchors 40 outer steps apart, of chains begun at 0."""
    stiffness = jnp.asarray(STIFFNESS)[:, None]

    def inner(carry, _):
        y, state = carry
        updates, state = transform.update(stiffness * y, state, y)
        return (optax.apply_updates(y, updates), state), None

    def draw(carry, _):
        carry, _ = jax.lax.scan(inner, carry, None, length=40 * 50)
        return carry, carry[1].anchor

    start = jnp.zeros((3, chains))
    begin, _ = jax.lax.scan(draw, (start, transform.init(start)), None, length=2)
    return np.asarray(jax.lax.scan(draw, begin, None, length=4)[1])


def check_law(transform):
    """Mean 0 and the derived variance, to 4 standard errors (4.5%): a false alarm in 16,000.

    Draws 40 outer steps apart are correlated by 0.1 at most.
    """
    found = anchors(transform)
    exact = anchor_variance(RATE, 50, 0.1)
    draws = found.size / 3
    assert np.all(np.abs(found.mean(axis=(0, 2))) < 4 * np.sqrt(1.25 * exact / draws))
    assert np.all(np.abs(found.var(axis=(0, 2)) / exact - 1) < 4 * np.sqrt(2.5 / draws))


def test_law_of_the_anchor():
    check_law(make())


def test_absorbed_rate():
    """Where γ is in the rate, an outer step is the same at ηγ, noise and all."""
    ends = []
    for transform in (make(), make(rate=RATE * GAMMA, absorbed=True)):
        y = jnp.ones(3)
        state = transform.init(y)
        update = jax.jit(transform.update)
        for _ in range(100):
            updates, state = update(STIFFNESS * y, state, y)
            y = y + updates
        ends.append(state.anchor)
    np.testing.assert_allclose(*ends, rtol=1e-12)


def test_it_tends_to_the_gibbs_law():
    """With an exact inner mean the variance is T/(βk) over 1 − ηk/2, k = γH/(H + γ), of exp(βF/T).

    At L = 20,000 and a = 1/2,000 it is that to 2%. At twenty steps of a = 1/4 it is 4.5, 1.6 and
    1.005 times as wide: where the inner loop is slow, μ stays near x and the pull is too weak.
    """
    stiffness = GAMMA * STIFFNESS / (STIFFNESS + GAMMA)
    ideal = TEMPERATURE / (POWER * stiffness) / (1 - 0.01 * stiffness / 2)
    long = anchor_variance(0.01, 20_000, 0.0005)
    np.testing.assert_allclose(long, ideal, rtol=0.02)
    short = anchor_variance(0.01, 20, 0.25)
    np.testing.assert_allclose(short / ideal, [4.452, 1.559, 1.005], atol=1e-3)


def test_privacy():
    """The figures of the paper for MNIST: ε = 0.032660, thermal noise 0.090360."""
    found = sgmcmc.local.gibbs_privacy(1 / np.sqrt(60_000), 60_000, 4.0)
    np.testing.assert_allclose(found.epsilon, 0.032660, atol=1e-6)
    np.testing.assert_allclose(found.thermal_noise, 0.090360, atol=1e-6)
    doubled = sgmcmc.local.gibbs_privacy(1 / np.sqrt(60_000), 60_000, 4.0, power=2.0)
    np.testing.assert_allclose(doubled.epsilon, 2 * found.epsilon)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.0}, "temperature: got 0.0; expected a finite number > 0"),
        ({"power": 0.0}, "power: got 0.0"),
        ({"precision": -1.0}, "precision: got -1.0"),
        ({"num_steps": 0}, "num_steps: got 0; allowed: at least 1"),
        ({"averaging": 1.5}, "averaging: got 1.5"),
    ],
)
def test_bad_input(changed, message):
    """Each bad number is named."""
    with pytest.raises(ValueError, match=message):
        make(**changed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0.0, 10, 1.0), "temperature: got 0.0"),
        ((1.0, 0, 1.0), "data_size: got 0"),
        ((1.0, 10, -1.0), "loss_range: got -1.0"),
        ((1.0, 10, 1.0, 0.0), "power: got 0.0"),
    ],
)
def test_bad_privacy(given, message):
    with pytest.raises(ValueError, match=message):
        sgmcmc.local.gibbs_privacy(*given)
