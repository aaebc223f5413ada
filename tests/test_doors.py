"""Every door is exact: what a package or public module shows is its `__all__`, documented."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import sgmcmc

# Loaded by `sgmcmc.__getattr__` when they are asked for, so `vars` may lack them.
LAZY = {"demo", "diagnostics", "models"}

# Methods without words of their own. The list only gets shorter.
BARE_METHODS = {"Run.num_chains"}


def public_modules() -> list[str]:
    """`sgmcmc` and all below it that have no underscore on their way."""
    names = ["sgmcmc"]
    names += [module.name for module in pkgutil.walk_packages(sgmcmc.__path__, "sgmcmc.")]
    return sorted(name for name in names if "._" not in name)


PUBLIC = public_modules()
DOORS = [name for name in PUBLIC if hasattr(importlib.import_module(name), "__path__")]


def order(name: str) -> tuple[int, str]:
    """The order that ruff keeps in an `__all__`: CONSTANTS, Classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def shown(names: object) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_walk_finds_the_rooms():
    assert {"sgmcmc", "sgmcmc.types", "sgmcmc.models.priors", "sgmcmc.diagnostics.laws"} <= set(
        PUBLIC
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_tab_completion_shows_what_is_exported(name):
    module = importlib.import_module(name)
    exported = module.__all__
    assert list(exported) == sorted(set(exported), key=order), f"{name}.__all__ is not in order"
    assert shown(dir(module)) == shown(exported)
    for each in exported:
        getattr(module, each)  # an AttributeError names what is not there
    private = {each for each in exported if each.startswith("_")}
    assert private <= {"__version__"}, f"{name} exports {private}"


@pytest.mark.parametrize("name", DOORS)
def test_packages_hold_nothing_else(name):
    """In `vars` too: whatever a package's own file imports is meant to be seen."""
    module = importlib.import_module(name)
    lazy = LAZY if name == "sgmcmc" else set()
    assert shown(vars(module)) | lazy == shown(module.__all__) | lazy


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - set(DOORS)))
def test_plain_modules_have_no_function_by_accident(name):
    """What such a module defines without an underscore is exported; its imports are hidden."""
    module = importlib.import_module(name)
    defined = {
        each
        for each, thing in vars(module).items()
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and thing.__module__ == name
    }
    assert shown(defined) <= set(module.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented(name):
    module = importlib.import_module(name)
    things = {each: getattr(module, each) for each in module.__all__}
    bare = [
        each
        for each, thing in {name: module, **things}.items()
        if isinstance(thing, ModuleType) or inspect.isclass(thing) or inspect.isroutine(thing)
        if not own_words(thing)
    ]
    assert not bare, f"without a docstring: {', '.join(bare)}"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_method_is_documented(name):
    """By itself, or by the base class that declares it."""
    module = importlib.import_module(name)
    bare = [
        f"{owner(thing, method)}.{method}"
        for each in module.__all__
        if inspect.isclass(thing := getattr(module, each)) and thing.__module__.startswith("sgmcmc")
        for method, what in inspect.getmembers(thing)
        if not method.startswith("_") and (inspect.isroutine(what) or isinstance(what, property))
        if not inspect.getdoc(what)
    ]
    assert set(bare) <= BARE_METHODS


def owner(cls: type, method: str) -> str:
    """The class that the method was written in."""
    return next(base.__name__ for base in cls.__mro__ if method in vars(base))


def own_words(thing: object) -> str:
    """The docstring, unless Python made it up (as for a NamedTuple: "Batch(data, index)")."""
    words = thing.__doc__ or ""
    return "" if inspect.isclass(thing) and words.startswith(f"{thing.__name__}(") else words
