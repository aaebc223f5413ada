"""What `import sgmcmc` loads, under which names, and in which direction imports point."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

HEAVY = {
    "arviz",
    "arviz_plots",
    "arviz_stats",
    "blackjax",
    "flax",
    "flwr",
    "grain",
    "matfree",
    "matplotlib",
    "numpyro",
    "orbax",
    "pandas",
    "ray",
    "sklearn",
    "xarray",
    "zarr",
}


pytestmark = pytest.mark.integration


def modules_after(code: str, tmp_path) -> set[str]:
    """The names in `sys.modules` of a new interpreter, in an empty folder, after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_light(tmp_path):
    assert not HEAVY & modules_after("import sgmcmc", tmp_path)


def test_models_and_diagnostics_draw_nothing(tmp_path):
    """Plots are loaded by the call that draws."""
    loaded = modules_after("import sgmcmc.models, sgmcmc.diagnostics", tmp_path)
    assert not {"matplotlib", "arviz", "arviz_plots", "numpyro", "flax", "sklearn"} & loaded


def test_each_module_has_one_name(tmp_path):
    """Imported as `sgmcmc.models` and `sgmcmc.diagnostics`, never as second copies."""
    loaded = modules_after("import sgmcmc, sgmcmc.models, sgmcmc.diagnostics", tmp_path)
    assert "sgmcmc.models._networks" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("models", "diagnostics")}


def test_no_test_loaded_a_second_copy():
    """Whatever ran before in this process, nothing is called `models.*`."""
    assert not {name for name in sys.modules if name.split(".")[0] in ("models", "diagnostics")}


def test_works_from_a_checkout_that_is_not_installed(root, tmp_path):
    """The links alone do, with the repository on the path."""
    code = "import sgmcmc.models, sgmcmc.diagnostics; print(sgmcmc.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(root / "sgmcmc" / "__init__.py")


@pytest.mark.skipif(not importlib.util.find_spec("importlinter"), reason="needs import-linter")
def test_imports_point_one_way(root):
    """The contracts of pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not importlib.util.find_spec("ruff"), reason="needs ruff")
@pytest.mark.parametrize("name", ["models", "diagnostics"])
def test_ruff_bans_the_second_copies(root, name):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename=x.py", "-"],
        cwd=root,
        input=f'"""Text."""\n\nimport {name}\n\nprint({name})\n',
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "TID251" in done.stdout
