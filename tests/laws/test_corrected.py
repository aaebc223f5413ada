"""Metropolis-corrected samplers, with no sampling: detailed balance, invariance, what streams do.

The acceptance probability is held against densities computed from the proposal's Jacobian,
and moments after whole blocks are computed by quadrature.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import sgmcmc
from sgmcmc import gradients, metrics, streams
from sgmcmc.exact._base import BlockNoise
from sgmcmc.kernels._splitting import Pace
from sgmcmc.types import Batch, Blocks
from tests.laws import blocks

BOTH = [sgmcmc.amagold, sgmcmc.sggmc]
# A pytree of three parameters, and four examples that pull each its own way.
START = {"b": jnp.array(0.3), "w": jnp.array([-0.4, 0.8])}
DATA = np.random.default_rng(0).normal(size=(4, 3))
COVARIANCE = np.array([[1.0, 0.3, 0.1], [0.3, 0.7, -0.2], [0.1, -0.2, 0.5]])


def _log_likelihood(params, batch):
    flat, _ = ravel_pytree(params)
    return -jnp.sum(jnp.logaddexp(0.0, batch @ flat[:, None]), -1) - 0.1 * jnp.sum(flat**4)


def _log_prior(params):
    flat, _ = ravel_pytree(params)
    return -0.5 * jnp.sum(flat**2)


def widened(tree):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), tree)


# -------------------------------------------------------------------------- detailed balance


@eqx.filter_jit
def outcome(kernel, normals, position, momentum, given):
    """(end as a vector, (position, momentum, info)) of a block that is surely accepted."""
    state = kernel.init(position, jax.random.key(0), given.data)._replace(momentum=momentum)
    following, info = kernel.drive(BlockNoise(normals, jnp.zeros(())), state, given)
    end = ravel_pytree((following.position, following.momentum))[0]
    return end, (following.position, following.momentum, info)


@eqx.filter_jit
def ends(kernel, normals, position, momentum, given):
    """The end as a function of the normals, and its Jacobian."""

    def end(flat):
        return outcome(kernel, flat.reshape(normals.shape), position, momentum, given)[0]

    return end(normals.ravel()), jax.jacfwd(end)(normals.ravel())


def log_density(kernel, normals, position, momentum, given):
    """log q(end | beginning), up to a constant: that of the normals, less log |det|."""
    _, jacobian = ends(kernel, normals, position, momentum, given)
    return -0.5 * float(np.sum(normals**2)) - np.linalg.slogdet(np.asarray(jacobian))[1]


def log_target(kernel, position, momentum, data, temperature):
    energy = -kernel.posterior.log_density(position, data)
    kinetic = sum(jnp.sum(r**2) for r in jax.tree.leaves(momentum)) / 2
    return -float(energy + kinetic) / temperature


def check_detailed_balance(kernel, temperature=1.0):
    """π(z) q(z → z') a(z → z') = π(Sz') q(Sz' → Sz) a(Sz' → Sz), S the change of p's sign.

    The number of normals is that of θ and p, so that the end determines them, and q follows
    from the Jacobian alone. Going back, batches come in the reverse order.
    """
    position, data = widened(START), jnp.asarray(DATA)
    rng = np.random.default_rng(1)
    unravel = ravel_pytree(position)[1]
    momentum = unravel(jnp.asarray(rng.normal(size=3)))
    normals = jnp.asarray(rng.normal(size=(2, 3)))
    steps = kernel.num_steps
    there = Blocks(Batch(data[np.arange(steps)[:, None]]), data)
    back = Blocks(jax.tree.map(lambda x: x[::-1], there.batches), data)
    _, (position_1, momentum_1, info) = outcome(kernel, normals, position, momentum, there)
    flip = lambda r: jax.tree.map(jnp.negative, r)  # noqa: E731
    wanted = ravel_pytree((position, flip(momentum)))[0]
    found = jnp.zeros_like(normals)
    for _ in range(30):
        end, jacobian = ends(kernel, found, position_1, flip(momentum_1), back)
        found = found - np.linalg.solve(jacobian, end - wanted).reshape(found.shape)
    end, (_, _, info_back) = outcome(kernel, found, position_1, flip(momentum_1), back)
    np.testing.assert_allclose(end, wanted, atol=1e-10)
    forwards = (
        log_target(kernel, position, momentum, data, temperature)
        + log_density(kernel, normals, position, momentum, there)
        + np.log(info.acceptance)
    )
    backwards = (
        log_target(kernel, position_1, momentum_1, data, temperature)
        + log_density(kernel, found, position_1, flip(momentum_1), back)
        + np.log(info_back.acceptance)
    )
    np.testing.assert_allclose(forwards, backwards, rtol=1e-10)
    # One of the two is surely accepted, and the test would be void were it both.
    assert max(info.acceptance, info_back.acceptance) == 1
    assert min(info.acceptance, info_back.acceptance) < 0.99


def small(sampler, **options):
    """A kernel with as many normals a block as θ and p have numbers."""
    target = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=4)
    steps = 2 if sampler is sgmcmc.amagold else 1
    return sampler(target, 0.4, steps, friction=1.3, **options)


@pytest.mark.parametrize("sampler", BOTH)
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_detailed_balance(sampler, temperature):
    """Under a dense metric, on a target that is not Gaussian, at T = 1 and T ≠ 1."""
    check_detailed_balance(
        small(sampler, metric=metrics.dense(COVARIANCE), temperature=temperature), temperature
    )


@pytest.mark.parametrize("sampler", BOTH)
@pytest.mark.parametrize("metric", ["identity", "diagonal"])
def test_detailed_balance_of_the_other_metrics(sampler, metric):
    """Identity and diagonal; with control variates for a gradient too."""
    made = {
        "identity": metrics.identity(),
        "diagonal": metrics.diagonal({"b": 0.5, "w": jnp.array([1.0, 2.0])}),
    }[metric]
    check_detailed_balance(small(sampler, metric=made, gradient=gradients.control_variate(START)))


@pytest.mark.parametrize("sampler", BOTH)
def test_blocks_join(sampler):
    """A block of four steps is two of two: the same end, and the acceptances' logs add up.

    Half O's, or half drifts, of two blocks meet in one: for SGGMC without friction, where O
    does nothing, for AMAGOLD at any.
    """
    friction = 1.3 if sampler is sgmcmc.amagold else 0.0
    target = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=4)
    long, short = (sampler(target, 0.3, steps, friction=friction) for steps in (4, 2))
    position, data = widened(START), jnp.asarray(DATA)
    rng = np.random.default_rng(3)
    unravel = ravel_pytree(position)[1]
    momentum = unravel(jnp.asarray(rng.normal(size=3)))
    extra = long.rows_beside
    normals = jnp.asarray(rng.normal(size=(4 + extra, 3)))

    def log_ratio(kernel, normals, position, momentum, rows):
        """log a(there) − log a(back) is the log ratio itself, whatever its sign."""
        given = Blocks(Batch(data[rows][:, None]), data)
        end, (x, r, info) = outcome(kernel, normals, position, momentum, given)
        energies = [-kernel.posterior.log_density(p, data) for p in (position, x)]
        state = kernel.init(position, jax.random.key(0), data)._replace(momentum=momentum)
        pace = Pace(
            jnp.asarray(0.3), jnp.asarray(friction), jnp.asarray(1.0), kernel.metric, kernel.clock,
            state.clock.count,
        )  # fmt: skip
        work = kernel.propose(normals, state, pace, given).work
        ratio = float(energies[0] - energies[1] - work)
        np.testing.assert_allclose(info.acceptance, np.exp(min(0, ratio)), rtol=1e-12)
        return end, x, r, ratio

    end, _, _, whole = log_ratio(long, normals, position, momentum, np.arange(4))
    _, x, r, first = log_ratio(short, normals[: 2 + extra], position, momentum, np.arange(2))
    rest, _, _, second = log_ratio(short, normals[2:], x, r, np.arange(2, 4))
    np.testing.assert_allclose(end, rest, rtol=1e-12)
    np.testing.assert_allclose(whole, first + second, rtol=1e-10)


# ------------------------------------------------------- invariance, and what streams may do

# stream, examples, batch size, L: in all of them the law of blocks is the same backwards ...
REVERSIBLE = [
    ("with_replacement", 3, 1, 2),
    ("reshuffled", 4, 1, 2),  # an epoch cut in two
    ("reshuffled", 3, 1, 3),
    ("reshuffled", 2, 1, 4),  # two epochs
    ("reshuffled", 3, 2, 1),  # one batch alone, short or not
    ("symmetric", 2, 1, 4),
    ("symmetric", 3, 2, 4),
    ("cyclic", 3, 1, 1),
]
# ... and in none of these.
IRREVERSIBLE = [
    ("cyclic", 2, 1, 2),
    ("cyclic", 3, 1, 3),
    ("reshuffled", 3, 1, 2),  # the second block holds the end of an epoch and a new beginning
    ("reshuffled", 3, 2, 2),  # the short batch always comes last
    ("symmetric", 2, 1, 2),
    ("symmetric", 3, 1, 3),
]


def law_change(sampler, stream, data_size, batch_size, num_steps, step_size=0.4):
    target, data = blocks.double_well(data_size)
    kernel = sampler(target, step_size, num_steps, friction=0.0)
    made = blocks.sequences(streams.from_name(stream), data, batch_size, num_steps)
    return blocks.change(kernel, data, made)


@pytest.mark.parametrize("case", REVERSIBLE, ids=str)
def test_reversible_streams_leave_the_law_alone(case):
    """All sequences of batches enumerated: no moment moves, to the grid's accuracy."""
    stream, data_size, batch_size, num_steps = case
    streams.require_reversible(streams.from_name(stream), num_steps, data_size, batch_size)
    np.testing.assert_allclose(law_change(sgmcmc.sggmc, *case), 0, atol=2e-3)


@pytest.mark.parametrize("case", IRREVERSIBLE, ids=str)
def test_other_streams_move_the_law_and_are_refused(case):
    """The same enumeration: some moment moves by over .03; the error says what is allowed."""
    stream, data_size, batch_size, num_steps = case
    assert np.max(np.abs(law_change(sgmcmc.sggmc, *case))) > 0.03
    with pytest.raises(ValueError, match=f'stream: got "{stream}".*Allowed: "with_replacement"'):
        streams.require_reversible(streams.from_name(stream), num_steps, data_size, batch_size)


def test_amagold_needs_the_same_of_its_streams():
    """AMAGOLD's blocks: an invariant law with replacement, another with a fixed order."""
    still = law_change(sgmcmc.amagold, "with_replacement", 3, 1, 2)
    np.testing.assert_allclose(still, 0, atol=2e-3)
    assert np.max(np.abs(law_change(sgmcmc.amagold, "cyclic", 2, 1, 2))) > 0.03


# ------------------------------------------------------------------- the dynamics themselves


def test_a_block_of_sggmc_is_obabo():
    """With L = 1 an accepted block is one step of OBABO with the same normals and batch."""
    target, data = blocks.double_well()
    options = {"friction": 1.7, "temperature": 0.6, "metric": metrics.diagonal(1.3)}
    one = sgmcmc.sggmc(target, 0.3, 1, **options)
    other = sgmcmc.langevin(target, 0.3, word="OBABO", reuse_gradient=False, **options)
    normals, x, r = jnp.array([[0.4], [-1.1]]), jnp.array(0.8), jnp.array(-0.5)
    batch = Batch(jax.tree.map(lambda leaf: leaf[1:2], data))
    given = Blocks(jax.tree.map(lambda leaf: leaf[None], batch), data)
    _, (position, momentum, _) = outcome(one, normals, x, r, given)
    state = other.init(x, jax.random.key(0), data)._replace(momentum=r)
    following, _ = eqx.filter_jit(other.drive)(normals, state, batch)
    np.testing.assert_allclose(position, following.position, rtol=1e-12)
    np.testing.assert_allclose(momentum, following.momentum, rtol=1e-12)


def test_a_block_of_amagold_by_hand():
    """Two steps in the paper's own letters, p, β = γ/2 and mass 1/s², and its ρ."""
    target, data = blocks.double_well()
    h, gamma, temperature, s = 0.3, 1.7, 0.6, 1.3
    kernel = sgmcmc.amagold(
        target, h, 2, friction=gamma, temperature=temperature, metric=metrics.diagonal(s)
    )
    normals, x, r = np.array([[0.4], [-1.1]]), 0.8, -0.5
    batches = Batch(jax.tree.map(lambda leaf: leaf[jnp.array([[1], [0]])], data))
    given = Blocks(batches, data)
    _, (position, momentum, info) = outcome(
        kernel, jnp.asarray(normals), jnp.asarray(x), jnp.asarray(r), given
    )
    a, b, c = blocks.WELL
    beta, start, p, rho = gamma / 2, x, r / s, 0.0
    x = x + h / 2 * s**2 * p
    for step, i in enumerate((1, 0)):
        if step:
            x = x + h * s**2 * p
        g = 4 * (a[i] * x**3 - b[i] * x + c[i])
        noise = np.sqrt(4 * beta * h * temperature) / s * normals[step, 0]
        new = ((1 - h * beta) * p - h * g + noise) / (1 + h * beta)
        rho += h / (2 * temperature) * g * s**2 * (p + new)
        p = new
    x = x + h / 2 * s**2 * p
    np.testing.assert_allclose([position, momentum], [x, s * p], rtol=1e-12)
    ratio = np.exp((blocks.potential(start) - blocks.potential(x)) / temperature + rho)
    np.testing.assert_allclose(info.acceptance, min(1, ratio), rtol=1e-10)
    assert info.acceptance < 1
