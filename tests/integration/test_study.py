"""What the studies share: the record, going on from it, and the exit code."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("_study", ROOT / "examples/studies/_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(study, folder, missed, *arguments):
    one = study.Study("a/toy.py", "A toy.\n", small="less", estimate=("a second", "an hour"))

    def measure(given):
        return study.Outcome({"small": given.small}, missed, lambda path: path.touch())

    return one.main(measure, [*arguments, "--output", str(folder)])


def test_record_picture_and_exit_code(study, tmp_path, capsys):
    """The time comes first, missed figures go to stderr, and decide."""
    assert run(study, tmp_path / "new", [], "--small") == 0
    assert capsys.readouterr().out.startswith("toy: about a second on two cores.\n")
    record = json.loads((tmp_path / "new" / "toy.json").read_text("utf-8"))
    assert set(record) == {"small", "missed", "versions", "cores", "seconds"}
    assert record["small"] is True
    assert set(record["versions"]) == {"sgmcmc", "jax", "numpy", "python"}
    assert (tmp_path / "new" / "toy.png").exists()
    assert run(study, tmp_path, ["figure 1 of 2"]) == 1
    assert "MISSED figure 1 of 2" in capsys.readouterr().err
    assert json.loads((tmp_path / "toy.json").read_text("utf-8"))["missed"] == ["figure 1 of 2"]


def test_a_study_may_keep_nothing(study, tmp_path):
    one = study.Study("toy.py", "A toy.", small="less", estimate=("", ""))
    assert one.main(lambda given: None, ["--output", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())


def test_rows_are_made_once(study, tmp_path):
    """What was there is not made again, unless the head differs or a fresh start is asked."""
    made = []

    def make(x):
        made.append(x)
        return {"square": x * x}

    def rows(seed=0, fresh=False):
        return study.Rows(tmp_path / "r.json", {"seed": seed, "steps": (1, 2)}, fresh=fresh)

    assert rows().get("two", make, 2) == {"square": 4}
    again = rows()
    assert again.get("two", make, 2) == {"square": 4}
    again.get("three", make, 3)
    assert made == [2, 3]
    both = {"two": {"square": 4}, "three": {"square": 9}}
    assert again.record(more=1) == {"seed": 0, "steps": [1, 2], "more": 1, "rows": both}
    assert rows(seed=1).rows == {}
    assert rows(fresh=True).rows == {}


def test_kept_goes_by_its_plan(study, tmp_path):
    path, made = tmp_path / "below" / "cell.json", []

    def make():
        made.append(1)
        return {"x": (1, 2)}

    for plan in ({"h": (0.1,)}, {"h": (0.1,)}, {"h": (0.2,)}):
        assert study.kept(path, plan, make) == {"x": [1, 2]}
    assert len(made) == 2
    assert [p.name for p in path.parent.iterdir()] == ["cell.json"]


def test_data_that_are_not_there(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SGMCMC_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        study.data_folder("mnist/mnist.npz")
    assert stopped.value.code == 2
    assert "it names the folder with mnist/mnist.npz" in capsys.readouterr().err
