"""Batch streams: unbiased, every example once an epoch, and recomputable from key and counter."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Batch, Posterior, gradients, loop, streams
from sgmcmc.streams import Rows
from sgmcmc.streams._streams import unevenness

SEED = 11
SWEEPS = ["reshuffled", "symmetric", "cyclic"]
SIZES = [(6, 2), (5, 2)]


def likelihood(theta, batch):
    return batch["a"] * theta**2 + batch["b"] * theta


def prior(theta):
    return -(theta**2)


def problem(data_size):
    """A posterior in one dimension whose examples' gradients all differ, and its data."""
    a = jnp.asarray(np.sin(1 + np.arange(data_size)) * 2)
    data = {"a": a, "b": a**3 - 1}
    return Posterior(likelihood, prior, data_size=data_size), data


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def gradient_of(rows, stream, target, data, theta):
    """The minibatch estimate of ∇U for these rows."""
    batch = streams.gather(stream, rows, data)
    return gradients.minibatch()(target, theta, batch, ())[1]


def gradients_of_all(stream, orders, counters, data_size, batch_size):
    """Estimates [order, counter] for every given order, and the full gradient."""
    target, data = problem(data_size)
    theta = jnp.asarray(0.7)
    orders = jnp.asarray([[*order] for order in orders], jnp.int32)

    def one(order, counter):
        rows = stream.rows(order, jax.random.key(SEED), counter, data_size, batch_size)
        return gradient_of(rows, stream, target, data, theta)

    grid = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(orders, jnp.asarray(counters))
    full = target.potential_and_gradient(theta, data)[1]
    per_example = jax.vmap(
        lambda i: jax.grad(lambda t: -likelihood(t, jax.tree.map(lambda x: x[i], data)))(theta)
    )(jnp.arange(data_size))
    return np.asarray(grid), float(full), np.asarray(per_example)


@pytest.mark.parametrize(("data_size", "batch_size"), SIZES)
@pytest.mark.parametrize(
    "stream", [streams.reshuffled(), streams.symmetric()], ids=lambda s: s.name
)
def test_shuffled_streams_are_unbiased_at_every_step(double, stream, data_size, batch_size):
    """Over all N! permutations the mean is ∇U at every step of an epoch, short or not."""
    orders = list(itertools.permutations(range(data_size)))
    counters = range(stream.period(data_size, batch_size))
    grid, full, _ = gradients_of_all(stream, orders, counters, data_size, batch_size)
    np.testing.assert_allclose(grid.mean(axis=0), full, rtol=1e-12)


@pytest.mark.parametrize(("data_size", "batch_size"), SIZES)
def test_cyclic_is_unbiased_over_a_sweep(double, data_size, batch_size):
    """The K gradients of a cyclic sweep sum to K ∇U: a short batch takes the share n_j K/N."""
    stream = streams.cyclic()
    counters = range(stream.period(data_size, batch_size))
    grid, full, _ = gradients_of_all(stream, [range(data_size)], counters, data_size, batch_size)
    # The share scales the whole kick, prior included, and the shares sum to K.
    np.testing.assert_allclose(grid[0].mean(), full, rtol=1e-12)


@pytest.mark.parametrize(("data_size", "batch_size"), SIZES)
def test_with_replacement_is_unbiased(double, data_size, batch_size):
    """Over all N^n tuples the estimate's mean is ∇U, its variance (N²/n) S²."""
    target, data = problem(data_size)
    theta = jnp.asarray(0.7)
    tuples = jnp.asarray(list(itertools.product(range(data_size), repeat=batch_size)), jnp.int32)
    stream = streams.with_replacement()
    one = lambda index: gradient_of(Rows(index), stream, target, data, theta)  # noqa: E731
    grid = np.asarray(jax.vmap(one)(tuples))
    _, full, per_example = gradients_of_all(
        streams.cyclic(), [range(data_size)], [0], data_size, batch_size
    )
    np.testing.assert_allclose(grid.mean(), full, rtol=1e-12)
    wanted = data_size**2 / batch_size * per_example.var()
    np.testing.assert_allclose(grid.var(), wanted, rtol=1e-10)


def test_variance_without_replacement(double):
    """Over all permutations the variance is (N²/n) S² (N − n)/(N − 1)."""
    n, b = 6, 2
    orders = list(itertools.permutations(range(n)))
    grid, _, per_example = gradients_of_all(streams.reshuffled(), orders, range(3), n, b)
    wanted = n**2 / b * per_example.var() * (n - b) / (n - 1)
    np.testing.assert_allclose(grid.var(axis=0), wanted, rtol=1e-10)


def test_errors_of_a_sweep_of_two_sizes(double):
    """Over all permutations of 5 in batches of 2, 2 and 1 the errors' covariance is
    N²S²/(N − 1) (N δ_ij/n_i − 1), and what is no multiple of (K δ_ij − 1) has mean variance ρ K."""
    n, b, sizes = 5, 2, np.array([2, 2, 1])
    orders = list(itertools.permutations(range(n)))
    grid, _, per_example = gradients_of_all(streams.reshuffled(), orders, range(3), n, b)
    unit = n**2 * per_example.var() / (n - 1)
    wanted = unit * (np.diag(n / sizes) - 1)
    np.testing.assert_allclose(np.cov(grid.T, bias=True), wanted, rtol=1e-9)
    rest = np.mean(n / sizes - 3)
    assert rest == pytest.approx(3 * unevenness(n, b))
    assert unevenness(6, 2) == 0


def test_with_replacement_draws_uniform_rows():
    """Rows are uniform on 0..N−1: χ² of 60,000 rows on 6 values (false alarm 1e-6)."""
    stream = streams.with_replacement()
    rows = jax.vmap(lambda t: streams.rows_at(stream, jax.random.key(SEED), t, 6, 3).index)(
        jnp.arange(20_000)
    )
    counts = np.bincount(np.asarray(rows).ravel(), minlength=6)
    assert counts.size == 6
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 36.5  # χ²(5) beyond 36.5: 7.6e-7


def test_permutations_are_uniform():
    """All 3! orders of three examples are equally likely: χ² of 6,000 epochs (false alarm 1e-6)."""
    orders = jax.vmap(lambda e: streams.reshuffled().order(jax.random.key(SEED), e, 3, 3))(
        jnp.arange(6_000)
    )
    codes = np.asarray(orders) @ [9, 3, 1]
    _, counts = np.unique(codes, return_counts=True)
    assert counts.size == 6
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 36.5


def epoch(stream, number, data_size, batch_size):
    """The true rows of each step of an epoch."""
    period = stream.period(data_size, batch_size)
    at = lambda t: streams.rows_at(stream, jax.random.key(SEED), t, data_size, batch_size)  # noqa: E731
    rows = jax.jit(jax.vmap(at))(number * period + jnp.arange(period, dtype=jnp.int32))
    index = np.asarray(rows.index)
    mask = np.ones(index.shape, bool) if rows.mask is None else np.asarray(rows.mask)
    return [i[m] for i, m in zip(index, mask, strict=True)]


@pytest.mark.parametrize(("data_size", "batch_size"), [(6, 2), (5, 2), (7, 7), (9, 4), (3, 1)])
@pytest.mark.parametrize("name", SWEEPS)
def test_every_example_once_a_sweep(name, data_size, batch_size):
    """A sweep of K batches has each example exactly once, the last, short batch included."""
    stream = streams.from_name(name)
    k = streams.num_batches(data_size, batch_size)
    for number in (0, 3):
        steps = epoch(stream, number, data_size, batch_size)
        assert len(steps) == stream.sweeps * k
        for sweep in range(stream.sweeps):
            seen = np.concatenate(steps[sweep * k : (sweep + 1) * k])
            assert sorted(seen) == list(range(data_size))


@pytest.mark.parametrize(
    ("data_size", "batch_size"), [(1192, 119), (434, 43), (10, 4), (9, 5), (12, 5), (3, 2)]
)
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_cut_evenly(name, data_size, batch_size):
    """K = ⌈N/n⌉ batches; the first N mod K have ⌈N/K⌉ examples, the others ⌊N/K⌋."""
    stream = streams.from_name(name)
    k = -(-data_size // batch_size)
    small, larger = divmod(data_size, k)
    wanted = [small + 1] * larger + [small] * (k - larger)
    sizes = [len(rows) for rows in epoch(stream, 1, data_size, batch_size)]
    assert sizes == (wanted + wanted[::-1] if name == "symmetric" else wanted)
    key = jax.random.key(SEED)
    at = lambda t: streams.rows_at(stream, key, t, data_size, batch_size)  # noqa: E731
    rows = jax.jit(at)(jnp.int32(k - 1))
    width = stream.width(data_size, batch_size)
    assert rows.index.shape == (width,) == (-(-data_size // k),)
    if larger:
        np.testing.assert_array_equal(rows.mask, np.arange(width) < small)
        share = None if rows.share is None else float(rows.share)
        assert share == (pytest.approx(small * k / data_size) if name == "cyclic" else None)
        assert len(set(np.asarray(rows.index).tolist())) == width  # padding is another example
    else:
        assert rows.mask is None
        assert rows.share is None


def test_widths():
    """⌈N/K⌉ is at most n, makes as many batches as n, and so is its own width."""
    for data_size, batch_size in itertools.combinations_with_replacement(range(1, 41), 2):
        n, b = batch_size, data_size  # n ≥ b
        width = streams.batch_width(n, b)
        assert width <= b
        assert streams.num_batches(n, width) == streams.num_batches(n, b)
        assert streams.batch_width(n, width) == width
    assert streams.with_replacement().width(10, 4) == 4
    assert streams.Stream("own", streams.full().rows, "sweep").width(10, 4) == 4


@pytest.mark.parametrize("name", SWEEPS)
def test_an_exact_cut_is_an_order_in_pieces(name):
    """Where n divides N batch j is rows j n … (j + 1) n − 1 of JAX's own permutation."""
    stream, key, n, b = streams.from_name(name), jax.random.key(SEED), 12, 3
    order = np.arange(n)
    if name != "cyclic":
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, 2), n))
    for j in range(4):
        counter = jnp.int32(2 * stream.period(n, b) + j)
        rows = streams.rows_at(stream, key, counter, n, b)
        np.testing.assert_array_equal(rows.index, order[j * b : (j + 1) * b])
        assert rows.mask is None
        assert rows.share is None


@pytest.mark.parametrize(("data_size", "batch_size"), SIZES)
def test_backward_sweep_is_the_forward_one_reversed(data_size, batch_size):
    """Symmetric: step 2K − 1 − j of an epoch has the batch of step j, and epochs differ."""
    steps = epoch(streams.symmetric(), 2, data_size, batch_size)
    for forward, backward in zip(steps, reversed(steps), strict=True):
        np.testing.assert_array_equal(forward, backward)


def test_epochs_and_keys_differ():
    """Two epochs, and two keys, give different permutations of 50 (false alarm 1/50!)."""
    stream = streams.reshuffled()
    orders = [
        tuple(np.asarray(stream.order(key, jnp.int32(e), 50, 10)))
        for key in (jax.random.key(SEED), jax.random.key(12))
        for e in range(2)
    ]
    assert len(set(orders)) == 4


def index_likelihood(theta, batch):
    return 3.0**batch + 0 * theta


def no_prior(theta):
    return 0 * theta


@pytest.mark.parametrize(
    ("name", "chain_method"),
    [
        ("with_replacement", "map"),
        ("reshuffled", "vmap"),
        ("symmetric", "map"),
        ("cyclic", "vmap"),
    ],
)
def test_the_loop_passes_the_batch_of_key_and_counter(name, chain_method):
    """Step t's batch is `rows_at(stream, chain's key, t)`: energies −N/n Σ 3^i tell the rows."""
    n, b, chains, burnin = 7, 3, 2, 4
    target = Posterior(index_likelihood, no_prior, data_size=n)
    kernel = sgmcmc.sgld(target, 1e-3)
    run = sgmcmc.sample(
        jax.random.key(SEED), kernel, jnp.zeros(()), jnp.arange(n, dtype=jnp.float32),
        batch_size=b, stream=name,
        num_chains=chains, num_burnin=burnin, num_samples=10, chunk_steps=3,
        chain_method=chain_method, progress=False,
    )  # fmt: skip
    stream_key = jax.random.split(jax.random.key(SEED), 3)[2]
    stream = streams.from_name(name)
    for chain in range(chains):
        key = jax.random.fold_in(stream_key, chain)
        for draw in range(10):
            rows = streams.rows_at(stream, key, jnp.int32(burnin + draw), n, b)
            mask = np.ones(stream.width(n, b)) if rows.mask is None else np.asarray(rows.mask)
            energy = -n / mask.sum() * (mask * 3.0 ** np.asarray(rows.index)).sum()
            np.testing.assert_allclose(run.info.energy[chain, draw], energy, rtol=1e-6)


def primitives(jaxpr, name, inside=()):
    """The chain of enclosing primitives of every equation of that name."""
    found = []
    for equation in jaxpr.eqns:
        here = (*inside, equation)
        if equation.primitive.name == name:
            found.append(here)
        for value in equation.params.values():
            parts = value if isinstance(value, tuple | list) else [value]
            for part in parts:
                inner = getattr(part, "jaxpr", part)
                if hasattr(inner, "eqns"):
                    found += primitives(inner, name, here)
    return found


@pytest.mark.parametrize(("name", "chain_method"), [("reshuffled", "vmap"), ("symmetric", "map")])
def test_permutations_are_sorted_under_a_scalar_condition_only(name, chain_method):
    """No step but an epoch's first sorts: every sort stands in a `cond` with a scalar predicate."""
    target, data = problem(6)
    chains = loop.chains(
        jax.random.key(SEED), sgmcmc.sgld(target, 1e-3), jnp.zeros(()), data,
        batch_size=2, stream=name, num_chains=2, chain_method=chain_method,
    )  # fmt: skip
    jaxpr = eqx.filter_make_jaxpr(loop.advance)(chains, 2)[0]
    sorts = primitives(jaxpr.jaxpr, "sort")
    assert sorts
    for nest in sorts:
        conditions = [e for e in nest if e.primitive.name == "cond"]
        assert conditions, "a permutation outside any cond is sorted at every step"
        assert all(e.invars[0].aval.shape == () for e in conditions)


def test_gather_takes_any_pytree_and_promises_its_rows():
    """A batch has the data's structure, and the index says which rows they are."""
    data = {
        "x": jnp.arange(12).reshape(6, 2),
        "y": (jnp.arange(6.0), jax.random.split(jax.random.key(SEED), 6)),
    }
    rows = Rows(jnp.array([5, 0, 5]))
    batch = streams.gather(streams.reshuffled(), rows, data)
    assert isinstance(batch, Batch)
    np.testing.assert_array_equal(batch.data["x"], np.asarray(data["x"])[[5, 0, 5]])
    np.testing.assert_array_equal(batch.data["y"][0], [5, 0, 5])
    assert batch.data["y"][1].shape == (3,)
    np.testing.assert_array_equal(batch.index, [5, 0, 5])


def test_full_hands_over_the_data_themselves():
    """`full` copies nothing."""
    data = {"x": jnp.arange(6.0)}
    rows = streams.rows_at(streams.full(), jax.random.key(SEED), jnp.int32(3), 6, 6)
    assert streams.gather(streams.full(), rows, data).data is data


def cuts(examples, sizes):
    """Every way to cut examples into sets of these sizes, in turn."""
    if not sizes:
        yield ()
        return
    for first in itertools.combinations(sorted(examples), sizes[0]):
        for rest in cuts(examples - {*first}, sizes[1:]):
            yield (first, *rest)


def same_backwards(data_size, batch_size, num_steps):
    """Whether blocks of an even sweep have, whatever came before, one law in both directions."""
    k = streams.num_batches(data_size, batch_size)
    small, larger = divmod(data_size, k)
    sizes = [small + 1] * larger + [small] * (k - larger)
    epochs = itertools.product(
        list(cuts({*range(data_size)}, sizes)), repeat=math.lcm(k, num_steps) // k
    )
    sequences = [tuple(itertools.chain(*each)) for each in epochs]
    forwards = set(sequences)  # all equally likely, and each of them once
    assert len(forwards) == len(sequences)
    for at in range(0, len(sequences[0]), num_steps):
        turned = {s[:at] + s[at : at + num_steps][::-1] + s[at + num_steps :] for s in sequences}
        if turned != forwards:
            return False
    return True


@pytest.mark.parametrize(
    ("data_size", "batch_size", "num_steps"),
    [
        *itertools.product((2, 3, 4), (1, 2), (1, 2, 3)),
        (4, 3, 2), (4, 1, 4), (2, 1, 4), (3, 2, 4), (5, 2, 3), (5, 3, 2), (7, 4, 2),
        (10, 3, 2), (10, 3, 4),  # batches of 3, 3, 2 and 2
    ],
)  # fmt: skip
def test_blocks_are_refused_where_they_have_another_law_backwards(data_size, batch_size, num_steps):
    """All cuts enumerated: blocks of batches of one size each, or whole epochs of equal ones."""
    given = streams.reshuffled(), num_steps, data_size, batch_size
    if same_backwards(data_size, batch_size, num_steps):
        streams.require_reversible(*given)
    else:
        with pytest.raises(ValueError, match=r'stream: got "reshuffled".*Allowed'):
            streams.require_reversible(*given)


def test_unknown_stream_lists_the_known_ones():
    """An unknown name is a ValueError that lists what is allowed."""
    with pytest.raises(ValueError, match=r"stream: got 'shuffled'; allowed: .*reshuffled.*full"):
        streams.from_name("shuffled")
