"""Fingerprints: hashes by which a loaded run knows again what made it.

What is compared is what makes the draws, not where it is kept: arrays by their content, functions
by their code and by the values that they are bound to and refer to, so that a module, a class or
a function may be renamed and saved runs still go on. Functions of libraries count by their name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import functools
import hashlib
import inspect
import operator
import sys
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc.kernels._base import AbstractKernel
from sgmcmc.loop._chunk import Inputs
from sgmcmc.loop._start import whole
from sgmcmc.sampling import _archive as archive
from sgmcmc.streams import _streams as streams
from sgmcmc.streams._streams import Stream
from sgmcmc.types import PyTree

# Whose code is not read: it changes from version to version, and its names do not.
LIBRARIES = {
    *("sgmcmc", "jax", "jaxlib", "jaxtyping", "numpy", "equinox", "optax", "scipy", "flax"),
    *("blackjax", "numpyro"),
    *sys.stdlib_module_names,
}

# The flag of a code object whose first constant is its docstring, from Python 3.13 on.
CO_HAS_DOCSTRING = 0x4000000

Print: TypeAlias = Mapping[str, list[str]]
"""{part: [hash, hash without code, words]}: parts are "kernel", "data/x", "reducers/m", …"""


class Mark(NamedTuple):
    """A hash of a value, and one that leaves bytecode out, which differs between Pythons."""

    strict: bytes
    loose: bytes


def fingerprint(inputs: Inputs) -> Print:
    """Of all that a loaded run is given anew: kernel, data, stream, collect, reducers."""
    reader = _Reader()
    parts = of_kernel(inputs.kernel)
    for path, leaf in trees.named_leaves(inputs.data):
        parts[f"data/{path}"] = _part(reader.read(leaf), f"{leaf.dtype}{list(leaf.shape)}")
    if inputs.program.data_size:
        stream = inputs.program.stream
        parts["stream"] = _part(_of_stream(reader, stream), stream.name)
    parts["collect"] = _part(reader.read(inputs.collect), _words(inputs.collect))
    for name, reducer in inputs.reducers.items():
        parts[f"reducers/{name}"] = _part(reader.read(reducer), _words(reducer))
    return parts


def of_kernel(kernel: AbstractKernel) -> dict[str, list[str]]:
    """Of a kernel's numbers and structure, and of the functions of its targets, apart."""
    reader = _Reader()
    traits = [item for item in kernel.traits._asdict().items() if item[1] is not None]
    mark = _joined("kernel", reader.read((traits, kernel.numbers())), reader.read(kernel))
    likelihoods = [target.log_likelihood for target in reader.posteriors]
    priors = [target.log_prior for target in reader.posteriors]
    return {
        "kernel": _part(mark, kernel.traits.name),
        "log_likelihood": _part(reader.read(likelihoods), _words(*likelihoods[:1])),
        "log_prior": _part(reader.read(priors), _words(*priors[:1])),
    }


def require_kernel_of(saved: Print, kernel: AbstractKernel, python: str) -> None:
    """Raise a ValueError unless `kernel` is that of the saved run; see `require_same`."""
    given = of_kernel(kernel)
    _compare({name: saved[name] for name in given if name in saved}, given, _which(python))


def require_same(saved: Print, given: Print, python: str) -> None:
    """Raise a ValueError that names what is not that of the saved run.

    Args:
        saved, given: of the run, and of what it is to go on with.
        python: the version of Python that saved it. Another minor version has other bytecode:
            then code is not compared, and a warning says so.
    """
    which = _which(python)
    _compare(saved, given, which)
    if which:
        warnings.warn(
            f"kernel, collect, reducers: the run was saved by Python {python}, and this is "
            f"{sys.version_info.major}.{sys.version_info.minor}: their numbers are those of the "
            "run, their code cannot be compared",
            UserWarning,
            stacklevel=2,
        )


def require_x64_of(saved: bool) -> None:
    """Raise a ValueError unless JAX's x64 is as it was in the run."""
    if saved != x64_enabled():
        had, has = ("on", "off") if saved else ("off", "on")
        raise ValueError(
            f"jax_enable_x64: it was {had} when this run was made and is {has} now; resume with "
            f'jax.config.update("jax_enable_x64", {saved}), set before any array is made'
        )


def x64_enabled() -> bool:
    """Whether JAX makes float64 out of Python's floats."""
    return bool(jnp.result_type(float) == jnp.float64)


def require_structure_of(saved: PyTree, position: PyTree) -> None:
    """Raise a ValueError unless containers and shapes of a position are those of the saved one."""
    one, other = (trees.named_leaves(tree) for tree in (saved, position))
    for (path, leaf), (_, given) in zip(one, other, strict=False):
        if leaf.shape != given.shape or leaf.dtype != given.dtype:
            raise ValueError(
                f"params: leaf {trees.shortened(path, 40)} is {given.dtype}{list(given.shape[1:])}"
                f"; this run has {leaf.dtype}{list(leaf.shape[1:])} there"
            )
    if archive.containers(saved) != archive.containers(position):
        raise ValueError("params: their structure is not that of this run's parameters")


def _which(python: str) -> int:
    """The place of the hash that counts in a part: 0 with code, 1 without."""
    return int(python.split(".")[:2] != [str(x) for x in sys.version_info[:2]])


def _compare(saved: Print, given: Print, which: int) -> None:
    """Raise a ValueError, below 300 characters, that names one part of each kind that differs."""
    nothing = ["", "", "none"]
    odd: dict[str, str] = {}
    for name in sorted({*saved, *given}):
        had, has = saved.get(name, nothing), given.get(name, nothing)
        kind, _, leaf = name.partition("/")
        if had[which] != has[which] and kind not in odd:
            odd[kind] = SAID[kind].format(leaf=trees.shortened(leaf, 30))
            if had[2] != has[2]:
                odd[kind] += f" (it had {had[2]}, got {has[2]})"
    if odd:
        said = "; ".join(odd[kind] for kind in SAID if kind in odd)
        raise ValueError(f"{trees.shortened(said, 250)}. Pass those of the saved run")


# What is said where a part of this kind differs.
SAID = {
    "kernel": "kernel: its numbers or sub-steps are not those that made this run",
    "log_likelihood": "kernel: its log_likelihood, or a value it uses, did not make this run",
    "log_prior": "kernel: its log_prior, or a value it uses, did not make this run",
    "data": "data: leaf {leaf} has other numbers than made this run",
    "stream": "stream: not the one that made this run",
    "collect": "collect: not the one that made this run",
    "reducers": "reducers: {leaf} is not what made this run",
}


def _of_stream(reader: _Reader, stream: Stream) -> Mark:
    """Streams of the library count by their name, one's own by what they do."""
    with contextlib.suppress(ValueError):  # the library has none of this name
        if streams.from_name(stream.name) == stream:
            return _joined("stream", stream.name)
    return _joined("own stream", reader.read(stream._replace(name="")))


def _words(value: Any = None) -> str:
    """What a function or reducer is called."""
    while isinstance(value, Partial | functools.partial):
        value = value.func
    if value is None or value is whole:  # what collect=False and collect=True stand for
        return str(value is whole)
    called = value if inspect.isroutine(value) else type(value)
    return trees.shortened(called.__name__.lstrip("_"), 30)


def _part(mark: Mark, words: str) -> list[str]:
    return [mark.strict.hex(), mark.loose.hex(), words]


def _joined(kind: str, *parts: Mark | str | bytes, code: bytes = b"") -> Mark:
    """One hash of several; `code` goes into the strict one alone."""
    hashes = []
    for i in (0, 1):
        made = hashlib.blake2b(kind.encode(), digest_size=20)
        for part in parts:
            text = part[i] if isinstance(part, Mark) else part
            made.update(b"|" + (text.encode() if isinstance(text, str) else text))
        hashes.append(made)
    hashes[0].update(b"|" + code)
    return Mark(hashes[0].digest(), hashes[1].digest())


def _is_library(module: str | None) -> bool:
    return _is_installed((module or "builtins").partition(".")[0])


@functools.cache
def _is_installed(package: str) -> bool:
    """Whether a package is one of `LIBRARIES`, or installed and not under work."""
    if package in LIBRARIES:
        return True
    found = sys.modules.get(package)
    return found is not None and "site-packages" in str(found.__spec__ and found.__spec__.origin)


def _held(value: Any) -> dict[str, Any]:
    """Its attributes; none where it has no place for them."""
    try:
        return dict(vars(value))
    except TypeError:
        return {}


DESCRIPTORS = (property, functools.cached_property, staticmethod, classmethod)


class _Reader:
    """Marks of values, each read once; `posteriors` are those met on the way, without functions."""

    def __init__(self) -> None:
        # Values are kept beside their marks, or their ids would be given to others.
        self._done: dict[int, tuple[Any, Mark]] = {}
        self._open: list[int] = []
        self.posteriors: list[Posterior] = []

    def read(self, value: Any) -> Mark:
        """The mark of any value."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return _joined(type(value).__name__, repr(value))
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._open:
            # A function that calls itself: as far up as it began.
            return _joined("above", str(len(self._open) - self._open.index(id(value))))
        self._open.append(id(value))
        try:
            mark = self._mark(value)
        finally:
            self._open.pop()
        self._done[id(value)] = (value, mark)
        return mark

    def _mark(self, value: Any) -> Mark:
        match value:
            case jax.Array() | np.ndarray() | np.generic():
                return _of_array(value)
            case Partial() | functools.partial():
                return self._all("partial", (value.func, value.args, value.keywords))
            case types.MethodType():
                return self._all("method", (value.__self__, value.__func__))
            case types.FunctionType():
                return self._function(value)
            case Posterior():
                self.posteriors.append(value)
                pull = (value.center, value.precision, value.offset)
                return self._all("posterior", (value.likelihood_power, *pull, value.data_size))
            case type():
                return self._class(value)
            case property():
                return self._all("property", (value.fget,))
            case functools.cached_property():
                return self._all("property", (value.func,))
            case staticmethod() | classmethod():
                return self._all("method", (value.__func__,))
            case types.ModuleType():
                return _joined("module", value.__name__ if _is_library(value.__name__) else "")
            case tuple() | list():
                return self._all("sequence", value)
            case set() | frozenset():
                marks = [self.read(item) for item in value]
                return _joined("set", *(b"".join(sorted(m.strict for m in marks)),))
            case dict() | types.MappingProxyType():
                named = sorted(value.items(), key=lambda item: repr(item[0]))
                return self._all("dict", (part for item in named for part in item))
        return self._object(value)

    def _all(self, kind: str, values: Iterable[Any]) -> Mark:
        return _joined(kind, *[self.read(value) for value in values])

    def _object(self, value: Any) -> Mark:
        """Modules, dataclasses, callables that wrap others, and whatever else there may be."""
        kind = type(value)
        inner = inspect.unwrap(value) if callable(value) else value
        if inner is not value:  # jax.jit, custom_jvp and their kin; the latter have rules beside
            rules = [x for x in _held(value).values() if isinstance(x, types.FunctionType)]
            return self._all("wrapped", (inner, *rules))
        if isinstance(value, np.ufunc) or (inspect.isroutine(value) and "__name__" in dir(value)):
            return _joined("builtin", value.__name__)
        if isinstance(value, np.dtype):
            return _joined("dtype", str(value))
        library = _is_library(kind.__module__)
        # A class of this library may be renamed, and one's own too.
        name = kind.__name__ if library and not kind.__module__.startswith("sgmcmc") else ""
        code = b"" if library else self._class(kind).strict
        if dataclasses.is_dataclass(value):
            fields = [operator.attrgetter(f.name)(value) for f in dataclasses.fields(value)]
            return _joined("object", name, *map(self.read, fields), code=code)
        held = _held(value)
        if library:  # their own business, but for numbers
            held = {k: x for k, x in held.items() if isinstance(x, float | jax.Array | np.ndarray)}
        return _joined("object", name, self.read(held), code=code)

    def _class(self, kind: type) -> Mark:
        """A class of one's own by what it has and does, without names of class and module."""
        if _is_library(kind.__module__):
            return _joined("class", kind.__qualname__)
        parts = []
        for name, value in sorted(vars(kind).items()):
            if name != "__call__" and name.startswith("__"):
                continue
            if not isinstance(value, DESCRIPTORS):
                # Asked of the class, a method comes without what equinox wraps around it.
                value = operator.attrgetter(name)(kind)
            if (
                inspect.isroutine(value)
                or isinstance(value, DESCRIPTORS)
                or not name.startswith("_")
            ):
                parts += [name, value]
        bases = [base for base in kind.__bases__ if not _is_library(base.__module__)]
        return self._all("class", [*parts, *bases])

    def _function(self, function: types.FunctionType) -> Mark:
        code = function.__code__
        stored = {name for name, opcode in _names(code) if opcode.startswith("STORE")}
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        bound = [_content(cell) for name, cell in cells if name not in stored]
        held = self._all("bound", (bound, function.__defaults__, function.__kwdefaults__))
        if _is_library(function.__module__):
            return _joined("library", function.__qualname__, held)
        used = [self.read(x) for x in _referred(function, stored)]
        text = b"|".join([self._code(code).strict, *(mark.strict for mark in used)])
        return _joined("function", held, code=text)

    def _code(self, code: types.CodeType) -> Mark:
        """Bytecode, constants and names: no line numbers, no docstrings, no names of variables."""
        constants = list(code.co_consts)
        if constants and _starts_with_docstring(code):
            constants[0] = None
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_names)
        marks = [
            self._code(x) if isinstance(x, types.CodeType) else self.read(x) for x in constants
        ]
        return _joined("code", repr(shape), code.co_code, code.co_exceptiontable, *marks)


def _of_array(value: Any) -> Mark:
    """Dtype, shape and content, without a copy where the array is contiguous."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        kind, value = str(value.dtype), jax.random.key_data(value)
    else:
        kind = ""
    array = np.ascontiguousarray(np.asarray(value))
    if array.dtype == object:
        return _joined("array", repr(array.tolist()))
    content = hashlib.blake2b(array.reshape(-1).view(np.uint8).data, digest_size=20)
    return _joined("array", kind, f"{array.dtype} {np.shape(value)}", content.digest())


def _starts_with_docstring(code: types.CodeType) -> bool:
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & CO_HAS_DOCSTRING)
    # Functions keep their first constant for it; comprehensions and lambdas have none.
    return isinstance(code.co_consts[0], str) and not code.co_name.startswith("<")


def _names(code: types.CodeType) -> Iterator[tuple[str, str]]:
    """(name, operation) of every global and closed-over variable, nested functions included."""
    for step in dis.get_instructions(code):
        if step.opname.endswith(("_GLOBAL", "_NAME", "_DEREF")):
            yield str(step.argval), step.opname
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _referred(function: types.FunctionType, stored: set[str]) -> list[Any]:
    """The globals that a function reads, and what it takes from modules of one's own.

    One that it also sets (a count of its calls) is no part of what it is.
    """
    read = {name for name, opcode in _names(function.__code__) if not opcode.startswith("STORE")}
    found: list[Any] = []
    for name in sorted(read - stored):
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        found += [name, value] if not isinstance(value, types.FunctionType) else [value]
        if isinstance(value, types.ModuleType) and not _is_library(value.__name__):
            asked = sorted(set(_attributes(function.__code__)) & vars(value).keys())
            found += [vars(value)[attribute] for attribute in asked]
    return found


def _attributes(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _attributes(constant)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None
