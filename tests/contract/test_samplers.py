"""What every sampler owes, over the rows of `tests/registry.py`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Batch, Blocks, diagnostics, gradients, reducers
from tests import registry
from tests.compare import assert_close, assert_same_bits, assert_same_tree, flat
from tests.problems import regression

CHAINS, DRAWS = 128, 400
# Where users start: at 0, at draws of the prior, far out, at the mode; as many chains of each.
STARTS = ("zero", "prior", "far", "mode")


class Count:
    """How often the likelihood was traced; what is in slots is in no fingerprint."""

    __slots__ = ("made",)

    def __init__(self):
        self.made = 0

    def add(self):
        self.made += 1


class Case:
    """A row at work; what several tests look at is computed once."""

    def __init__(self, row):
        self.row = row
        self.traces = Count()
        self.problem = regression(self.traces.add)
        self.kernel = row.kernel(self.problem)

    def sample(self, kernel=None, params=None, **options):
        """A short run from the problem's start."""
        row, problem = self.row, self.problem
        given = {
            "num_chains": 3, "num_burnin": 5, "num_samples": 12, "thinning": 2,
            "reducers": {"moments": reducers.covariance()}, "chain_method": "vmap",
            "progress": False,
        }  # fmt: skip
        if row.needs_data:
            given |= {"batch_size": row.batch_size, "stream": row.stream}
        kernel = self.kernel if kernel is None else kernel
        data = problem.data if row.needs_data else None
        params = problem.start if params is None else params
        return sgmcmc.sample(jax.random.key(1), kernel, params, data, **{**given, **options})

    @functools.cached_property
    def straight(self):
        """The run that others are compared with."""
        return self.sample()

    def starts(self):
        """The first position of each chain of `many`, one after another."""
        prior = np.random.default_rng(0).normal(size=(CHAINS // len(STARTS), 3))
        places = [np.zeros(3), prior, np.full(3, self.row.far), self.problem.mean]
        for place in np.concatenate([np.broadcast_to(p, prior.shape) for p in places]):
            yield {
                "b": jnp.asarray(place[0], jnp.float32),
                "w": jnp.asarray(place[1:], jnp.float32),
            }

    def many(self, kernel, num_burnin):
        """400 draws, four steps apart, of each of 128 chains under gradients of all data."""
        starts = self.starts()
        given = {"stream": "reshuffled", "batch_size": None} if self.row.needs_data else {}
        return self.sample(
            kernel, lambda key: next(starts), num_chains=CHAINS, num_burnin=num_burnin,
            num_samples=DRAWS, thinning=4, reducers=None, **given,
        )  # fmt: skip

    def law(self, kernel):
        """The stationary law under gradients of all data."""
        everything = Batch(jnp.asarray(self.problem.data))
        return diagnostics.stationary_law(kernel, self.problem.start, [everything])

    def batch(self, kernel):
        """What one step is given: its first rows, or whatever else the kernel asks for."""
        traits, data = kernel.traits, jnp.asarray(self.problem.data)
        if not self.row.needs_data:
            return None
        if self.row.batch_size is None:
            return Blocks(None, data) if traits.needs_data else Batch(data)
        index = jnp.arange(6 * traits.batches_per_step).reshape(-1, 6) % len(data)
        several = traits.batches_per_step > 1 or traits.needs_data
        batches = Batch(data[index], index) if several else Batch(data[index[0]], index[0])
        return Blocks(batches, data) if traits.needs_data else batches

    def begin(self, kernel, start):
        """The first state."""
        return kernel.init(start, jax.random.key(100), jnp.asarray(self.problem.data))


@pytest.fixture(scope="module", params=registry.ALL, ids=lambda row: row.id)
def case(request):
    """Each row in turn; pytest runs all tests of one before it makes the next."""
    if not request.param.available():
        pytest.skip(f"needs {request.param.extra}")
    return Case(request.param)


def test_burnin_and_draws_share_one_trace(case):
    """A run with burn-in traces no more than one without that is repeated, nor do other numbers.

    Other chunks and counts of steps neither. What a repeated run traces is the check of the
    likelihood's shape alone. (The first test of each row: no program of it is made yet.)
    """

    def traces(kernel=None, **options):
        before = case.traces.made
        assert case.sample(kernel, **options).num_samples == 12
        return case.traces.made - before

    assert traces(num_burnin=0) > traces(num_burnin=0) == (checked := traces(num_burnin=0))
    assert traces() == checked
    assert traces(chunk_steps=1, num_burnin=2) == checked
    if case.row.leaves:
        step_size = 0.9 * case.row.step_size
        assert traces(case.row.kernel(case.problem, step_size=step_size)) == checked
        assert traces(case.row.kernel(case.problem, temperature=1.25)) == checked


def test_chunks_change_no_bit(case):
    """Chunks of 1 and 7 steps: draws, weights, info and reduced values are the same."""
    for steps in (1, 7):
        assert_same_bits(case.sample(chunk_steps=steps), case.straight)


def test_a_resumed_run_is_the_straight_one(case, tmp_path):
    """In memory, twice over, and saved and loaded: the same bits, and the first run unharmed."""
    first = case.sample(num_samples=4, chunk_steps=3)
    kept = jax.tree.map(np.copy, first.draws)
    assert_same_bits(first.resume(8, progress=False), case.straight)
    assert_same_tree(first.draws, kept)
    assert_same_bits(first.resume(8, progress=False), case.straight)
    loaded = sgmcmc.load(first.save(tmp_path / "run"))
    assert_same_bits(loaded, first)
    data = case.problem.data if case.row.needs_data else None
    given = {"kernel": case.kernel, "data": data, "reducers": {"moments": reducers.covariance()}}
    assert_same_bits(loaded.resume(8, progress=False, **given), case.straight)


def test_chains_one_by_one_are_those_side_by_side(case):
    """`map` agrees with `vmap` to the rounding of 29 steps, here below 1e-4."""
    in_turn = case.sample(chain_method="map")
    assert_close(in_turn.draws, case.straight.draws, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(in_turn.weights, case.straight.weights, rtol=1e-4)


def test_draw_then_drive_is_a_step(case):
    """`step(key, …)` is `drive(draw(key, …), …)`, and `draw` depends on the key alone."""
    kernel, batch = case.kernel, case.batch(case.kernel)
    state = case.begin(kernel, case.problem.start)
    noise = kernel.draw(jax.random.key(7), state)
    stepped = kernel.step(jax.random.key(7), state, batch)
    assert_close(kernel.drive(noise, state, batch), stepped)
    elsewhere = state._replace(position=jax.tree.map(lambda x: x + 1, state.position))
    assert_same_tree(kernel.draw(jax.random.key(7), elsewhere), noise)
    assert stepped[1].finite
    moved = jax.tree.map(lambda x, y: bool(jnp.any(x != y)), stepped[0].position, state.position)
    if not (kernel.traits.exact or case.row.extra):  # those may have refused to move
        assert any(jax.tree.leaves(moved))


def test_a_step_is_jitted_and_promotes_nothing(case):
    """`jax.jit` takes the bound methods, and no rank or dtype is promoted in `init` and `step`."""
    kernel = case.row.kernel(case.problem)
    batch, data = case.batch(kernel), jnp.asarray(case.problem.data)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        state = jax.jit(kernel.init).eval_shape(case.problem.start, jax.random.key(0), data)
        following, _ = jax.jit(kernel.step).eval_shape(jax.random.key(0), state, batch)
        jax.jit(kernel.refresh).eval_shape(state, data)
    assert _shapes(following) == _shapes(state)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
def test_a_step_keeps_the_state_as_it_is(case, dtype):
    """Its structure, shapes and dtypes, under every kind of noise that the sampler bears."""
    if dtype == jnp.bfloat16 and case.row.extra:
        pytest.skip("BlackJAX's own kernels are of float32 and float64")
    with jax.enable_x64(dtype == jnp.float64):
        start = jax.tree.map(lambda x: jnp.asarray(x, dtype), case.problem.start)
        for options in [{"noise": kind} for kind in case.row.noises] or [{}]:
            kernel = case.row.kernel(case.problem, **options)
            batch = case.batch(kernel)
            before = jax.eval_shape(case.begin, kernel, start)
            after, info = jax.eval_shape(kernel.step, jax.random.key(0), before, batch)
            refreshed = jax.eval_shape(kernel.refresh, before, jnp.asarray(case.problem.data))
            assert _shapes(after) == _shapes(before) == _shapes(refreshed)
            assert {x.dtype for x in jax.tree.leaves(before.position)} == {jnp.dtype(dtype)}
            assert _shapes(info.position) == _shapes(before.position)


def test_every_kind_of_noise_that_it_bears(case):
    """A step in bfloat16 is finite and moves; other kinds are an error that says why."""
    for kind in case.row.noises:
        kernel = case.row.kernel(case.problem, noise=kind)
        start = jax.tree.map(lambda x: x.astype(jnp.bfloat16), case.problem.start)
        state = case.begin(kernel, start)
        after, info = kernel.step(jax.random.key(1), state, case.batch(kernel))
        assert _shapes(after) == _shapes(state)
        assert bool(info.finite)
    if not case.row.noises:
        return
    for kind in {*registry.NOISES, "uniform"} - {*case.row.noises}:
        with pytest.raises(ValueError, match=f"noise: got '{kind}'; allowed: "):
            case.row.kernel(case.problem, noise=kind)


def test_parameters_of_any_shape(case):
    """A nested pytree with scalars, vectors and matrices: structure kept, and the step finite."""
    start = {"b": jnp.zeros(()), "deep": [(jnp.ones((2, 1)),), {"x": jnp.ones((1, 1, 1))}]}

    def unpack(params):
        return {"b": params["b"], "w": params["deep"][0][0][:, 0] * params["deep"][1]["x"][0, 0]}

    target = case.problem.posterior
    problem = case.problem._replace(
        posterior=sgmcmc.Posterior(
            lambda params, batch: target.log_likelihood(unpack(params), batch),
            lambda params: target.log_prior(unpack(params)) - 0.5 * jnp.sum(params["deep"][1]["x"]),
            data_size=target.data_size,
        ),
        start=start,
        mean=np.zeros(4),
    )
    kernel = case.row.kernel(problem)
    state = case.begin(kernel, start)
    after, info = kernel.step(jax.random.key(1), state, case.batch(kernel))
    assert _shapes(after) == _shapes(state)
    assert _shapes(after.position) == _shapes(start)
    assert bool(info.finite)


def test_numbers_are_leaves(case):
    """Kernels that differ in numbers alone share a treedef, and their leaves are arrays."""
    if not case.row.leaves:
        pytest.skip("its numbers are in the algorithm that it is made of")
    step_size = 1.1 * case.row.step_size
    other = case.row.kernel(case.problem, step_size=step_size, temperature=1.5)
    # One posterior, hence one static part; what differs is in the leaves.
    assert jax.tree.structure(other) == jax.tree.structure(case.kernel)
    leaves = jax.tree.leaves(case.kernel)
    assert leaves
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    assert any(np.any(x != y) for x, y in zip(leaves, jax.tree.leaves(other), strict=True))


def test_repr_has_the_name(case):
    """What is told to the user has the sampler's name, and its step size where it has one."""
    shown = repr(case.kernel)
    assert shown.startswith(case.row.shown or case.row.name)
    if case.row.leaves:
        assert f"step_size={case.row.step_size:g}" in shown
    assert case.kernel.traits.name in shown


BAD = {
    "posterior": [lambda params: 0.0, None],
    "step_size": [0.0, -1.0, np.nan, np.inf, "0.1"],
    "friction": [-1.0, np.nan, "high"],
    "temperature": [-0.5, np.nan, "cold"],
    "metric": ["identity", jnp.ones(2), sgmcmc.metrics.identity],
    "gradient": ["full", 3, gradients.full],
    "noise": ["uniform", 1],
}


def test_bad_arguments_are_named(case):
    """An error at the call: the argument, and what was given."""
    for name in case.row.takes:
        for bad in BAD[name]:
            with pytest.raises((TypeError, ValueError), match=rf"{name}: got "):
                case.row.kernel(case.problem, **{name: bad})


def test_an_array_for_a_number_is_refused(case):
    """A grid of step sizes is for `vmap`; `sample` says so before it starts."""
    if not case.row.leaves:
        pytest.skip("its numbers are in the algorithm that it is made of")
    kernel = case.row.kernel(case.problem, step_size=case.row.step_size * jnp.ones(2))
    with pytest.raises(ValueError, match=r"step_size: got an array of shape \(2,\)"):
        case.sample(kernel)


def test_temperature_zero_optimises(case):
    """Without noise nothing is NaN: the law is the mode, or 3,000 steps lead there."""
    row, problem = case.row, case.problem
    if not row.freezes:
        pytest.skip("T > 0 alone")
    kernel = row.kernel(problem, temperature=0.0)
    if row.affine:
        law = case.law(kernel)
        np.testing.assert_allclose(law.mean, problem.mean, atol=1e-8)
        np.testing.assert_allclose(law.covariance, 0.0, atol=1e-12)
        return
    last = flat(case.many(kernel, num_burnin=3_000).draws)[:, -1]
    np.testing.assert_allclose(last, np.broadcast_to(problem.mean, last.shape), atol=0.02)


def test_its_law(case):
    """Exact algebra where a step is affine, else both moments of a run.

    And from every start that users make, after the default burn-in of 1,000 steps.
    """
    if case.row.affine:
        _check_algebra(case)
    else:
        _check_moments(case)


def _check_algebra(case):
    """Mean to 1e-8; the variance's error within the row's, and smaller by 2^order at h/2.

    Curvatures of 8 to 30 make h√k = .27 (h k = .3): at its half the next order changes the
    ratio by 20% at most (QUICSORT's is 6.8 for 8).
    """
    problem, row = case.problem, case.row
    errors = []
    for step_size in (row.step_size, row.step_size / 2):
        kernel = row.kernel(problem, step_size=step_size)
        law = case.law(kernel)
        np.testing.assert_allclose(law.mean, problem.mean, atol=1e-8)
        scale = np.linalg.inv(np.linalg.cholesky(problem.covariance))
        error = scale @ (law.covariance - problem.covariance) @ scale.T
        errors.append(np.abs(error).max())
        if step_size == row.step_size:
            # Second moments settle as the 1,000th power: from a far start, of 30,000 nats, to 1e-5.
            fall = np.sum((scale @ (row.far - problem.mean)) ** 2)
            assert fall * law.spectral_radius**1_000 < 1e-5
    large, small = errors
    assert large <= row.bias + 1e-6
    assert small < 1e-6 or small <= 1.2 * large / 2**kernel.traits.order


def _check_moments(case):
    """E[w (x − μ)] and E[w ((x − μ)² − σ²)] are 0 to 5 standard errors and the row's bias.

    A chain's mean is one of 128 independent numbers, so that the error is known whatever the
    autocorrelation. A false alarm in 400,000 a comparison (Student's t of 127), in 7,000 for
    the 54 of all rows. An error of a quarter in a variance is always seen beyond the bias.
    Then the 32 chains of each start by themselves, to eight standard errors: 5e-9 a comparison
    (Student's t of 31), and an error of three quarters is always seen.
    """
    row, problem = case.row, case.problem
    run = case.many(case.kernel, num_burnin=1_000)
    x, weights = flat(run.draws) - problem.mean, run.weights[..., None]
    assert x.shape == (CHAINS, DRAWS, 3)
    variance = np.diag(problem.covariance) + row.spread
    scale = variance * weights.mean()
    for name, moment, unit in (
        ("mean", weights * x, np.sqrt(variance) * weights.mean()),
        ("variance", weights * (x**2 - variance), scale),
    ):
        by_chain = moment.mean(axis=1, dtype=float) / unit
        error = by_chain.std(axis=0, ddof=1) / np.sqrt(CHAINS)
        assert np.all(5 * error < 0.25), f"{name}: too few draws to see an error of a quarter"
        found = by_chain.mean(axis=0)
        assert np.all(np.abs(found) < 5 * error + row.bias), f"{name}: {found} ± {error}"
        for start, chains in zip(STARTS, np.split(by_chain, len(STARTS)), strict=True):
            error = chains.std(axis=0, ddof=1) / np.sqrt(len(chains))
            assert np.all(8 * error < 0.75), f"{name} from {start}: ± {error}"
            found = chains.mean(axis=0)
            assert np.all(np.abs(found) < 8 * error + row.bias), f"{name} from {start}: {found}"


def _shapes(tree):
    """Structure, and shape and dtype of each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(x), jnp.result_type(x)) for x in leaves]
