"""Compiled programs that are kept on disk: they hide no compilation and donate their buffers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def events():
    """Names of the events that JAX reports, as they come."""
    seen = []

    def note(event, *_, **__):
        seen.append(event.rsplit("/", 1)[-1])

    jax.monitoring.register_event_listener(note)
    jax.monitoring.register_event_duration_secs_listener(note)
    yield seen
    jax.monitoring.clear_event_listeners()


def test_a_kept_program_counts_as_compiled_and_donates(events, tmp_path):
    """From disk: traced again, reported as compiled, the same bits, and its argument given up."""
    made, traces = [], []
    for _ in range(2):
        jax.clear_caches()

        @eqx.filter_jit(donate="all")
        def advance(x):
            traces.append(1)
            return 1.25 * x + jax.random.normal(jax.random.key(2), x.shape)

        start = jnp.arange(1734.0)
        events.clear()
        made.append(np.asarray(advance(start)))
        assert start.is_deleted()
        assert events.count("backend_compile_duration") == 1
    assert "cache_hits" in events
    assert len(traces) == 2
    np.testing.assert_array_equal(*made)
