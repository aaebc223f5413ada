"""Entropy-SGD in an optax loop: the nested loop it stands for, its limits, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from tests.laws.test_local_entropy import START, STIFFNESS, inner_mean, quadratic


def train(transform, params, gradients):
    """The end of an ordinary loop: parameters and state."""

    @jax.jit
    def step(carry, batch):
        params, state = carry
        updates, state = transform.update(gradients(params, batch), state, params)
        return (optax.apply_updates(params, updates), state), state.anchor

    return lambda batches: jax.lax.scan(step, (params, transform.init(params)), batches)


def pulled(y, batch):
    return STIFFNESS * y + batch


def test_the_nested_loop():
    """200 outer steps on minibatches are the nested loop's, to rounding in double precision.

    Minibatches, scoping and weight decay before it; T = 0, so that both are one recursion.
    """
    gamma, h, eta, decay = 2.0, 0.005, 0.3, 0.1
    scope = sgmcmc.local.scoping(gamma, 0.01)
    transform = sgmcmc.optim.entropy_sgd(
        jax.random.key(0), eta, precision=scope, step_size=h, num_steps=5, temperature=0.0
    )
    chain = optax.chain(optax.add_decayed_weights(decay), transform)
    batches = np.random.default_rng(0).normal(size=(1_000, 3))
    params, state = jnp.asarray(START), chain.init(jnp.asarray(START))
    update = jax.jit(chain.update)
    x = START.copy()
    for t in range(200):
        rho = gamma * 1.01**t
        y, mean = x.copy(), x.copy()
        for batch in batches[5 * t : 5 * t + 5]:
            updates, state = update(pulled(params, batch), state, params)
            params = optax.apply_updates(params, updates)
            y = y - h * (STIFFNESS * y + batch + decay * y + rho * (y - x))
            mean = 0.75 * mean + 0.25 * y
        x = x - eta * rho * (x - mean)
        np.testing.assert_allclose(state[1].anchor, x, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(params, x, rtol=1e-12, atol=1e-14)
    assert int(state[1].outer) == 200


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.float64, 1e-14)])
@pytest.mark.parametrize("outer_steps", [3, 200])
def test_flat_is_nested(outer_steps, dtype, tolerance):
    """E1: with noise, L = 5, anchors are the nested loop's to 1e-6, in float64 to 1e-14."""
    gamma, h, eta, temperature = 2.0, 0.005, 0.3, 0.01
    key = jax.random.key(7)
    transform = sgmcmc.optim.entropy_sgd(
        key, eta, precision=gamma, step_size=h, num_steps=5, temperature=temperature
    )
    batches = np.random.default_rng(1).normal(size=(5 * outer_steps, 3)).astype(dtype)
    number = lambda value: jnp.asarray(value, dtype)  # noqa: E731
    stiffness = jnp.asarray(STIFFNESS, dtype)
    start = jnp.asarray(START, dtype)
    (params, _), anchors = train(transform, start, lambda y, b: stiffness * y + b)(batches)

    def outer(x, given):
        t, rows = given
        y = mean = x
        for i in range(5):
            z = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, t), i), (3,), x.dtype)
            force = stiffness * y + rows[i] + number(gamma) * (y - x)
            y = y - number(h) * force + number(np.sqrt(2 * h * temperature)) * z
            mean = number(0.75) * mean + number(0.25) * y
        x = x - number(eta * gamma) * (x - mean)
        return x, x

    nested = jax.lax.scan(
        outer, start, (jnp.arange(outer_steps, dtype=jnp.int32), batches.reshape(-1, 5, 3))
    )[1]
    assert anchors.dtype == nested.dtype == params.dtype == dtype
    np.testing.assert_allclose(anchors[4::5], nested, rtol=0, atol=tolerance)
    np.testing.assert_allclose(params, nested[-1], rtol=0, atol=tolerance)


def test_momentum():
    """Nesterov's inside: of loss gradients alone, forgotten at every outer step; rate absorbed."""
    gamma, h, eta, m = 2.0, 0.002, 0.6, 0.9
    transform = sgmcmc.optim.entropy_sgd(
        jax.random.key(0), eta, precision=gamma, step_size=h, num_steps=5, temperature=0.0,
        momentum=m, absorbed=True,
    )  # fmt: skip
    batches = np.random.default_rng(0).normal(size=(200, 3))
    (_, state), anchors = train(transform, jnp.asarray(START), pulled)(batches)
    x = START.copy()
    for t in range(40):
        y, mean, v = x.copy(), x.copy(), np.zeros(3)
        for batch in batches[5 * t : 5 * t + 5]:
            g = STIFFNESS * y + batch
            v = m * v + g
            y = y - h * (g + m * v + gamma * (y - x))
            mean = 0.75 * mean + 0.25 * y
        x = x - eta * (x - mean)
        np.testing.assert_allclose(anchors[5 * t + 4], x, rtol=1e-11)
    np.testing.assert_array_equal(state.velocity, 0.0)


def test_published_forms_can_be_passed_on():
    """`convert.entropy_sgd` has the names of the arguments, and the rate in either form."""
    ends = []
    for form, eta in (("code", 0.4), ("text_final", 0.4), ("text_v1", 0.2)):
        made = sgmcmc.convert.entropy_sgd(form, 0.01, 0.0)._replace(temperature=0.0, averaging=0.5)
        transform = sgmcmc.optim.entropy_sgd(
            jax.random.key(0), eta, precision=2.0, **made._asdict()
        )
        ends.append(train(transform, jnp.asarray(START), pulled)(np.zeros((40, 3)))[0][0])
    np.testing.assert_allclose(ends[1:], [ends[0]] * 2, rtol=1e-12)


def test_one_outer_step_is_local_entropy():
    """Its move is η times `local_entropy`'s gradient, and μ has the known inner mean."""
    transform = sgmcmc.optim.entropy_sgd(
        jax.random.key(0), 0.5, precision=1.0, step_size=0.01, temperature=0.0
    )
    (params, state), _ = train(transform, jnp.asarray(START), pulled)(np.zeros((20, 3)))
    entropy = sgmcmc.local.local_entropy(sgmcmc.sgld(quadratic(), 0.01, temperature=0.0), 1.0)
    gradient = entropy.gradient(jax.random.key(0), jnp.asarray(START)).gradient
    np.testing.assert_allclose(params, START + 0.5 * gradient, rtol=1e-12)
    np.testing.assert_allclose(
        state.anchor, START - 0.5 * (START - inner_mean(0.01, 1.0, 20, 0.25)), rtol=1e-12
    )


def test_limits():
    """L → ∞: proximal-point steps. γ → ∞ with h < 2/γ: SGD at rate η."""
    many = sgmcmc.optim.entropy_sgd(
        jax.random.key(0), 1.0, precision=1.0, step_size=0.015, num_steps=2_000, averaging=1.0,
        temperature=0.0,
    )  # fmt: skip
    (params, _), _ = train(many, jnp.asarray(START), pulled)(np.zeros((6_000, 3)))
    np.testing.assert_allclose(params, START / (1 + STIFFNESS) ** 3, rtol=1e-9)
    strong = sgmcmc.optim.entropy_sgd(
        jax.random.key(0), 0.005, precision=1e8, step_size=1e-8, num_steps=2, averaging=1.0,
        temperature=0.0,
    )  # fmt: skip
    (params, _), _ = train(strong, jnp.asarray(START), pulled)(np.zeros((40, 3)))
    np.testing.assert_allclose(params, START * (1 - 0.005 * STIFFNESS) ** 20, rtol=1e-4)


def test_noise():
    """Free inner moves are N(0, 2hT): variance of 20,000, within 4 standard errors, 4%."""
    transform = sgmcmc.optim.entropy_sgd(
        jax.random.key(0), 1.0, precision=1e-9, step_size=0.02, num_steps=1, averaging=1.0,
        temperature=3.0,
    )  # fmt: skip
    state, zero = transform.init(jnp.zeros(20_000)), jnp.zeros(20_000)
    _, state = transform.update(zero, state, zero)
    assert abs(np.var(state.anchor / 1e-9) / (2 * 0.02 * 3.0) - 1) < 4 * np.sqrt(2 / 20_000)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": 0.0}, "precision: got 0.0"),
        ({"num_steps": 0}, "num_steps: got 0; allowed: at least 1"),
        ({"averaging": 1.1}, "averaging: got 1.1"),
        ({"temperature": -1.0}, "temperature: got -1.0"),
        ({"step_size": 0.0}, "step_size: got 0.0"),
        ({"momentum": 1.0}, "momentum: got 1.0; expected a finite number ≥ 0 and < 1"),
        ({"learning_rate": -1.0}, "learning_rate: got -1.0"),
    ],
)
def test_bad_input(changed, message):
    """Each bad number is named; so are missing parameters."""
    given = {"learning_rate": 0.1, "precision": 1.0, "step_size": 0.1} | changed
    with pytest.raises(ValueError, match=message):
        sgmcmc.optim.entropy_sgd(jax.random.key(0), given.pop("learning_rate"), **given)


def test_one_trace_for_other_numbers():
    """Its functions are pytrees, so that a fit with other numbers is not compiled anew."""
    traces = []

    def loss(y):
        traces.append(None)
        return jnp.sum(y**2)

    for rate, gamma in ((0.1, 1.0), (0.2, 3.0)):
        transform = sgmcmc.optim.entropy_sgd(
            jax.random.key(0), rate, precision=gamma, step_size=0.1
        )
        sgmcmc.optim.fit(
            jax.random.key(1), loss, jnp.ones(2), optimizer=transform, num_steps=3, progress=False
        )
        if rate == 0.1:
            once = len(traces)
    assert len(traces) == once


def test_missing_params():
    """optax lets them be left out; here they are needed."""
    transform = sgmcmc.optim.entropy_sgd(jax.random.key(0), 0.1, precision=1.0, step_size=0.1)
    with pytest.raises(ValueError, match="params: got None"):
        transform.update(jnp.zeros(2), transform.init(jnp.zeros(2)))
