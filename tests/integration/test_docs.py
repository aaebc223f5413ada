"""What README, CONTRIBUTING, the pages and the docstrings show, run from their own text."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
NEEDS = {
    "README.md": "sklearn",
    "docs/spectrum.md": "matfree",
    "docs/averages.md": "flax",
    "docs/local.md": "flax",
}
WITH_CODE = [page for page in PAGES if BLOCK.search((ROOT / page).read_text("utf-8"))]
MODULES = sorted(
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for package, folder in {
        "sgmcmc": "sgmcmc",
        "sgmcmc.models": "models",
        "sgmcmc.diagnostics": "diagnostics",
    }.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>>" in path.read_text("utf-8")
)


pytestmark = pytest.mark.integration


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text("utf-8"))


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs_as_pasted(page, tmp_path):
    """All Python blocks of a page, in turn, in a new interpreter and an empty folder."""
    if page in NEEDS:
        pytest.importorskip(NEEDS[page])
    script = tmp_path / "pasted.py"
    script.write_text("\n".join(blocks(page)), "utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{page}\n{done.stdout}\n{done.stderr}"


def test_the_pages_that_show_code_are_found():
    expected = {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/nothing-varies.md"}
    assert expected <= set(WITH_CODE)


def test_the_readme_example_has_fifteen_lines():
    (example,) = blocks("README.md")
    assert len(example.splitlines()) == 15


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Relative links of a page to files, and its anchors within itself."""
    source = ROOT / page
    text = source.read_text("utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    for target in LINK.findall(text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        if path:
            assert (source.parent / path).exists(), f"{page} links to {target}"
        else:
            assert anchor in anchors, f"{page} links to {target}; it has {sorted(anchors)}"


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(importlib.import_module(module), optionflags=flags)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_sampler_is_in_the_tables():
    import sgmcmc

    names = [
        name
        for door in (sgmcmc.kernels, sgmcmc.exact)
        for name in door.__all__
        if inspect.isfunction(getattr(door, name))
    ]
    assert {"sgld", "quicsort", "amagold", "mala"} <= set(names)
    readme = (ROOT / "README.md").read_text("utf-8")
    page = (ROOT / "docs" / "samplers.md").read_text("utf-8")
    for name in names:
        assert f"`{name}`" in readme or f"`{name}(" in readme, f"README.md lacks {name}"
        assert f"`{name}`" in page or f"sgmcmc.{name}(" in page, f"samplers.md lacks {name}"
