"""What all tests share: warnings of key reuse, double precision, data from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parent.parent

# A key used twice within one traced function is an error. It sees neither `fold_in` nor
# `key_data`: the ledger of keys in the sampler's tests does.
jax.config.update("jax_debug_key_reuse", True)

if not hasattr(jax, "enable_x64"):  # before JAX 0.8
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the data sets; tests that use it carry the mark `data`."""
    path = os.environ.get("SGMCMC_DATA")
    if not path:
        pytest.skip("SGMCMC_DATA is not set: it names the folder with the data sets")
    folder = Path(path)
    if not folder.is_dir():
        pytest.fail(f"SGMCMC_DATA={path} is no folder")
    return folder
