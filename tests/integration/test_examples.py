"""Notebooks, studies and the demo, in a small version; `make demo` checks what they claim."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEED_DATA = ("posteriordb",)
NEED_EXTRAS = {"spectrum": "matfree", "entropy_sgd": "matfree"}
STUDIES = [
    pytest.param(path, marks=[pytest.mark.data] if path.stem in NEED_DATA else [], id=path.stem)
    for path in sorted((ROOT / "examples" / "studies").glob("[!_]*.py"))
]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    """Every cell runs, from a fresh kernel."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("SGMCMC_QUICK", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()


@pytest.mark.parametrize("path", STUDIES)
def test_study_runs_small(path, tmp_path, request):
    """Every study runs small, reaches its figures, and leaves a record and a picture."""
    pytest.importorskip("matplotlib")
    if path.stem in NEED_EXTRAS:
        pytest.importorskip(NEED_EXTRAS[path.stem])
    if path.stem in NEED_DATA:
        request.getfixturevalue("data_folder")
    command = [sys.executable, str(path), "--small"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "results" / f"{path.stem}.json").exists()
    assert (tmp_path / "results" / f"{path.stem}.png").exists()


def test_demo_says_why_it_fails(tmp_path):
    """Chains far too short do not pass: exit code 1, each missed bar named, pictures made."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-m", "sgmcmc.demo", "--quick", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "MISSED SGLD: 95% of predictive R̂" in done.stderr
    assert "MISSED BAOAB" in done.stderr
    assert "accuracy" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "demo_reliability.png",
        "demo_entropy.png",
    }
    assert not set("\r\x1b") & set(done.stderr)
