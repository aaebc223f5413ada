"""The source in figures, beside those asked of it: `make house`; exit code 1 if one is missed.

Every figure comes from the syntax trees and the import graph of a checkout (`--root`), none is
typed in; `--sites` shows the places behind the figures. Tests, examples and benchmarks are not
counted but where a row says so. What is counted:

**getattr, hasattr.** Calls of the two, per 1,000 lines (as `wc -l` counts) of all `.py` files of
`sgmcmc/`, `models/` and `diagnostics/`, and of the first alone. A call is on a kernel, estimator, …
when what it asks is called so (`CONTRACTS`), or when nobody has reviewed it (`FAIR`).

**Any.** The word in the text, imports and all: the same measure for every code base.

**Fullest folder.** `.py` files in one folder, `__init__.py` among them.

**Import cycles.** Strongly connected groups of modules, imports inside functions included and
those under `TYPE_CHECKING` left out; and groups of rooms (what stands right below `sgmcmc`).

**Imports inside functions.** But of the libraries that are optional or slow to load (`IN_CALLS`).

**Places to add a letter.** Modules that tell the sub-steps of a word apart by their letters: a
table with letters for keys, or comparisons with two letters or more ("G", the planner's own, is
none). A module that defines a flow may list its flows. One more for the flow itself.

**Public by accident.** Functions and classes without an underscore, in modules without one, that
no `__all__` names; where a module has no `__all__`, a page of `docs/api` may name it.

**Private names elsewhere.** Names with an underscore that examples and benchmarks take from the
library, or from any other; modules of their own folders are theirs.

**Long files and functions.** More than 500 lines; more than 70, docstring not counted.

The suite's minutes and the steps' milliseconds are measured by `make test` and `make bench`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tools.api import resolve
from tools.source import ROOT, Function, Module, cycles, exported, imports, is_public, read

LONGEST_FILE, LONGEST_FUNCTION = 500, 70

# What a variable or attribute is called that holds one of the declared contracts.
CONTRACTS = {
    *("kernel", "inner", "owner", "sampler", "algorithm_kernel"),
    *("gradient", "estimator", "metric", "preconditioner", "clock", "stream", "flow", "plan"),
}

# Who may be asked what (`*`: anyone, anything), and why; reviewed by eye.
FAIR = {
    ("*", "__index__"): "whether a value is an integer",
    ("*", "dtype"): "whether a leaf is an array",
    ("*", "shape"): "whether a leaf is an array",
    ("dtype", "kind"): "dtypes of NumPy and of JAX",
    ("self", "*"): "a record's own fields, by name",
    ("block", "*"): "a record's fields, by name",
    ("blocks", "*"): "a record's fields, by name",
    ("c", "*"): "a record's fields, by name",
    ("one", "*"): "a record's fields, by name",
    ("asked", "*"): "the settings of a run, by name",
    ("module", "*"): "fields of any equinox module, for a run's fingerprint",
    ("code", "__qualname__"): "functions, for a run's fingerprint",
    ("code", "__module__"): "functions, for a run's fingerprint",
    ("params", "__func__"): "whether a function is a bound method",
    ("jax", "*"): "what this version of JAX has",
    ("config", "*"): "what this version of JAX has",
    ("nn", "*"): "jax.nn's activations, by name",
    ("optimizer", "*"): "optax transformations",
    ("optimiser", "*"): "optax transformations",
    ("part", "*"): "optax states; fields of any equinox module",
    ("algorithm", "*"): "BlackJAX algorithms",
    ("theirs", "*"): "BlackJAX states",
    ("info", "acceptance_rate"): "BlackJAX infos",
    ("run", "*"): "a Run, or anything with draws",
    ("tree", "attrs"): "ArviZ trees",
    ("reducer", "*"): "a user's own reducer, checked part by part",
}

# Libraries that calls may load: optional ones, and those that would slow the import down.
IN_CALLS = {
    *("IPython", "arviz", "arviz_base", "arviz_plots", "arviz_stats", "blackjax", "flax"),
    *("importlib", "matfree", "matplotlib", "optax", "pandas", "scipy", "sklearn", "tqdm"),
    *("xarray",),
}


class Row(NamedTuple):
    """One line of the table: what was found, the most that is asked, and where it was found."""

    name: str
    now: float
    asked: float
    sites: tuple[str, ...] = ()

    @property
    def missed(self) -> bool:
        """Whether there is more than asked."""
        return self.now > self.asked


def measure(root: Path = ROOT) -> list[Row]:
    """All rows, for the checkout `root`."""
    modules = read(root)
    core = {n: m for n, m in modules.items() if m.path.parts[0] == "sgmcmc"}
    asks = [(module, *ask) for module in modules.values() for ask in _asks(module)]
    guesses = [f"{_at(m, line)} {text}" for m, line, who, what, text in asks if _guess(who, what)]
    words = {n: len(re.findall(r"\bAny\b", m.text)) for n, m in modules.items()}
    fullest = Counter(str(module.path.parent) for module in modules.values()).most_common(1)[0]
    groups, lazy = _cycles(modules), _imports_in_functions(modules)
    letters, accidents = _letter_modules(modules), _accidents(modules, root)
    private = [f"{path}: {name}" for path, name in private_names(root)]
    long_files = [f"{m.path} {m.num_lines}" for m in modules.values() if m.num_lines > LONGEST_FILE]
    long_functions = [site for module in modules.values() for site in _long_functions(module)]
    in_core = sum(module.name in core for module, *_ in asks)
    return [
        Row("getattr, hasattr per 1,000 lines", _rate(len(asks), modules), 1.5),
        Row("getattr, hasattr, sgmcmc/ alone", _rate(in_core, core), 1.5),
        _found("getattr, hasattr on kernel, estimator, metric, clock, stream", guesses),
        Row("Any per 1,000 lines", _rate(sum(words.values()), modules), 12.0),
        Row("Any, sgmcmc/ alone", _rate(sum(words[n] for n in core), core), 12.0),
        Row("files in the fullest folder", fullest[1], 16, (fullest[0],)),
        _found("import cycles", groups),
        _found("imports inside functions", lazy),
        Row("places touched to add a letter", 1 + len(letters), 1, tuple(letters)),
        _found("public names by accident", accidents),
        _found("private names in examples and benchmarks", private),
        _found(f"files over {LONGEST_FILE} lines", long_files),
        _found(f"functions over {LONGEST_FUNCTION} lines", long_functions),
    ]


def _found(name: str, sites: list[str]) -> Row:
    """A row that counts its places, of which none is asked for."""
    return Row(name, len(sites), 0, tuple(sites))


def _rate(count: int, modules: dict[str, Module]) -> float:
    """Per 1,000 lines."""
    return round(1000 * count / sum(module.num_lines for module in modules.values()), 1)


def _at(module: Module, line: int) -> str:
    return f"{module.path}:{line}"


def _asks(module: Module) -> Iterator[tuple[int, str, str, str]]:
    """Calls of getattr and hasattr: the line, who is asked, for what ("" unless spelt out)."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            what = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            yield node.lineno, _called(node.args[0]), str(what), ast.unparse(node)


def _called(node: ast.expr) -> str:
    """The last name of an expression: `self.kernel.clock` and `getattr(kernel, "clock")`: clock."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
            return name
        case ast.Call(func=ast.Name(id="getattr" | "type"), args=[first, *_]):
            return _called(first)
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return _called(inner)
    return ""


def _guess(who: str, what: str) -> bool:
    if who in CONTRACTS:
        return True
    return not {(who, what), (who, "*"), ("*", what)} & FAIR.keys()


def _cycles(modules: dict[str, Module]) -> list[str]:
    edges: dict[str, set[str]] = {name: set() for name in modules}
    rooms: dict[str, set[str]] = defaultdict(set)
    for module in modules.values():
        for each in imports(module, modules):
            if each.imported in modules and each.imported != module.name:
                edges[module.name].add(each.imported)
                here, there = _room(module.name), _room(each.imported)
                if here and there and here != there:
                    rooms[here].add(there)
    folders = {name for name, module in modules.items() if module.is_package}
    groups = cycles(edges)
    # A group of plain files has been found already.
    groups += [group for group in cycles(rooms) if folders & set(group)]
    return [", ".join(group) for group in groups]


def _room(name: str) -> str:
    """What a module belongs to right below `sgmcmc`; "" for the root's door."""
    return ".".join(name.split(".")[:2]) if "." in name else ""


def _imports_in_functions(modules: dict[str, Module]) -> list[str]:
    return [
        f"{_at(module, each.line)} {each.imported}"
        for module in modules.values()
        for each in imports(module, modules)
        if each.in_function and each.imported.split(".")[0] not in IN_CALLS
    ]


def _letter_modules(modules: dict[str, Module]) -> list[str]:
    found = []
    for module in modules.values():
        tables, compared = _letter_tables(module.tree), _letters_compared(module.tree)
        tables = set() if _defines_a_flow(module.tree) else tables
        if tables or len(compared) > 1:
            found.append(f"{module.path} {''.join(sorted(tables | compared))}")
    return found


def _letters(node: ast.AST | None) -> set[str]:
    """The letters of a string of different capitals, "G" left out; none for other nodes."""
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    capitals = text.isascii() and text.isalpha() and text.isupper()
    return set(text) - {"G"} if capitals and len(set(text)) == len(text) else set()


def _letter_tables(tree: ast.Module) -> set[str]:
    """Letters that are keys or items of a table, or spelt in one string with a name."""
    letters: set[str] = set()
    for node in ast.walk(tree):
        items: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            items = list(node.keys)
        elif isinstance(node, ast.Set | ast.Tuple | ast.List):
            items = list(node.elts)
        sets = [_letters(item) for item in items]
        if len(sets) > 1 and all(len(each) == 1 for each in sets):
            letters |= set().union(*sets)
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and len(spelt := _letters(node.value)) > 1:
            letters |= spelt
    return letters


def _letters_compared(tree: ast.Module) -> set[str]:
    letters: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            letters |= set().union(*map(_letters, [node.left, *node.comparators]))
        elif isinstance(node, ast.MatchValue):
            letters |= _letters(node.value)
    return letters


def _defines_a_flow(tree: ast.Module) -> bool:
    """Whether one of its classes comes from a `…Flow` or says which letter it is."""
    return any(
        "Flow" in ast.unparse(base)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    ) or any(
        isinstance(part, ast.Assign | ast.AnnAssign)
        and ast.unparse(part).startswith("letter")
        and len(_letters(part.value)) == 1
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for part in node.body
    )


def _accidents(modules: dict[str, Module], root: Path) -> list[str]:
    pages = "".join(page.read_text("utf-8") for page in sorted((root / "docs/api").glob("*.md")))
    documented = set(re.findall(r"^::: ([\w.]+)", pages, re.MULTILINE))
    meant = set()
    for module in modules.values():
        names = exported(module)
        if names is None and module.is_package:  # an old door: what it imports
            nodes = [node for node in module.tree.body if isinstance(node, ast.ImportFrom)]
            names = [alias.asname or alias.name for node in nodes for alias in node.names]
        for name in names or [] if is_public(module.name) else []:
            try:
                meant.add(resolve(modules, module.name, name)[:2])
            except LookupError:
                continue  # made by a module's `__getattr__`
    return [
        f"{name}.{node.name}"
        for name, module in modules.items()
        if is_public(name) and (exported(module) is not None or name not in documented)
        for node in module.tree.body
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_")
        if (name, node) not in meant
    ]


def private_names(root: Path = ROOT) -> list[tuple[str, str]]:
    """Names with an underscore that examples and benchmarks use: (file, name), sorted.

    A name taken from a private module counts by its full name (`sgmcmc._tree.dot`), an attribute
    of anything but `self` as it is written (`kernel._plan`); once a file.
    """
    found = set()
    for folder in ("examples", "benchmarks"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".ipynb") and path.is_file():
                names = _private_names(ast.parse(_code(path)))
                found |= {(str(path.relative_to(root)), name) for name in names}
    return sorted(found)


def _code(path: Path) -> str:
    """The Python of a script, or of a notebook's cells without their magics."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).split("\n")
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def _private_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            yield from [] if _fair(node.attr) else [ast.unparse(node)]
        yield from (name for name in names if not _fair(name) and not _beside(name))


def _fair(name: str) -> bool:
    """Public, or special (`__version__`), or one of a NamedTuple's own (`_replace`)."""
    given = {"_asdict", "_fields", "_make", "_replace"}
    parts = name.split(".")
    return all(not p.startswith("_") or p.startswith("__") or p in given for p in parts)


def _beside(name: str) -> bool:
    """Whether an imported module lies with the examples or benchmarks themselves."""
    return name.startswith(("_", "benchmarks.", "examples."))


def _long_functions(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, Function) and node.end_lineno:
            first = node.body[0]
            words = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = first.end_lineno - first.lineno + 1 if words and first.end_lineno else 0
            length = node.end_lineno - node.lineno + 1 - docstring
            if length > LONGEST_FUNCTION:
                yield f"{_at(module, node.lineno)} {node.name} {length}"


def table(rows: list[Row], *, sites: bool = False) -> str:
    """The rows as text, what is missed marked; with `sites`, the places under each."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':<{width}}{'now':>8}{'asked':>8}"]
    for row in rows:
        mark = "  MISSED" if row.missed else ""
        lines.append(f"{row.name:<{width}}{row.now:>8g}{row.asked:>8g}{mark}")
        lines += [f"    {site}" for site in row.sites if sites]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; 1 if something asked is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to read")
    parser.add_argument("--sites", action="store_true", help="also the places behind the figures")
    given = parser.parse_args(arguments)
    rows = measure(given.root)
    print(table(rows, sites=given.sites))
    return int(any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
