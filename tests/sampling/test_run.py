"""`Run`: saving and loading without loss, files left alone, ArviZ, and what it says of itself."""

import hashlib
import html.parser
import json
from collections import OrderedDict
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import Posterior, reducers


class Pair(NamedTuple):
    weight: jax.Array
    bias: jax.Array


class Net(eqx.Module):
    weight: jax.Array
    bias: jax.Array


def log_density(tree):
    return -0.5 * sum(jnp.sum(x.astype(jnp.float32) ** 2) for x in jax.tree.leaves(tree))


KERNEL = sgmcmc.sgld(Posterior.from_log_density(log_density), 0.1)
W, B = jnp.arange(3.0), jnp.array([7.0, 9.0])
TREES = {
    "array": W,
    "dict": {"weight": W, "bias": B},
    "nested": {"z": [W, (B, B)], "a": {"c": W, "b": [B]}},
    "numbers": {10: W, 9: B},
    "list": [W, B],
    "tuple": (W, B),
    "NamedTuple": Pair(W, B),
    "Module": Net(W, B),
    "OrderedDict": OrderedDict(weight=W, bias=B),
    "pairs": {("b", 1): W, ("a", 2): B},
    "bfloat16": {"w": W.astype(jnp.bfloat16), "v": B.astype(jnp.float16)},
}
PLAIN = {"array", "dict", "nested", "numbers", "list", "tuple", "bfloat16"}


QUICK = {"nested", "NamedTuple", "OrderedDict", "pairs", "bfloat16"}
SIZES = ("num_chains", "num_burnin", "num_samples", "thinning", "chain_method")


def run(params, **options):
    options = {
        "num_chains": 2, "num_burnin": 1, "num_samples": 3, "progress": False,
        "chain_method": "vmap", **options,
    }  # fmt: skip
    return sgmcmc.sample(jax.random.key(1), KERNEL, params, **options)


def assert_same_leaves(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TREES]
)
def test_saved_runs_come_back_whole(name, tmp_path):
    """load(save(run)) has the same bits, leaf by leaf in the same order, and resumes alike."""
    made = run(TREES[name])
    path = made.save(tmp_path / "deep" / "run.npz")
    loaded = sgmcmc.load(path)
    assert_same_leaves(loaded.draws, made.draws)
    assert_same_leaves(loaded.info, made.info)
    if name in PLAIN:
        assert jax.tree.structure(loaded.draws) == jax.tree.structure(made.draws)
        options = {}
    else:
        assert isinstance(loaded.draws, dict)
        options = {"params": TREES[name]}
        with pytest.raises(ValueError, match="params: got None"):
            loaded.resume(2, kernel=KERNEL, progress=False)
    for field in (
        "config",
        "versions",
        "stopped",
        "num_steps",
        "gradient_evaluations",
        "wall_time",
    ):
        assert getattr(loaded, field) == getattr(made, field)
    longer = loaded.resume(2, kernel=KERNEL, progress=False, **options)
    straight = made.resume(2, progress=False)
    assert jax.tree.structure(longer.draws) == jax.tree.structure(straight.draws)
    assert_same_leaves(longer.draws, straight.draws)
    # A loaded run can be saved in its turn.
    again = sgmcmc.load(loaded.save(tmp_path / "again"))
    assert_same_leaves(again.draws, made.draws)


def test_float64_comes_back(tmp_path, x64):
    """float64 draws are saved as they are, and read without x64 too."""
    target = sgmcmc.sgld(Posterior.from_log_density(log_density), 0.1)
    made = sgmcmc.sample(
        jax.random.key(1), target, jnp.zeros(2), num_burnin=0, num_samples=2, progress=False
    )
    assert made.draws.dtype == np.float64
    with jax.enable_x64(False):
        assert_same_leaves(sgmcmc.load(made.save(tmp_path / "run")).draws, made.draws)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "run.npz"
    return run({"w": W, "b": B}, reducers={"m": reducers.mean()}).save(path)


def test_no_pickle_inside(saved):
    """The file opens with allow_pickle=False: reading it executes nothing."""
    with np.load(saved, allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)


def test_save_replaces_whole_or_not_at_all(saved, tmp_path, monkeypatch):
    """When writing fails the old file stays and no other is left behind."""
    made = run({"w": W, "b": B})
    path = made.save(tmp_path / "run")
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        made.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_refused(path):
    before = digest(path)
    with pytest.raises(
        ValueError, match=rf"path: {path.name} is not a complete file of a sgmcmc run"
    ):
        sgmcmc.load(path)
    assert digest(path) == before


def test_truncated_files_are_refused_and_left_alone(saved, tmp_path):
    """A file cut anywhere is a ValueError that says so, and its bytes stay."""
    whole = saved.read_bytes()
    path = tmp_path / "cut.npz"
    for length in [0, 1, 10, *np.linspace(50, len(whole) - 1, 40).astype(int)]:
        path.write_bytes(whole[:length])
        assert_refused(path)


def test_damaged_files_are_refused_or_read_right(saved, tmp_path):
    """A flipped bit is found by its checksum, or stands where nothing is read."""
    whole, original = saved.read_bytes(), sgmcmc.load(saved)
    path = tmp_path / "damaged.npz"
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 150):
        bad = bytearray(whole)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            loaded = sgmcmc.load(path)
        except ValueError as error:
            assert "path: damaged.npz" in str(error)  # noqa: PT017
            continue
        assert_same_leaves(loaded.draws, original.draws)


def with_format(path, name):
    """A file of a run in some format, with nothing in it."""
    header = json.dumps({"format": name, "trees": {}, "header": {}}).encode()
    np.savez(path, **{"header.json": np.frombuffer(header, np.uint8)})


@pytest.mark.parametrize("number", [1, 2, 9])
def test_other_formats_are_refused_by_name(number, tmp_path):
    """A run of an older or a newer version is no damaged file: the message says what it is."""
    path = tmp_path / "other.npz"
    with_format(path, f"sgmcmc-run-{number}")
    before = digest(path)
    message = rf"path: other.npz is a run in the format 'sgmcmc-run-{number}'.* 'sgmcmc-run-3' only"
    with pytest.raises(ValueError, match=message):
        sgmcmc.load(path)
    assert digest(path) == before


def test_foreign_files_are_refused_and_left_alone(tmp_path):
    """Text, other archives, pickles and plain arrays are no runs, and are not touched."""
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    (tmp_path / "text.txt").write_text("not a run")
    with_format(tmp_path / "fake.npz", "sgmcmc-run-3")
    for path in list(tmp_path.iterdir()):
        assert_refused(path)
    with pytest.raises(FileNotFoundError):
        sgmcmc.load(tmp_path / "absent")


def test_numpy_integers_are_saved(tmp_path):
    """Sizes may be NumPy's integers; the configuration holds Python's."""
    made = run(W, num_samples=np.int64(3), num_burnin=np.int32(1), num_chains=np.uint8(2))
    assert sgmcmc.load(made.save(tmp_path / "run")).config == made.config


def test_to_arviz_names_variables_and_carries_weights(saved):
    """Leaves become variables named by their paths with `.`; weights and info are sample_stats."""
    tree = run({"layer": {"w": W, "b": B}, "a": W}).to_arviz()
    assert set(tree["posterior"].data_vars) == {"layer.w", "layer.b", "a"}
    assert tree["posterior"]["layer.w"].shape == (2, 3, 3)
    assert tree["posterior"]["layer.w"].dims[:2] == ("chain", "draw")
    stats = tree["sample_stats"]
    assert {"weight", "energy", "diverging", "gradient_norm"} <= set(stats.data_vars)
    np.testing.assert_array_equal(stats["weight"], 1)
    assert not stats["diverging"].any()
    assert tree.attrs["sampler"] == "sgld"
    loaded = sgmcmc.load(saved).to_arviz()
    assert set(loaded["posterior"].data_vars) == {"w", "b"}
    assert list(run(W).to_arviz()["posterior"].data_vars) == ["theta"]


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


def test_a_run_describes_itself(saved):
    """Text and HTML say sampler, chains, draws, numbers and times; a loaded run says the same."""
    made = sgmcmc.load(saved)
    text = repr(made)
    for part in (
        "sgld",
        "2 × 3 of 3",
        "step_size 0.1",
        "temperature 1.0",
        "1 steps",
        "w (3,)",
        "reduced",
    ):
        assert part in text
    parser = Tags()
    parser.feed(made._repr_html_())
    assert not parser.open
    assert "2 × 3 of 3" in parser.cells
    assert run({"<b>": W})._repr_html_().count("<b>") == 0


def test_the_configuration_repeats_the_run(saved):
    """What `config` holds is enough to make the same run again."""
    made = sgmcmc.load(saved)
    config = made.config
    key = jax.random.wrap_key_data(jnp.asarray(config["key"], jnp.uint32), impl=config["key_type"])
    kernel = getattr(sgmcmc, config["sampler"])(
        Posterior.from_log_density(log_density), config["step_size"]
    )
    again = sgmcmc.sample(
        key, kernel, {"w": W, "b": B}, progress=False,
        **{name: config[name] for name in SIZES},
    )  # fmt: skip
    assert_same_leaves(again.draws, made.draws)
    assert config["gradient_evaluations_per_step"] == 1
    assert made.gradient_evaluations == 2 * 4
    assert set(made.versions) >= {"sgmcmc", "python", "jax", "numpy", "backend"}
