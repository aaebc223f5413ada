"""The wheel and the sdist: what is inside, and that they import from elsewhere."""

import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

CHECK = """
import importlib.util, os, sys
import sgmcmc, sgmcmc.models, sgmcmc.diagnostics
from sgmcmc.models import Model
for name in ("models", "diagnostics", "tests", "benchmarks", "examples"):
    assert importlib.util.find_spec(name) is None, name + " is a global name"
home = os.path.realpath(sys.prefix)
for module in (sgmcmc, sgmcmc.models, sgmcmc.diagnostics):
    assert os.path.realpath(module.__file__).startswith(home), module.__file__
assert not any(name.split(".")[0] in ("models", "diagnostics") for name in sys.modules)
assert isinstance(sgmcmc.models.mlp((2, 3, 2)), Model)
assert os.path.exists(os.path.join(os.path.dirname(sgmcmc.__file__), "py.typed"))
import importlib.metadata
print(importlib.metadata.version("sgmcmc"), sgmcmc.__version__)
"""


pytestmark = pytest.mark.integration


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """The wheel and the sdist, built from the tree, and a wheel built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    run(*build, out / "tree", "--wheel", "--sdist", ROOT, cwd=out)
    (wheel,) = (out / "tree").glob("*.whl")
    (sdist,) = (out / "tree").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    (source,) = out.glob("sgmcmc-*/")
    run(*build, out / "again", "--wheel", source, cwd=out)
    (again,) = (out / "again").glob("*.whl")
    return {"wheel": wheel, "sdist": sdist, "wheel of the sdist": again}


def sources() -> set[str]:
    """Every module and data file that an installation must have, as named there."""
    folders = {"sgmcmc": "sgmcmc", "models": "sgmcmc/models", "diagnostics": "sgmcmc/diagnostics"}
    files = {
        f"{installed}/{path.relative_to(ROOT / folder)}"
        for folder, installed in folders.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    return files | {"sgmcmc/py.typed"}


@pytest.mark.wheel
@pytest.mark.parametrize("which", ["wheel", "wheel of the sdist"])
def test_wheel_holds_the_package_and_nothing_else(built, which):
    names = zipfile.ZipFile(built[which]).namelist()
    assert len(names) == len(set(names))
    modules = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in modules} == {"sgmcmc"}
    assert sources() <= modules
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("__pycache__" in name for name in names)


@pytest.mark.wheel
def test_sdist_holds_sources_and_tests(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "tests/integration/test_packaging.py",
    } <= names
    assert {"sgmcmc/py.typed", "models/__init__.py", "diagnostics/__init__.py"} <= names
    assert not any(name.startswith((".", "docs/", "site/")) for name in names - {".gitignore"})


@pytest.mark.wheel
@pytest.mark.parametrize("which", ["wheel", "sdist"])
def test_installs_and_imports_from_elsewhere(built, which, tmp_path):
    """In a fresh environment, which borrows the dependencies of this one."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    here = sysconfig.get_paths()["purelib"]
    inside = run(
        python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=home
    )
    # A plain path, whose own .pth files (this tree's editable install) are not read.
    (Path(inside.strip()) / "borrowed.pth").write_text(here + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps"]
    install += ["--ignore-installed", "--no-build-isolation", "--no-index"]
    run(*install, built[which], cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    version = PROJECT["project"]["version"]
    assert run(python, "-c", CHECK, cwd=elsewhere).split() == [version, version]


def test_oldest_constraints_are_the_lower_bounds():
    bounds = {}
    for requirement in PROJECT["project"]["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement).groups()
        bounds[name] = Version(bound)
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins.pop("jaxlib") == pins["jax"]
    assert {name: Version(pin) for name, pin in pins.items()} == bounds


def test_constraints_are_exact_and_portable():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.\-]+==[\w.!+]+", pin) for pin in pins)
    assert not any(pin.startswith("sgmcmc==") for pin in pins)
    names = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"]
    ours = ("demo", "plots", "blackjax", "numpyro", "flax", "spectrum", "docs", "dev")
    wanted = [*PROJECT["project"]["dependencies"], *(r for extra in ours for r in extras[extra])]
    assert {re.match(r"[\w-]+", requirement).group().lower() for requirement in wanted} <= names


def test_versions_agree():
    version = PROJECT["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {version}\n" in citation
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_links_are_relative_and_committed():
    for name in ("models", "diagnostics"):
        link = ROOT / "sgmcmc" / name
        assert link.is_symlink(), f"{link} is no link: clone with -c core.symlinks=true"
        assert link.readlink() == Path("..") / name
