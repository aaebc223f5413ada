"""The library as it lies in a checkout: modules, their syntax trees, what imports what.

Nothing is imported, so any checkout can be read, an older one too, by any Python that parses it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# Folder of the checkout → name under which it is installed.
FOLDERS = {"sgmcmc": "sgmcmc", "models": "sgmcmc.models", "diagnostics": "sgmcmc.diagnostics"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One file: its dotted name, where it is from the checkout's root, and what it says."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether the file is a folder's `__init__.py`."""
        return self.path.name == "__init__.py"

    @property
    def num_lines(self) -> int:
        """As `wc -l` counts them."""
        return self.text.count("\n")


class Import(NamedTuple):
    """One imported module: who asks, for what, and whether inside a function."""

    importer: str
    imported: str
    line: int
    in_function: bool


def read(root: Path = ROOT) -> dict[str, Module]:
    """All modules of the library in the checkout `root`, by name; links are not followed."""
    modules = {}
    for folder, prefix in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root / folder)
            if any((root / folder / parent).is_symlink() for parent in inside.parents[:-1]):
                continue
            parts = inside.with_suffix("").parts
            name = ".".join([prefix, *(parts[:-1] if parts[-1] == "__init__" else parts)])
            text = path.read_text("utf-8")
            modules[name] = Module(name, path.relative_to(root), text, ast.parse(text))
    return modules


def imports(module: Module, modules: dict[str, Module]) -> Iterator[Import]:
    """What a module imports, those for type checkers alone left out.

    `from package import name` asks for the module `package.name` where there is one, else for
    `package`. Modules of other libraries have their full names.
    """
    for node, in_function in _walk(module.tree, False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module.name, alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            base = base_of(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                asked = inner if inner in modules else base
                yield Import(module.name, asked, node.lineno, in_function)


def base_of(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name of what an import statement imports from."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _walk(tree: ast.AST, in_function: bool) -> Iterator[tuple[ast.AST, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node, in_function
        yield from _walk(node, in_function or isinstance(node, Function | ast.Lambda))


def exported(module: Module) -> list[str] | None:
    """The module's `__all__`, None where it has none."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def is_public(name: str) -> bool:
    """Whether no part of a dotted name begins with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan's algorithm)."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found
