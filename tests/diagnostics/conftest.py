from typing import Any, NamedTuple

import numpy as np
import pytest


class FakeRun(NamedTuple):
    """The fields of a `Run` that diagnostics read, filled by hand."""

    draws: Any
    weights: np.ndarray
    stopped: dict = {}  # noqa: RUF012
    wall_time: float = 2.0
    gradient_evaluations: float = 1000.0


@pytest.fixture
def make_run():
    """`make_run(draws, weights=None, **fields)`: draws a pytree of arrays [chain, draw, …]."""

    def make(draws, weights=None, **fields):
        leaf = draws if isinstance(draws, np.ndarray) else next(iter(draws.values()))
        weights = np.ones(leaf.shape[:2]) if weights is None else np.asarray(weights)
        return FakeRun(draws, weights, **fields)

    return make
