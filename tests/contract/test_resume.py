"""A run goes on where it stopped: under every stream, and with its own kernel alone.

That every sampler does is in `test_samplers.py`.
"""

import jax
import pytest

import sgmcmc
from sgmcmc import metrics, reducers
from sgmcmc.sampling._fingerprint import of_kernel
from tests.compare import assert_same_bits
from tests.problems import regression

PROBLEM = regression()
POSTERIOR = PROBLEM.posterior
MOMENTS = {"moments": reducers.covariance()}


@pytest.mark.parametrize(
    ("stream", "name", "noise", "chain_method"),
    [
        ("reshuffled", "baoab", "gaussian", "vmap"),
        ("symmetric", "sgld", "fast", "map"),
        ("cyclic", "sgld", "gaussian", "vmap"),
        ("full", "baoab", "fast", "map"),
        ("with_replacement", "leimkuhler_matthews", "fast", "vmap"),
    ],
)
def test_resume_is_the_straight_run(stream, name, noise, chain_method, tmp_path):
    """7 + 5 draws, in memory or by way of a file, are the straight run of 12 bit for bit.

    24 examples in batches of 5: the seven break off amid an epoch with a short batch.
    """
    kernel = getattr(sgmcmc, name)(POSTERIOR, 0.01, noise=noise)

    def run(num_samples):
        return sgmcmc.sample(
            jax.random.key(2), kernel, PROBLEM.start, PROBLEM.data, stream=stream,
            batch_size=None if stream == "full" else 5, chain_method=chain_method, num_chains=2,
            num_burnin=5, num_samples=num_samples, thinning=3, chunk_steps=4, reducers=MOMENTS,
            progress=False,
        )  # fmt: skip

    straight, first = run(12), run(7)
    assert_same_bits(first.resume(5, progress=False), straight)
    loaded = sgmcmc.load(first.save(tmp_path / "run"))
    given = {"kernel": kernel, "data": PROBLEM.data, "reducers": MOMENTS}
    assert_same_bits(loaded.resume(5, progress=False, **given), straight)


def test_a_loaded_run_wants_its_own_kernel():
    """Settings that are no numbers tell kernels apart too."""
    clocks = [sgmcmc.clocks.decreasing(0.1, weights=w) for w in ("time", "equal")]
    pairs = [
        [sgmcmc.psgld(POSTERIOR, 0.1, metric=metrics.rmsprop(gamma=g)) for g in (True, False)],
        [sgmcmc.sgld(POSTERIOR, clock) for clock in clocks],
    ]
    for one, other in pairs:
        assert of_kernel(one) != of_kernel(other)
