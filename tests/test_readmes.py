"""A new letter, estimator, clock and stream, by the READMEs' recipes alone, in ten lines each."""

import ast
import re

import pytest

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROOMS = ["kernels", "gradients", "clocks", "streams"]


@pytest.mark.parametrize("room", ROOMS)
def test_recipe_runs_as_pasted(root, room):
    """The definition, and then the rows of its test."""
    page = root / "sgmcmc" / room / "README.md"
    blocks = BLOCK.findall(page.read_text("utf-8"))
    assert len(blocks) == 2
    exec(compile("\n".join(blocks), str(page), "exec"), {"__name__": f"recipe_{room}"})


@pytest.mark.parametrize("room", ROOMS)
def test_recipe_has_ten_lines(root, room):
    """Code lines of the definition: imports, blank lines and docstrings are not counted."""
    definition = BLOCK.findall((root / "sgmcmc" / room / "README.md").read_text("utf-8"))[0]
    assert "assert" not in definition
    lines = set()
    for node in ast.parse(definition).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        words = node.body[0] if isinstance(node, ast.ClassDef | ast.FunctionDef) else None
        text = definition.splitlines()
        covered = range(node.lineno, node.end_lineno + 1)
        docstring = range(words.lineno, words.end_lineno + 1) if words else ()
        lines |= {i for i in covered if i not in docstring and text[i - 1].strip()}
    assert len(lines) <= 10


@pytest.mark.parametrize("room", ROOMS)
def test_recipe_uses_public_names(root, room):
    text = (root / "sgmcmc" / room / "README.md").read_text("utf-8")
    names = [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for block in BLOCK.findall(text)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert not [name for name in names if "._" in name or name.startswith("_")]


def test_every_such_room_has_a_readme_that_names_its_files(root):
    """And no file that is not there."""
    for room in ROOMS:
        text = (root / "sgmcmc" / room / "README.md").read_text("utf-8")
        files = set(re.findall(r"`(_\w+\.py)`", text))
        assert files, f"{room}/README.md names none of its files"
        assert all((root / "sgmcmc" / room / name).exists() for name in files), files
