"""The fingerprint of a kernel: what it is and its numbers, not where its code is kept."""

import inspect
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior, gradients, metrics
from sgmcmc.sampling._fingerprint import of_kernel as fingerprint
from tests.sampling import walk as walks

SOURCE = inspect.getsource(walks)


def module(name, kernel="Walk"):
    """A copy of the module of `Walk`, in another place and by another name."""
    made = types.ModuleType(name)
    exec(SOURCE.replace("Walk", kernel), made.__dict__)
    return made


def walk(place, name, width=2.0):
    return getattr(module(place, name), name)(jnp.array(width))


def test_a_renamed_module_or_class_is_the_same_kernel():
    """Saved runs outlive a move: neither the module's nor the class's name is part of it."""
    here = fingerprint(walk("old.place", "Walk"))
    assert fingerprint(walk("new_place", "Walk")) == here
    assert fingerprint(walk("new_place", "RandomWalk")) == here
    assert fingerprint(walk("old.place", "Walk", width=3.0)) != here


def test_a_moved_target_is_the_same_kernel():
    """A log density by the same name in another module is taken for the same."""
    one, other = (module(name).log_density for name in ("old.place", "new_place"))
    kernels = [sgmcmc.baoab(Posterior.from_log_density(f), 0.1) for f in (one, other)]
    assert fingerprint(kernels[0]) == fingerprint(kernels[1])


def test_a_run_saved_before_a_move_goes_on_after_it(tmp_path):
    """Saved by a kernel of one module, resumed by that of another, bit for bit."""
    old, new = walk("old.place", "Walk"), walk("new_place", "RandomWalk")
    options = {"num_chains": 2, "num_burnin": 1, "progress": False}
    run = sgmcmc.sample(jax.random.key(0), old, jnp.zeros(2), num_samples=3, **options)
    longer = sgmcmc.load(run.save(tmp_path / "run")).resume(2, kernel=new, progress=False)
    straight = sgmcmc.sample(jax.random.key(0), old, jnp.zeros(2), num_samples=5, **options)
    np.testing.assert_array_equal(longer.draws, straight.draws)


def other_density(theta):
    return -jnp.sum(theta**2)


TARGET = Posterior.from_log_density(module("here").log_density)
BASE = sgmcmc.baoab(TARGET, 0.1)


@pytest.mark.parametrize(
    "other",
    [
        sgmcmc.baoab(TARGET, 0.2),
        sgmcmc.baoab(TARGET, 0.1, friction=2.0),
        sgmcmc.baoab(TARGET, 0.1, temperature=0.5),
        sgmcmc.baoab(TARGET, 0.1, noise="fast"),
        sgmcmc.baoab(TARGET, 0.1, metric=metrics.diagonal(jnp.ones(2))),
        sgmcmc.baoab(TARGET, 0.1, gradient=gradients.full()),
        sgmcmc.obabo(TARGET, 0.1),
        sgmcmc.baoab(Posterior.from_log_density(other_density), 0.1),
    ],
)
def test_what_makes_other_draws_has_another_fingerprint(other):
    """A number, a word, a metric, an estimator, the noise, the target."""
    assert fingerprint(other) != fingerprint(BASE)
