"""Point by point, which random words a run consumes: none twice, whatever the run does.

Threefry is a block cipher: a key and a counter give one block. `fold_in(key, d)` is block d,
`split(key, n)` are blocks 0 to n − 1, and m random words take blocks 0 to m − 1. The ledger
records at run time, by callbacks, the words of every key consumed and the blocks taken.
"""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior, noise


class Ledger:
    """What was taken from which key: derivations of other keys, and draws of numbers."""

    def __init__(self):
        self.derived, self.drawn = Counter(), Counter()

    def derive(self, key, blocks):
        jax.debug.callback(self._put("derived"), _words(key), jnp.asarray(blocks))

    def draw(self, key, count):
        jax.debug.callback(self._put("drawn"), _words(key), jnp.arange(count))

    def _put(self, kind):
        def put(words, blocks):
            for block in np.ravel(blocks):
                getattr(self, kind)[(*np.asarray(words).tolist(), int(block))] += 1

        return put

    def check(self):
        """Raise unless no block is drawn twice, nor both drawn and derived from."""
        jax.effects_barrier()
        assert not set(self.derived) & set(self.drawn), "a key is both drawn from and a parent"
        twice = [block for block, times in self.drawn.items() if times > 1]
        assert not twice, f"{len(twice)} blocks are drawn twice, such as {twice[:3]}"


def _words(key):
    return jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key


@pytest.fixture
def ledger(monkeypatch):
    """Every function of the library's by which keys are consumed, with a record kept."""
    book, epochs = Ledger(), set()
    plain = {
        name: getattr(jax.random, name)
        for name in ("fold_in", "split", "permutation", "randint", "uniform")
    }
    draw = noise.draw

    def fold_in(key, data):
        book.derive(key, [data] if jnp.ndim(data) == 0 else data)
        return plain["fold_in"](key, data)

    def split(key, num=2):
        book.derive(key, np.arange(num))
        return plain["split"](key, num)

    def permutation(key, x, **options):
        # Splits the key and sorts by the bits of the second half. The first epoch's order is
        # made at the start and again at its first step: the same numbers for the same use.
        def put(words):
            epochs.add(tuple(np.asarray(words).tolist()))

        jax.debug.callback(put, _words(key))
        return plain["permutation"](key, x, **options)

    def randint(key, shape, *rest, **options):
        book.derive(key, np.arange(2))
        for half in plain["split"](jax.random.clone(key)):
            book.draw(half, math.prod(shape))
        return plain["randint"](key, shape, *rest, **options)

    def uniform(key, shape=(), *rest, **options):
        book.draw(key, math.prod(shape))
        return plain["uniform"](key, shape, *rest, **options)

    def record(rng_key, like, count, kind):
        made = draw(rng_key, like, count, kind)
        book.draw(rng_key, made.size)
        return made

    for name, function in {
        "fold_in": fold_in, "split": split, "permutation": permutation, "randint": randint,
        "uniform": uniform,
    }.items():  # fmt: skip
        monkeypatch.setattr(jax.random, name, function)
    monkeypatch.setattr(noise, "draw", record)
    book.epochs = epochs
    return book


def settle(book):
    """Add to the ledger what the permutations took, each epoch of each chain once."""
    jax.effects_barrier()
    for words in book.epochs:
        for block in range(2):
            book.derived[(*words, block)] += 1
        assert not any((*words, block) in book.drawn for block in range(10))


CASES = [
    ("baoab", "gaussian", "reshuffled", "vmap"),
    ("sgld", "fast", "with_replacement", "map"),
    pytest.param("leimkuhler_matthews", "fast", "symmetric", "vmap", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("sampler", "kind", "stream", "chain_method"), CASES)
def test_no_random_word_is_used_twice(ledger, sampler, kind, stream, chain_method):
    """Starts, momenta, steps, batches, burn-in and resume of all chains consume disjoint blocks."""
    chains, burnin, draws, more, n = 3, 4, 5, 3, 6
    # Functions made here, so that the loop is traced with the record in it.
    target = Posterior(lambda p, b: -((b - p[0]) ** 2), lambda p: -jnp.sum(p**2), data_size=n)
    kernel = getattr(sgmcmc, sampler)(target, 0.01, noise=kind)

    def init(key):
        ledger.draw(key, 2)
        return jax.random.normal(key, (2,))

    run = sgmcmc.sample(
        jax.random.key(8), kernel, init, jnp.arange(n, dtype=jnp.float32), batch_size=2,
        stream=stream, num_chains=chains, num_burnin=burnin, num_samples=draws, thinning=2,
        chain_method=chain_method, chunk_steps=3, progress=False,
    )  # fmt: skip
    run.resume(more, progress=False)
    settle(ledger)
    ledger.check()
    steps = burnin + 2 * (draws + more)
    if stream == "with_replacement":
        extra = steps * 2 * 2
    else:
        sweeps = 2 if stream == "symmetric" else 1
        assert len(ledger.epochs) == chains * math.ceil(steps / (3 * sweeps))
        extra = 0
    # Nothing of the run escaped the ledger: each chain's start, momentum or last noise, steps.
    width = 2 if kind == "gaussian" else noise.draw(jax.random.key(0), jnp.zeros(2), 1, kind).size
    start = {"baoab": 2, "sgld": 0, "leimkuhler_matthews": width}[sampler]
    jax.effects_barrier()
    total = sum(ledger.drawn.values()) - (0 if kind == "gaussian" else width)
    assert total == chains * (2 + start + steps * width + extra)


def test_blocks_use_no_random_word_twice(ledger):
    """Momenta, normals, Metropolis uniforms and the rows of each of a block's batches."""
    chains, steps, length, n = 2, 4, 3, 6
    target = Posterior(lambda p, b: -((b - p[0]) ** 2), lambda p: -jnp.sum(p**2), data_size=n)
    sgmcmc.sample(
        jax.random.key(8), sgmcmc.sggmc(target, 0.01, length), jnp.zeros(2),
        jnp.arange(n, dtype=jnp.float32), batch_size=2, stream="with_replacement",
        num_chains=chains, num_burnin=1, num_samples=steps - 1, chain_method="vmap",
        progress=False,
    )  # fmt: skip
    settle(ledger)
    ledger.check()
    # Two parameters; L + 1 normals each and a uniform a block; two words for each index.
    block = 2 * (length + 1) + 1 + length * 2 * 2
    assert sum(ledger.drawn.values()) == chains * (2 + steps * block)


def test_the_ledger_sees_a_key_drawn_from_twice(ledger):
    """The ledger itself fails where a key is used again, or is a parent and drawn from."""
    noise.draw(jax.random.key(1), jnp.zeros(3), 1, "gaussian")
    ledger.check()
    noise.draw(jax.random.key(1), jnp.zeros(2), 1, "fast")
    with pytest.raises(AssertionError, match="drawn twice"):
        ledger.check()
    ledger.drawn.clear()
    noise.draw(jax.random.key(1), jnp.zeros(3), 1, "gaussian")
    jax.random.fold_in(jax.random.key(1), 2)
    with pytest.raises(AssertionError, match="both drawn from and a parent"):
        ledger.check()


def test_fold_in_and_split_are_the_same_blocks():
    """The ledger's premise: split(key, n)[i] is fold_in(key, i), so one key must not do both."""
    halves = jax.random.key_data(jax.random.split(jax.random.key(3), 4))
    folded = [jax.random.key_data(jax.random.fold_in(jax.random.key(3), i)) for i in range(4)]
    np.testing.assert_array_equal(halves, np.stack(folded))


def test_key_reuse_checks_are_on():
    """JAX's own check of key reuse is on in every test."""
    assert jax.config.jax_debug_key_reuse
    key = jax.random.key(0)
    jax.random.normal(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.normal(key)
