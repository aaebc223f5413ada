"""The public API, one line a name: `make api` writes it to tests/api.txt.

Public is what the `__all__` of a public module names. A name that several doors show has its
signature at the door nearest to where it is written, and `= that name` at the others. Signatures
are taken from the source, not from a running interpreter, so that every Python writes the same.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

from tools.source import ROOT, Function, Module, base_of, exported, is_public, read

LISTING = Path("tests", "api.txt")

# Special methods that a caller writes; others (`__repr__`, `__post_init__`) are no signatures.
CALLED = {"__init__", "__call__", "__getitem__", "__len__", "__iter__", "__contains__"}

LONGEST_VALUE = 60  # characters of a constant that are shown


class Definition(NamedTuple):
    """Where a name gets its meaning; `node` is None for a module."""

    module: str
    node: ast.stmt | None
    name: str


def listing(modules: dict[str, Module]) -> str:
    """All public names in order; those of a class in the order of its fields.

    What a class inherits from a public one is listed there; from private ones, with the class.
    """
    doors: dict[Definition, list[str]] = {}
    for name, module in modules.items():
        for each in (exported(module) or []) if is_public(name) else []:
            doors.setdefault(resolve(modules, name, each), []).append(f"{name}.{each}")
    blocks = {}
    for definition, names in doors.items():
        if definition.node is None:
            continue  # a module: its own names are listed
        home = min(names, key=lambda name: (-_shared(name, definition.module), len(name), name))
        blocks[home] = _lines(modules, home, definition, set(doors))
        blocks |= {name: [f"{name} = {home}"] for name in names if name != home}
    return "".join(f"{line}\n" for name in sorted(blocks) for line in blocks[name])


def resolve(modules: dict[str, Module], module: str, name: str) -> Definition:
    """The statement that gives `name` its meaning, through any number of imports.

    Raises:
        LookupError: nothing in `module` does.
    """
    if f"{module}.{name}" in modules:
        return Definition(f"{module}.{name}", None, name)
    for node in reversed(modules[module].tree.body):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    base = base_of(modules[module], node)
                    if base in modules:
                        return resolve(modules, base, alias.name)
                    return Definition(module, node, alias.name)
        elif name in _bound(node):
            return Definition(module, node, name)
    raise LookupError(f"{module} does not define {name}")


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, Function | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _shared(name: str, module: str) -> int:
    """How many parts of a dotted name lead towards `module`."""
    pairs = zip(name.split(".")[:-1], module.split("."), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), name.count("."))


def _lines(
    modules: dict[str, Module], name: str, definition: Definition, public: set[Definition]
) -> list[str]:
    node = definition.node
    if isinstance(node, Function):
        return [_function(name, node)]
    if isinstance(node, ast.ClassDef):
        return _class(name, node, _ancestry(modules, definition, public))
    if isinstance(node, ast.ImportFrom):
        return [f"{name} = {node.module}.{definition.name}"]
    return [_variable(name, node, definition.name)]


def _variable(name: str, node: ast.stmt | None, short: str) -> str:
    annotation = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if isinstance(value, ast.Tuple) and len(names := _bound(node)) == len(value.elts) > 1:
        value = value.elts[names.index(short)]
    if isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == "field":
        given = {word.arg: word.value for word in value.keywords}
        value = given.get("default", given.get("default_factory"))
    if value is None:
        return f"{name}{annotation}"
    text = ast.unparse(value)
    return f"{name}{annotation} = {text if len(text) <= LONGEST_VALUE else '…'}"


def _function(name: str, node: Function, *, method: bool = False) -> str:
    marks = {ast.unparse(mark).split(".")[-1] for mark in node.decorator_list}
    returns = ast.unparse(node.returns) if node.returns else ""
    if {"property", "cached_property"} & marks:
        return f"{name}: {returns} (property)"
    spelt = ast.parse(f"def f({ast.unparse(node.args)}): ...").body[0]
    assert isinstance(spelt, Function)  # a copy, because `self` is taken out of it
    if method and "staticmethod" not in marks:
        del (spelt.args.posonlyargs or spelt.args.args)[:1]
    return f"{name}({ast.unparse(spelt.args)})" + (f" -> {returns}" if returns else "")


def _class(name: str, node: ast.ClassDef, ancestry: list[ast.ClassDef]) -> list[str]:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    members: dict[str, str] = {}
    for cls in ancestry:
        for part in cls.body:
            for each in _bound(part):
                if is_public(each) or each in CALLED:
                    members[each] = _member(f"{name}.{each}", part)
    return [f"{name}: class({bases})" if bases else f"{name}: class", *members.values()]


def _member(name: str, node: ast.stmt) -> str:
    if isinstance(node, Function):
        return _function(name, node, method=True)
    if isinstance(node, ast.ClassDef):
        return f"{name}: class"
    return _variable(name, node, name.split(".")[-1])


def _ancestry(
    modules: dict[str, Module], definition: Definition, public: set[Definition]
) -> list[ast.ClassDef]:
    """The library's private classes that a class comes from, the farthest first, and itself."""
    node, out = definition.node, []
    assert isinstance(node, ast.ClassDef)
    for base in node.bases:
        name = ast.unparse(base).split("[")[0]
        if name.isidentifier():
            try:
                found = resolve(modules, definition.module, name)
            except LookupError:
                continue  # a builtin, such as RuntimeError
            if isinstance(found.node, ast.ClassDef) and found not in public:
                out += _ancestry(modules, found, public)
    return [*out, node]


def main() -> int:
    """Writes the listing."""
    text = listing(read())
    (ROOT / LISTING).write_text(text, "utf-8")
    print(f"{LISTING}: {text.count(chr(10))} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
