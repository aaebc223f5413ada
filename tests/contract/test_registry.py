"""The registry of samplers is complete."""

import collections

from sgmcmc import noise
from tests import registry


def test_every_public_sampler_has_a_row():
    """A sampler without one would have none of the properties of `test_samplers.py` checked."""
    assert {row.name for row in registry.ALL} == registry.public_samplers()


def test_rows_are_told_apart():
    times = collections.Counter(row.id for row in registry.ALL)
    assert [name for name, count in times.items() if count > 1] == []


def test_every_kind_of_noise_is_in_the_rows():
    """A row bears all kinds, the Gaussian alone (its law depends on the density), or takes none."""
    assert registry.NOISES == noise.KINDS
    assert {row.noises for row in registry.ALL} == {noise.KINDS, ("gaussian",), ()}
