"""psgld, sgnht and sghmc: what a step costs, and the clipped shares that a run records."""

import jax
import numpy as np
import pytest

import sgmcmc
from sgmcmc import gradients, metrics
from tests.problems import regression

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
