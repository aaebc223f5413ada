"""Parle on quadratics: its linear recursion and fixed point, its symmetries, its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from tests.laws.test_local_entropy import STIFFNESS, inner_mean

GAMMA, COUPLING, STEP, RATE, STEPS = 2.0, 0.7, 0.005, 0.3, 25
STARTS = np.random.default_rng(0).normal(size=(4, 3)) + 1.0
KEPT = 1 - RATE * GAMMA * (1 - inner_mean(STEP, GAMMA, STEPS, 0.25))


def make(n=4, **changed):
    given = {"precision": GAMMA, "coupling": COUPLING, "step_size": STEP, "rate": RATE} | changed
    return sgmcmc.optim.parle(jax.random.key(0), n, given.pop("rate"), **given)


def run(transform, starts, outer_steps, force=0.0, steps=STEPS):
    """The state after some outer steps on f = Σ Hy²/2 + force y."""

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(STIFFNESS * params + force, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = jnp.asarray(starts)
    begin = (start, transform.init(start))
    return jax.lax.scan(step, begin, None, length=steps * outer_steps)[0][1]


def parts(x):
    return x.mean(axis=0), x - x.mean(axis=0)


def test_linear_recursion():
    """The mean shrinks by 1 − ηγ(1 − c) an outer step, deviations by ηρ more; c of Eμ = c x."""
    state = run(make(), STARTS, 12)
    mean, deviation = parts(STARTS)
    exact = KEPT**12 * mean + (KEPT - RATE * COUPLING) ** 12 * deviation
    np.testing.assert_allclose(state.anchor, exact, rtol=1e-10)
    np.testing.assert_allclose(state.to_evaluate, KEPT**12 * mean, rtol=1e-10)


def test_growing_rates():
    """γ and ρ grow with the outer step, up to their limits."""
    precision = sgmcmc.local.scoping(GAMMA, 0.05, 2.5)
    coupling = sgmcmc.local.scoping(COUPLING, 0.5, 1.2)
    np.testing.assert_allclose(precision(jnp.asarray(3)), 2 * 1.05**3)
    np.testing.assert_allclose(precision(jnp.asarray(100)), 2.5)
    state = run(make(precision=precision, coupling=coupling), STARTS, 8)
    mean, deviation = parts(STARTS)
    for t in range(8):
        gamma, rho = min(2 * 1.05**t, 2.5), min(0.7 * 1.5**t, 1.2)
        kept = 1 - RATE * gamma * (1 - inner_mean(STEP, gamma, STEPS, 0.25))
        mean, deviation = kept * mean, (kept - RATE * rho) * deviation
    np.testing.assert_allclose(state.anchor, mean + deviation, rtol=1e-10)


def test_fixed_point():
    """Replicas with forces of their own settle where pull, force and coupling balance."""
    forces = np.random.default_rng(1).normal(size=(4, 3))
    y, response = np.zeros(3), np.zeros(3)
    for _ in range(STEPS):
        y = y - STEP * (STIFFNESS * y + GAMMA * y + 1.0)
        response = 0.75 * response + 0.25 * y
    pull = GAMMA * (1 - inner_mean(STEP, GAMMA, STEPS, 0.25))
    mean, deviation = parts(forces)
    exact = GAMMA * response * (mean / pull + deviation / (pull + COUPLING))
    state = run(make(rate=0.6), STARTS, 400, forces)
    np.testing.assert_allclose(state.anchor, exact, rtol=1e-8, atol=1e-10)


def test_one_replica_and_no_coupling():
    """One replica is Entropy-SGD, noise included; without coupling each is one by itself."""
    options = {"precision": GAMMA, "step_size": STEP, "num_steps": STEPS, "temperature": 0.1}
    alone = sgmcmc.optim.entropy_sgd(jax.random.key(0), RATE, **options)
    exact = run(alone, STARTS[0], 10).anchor
    one = run(make(1, temperature=0.1), STARTS[:1], 10)
    np.testing.assert_allclose(one.anchor[0], exact, rtol=1e-12)
    np.testing.assert_allclose(one.to_evaluate, exact, rtol=1e-12)
    alone = sgmcmc.optim.entropy_sgd(jax.random.key(0), RATE, **options | {"temperature": 0.0})
    free = run(make(coupling=0.0), STARTS, 10)
    for start, anchor in zip(STARTS, free.anchor, strict=True):
        np.testing.assert_allclose(anchor, run(alone, start, 10).anchor, rtol=1e-12)


def test_replicas_are_exchangeable():
    """Replicas in another order end in that order."""
    order = [2, 0, 3, 1]
    found, permuted = (run(make(), x, 5).anchor for x in (STARTS, STARTS[order]))
    np.testing.assert_allclose(found[np.array(order)], permuted, rtol=1e-12)


def test_a_strong_coupling_collapses_them():
    """At ηρ = 1 all that is left of a deviation is what the inner loop moves."""
    state = run(make(rate=1e-4, coupling=1e4), STARTS, 3)
    kept = 1 - 1e-4 * GAMMA * (1 - inner_mean(STEP, GAMMA, STEPS, 0.25))
    np.testing.assert_allclose(state.anchor, np.tile(kept**3 * STARTS.mean(axis=0), (4, 1)),
                               rtol=1e-9)  # fmt: skip


def test_absorbed_rate():
    """x ← x − η′[(x − μ) + ρ′(x − x̄)] is η = η′/γ and ρ = γρ′."""
    one = run(make(rate=0.4, coupling=0.5, absorbed=True, momentum=0.5), STARTS, 5)
    other = run(make(rate=0.4 / GAMMA, coupling=0.5 * GAMMA, momentum=0.5), STARTS, 5)
    np.testing.assert_allclose(one.anchor, other.anchor, rtol=1e-12)


def test_by_fit():
    """`fit` gives each replica its batches, counts their gradients, and returns the mean."""
    rows = np.random.default_rng(2).normal(size=(64, 3))
    found = sgmcmc.optim.fit(
        jax.random.key(1), _loss, jnp.asarray(STARTS), rows, num_replicas=4, batch_size=16,
        optimizer=make(step_size=0.1, rate=0.4), num_steps=50 * STEPS, progress=False,
    )  # fmt: skip
    assert found.params.shape == (3,)
    assert found.last.shape == (4, 3)
    assert found.gradient_evaluations == 4 * 50 * STEPS
    # What is left is the noise of the last batches.
    np.testing.assert_allclose(found.params, rows.mean(axis=0), atol=0.2)


def _loss(params, rows):
    return 0.5 * jnp.mean(jnp.sum((rows - params) ** 2, axis=-1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "num_replicas: got 0; allowed: at least 1"),
        ({"coupling": -0.1}, "coupling: got -0.1"),
        ({"precision": 0.0}, "precision: got 0.0"),
        ({"num_steps": 0}, "num_steps: got 0"),
        ({"averaging": 0.0}, "averaging: got 0.0"),
        ({"momentum": 1.0}, "momentum: got 1.0; expected a finite number ≥ 0 and < 1"),
    ],
)
def test_bad_input(changed, message):
    with pytest.raises(ValueError, match=message):
        make(**changed)


def test_the_replica_axis_is_asked_for():
    with pytest.raises(ValueError, match=r"leaf w has shape \(3, 2\); expected a leading axis"):
        make().init({"w": jnp.zeros((3, 2))})
    with pytest.raises(ValueError, match="limit: got 0"):
        sgmcmc.local.scoping(1.0, 0.1, 0.0)
