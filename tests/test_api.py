"""The public API does not change unnoticed: tests/api.txt is what the source says."""

import difflib

from tools import api, source


def test_listing_is_the_source(root):
    committed = (root / api.LISTING).read_text("utf-8").splitlines()
    now = api.listing(source.read(root)).splitlines()
    changed = difflib.unified_diff(committed, now, str(api.LISTING), "the source", n=0, lineterm="")
    text = "\n".join(changed)
    assert not text, f"the public API has changed; if that is meant: make api\n{text}"


PACKAGE = {
    "sgmcmc": '''
from sgmcmc.room import Deep, made, PAIR
__all__ = ["PAIR", "Deep", "made"]
''',
    "sgmcmc.room": '''
from sgmcmc.room._file import Deep, Shown, made
from sgmcmc.room._file import FIRST as PAIR
from numpy import pi
__all__ = ["PAIR", "Deep", "Shown", "made", "pi"]
''',
    "sgmcmc.room._file": '''
FIRST, SECOND = (1, 2), "b"
class Shown:
    far: int
class Base(Shown):
    size: int
    def go(self, far: float = 1.0, /) -> None: ...
    def _hidden(self): ...
class Deep(Base, Generic[T]):
    name: str = field(static=True, default="x")
    def go(self, far: float = 2.0) -> int: ...
    @classmethod
    def build(cls, *, key) -> "Deep": ...
    @property
    def twice(self) -> int: ...
    def __repr__(self): ...
async def made(x: int | None = None, *, y: str = 'a', **rest: Any): ...
''',
}  # fmt: skip

LISTED = """\
sgmcmc.Deep = sgmcmc.room.Deep
sgmcmc.PAIR = sgmcmc.room.PAIR
sgmcmc.made = sgmcmc.room.made
sgmcmc.room.Deep: class(Base, Generic[T])
sgmcmc.room.Deep.size: int
sgmcmc.room.Deep.go(far: float=2.0) -> int
sgmcmc.room.Deep.name: str = 'x'
sgmcmc.room.Deep.build(*, key) -> 'Deep'
sgmcmc.room.Deep.twice: int (property)
sgmcmc.room.PAIR = (1, 2)
sgmcmc.room.Shown: class
sgmcmc.room.Shown.far: int
sgmcmc.room.made(x: int | None=None, *, y: str='a', **rest: Any)
sgmcmc.room.pi = numpy.pi
"""


def written(folder) -> None:
    """`PACKAGE`, as a checkout in `folder`."""
    for name, text in PACKAGE.items():
        parts = name.split(".")
        path = folder.joinpath(*parts)
        path = path.with_suffix(".py") if parts[-1].startswith("_") else path / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def test_a_name_is_listed_where_it_is_nearest(tmp_path):
    written(tmp_path)
    assert api.listing(source.read(tmp_path)) == LISTED
