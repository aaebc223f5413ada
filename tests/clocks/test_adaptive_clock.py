"""The adaptive clock: its flow, its bounds, its monitor, its limits, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import sgmcmc
from sgmcmc import Posterior, clocks


def quartic(x):
    return -jnp.sum(x**4) / 4


pytestmark = pytest.mark.usefixtures("x64")
POSTERIOR = Posterior.from_log_density(quartic)
TREE = {"a": np.array([0.3, -1.2]), "b": np.array(0.7)}


@pytest.mark.parametrize("alpha", [0.5, 2.0, 50.0])
def test_flow_solves_its_equation(alpha):
    """Z agrees with an ODE solver on dζ = −αζ dτ + g dτ, and is a semigroup."""
    clock = clocks.adaptive(0.1, alpha=alpha)
    g = float(clock.observe(TREE))
    start, t = jnp.asarray(3.0), 0.37
    solved = solve_ivp(lambda _, z: g - alpha * z, (0, t), [3.0], rtol=1e-12, atol=1e-14)
    once = clock.flow(start, TREE, t)
    np.testing.assert_allclose(once, solved.y[0, -1], rtol=1e-9)
    twice = clock.flow(clock.flow(start, TREE, 0.3 * t), TREE, 0.7 * t)
    np.testing.assert_allclose(twice, once, rtol=1e-13)


def test_monitor_is_a_mean_square_by_default():
    """‖∇U‖^s/Ω with Ω the number of parameters: twice the parameters, the same level."""
    double = {"a": jnp.concatenate([TREE["a"]] * 2), "b": jnp.array([TREE["b"]] * 2)}
    clock = clocks.adaptive(0.1)
    np.testing.assert_allclose(clock.observe(TREE), (0.09 + 1.44 + 0.49) / 3, rtol=1e-12)
    np.testing.assert_allclose(clock.observe(double), clock.observe(TREE), rtol=1e-12)
    plain = clocks.adaptive(0.1, exponent=1.0, scale=2.0)
    np.testing.assert_allclose(plain.observe(TREE), np.sqrt(2.02) / 2, rtol=1e-12)
    own = clocks.adaptive(0.1, monitor=lambda g: jnp.abs(g["b"]))
    np.testing.assert_allclose(own.observe(TREE), 0.7, rtol=1e-12)


def test_scaling_the_potential_scales_the_level():
    """U → a U with Ω → a^s Ω leaves ζ, hence the steps, as they are."""
    one = clocks.adaptive(0.1, scale=1.0)
    other = clocks.adaptive(0.1, scale=25.0)
    scaled = jax.tree.map(lambda x: 5 * x, TREE)
    np.testing.assert_allclose(other.observe(scaled), one.observe(TREE), rtol=1e-12)


@pytest.mark.parametrize("form", ["sum", "ratio"])
def test_steps_lie_between_their_bounds(form):
    """ψ falls from M at ζ = 0 to m as ζ → ∞, where ζ overflows too; both forms as printed."""
    clock = clocks.adaptive(0.1, shortest=0.2, longest=5.0, power=0.5, form=form)
    levels = jnp.array([0.0, 1e-3, 1.0, 1e3, 1e200, jnp.inf])
    factors = np.asarray(clock.factor(levels))
    assert np.all(np.diff(factors) <= 0)
    np.testing.assert_allclose(factors[[0, -1]], [5.0, 0.2], rtol=1e-12)
    raised = np.sqrt(1e-3)
    printed = {
        "sum": 0.2 * (raised + 5) / (raised + 0.2),
        "ratio": 0.2 * (raised + 5 / 0.2) / (raised + 1),
    }
    np.testing.assert_allclose(factors[1], printed[form], rtol=1e-12)


@pytest.mark.parametrize("numbers", [{}, clocks.SAMADAMS_CODE, clocks.SA_SGLD_CODE, {"power": 1.0}])
def test_a_start_is_safe(numbers):
    """The first step is at most twice the shortest, whatever the gradient at the start."""
    clock = clocks.adaptive(0.1, **numbers)
    first = float(clock.factor(clock.init(TREE).memory))
    np.testing.assert_allclose(first, 2 * float(clock.shortest), rtol=1e-6)


def test_equal_bounds_are_a_fixed_step():
    """With m = M the chain is BAOAB's, or SGLD's, at h = m Δτ, to rounding."""
    for adaptive, fixed in ((sgmcmc.samadams, sgmcmc.baoab), (sgmcmc.sa_sgld, sgmcmc.sgld)):
        kernels = (
            adaptive(POSTERIOR, clocks.adaptive(0.2, shortest=0.5, longest=0.5)),
            fixed(POSTERIOR, 0.1),
        )
        states = [k.init(jnp.array([0.4, -1.0]), jax.random.key(100)) for k in kernels]
        for t in range(20):
            noise = jax.random.normal(jax.random.key(t), (1, 2))
            steps = [k.drive(noise, s, None) for k, s in zip(kernels, states, strict=True)]
            states = [state for state, _ in steps]
        np.testing.assert_allclose(states[0].position, states[1].position, rtol=1e-10)
        np.testing.assert_allclose(steps[0][1].time, 0.1, rtol=1e-12)
        np.testing.assert_allclose(steps[0][1].weight, 0.5, rtol=1e-12)


def test_a_short_memory_is_the_clock_of_the_moment():
    """α = 10⁶, Ω = 1/α: the weight is ψ(‖∇U‖²) at the recorded position, to 1e-3."""
    clock = clocks.adaptive(0.05, alpha=1e6, scale=1e-6, shortest=0.25, longest=4.0, power=1.0)
    for make in (sgmcmc.samadams, sgmcmc.sa_sgld):
        kernel = make(POSTERIOR, clock)
        state = kernel.init(jnp.array([0.9]), jax.random.key(0))
        for t in range(1, 11):
            state, info = kernel.step(jax.random.key(t), state)
            g = float(info.position[0] ** 6)
            np.testing.assert_allclose(info.weight, 0.25 * (g + 4) / (g + 0.25), rtol=1e-3)


def test_weights_and_times_belong_together():
    """Overdamped, a draw's weight is the step about to be made; ZBAOABZ reports the one made."""
    clock = clocks.adaptive(lambda k: 0.1 / (1 + k), shortest=0.25, longest=4.0, power=1.0)
    kernel = sgmcmc.sa_sgld(POSTERIOR, clock)
    state = kernel.init(jnp.array([0.9]), jax.random.key(0))
    noise = jnp.zeros((1, 1))
    for k in range(3):
        before = state.position
        state, info = kernel.drive(noise, state, None)
        np.testing.assert_array_equal(info.position, before)
        np.testing.assert_allclose(info.time, 0.1 * info.weight, rtol=1e-12)
        np.testing.assert_allclose(state.position, before - info.time * before**3, rtol=1e-12)
        assert 0.25 * 0.1 / (1 + k) < info.time < 4 * 0.1 / (1 + k)
    word = sgmcmc.samadams(POSTERIOR, clock)
    state = word.init(jnp.array([0.9]), jax.random.key(0))
    first = float(clock.factor(state.clock.memory))
    _, info = word.step(jax.random.key(1), state)
    np.testing.assert_allclose(info.time, 0.1 * first, rtol=1e-12)


def test_words_with_z():
    """ZBAOABZ takes one gradient, is of order 2, and `langevin` makes it from a number."""
    kernel = sgmcmc.langevin(POSTERIOR, 0.1, word="ZBAOABZ")
    assert (kernel.traits.gradient_evaluations, kernel.traits.order) == (1, 2)
    assert sgmcmc.langevin(POSTERIOR, 0.1, word="ZUBUZ").traits.gradient_evaluations == 2
    named = sgmcmc.samadams(POSTERIOR, 0.1)
    state = kernel.init(jnp.ones(3), jax.random.key(0))
    noise = jax.random.normal(jax.random.key(1), (1, 3))
    for other in (named, sgmcmc.sa_sghmc(POSTERIOR, 0.1)):
        one, two = (k.drive(noise, state, None)[1] for k in (kernel, other))
        np.testing.assert_array_equal(one.position, two.position)


def test_a_clock_for_each_leaf():
    """`per_leaf`: each leaf steps by its own ζ, and the weight is the mean of the factors."""
    clock = clocks.adaptive(0.1, per_leaf=True, shortest=0.25, longest=4.0, power=1.0)
    kernel = sgmcmc.sa_sgld(Posterior.from_log_density(_of_tree), clock)
    state = kernel.init(TREE, jax.random.key(0))
    after, info = kernel.drive(jnp.zeros((1, 3)), state, None)
    stay, gain = np.exp(-0.1), 1 - np.exp(-0.1)
    start = float(clock.start)
    factors = {}
    for name, mean_square in (("a", (0.09 + 1.44) / 2), ("b", 0.49)):
        level = stay * start + gain * mean_square
        factors[name] = 0.25 * (level + 4) / (level + 0.25)
        expected = TREE[name] * (1 - 0.1 * factors[name])
        np.testing.assert_allclose(after.position[name], expected, rtol=1e-12)
    np.testing.assert_allclose(info.weight, np.mean(list(factors.values())), rtol=1e-12)


BAD = {
    "m above M": (
        lambda: clocks.adaptive(0.1, shortest=2.0, longest=1.0),
        "shortest: got 2.0, above longest = 1.0",
    ),
    "m": (
        lambda: clocks.adaptive(0.1, shortest=0.0),
        "shortest: got 0.0; expected a finite number > 0",
    ),
    "M": (lambda: clocks.adaptive(0.1, longest=-1.0), "longest: got -1.0"),
    "alpha": (lambda: clocks.adaptive(0.1, alpha=0.0), "alpha: got 0.0"),
    "r": (lambda: clocks.adaptive(0.1, power=0.0), "power: got 0.0"),
    "s": (lambda: clocks.adaptive(0.1, exponent=-1.0), "exponent: got -1.0"),
    "scale": (lambda: clocks.adaptive(0.1, scale=0.0), "scale: got 0.0"),
    "start": (lambda: clocks.adaptive(0.1, start=-1.0), "start: got -1.0"),
    "step": (lambda: clocks.adaptive(0.0), "step_size: got 0.0"),
    "form": (lambda: clocks.adaptive(0.1, form="product"), "form: got 'product'; allowed: sum"),
    "two scales": (
        lambda: clocks.adaptive(0.1, monitor=jnp.sum, scale=1.0),
        "monitor: got one beside scale",
    ),
    "fixed word": (
        lambda: sgmcmc.baoab(POSTERIOR, clocks.adaptive(0.1)),
        "step_size: an adaptive clock and the letter Z need each other",
    ),
    "per leaf": (
        lambda: sgmcmc.samadams(POSTERIOR, clocks.adaptive(0.1, per_leaf=True)),
        "step_size: a clock per leaf",
    ),
    "per leaf with a metric": (
        lambda: sgmcmc.sa_sgld(
            POSTERIOR, clocks.adaptive(0.1, per_leaf=True), metric=sgmcmc.metrics.diagonal(2.0)
        ),
        "metric: got diagonal; per_leaf allows identity",
    ),
    "no reuse": (
        lambda: sgmcmc.langevin(POSTERIOR, 0.1, word="ZBAOABZ", reuse_gradient=False),
        "Z shares B's gradient",
    ),
    "vector monitor": (
        lambda: _sample(clocks.adaptive(0.1, monitor=lambda g: g)),
        r"monitor: got an array of shape \(2,\); expected one number",
    ),
    "NaN monitor": (
        lambda: _sample(clocks.adaptive(0.1, monitor=lambda g: jnp.log(-jnp.sum(g)))),
        "monitor: got nan for a gradient of ones",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    """Each error names the argument, what was given and what is allowed."""
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()


def test_another_clock_is_no_adaptive_one():
    """A schedule's clock is refused by name; a schedule itself is Δτ."""
    with pytest.raises(TypeError, match="step_size: got Clock; expected a number or schedule"):
        sgmcmc.samadams(POSTERIOR, clocks.decreasing(0.1))


def _sample(clock):
    kernel = sgmcmc.sa_sgld(POSTERIOR, clock)
    return sgmcmc.sample(jax.random.key(0), kernel, jnp.ones(2), num_samples=4, progress=False)


def _of_tree(tree):
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(tree))
