"""psgld, sgnht and sghmc: what a step costs, and the clipped shares that a run records."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import gradients, metrics, models
from tests.problems import Problem, regression

KERNELS = {
    "sgnht": lambda target: sgmcmc.sgnht(target, 0.05),
    "psgld": lambda target: sgmcmc.psgld(target, 0.01),
    "psgld frozen": lambda target: sgmcmc.psgld(
        target, 0.01, metric=metrics.rmsprop(decay=0.9, gamma=False, freeze_after=7)
    ),
    "sghmc": lambda target: sgmcmc.sghmc(
        target, 0.02, friction=20.0, noise_estimate=gradients.running_variance(0.9)
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_step_takes_one_gradient(name):
    """One gradient of one batch a step."""
    assert KERNELS[name](regression().posterior).traits.gradient_evaluations == 1


def test_clipped_shares_are_recorded_and_resumed(tmp_path):
    """One share for each chain and draw; the same bits from a saved run that goes on."""
    problem = regression()
    kernel = KERNELS["sghmc"](problem.posterior)

    def run(**options):
        return sgmcmc.sample(
            jax.random.key(1), kernel, problem.start, problem.data, batch_size=6, num_chains=3,
            num_burnin=5, progress=False, **options,
        )  # fmt: skip

    straight = run(num_samples=12)
    assert straight.info.clipped.shape == (3, 12)
    run(num_samples=4, chunk_steps=3).save(tmp_path / "run")
    made = sgmcmc.load(tmp_path / "run").resume(8, kernel=kernel, data=problem.data, progress=False)
    np.testing.assert_array_equal(made.info.clipped, straight.info.clipped)


# ------------------------------------------------------------- from the starts that users make


def line(spread=1.0, size=500):
    """A regression on three features of N = 500 examples, and its closed posterior."""
    rng = np.random.default_rng(0)
    x = np.concatenate([np.ones((size, 1)), rng.normal(size=(size, 2))], axis=1)
    y = x @ [1.0, -2.0, 0.5] + spread * rng.normal(size=size)
    precision = x.T @ x / spread**2 + np.eye(3)
    mean = np.linalg.solve(precision, x.T @ y / spread**2)

    def log_likelihood(theta, batch):
        rows, target = batch
        return -0.5 * ((target - rows @ theta) / spread) ** 2

    posterior = sgmcmc.Posterior(log_likelihood, log_prior, data_size=size)
    data = (x.astype(np.float32), y.astype(np.float32))
    return Problem(posterior, data, jnp.zeros(3), mean, np.linalg.inv(precision))


def log_prior(theta):
    return -0.5 * jnp.sum(theta**2)


LINE = line()


def starts_of(problem, each):
    """0, 20 in every coordinate, and the mode, `each` chains of each."""
    rows = np.stack([np.zeros(3), np.full(3, 20.0), problem.mean])
    return jnp.asarray(np.repeat(rows, each, axis=0), jnp.float32)


def variances(run, problem, groups):
    """⟨x²⟩ over the exact one and its standard error, (groups, 3) each."""
    away = (np.asarray(run.draws, float) - problem.mean) ** 2 / np.diag(problem.covariance)
    parts = np.split(away.mean(axis=1), groups)
    chains = len(parts[0])
    mean = np.stack([part.mean(axis=0) for part in parts])
    return mean, np.stack([part.std(axis=0, ddof=1) for part in parts]) / np.sqrt(chains)


def from_everywhere(kernel, each=16, **options):
    given = {"num_samples": 3_000, "chain_method": "vmap", "progress": False, **options}
    return sgmcmc.sample(
        jax.random.key(0), kernel, starts_of(LINE, each), LINE.data, num_chains=3 * each, **given
    )


@pytest.mark.parametrize("batch_size", [None, 50])
def test_a_thermostat_is_right_from_every_start(batch_size):
    """After the default burn-in ξ is A + h s²/2 from 0, from 20 (300,000 nats) and from the mode.

    And variances are right: to six standard errors (of 16 chains: 2e-5 a comparison), and with
    minibatches to what one ξ leaves of a noise that differs by direction, measured at .16. Held
    nowhere, ξ is at 20 and 1,000 after all data, and variances at .6 and .001.
    """
    kernel = sgmcmc.sgnht(LINE.posterior, 0.01)
    run = from_everywhere(kernel, batch_size=batch_size, stream="with_replacement")
    ratio, error = variances(run, LINE, 3)
    assert np.all(6 * error < 0.4)
    assert np.all(np.abs(ratio - 1) < 6 * error + (0.16 if batch_size else 0))
    x, y = LINE.data
    gradients = 500 * (x @ LINE.mean - y)[:, None] * x
    noise = np.var(gradients, axis=0, ddof=1).mean() / batch_size if batch_size else 0.0
    found = run.info.thermostat[:, 500:].reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(found, 1 + 0.01 * noise / 2, rtol=0.1 if batch_size else 0.15)


def test_a_chosen_step_of_a_thermostat_arrives():
    """`step_size=None` leaves gradient noise of one size to the thermostat: no step of 2e-5."""
    kernel = sgmcmc.sgnht(LINE.posterior, None)
    run = from_everywhere(kernel, each=8, batch_size=50, stream="with_replacement")
    assert 0.003 < run.tuning.step_size <= 0.5 / np.sqrt(run.tuning.measured["mean noise"])
    assert "thermostat" in run.tuning.limits
    ratio, error = variances(run, LINE, 3)
    assert np.all(np.abs(ratio - 1) < 6 * error + 0.2)


def test_a_kernel_for_a_burnin_is_the_kernel_where_there_is_none():
    """Without a burn-in not a bit changes; with one the same trace does, its ends are leaves."""
    kernel = sgmcmc.sgnht(LINE.posterior, 0.01)
    longer = kernel.for_burnin(1_000)
    assert jax.tree.structure(longer) == jax.tree.structure(kernel)
    assert [int(n) for n in jax.tree.leaves(longer.flows["D"].search)] == [400, 800]
    assert [int(n) for n in jax.tree.leaves(kernel.flows["D"].search)] == [0, 0]
    replicas = sgmcmc.replica_exchange(kernel, [1.0, 2.0], swap_every=3).for_burnin(1_000)
    assert int(replicas.inner.flows["D"].search.held) == 1_200
    inner = sgmcmc.local.local_entropy(kernel, 1.0, num_steps=5, num_burnin=10)
    assert int(inner.kernel.flows["D"].search.found) == 8
    plain = sgmcmc.sgld(LINE.posterior, 0.01)
    assert jax.tree.structure(plain.for_burnin(9)) == jax.tree.structure(plain)


def test_a_running_variance_forgets_the_fall():
    """From 20 V̂ is that of the chain at rest after the burn-in, and no noise is clipped.

    A memory of 1,000 steps that began with the fall has V̂ some 10⁵ times too large by then.
    """
    estimate = gradients.running_variance(0.999)
    kernel = sgmcmc.sghmc(LINE.posterior, 0.005, friction=20.0, noise_estimate=estimate)
    run = from_everywhere(kernel, stream="full")
    assert np.all(run.info.clipped == 0)
    ratio, error = variances(run, LINE, 3)
    # Symplectic Euler's own error at hω = .12 and what V̂ takes off: below a tenth.
    assert np.all(np.abs(ratio - 1) < 6 * error + 0.1)


def test_rmsprop_begins_with_the_curvature():
    """V begins with T ‖H_i‖ where g² is less: at an optimum g = 0, and G is no 1/ε = 10⁵."""
    kernel = sgmcmc.psgld(LINE.posterior, 0.002)
    data = jax.tree.map(jnp.asarray, LINE.data)
    memory = kernel.init(jnp.asarray(LINE.mean, jnp.float32), jax.random.key(0), data).metric
    rows = np.linalg.norm(np.linalg.inv(LINE.covariance), axis=1)
    np.testing.assert_allclose(memory.square, 0.99 * rows, rtol=0.5)
    cold = sgmcmc.psgld(LINE.posterior, 0.002).init(jnp.zeros(3), jax.random.key(0)).metric
    np.testing.assert_array_equal(cold.square, 0.0)


@pytest.mark.parametrize("step_size", [0.002, None])
def test_psgld_from_an_optimum(step_size):
    """On all data from the mode sd ratios are 1 to SGLD's own error, where they were 160 to 500."""
    kernel = sgmcmc.psgld(LINE.posterior, step_size)
    run = sgmcmc.sample(
        jax.random.key(0), kernel, jnp.asarray(LINE.mean, jnp.float32), LINE.data, num_chains=16,
        num_samples=3_000, chain_method="vmap", progress=False,
    )  # fmt: skip
    ratio, error = variances(run, LINE, 1)
    assert np.all(np.abs(np.sqrt(ratio) - 1) < 3 * error + 0.15)
    assert run.info.metric_max.max() < 0.2
    assert run.info.metric_min.min() > 0.005
    assert run.info.thermostat is None


def test_psgld_on_a_normal_from_zero():
    """N(0, I) in three dimensions from 0, where the gradient is 0: ⟨x²⟩ is 1 to 2, and was 500."""
    target = models.gaussian(np.zeros(3), np.eye(3)).posterior()
    run = sgmcmc.sample(
        jax.random.key(0), sgmcmc.psgld(target, 0.05), jnp.zeros(3), num_chains=16,
        num_samples=1_000, chain_method="vmap", progress=False,
    )  # fmt: skip
    # With Γ and a memory of 100 steps between N(0, 1) and (ε + |x|) e^{−x²/2}, whose ⟨x²⟩ is 2.
    assert 0.9 < np.mean(np.asarray(run.draws) ** 2) < 2.1


def network_log_likelihood(params, batch):
    x, y = batch
    return -50.0 * (y - jnp.tanh(x @ params["body"]) @ params["head"]) ** 2


def network_log_prior(params):
    return -0.5 * (jnp.sum(params["head"] ** 2) + jnp.sum((params["body"] / 0.1) ** 2))


def small_network(kernel, **options):
    """A run from a head of zeros; where it is 0 so is the body's gradient."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    data = (x, np.sin(x[:, 0]).astype(np.float32))
    start = {"body": jnp.asarray(0.1 * rng.normal(size=(5, 8)), jnp.float32), "head": jnp.zeros(8)}
    target = sgmcmc.Posterior(network_log_likelihood, network_log_prior, data_size=200)
    return sgmcmc.sample(
        jax.random.key(0), kernel(target), start, data, num_chains=4, batch_size=50,
        stream="with_replacement", num_samples=300, progress=False, **options,
    )  # fmt: skip


def test_psgld_on_a_network_whose_head_is_zero():
    """The body's rms stays near the .1 of its start and prior, where it was 6 in a few steps."""
    metric = metrics.rmsprop(gamma=False)
    run = small_network(lambda target: sgmcmc.psgld(target, 1e-3, metric=metric), num_burnin=0)
    rms = np.sqrt(np.mean(np.asarray(run.draws["body"]) ** 2, axis=(0, 2, 3)))
    assert rms.max() < 0.25


def test_sgnht_on_a_network_whose_head_is_zero():
    """After a fall of 5,000 nats over 48 parameters the momentum's temperature is T, not T/14."""
    run = small_network(lambda target: sgmcmc.sgnht(target, 3e-3))
    temperature = 2 * run.info.kinetic_energy.mean() / 48
    assert 0.8 < temperature < 1.25
