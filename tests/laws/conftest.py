import jax
import pytest


@pytest.fixture(autouse=True)
def double_precision():
    """Laws are statements to ten digits: all tests of this folder run in float64."""
    with jax.enable_x64(True):
        yield
