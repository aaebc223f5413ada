"""What all tests share: errors on key reuse, double precision, data from outside."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  (the hook looks it up by name)

# Shapes and dtypes are checked wherever these modules are traced; before they are imported.
CHECKED = [
    *("types", "_posterior", "noise", "streams._streams", "streams._source"),
    *(
        f"gradients.{name}"
        for name in ("_base", "_minibatch", "_control_variate", "_saga", "_averaged")
    ),
]
install_import_hook([f"sgmcmc.{name}" for name in CHECKED], "tests.typechecker.shapes")

import jax  # noqa: E402
import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

# Compiled programs are kept between processes and runs; by variables, so that the interpreters
# which tests start share them. What is in the environment already wins. Each program is still
# traced and lowered, so that a test which counts traces or compilations counts the same.
COMPILED = {
    "jax_compilation_cache_dir": str(ROOT / ".cache" / "jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}
MOST_COMPILED = 2 * 2**30  # bytes

for option, value in COMPILED.items():
    if option.upper() not in os.environ:
        os.environ[option.upper()] = str(value)
        jax.config.update(option, value)


# A shell's job in the background ignores Ctrl-C, which the library then leaves so.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Empty the folder of compiled programs once it is too large, before any worker starts."""
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if hasattr(session.config, "workerinput") or folder != ROOT / ".cache" / "jax":
        return
    if sum(path.stat().st_size for path in folder.glob("*")) > MOST_COMPILED:
        shutil.rmtree(folder)


if not hasattr(jax, "enable_x64"):  # before JAX 0.8
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64


# Tests that hand one constant key to several calls on purpose.
SHARE_A_KEY = (
    "tests/models/",
    "tests/test_convert.py::test_blackjax_sgld_against_blackjax_itself",
)


@pytest.fixture(autouse=True)
def key_reuse_is_an_error(request: pytest.FixtureRequest) -> Iterator[None]:
    """JAX's own check; it sees neither `fold_in` nor `key_data`, the sampler's tests do."""
    with jax.debug_key_reuse(not request.node.nodeid.startswith(SHARE_A_KEY)):
        yield


# Of two workers a third of the machine's memory each; and two thirds of the pieces of memory that
# the system lets a process map (65,530, some five a program), beyond which it is aborted.
MOST_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
MOST_MAPS = 43_000
TESTS_BETWEEN_LOOKS = 40
PROCESS = Path("/proc/self")
made = itertools.count(1)


@pytest.fixture(autouse=True)
def memory_stays_bounded() -> Iterator[None]:
    """Compiled programs of 2,900 tests are too many; they are let go where they are.

    It takes ten seconds, and what comes after is loaded anew.
    """
    yield
    if next(made) % TESTS_BETWEEN_LOOKS == 0 and _is_full():
        jax.clear_caches()
        gc.collect()


def _is_full() -> bool:
    """By what the process has now; by the most that it ever had where only that is known."""
    if not PROCESS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10 > MOST_MEMORY
    resident = int((PROCESS / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident > MOST_MEMORY or (PROCESS / "maps").read_bytes().count(b"\n") > MOST_MAPS


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
