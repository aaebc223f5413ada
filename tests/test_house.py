"""The figures of `make house`: those asked for hold on the tree, and each counts what it says."""

import functools
import json

import pytest

from tools import house

ROWS = [
    "getattr, hasattr per 1,000 lines",
    "getattr, hasattr, sgmcmc/ alone",
    "getattr, hasattr on kernel, estimator, metric, clock, stream",
    "Any per 1,000 lines",
    "Any, sgmcmc/ alone",
    "files in the fullest folder",
    "import cycles",
    "imports inside functions",
    "places touched to add a letter",
    "public names by accident",
    "private names in examples and benchmarks",
    "files over 500 lines",
    "functions over 70 lines",
]


@functools.cache
def measured() -> list[house.Row]:
    return house.measure()


@pytest.mark.parametrize("name", ROWS)
def test_figures_are_those_asked_for(name):
    (row,) = (row for row in measured() if row.name == name)
    assert row.now <= row.asked, "\n".join([f"{row.now} > {row.asked}", *row.sites])


def test_the_table_has_these_rows():
    assert [row.name for row in measured()] == ROWS


def test_examples_and_benchmarks_use_public_names():
    assert not set(house.private_names()), "private names: export them, or do without"


CHECKOUT = {
    "sgmcmc/__init__.py": '''
from sgmcmc import rooms
from sgmcmc.open import meant
__all__ = ["meant", "rooms"]
def __getattr__(name):
    import importlib
''',
    # Two sites to review: a kernel, and one that nobody has reviewed. A run is fair.
    "sgmcmc/_asks.py": '''
from typing import Any
def ask(kernel: Any, run: Any, thing: Any) -> Any:
    return getattr(kernel.metric, "scale", 1), hasattr(run, "draws"), hasattr(thing, "x")
''',
    "sgmcmc/open.py": '''
__all__ = ["meant"]
def meant(): ...
def not_meant(): ...
def _hidden(): ...
''',
    "sgmcmc/rooms/__init__.py": "__all__ = []",
    # A cycle by an import in a function; sys is no library that is slow to load.
    "sgmcmc/rooms/_a.py": '''
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from sgmcmc.rooms import _letters
def f():
    import sys, optax
    from sgmcmc.rooms._b import g
''',
    "sgmcmc/rooms/_b.py": "from sgmcmc.rooms import _a",
    "sgmcmc/rooms/_letters.py": "NORMALS = {'O': 1, 'U': 2}\nfrom sgmcmc.rooms import _a",
    "sgmcmc/rooms/_compared.py": "def f(s): return s.letter == 'G' or s.letter in 'AO'",
    "sgmcmc/rooms/_only_one.py": "def f(s): return s.letter == 'Z' or 'Z' in s.word == 'BAOAB'",
    "sgmcmc/rooms/_flow.py": '''
class Thermostat(Flow):
    letter = "D"
FLOWS = {"D": Thermostat(), "O": None}
''',
    "models/__init__.py": "__all__ = []",
    "diagnostics/__init__.py": "__all__ = []",
    "diagnostics/_long.py": (
        "def f():\n    '''One.\n" + "\n" * 80 + "    '''\n" + "    f()\n" * 69
        + "def g():\n" + "    g()\n" * 70 + "\n" * 300
    ),
    "examples/one.py": '''
import _beside, sgmcmc._tree
from benchmarks._bench import spread
from sgmcmc import Run
def f(self, row): return self._mine, row._replace(x=1), Run._yours, sgmcmc.__version__
''',
    "examples/two.ipynb": json.dumps(
        {"cells": [{"cell_type": "code", "source": ["%matplotlib inline\n", "x._y"]}]}
    ),
}  # fmt: skip


def test_every_figure_counts_what_it_says(tmp_path):
    for name, text in CHECKOUT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    row = house.measure(tmp_path)
    lines = sum(text.count("\n") for name, text in CHECKOUT.items() if "examples" not in name)
    assert row[0].now == round(3000 / lines, 1)
    assert [site.split(" ", 1)[0] for site in row[2].sites] == ["sgmcmc/_asks.py:4"] * 2
    assert row[3].now == round(5000 / lines, 1)
    assert (row[5].now, row[5].sites) == (7, ("sgmcmc/rooms",))
    assert row[6].sites == ("sgmcmc.rooms._a, sgmcmc.rooms._b",)
    assert {site.split(" ")[1] for site in row[7].sites} == {"sys", "sgmcmc.rooms._b"}
    assert row[8].now == 3
    assert set(row[8].sites) == {"sgmcmc/rooms/_compared.py AO", "sgmcmc/rooms/_letters.py OU"}
    assert row[9].sites == ("sgmcmc.open.not_meant",)
    assert row[10].sites == (
        "examples/one.py: Run._yours",
        "examples/one.py: sgmcmc._tree",
        "examples/two.ipynb: x._y",
    )
    assert [row[i].now for i in (11, 12)] == [1, 1]
    assert row[12].sites[0].endswith(" g 71")
    assert "MISSED" in house.table(row)


def test_the_program_prints_the_table_and_says_whether_something_is_missed(capsys):
    missed = any(row.missed for row in measured())
    assert house.main([]) == int(missed)
    assert "asked" in capsys.readouterr().out
