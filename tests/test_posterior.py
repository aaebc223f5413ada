"""The scaling contract of `Posterior`, against sums written by hand."""

# ruff: noqa: E501 (tables, a row a line)

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmcmc import Batch, Posterior

N, D = 7, 3
X = np.linspace(-1.0, 1.5, N * D).reshape(N, D).astype(np.float32)
Y = np.cos(np.arange(N)).astype(np.float32)
THETA = jnp.array([0.3, -0.7, 0.2])


def log_likelihood(theta, batch):
    x, y = batch
    return -0.5 * (y - x @ theta) ** 2


def log_prior(theta):
    return -0.25 * jnp.sum(theta**2)


def posterior(**options):
    return Posterior(log_likelihood, log_prior, data_size=N, **options)


def by_hand(theta, rows, power=1.0):
    theta = np.asarray(theta, np.float64)
    residuals = Y[rows].astype(np.float64) - X[rows].astype(np.float64) @ theta
    prior = 0.25 * np.sum(theta**2)
    return prior + power * N / len(rows) * np.sum(0.5 * residuals**2)


@pytest.mark.parametrize("rows", [[0, 3], [6], list(range(N)), [2, 2, 5]])
def test_potential_scales_the_batch_by_its_size(rows):
    """U = −log p(θ) − (N/n) Σ over the batch, whatever n is and however often a row occurs."""
    got = posterior().potential(THETA, (X[rows], Y[rows]))
    np.testing.assert_allclose(got, by_hand(THETA, rows), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_masked_batch_is_the_batch_of_its_true_rows(count):
    """A short batch uses its true count: padding changes neither U nor its gradient."""
    rows = [1, 4, 0, 6]
    mask = jnp.arange(4) < count
    padded = Batch((X[rows], Y[rows]), jnp.array(rows), mask)
    short = (X[rows[:count]], Y[rows[:count]])
    u, g = posterior().potential_and_gradient(THETA, padded)
    v, k = posterior().potential_and_gradient(THETA, short)
    np.testing.assert_allclose(u, v, rtol=1e-6)
    np.testing.assert_allclose(g, k, rtol=1e-5)


def test_likelihood_power_leaves_the_prior_alone():
    """λ multiplies the log likelihood only; λ = 0 is the prior."""
    rows = [0, 1, 5]
    batch = (X[rows], Y[rows])
    for power in (0.0, 0.5, 2.0):
        for target in (
            posterior(likelihood_power=power),
            posterior().with_likelihood_power(power),
        ):
            np.testing.assert_allclose(
                target.potential(THETA, batch), by_hand(THETA, rows, power), rtol=1e-6
            )


def test_localized_adds_a_quadratic_well():
    """Localising adds (ρ/2)‖θ − c‖² and its gradient ρ(θ − c), to U and to −log_density alike."""
    center, rho = jnp.array([1.0, 0.0, -1.0]), 2.5
    batch = (X, Y)
    plain, local = posterior(), posterior().localized(center, rho)
    u, g = plain.potential_and_gradient(THETA, batch)
    v, k = local.potential_and_gradient(THETA, batch)
    np.testing.assert_allclose(v - u, rho / 2 * np.sum((THETA - center) ** 2), rtol=1e-5)
    np.testing.assert_allclose(k - g, rho * (THETA - center), rtol=1e-4)
    np.testing.assert_allclose(local.log_density(THETA, batch), -v, rtol=1e-6)


def test_localized_twice_is_the_product():
    """U has both pulls, constants included: N(0, 1)·N(0, ⅓)·N(1, ½) has mean ⅓, variance 1/6."""
    first, second, third = (jnp.array(c) for c in ([1.0, 0.0, -1.0], [0.5, 2.0, 0.0], [3.0] * 3))
    plain, batch = posterior(), (X, Y)
    local = plain.localized(first, 2.5).localized(second, 1.5).localized(third, 0.5)
    pulls = sum(
        rho / 2 * np.sum((np.asarray(THETA) - c) ** 2)
        for c, rho in ((first, 2.5), (second, 1.5), (third, 0.5))
    )
    u, v = plain.potential(THETA, batch), local.potential(THETA, batch)
    np.testing.assert_allclose(v - u, pulls, rtol=1e-5)
    np.testing.assert_allclose(local.log_density(THETA, batch), -v, rtol=1e-6)
    normal = Posterior.from_log_density(lambda x: -0.5 * jnp.sum(x**2))
    normal = normal.localized(jnp.zeros(1), 3.0).localized(jnp.ones(1), 2.0)
    slope = jax.grad(normal.potential)
    np.testing.assert_allclose(slope(jnp.array([1 / 3])), 0.0, atol=1e-6)
    np.testing.assert_allclose(slope(jnp.array([4 / 3])), 6.0, rtol=1e-6)
    with pytest.raises(ValueError, match=r"center: leaf .* the centre before has"):
        local.localized(jnp.zeros(2), 1.0)


def test_a_power_given_twice_is_the_last():
    """`with_likelihood_power` takes the place of a power, as it says; a pull stays."""
    twice = posterior(likelihood_power=0.5).localized(THETA, 2.0).with_likelihood_power(0.25)
    once = posterior().with_likelihood_power(0.25)
    np.testing.assert_allclose(
        twice.potential(THETA, (X, Y)), once.potential(THETA, (X, Y)), rtol=1e-6
    )
    assert twice.precision == 2.0


def test_log_density_alone_is_a_target_without_data():
    """`from_log_density(f)` has U = −f and takes no batch, localised or not."""
    target = Posterior.from_log_density(log_prior)
    np.testing.assert_allclose(target.potential(THETA), -log_prior(THETA))
    np.testing.assert_allclose(target.log_density(THETA), log_prior(THETA))
    local = target.localized(jnp.zeros(3), 1.0)
    np.testing.assert_allclose(local.potential(THETA), 0.75 * np.sum(THETA**2), rtol=1e-6)


def test_traces_do_not_depend_on_how_the_power_was_given():
    """Posteriors that differ in numbers only have one structure and one set of types."""
    types = {
        jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), target).likelihood_power
        for target in (
            posterior(),
            posterior(likelihood_power=2),
            posterior(likelihood_power=np.float64(0.5)),
            Posterior.from_log_density(log_prior),
        )
    }
    assert len(types) == 1


@pytest.mark.parametrize("block_size", [1, 2, 3, 6, 7, 100])
def test_log_density_in_blocks_is_the_direct_sum(block_size):
    """The sum over blocks, and its gradient, are those over all data, whatever the block."""
    value, gradient = jax.value_and_grad(
        lambda theta: posterior().log_density(theta, (X, Y), block_size=block_size)
    )(THETA)
    direct, slope = posterior().potential_and_gradient(THETA, (X, Y))
    np.testing.assert_allclose(value, -direct, rtol=1e-6)
    np.testing.assert_allclose(gradient, -slope, rtol=1e-5)


class Net(eqx.Module):
    weight: jax.Array
    bias: list


def tree_likelihood(params, batch):
    leaves = jax.tree.leaves(params)
    flat = jnp.concatenate([jnp.ravel(x) for x in leaves])
    return log_likelihood(flat, jax.tree.map(lambda x: x.astype(flat.dtype), batch))


def tree_prior(params):
    return sum(log_prior(x) for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "params",
    [
        {"b": THETA[1:], "a": THETA[:1]},
        (THETA[:2], [THETA[2]]),
        Net(THETA[:2].reshape(1, 2), [THETA[2:]]),
    ],
    ids=["dict", "tuple", "module"],
)
def test_parameters_are_any_pytree(params):
    """U does not depend on how the parameters are laid out; jit and vmap agree with plain calls."""
    target = Posterior(tree_likelihood, tree_prior, data_size=N)
    u, gradient = target.potential_and_gradient(params, (X, Y))
    np.testing.assert_allclose(u, by_hand(THETA, range(N)), rtol=1e-6)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    v, _ = eqx.filter_jit(target.potential_and_gradient)(params, (X, Y))
    np.testing.assert_allclose(u, v, rtol=1e-6)
    stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), params)
    both = jax.vmap(target.potential, (0, None))(stacked, (X, Y))
    np.testing.assert_allclose(both[0], u, rtol=1e-6)


def test_float64_parameters_are_computed_in_float64():
    """The dtype follows the parameters: in float64 U agrees with the hand sum to 1e-14."""
    with jax.enable_x64(True):
        theta = jnp.asarray(np.array([0.3, -0.7, 0.2]))
        u = posterior().potential(theta, (X.astype(np.float64), Y.astype(np.float64)))
        assert u.dtype == jnp.float64
        np.testing.assert_allclose(u, by_hand(theta, range(N)), rtol=1e-14)


def constant_likelihood(theta, batch):
    return jnp.full(batch.shape, -1.0, theta.dtype) + 0 * theta[0]


def zero_prior(theta):
    return jnp.sum(0 * theta)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_half_precision_sums_lose_no_digits(dtype, masked):
    """Counts, sums and N/n are float32 at least: 1001 ones of 60,060 make U = 60,060 exactly."""
    rows = jnp.zeros(1003)
    mask = jnp.arange(1003) < 1001
    batch = Batch(rows, mask=mask) if masked else Batch(rows[:1001])
    target = Posterior(constant_likelihood, zero_prior, data_size=60_060)
    u = target.potential(jnp.zeros(2, dtype), batch)
    assert u.dtype == jnp.float32
    assert float(u) == 60_060
    everything = jnp.zeros(60_060)
    assert float(target.log_density(jnp.zeros(2, dtype), everything, block_size=500)) == -60_060


def test_gradients_follow_the_parameters_dtype():
    """A bfloat16 leaf has a bfloat16 gradient."""
    theta = THETA.astype(jnp.bfloat16)
    _, gradient = posterior().potential_and_gradient(theta, (X, Y))
    assert gradient.dtype == jnp.bfloat16
    exact = posterior().potential_and_gradient(THETA, (X, Y))[1]
    np.testing.assert_allclose(gradient.astype(jnp.float32), exact, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("likelihood", "shape"),
    [
        (lambda t, b: jnp.sum(log_likelihood(t, b)), r"\(\)"),
        (lambda t, b: log_likelihood(t, b)[:, None], rf"\({N}, 1\)"),
        (lambda t, b: log_likelihood(t, b)[:-1], rf"\({N - 1},\)"),
        (lambda t, b: jnp.zeros((N, N)), rf"\({N}, {N}\)"),
    ],
)
def test_a_likelihood_of_another_shape_is_refused(likelihood, shape):
    """log_likelihood must give one value an example: (n,), never their sum."""
    target = Posterior(likelihood, log_prior, data_size=N)
    message = rf"log_likelihood: expected \(n,\) = \({N},\).*got {shape}"
    with pytest.raises(ValueError, match=message):
        target.potential(THETA, (X, Y))
    with pytest.raises(ValueError, match=message):
        target.log_density(THETA, (X, Y))


def test_a_prior_must_be_a_scalar():
    """log_prior must give one number: a vector would broadcast silently."""
    target = Posterior(log_likelihood, lambda t: -(t**2), data_size=N)
    with pytest.raises(ValueError, match=r"log_prior: expected a scalar.*\(3,\)"):
        target.potential(THETA, (X, Y))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Posterior(log_likelihood, log_prior, data_size=0), ValueError, "data_size: got 0"),
        (lambda: Posterior(log_likelihood, log_prior, data_size=2.5), TypeError, "data_size: got 2.5"),
        (lambda: Posterior(log_likelihood, log_prior, data_size=True), TypeError, "data_size: got True"),
        (lambda: Posterior(3, log_prior, data_size=N), TypeError, "log_likelihood: got int"),
        (lambda: Posterior(log_likelihood, None, data_size=N), TypeError, "log_prior: got NoneType"),
        (lambda: posterior(likelihood_power=-1), ValueError, "likelihood_power: got -1"),
        (lambda: posterior(likelihood_power=np.nan), ValueError, "likelihood_power: got nan"),
        (lambda: posterior(likelihood_power=np.inf), ValueError, "likelihood_power: got inf"),
        (lambda: posterior().localized(THETA, 0.0), ValueError, "precision: got 0.0"),
        (lambda: posterior().localized(jnp.arange(3), 1.0), TypeError, "center: leaf .* int32"),
        (
            lambda: posterior().localized(jnp.zeros(()), 1.0).potential(THETA, (X, Y)),
            ValueError,
            r"center: leaf .* shape \(\).*\(3,\)",
        ),
        (lambda: posterior().potential(THETA), ValueError, "data: got None"),
        (lambda: posterior().log_density(THETA), ValueError, "data: got None"),
        (lambda: posterior().log_density(THETA, (X[:3], Y[:3])), ValueError, "3 examples.*data_size=7"),
        (lambda: posterior().log_density(THETA, (X, Y[:3])), ValueError, "0: 7, 1: 3"),
        (lambda: posterior().log_density(THETA, (X, Y), block_size=0), ValueError, "block_size: got 0"),
    ],
)  # fmt: skip
def test_bad_input_names_argument_and_value(make, error, message):
    """Each error names the argument, the value, and what is allowed."""
    with pytest.raises(error, match=message):
        make()


def test_posteriors_can_be_vmapped_over_their_power():
    """The power is an array leaf: a grid of powers is one vmapped call."""
    powers = jnp.array([0.0, 0.5, 1.0])
    values = jax.vmap(lambda p: posterior().with_likelihood_power(p).potential(THETA, (X, Y)))(
        powers
    )
    wanted = [by_hand(THETA, range(N), float(p)) for p in powers]
    np.testing.assert_allclose(values, wanted, rtol=1e-6)
