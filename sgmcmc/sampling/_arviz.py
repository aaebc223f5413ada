"""Runs as ArviZ has them: names that xarray takes, types that netCDF takes, and more groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._posterior import Posterior
from sgmcmc.sampling._draws import free_memory
from sgmcmc.sampling._evaluate import evaluate
from sgmcmc.types import Array, Key, PyTree

if TYPE_CHECKING:
    from sgmcmc.sampling._run import Resampled, Run

Kind: TypeAlias = Literal["auto", "DataTree", "InferenceData"]
KINDS = ("auto", "DataTree", "InferenceData")

# Examples whose likelihood is taken at a time, as in `Posterior.log_density`.
ROWS = 4096

# The name of what was observed, where `observed` gives none.
OBSERVED = "y"


class Options(NamedTuple):
    """The keywords of `Run.to_arviz`, where they are explained."""

    posterior: Posterior | None = None
    data: PyTree = None
    predictive: Callable[..., PyTree] | None = None
    observed: ArrayLike | Mapping[str, ArrayLike] | None = None
    transform: Callable[[PyTree], Mapping[str, Array]] | None = None
    dims: Mapping[str, Sequence[str]] | None = None
    coords: Mapping[str, Sequence[object]] | None = None
    key: Key | None = None
    kind: Kind = "auto"


def convert(
    run: Run | Resampled, stats: dict[str, np.ndarray], attrs: dict[str, object], options: Options
) -> Any:
    """A DataTree or an InferenceData of draws [chain, draw, …] and `stats` [chain, draw]."""
    from arviz_base import from_dict

    checks.choice(options.kind, "kind", KINDS)
    groups: dict[str, dict[str, np.ndarray]] = {}
    values = run.draws if options.transform is None else _transformed(run, options.transform)
    leaves = _leaves(values)
    paths = leaves if isinstance(values, np.ndarray) else trees.named_leaves(values)
    names = variable_names(paths, options)
    groups["posterior"] = {names[at]: np.asarray(x) for at, (_, x) in enumerate(leaves)}
    if stats:
        groups["sample_stats"] = stats
    observed = _observed(options.observed)
    said = next(iter(observed)) if len(observed) == 1 else OBSERVED
    if options.posterior is not None:
        found = _log_likelihoods(run, options.posterior, options.data)
        groups["log_likelihood"] = {said: found}
    if options.predictive is not None:
        groups["posterior_predictive"] = _predicted(run, options, said)
    if observed:
        groups["observed_data"] = observed
    coords: PyTree = options.coords
    dims = _dims(options.dims, leaves, names, groups)
    tree = from_dict(
        {group: {n: _plain(x, group) for n, x in made.items()} for group, made in groups.items()},
        dims=dims, coords=coords,
    )  # fmt: skip
    renamed = [
        f"{new} is {full}"
        for new, (full, _), (path, _) in zip(names, leaves, paths, strict=True)
        if new != path.replace("/", ".")
    ]
    if renamed:
        attrs = {**attrs, "renamed": "; ".join(renamed)}
    tree.attrs.update(attrs)
    old_arviz = _old_arviz() if options.kind != "DataTree" else None
    if old_arviz is None:
        if options.kind == "InferenceData":
            raise ValueError(
                'kind: got "InferenceData"; it is of ArviZ before 1.0, which is not installed'
            )
        return tree
    parts = {name: child.to_dataset() for name, child in tree.children.items()}
    return old_arviz.InferenceData(attrs=dict(tree.attrs), **parts)


def _old_arviz() -> Any:
    """The module `arviz` where it is from before 1.0 and can be imported; else None."""
    from importlib import metadata

    try:
        if int(metadata.version("arviz").split(".")[0]) >= 1:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its successor
            import arviz
    except Exception:  # not installed, or beside a matplotlib that it cannot bear
        return None
    return arviz


def variable_names(leaves: list[tuple[str, PyTree]], options: Options) -> list[str]:
    """A name for each leaf, no other's nor a dimension's: "_" is appended until it is so."""
    wanted = [name.replace("/", ".") for name, _ in leaves]
    taken = {"chain", "draw", *(options.coords or {})}
    taken |= {dim for dims in (options.dims or {}).values() for dim in dims}
    made: list[str] = []
    for name in wanted:
        sized = {
            f"{other}_dim_{i}"
            for other, (_, x) in zip([*made, *wanted[len(made) :]], leaves, strict=True)
            for i in range(np.ndim(x) - 2)
        }
        while name in taken or name in sized or name in made:
            name += "_"
        made.append(name)
    return made


def _leaves(values: PyTree) -> list[tuple[str, PyTree]]:
    if isinstance(values, np.ndarray):
        return [("theta", values)]
    return trees.distinct_leaves(values)


def _plain(array: np.ndarray, group: str) -> np.ndarray:
    """In a type that netCDF has, and that can be subtracted."""
    array = np.asarray(array)
    if array.dtype.kind == "b" and group != "sample_stats":
        return array.astype(np.int8)
    if array.dtype.kind not in "biufcSUO" or array.dtype == np.float16:
        return array.astype(np.float32)
    return array


def _dims(
    dims: Mapping[str, Sequence[str]] | None,
    leaves: list[tuple[str, PyTree]],
    names: list[str],
    groups: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, list[str]] | None:
    """`dims` by the names of variables, checked against their shapes."""
    if dims is None:
        return None
    given = {old: new for new, (old, _) in zip(names, leaves, strict=True)}
    given |= {old.replace("/", "."): new for old, new in given.items()}
    ndim = {
        name: np.ndim(x) - (0 if group == "observed_data" else 2)
        for group, made in groups.items()
        for name, x in made.items()
    }
    found = {}
    for name, of in dims.items():
        variable = given.get(name, name)
        if variable not in ndim:
            raise ValueError(f"dims: got {name!r}; expected some of {', '.join(ndim)}"[:300])
        if isinstance(of, str) or len(of) > ndim[variable]:
            raise ValueError(
                f"dims: {name} has {ndim[variable]} dimensions beside chain and draw; got {of!r}, "
                "expected a list of their names"
            )
        found[variable] = list(of)
    return found


def _observed(observed: PyTree) -> dict[str, np.ndarray]:
    if observed is None:
        return {}
    given = observed if isinstance(observed, Mapping) else {OBSERVED: observed}
    return {str(name): np.asarray(x) for name, x in given.items()}


def _flat(run: Run | Resampled) -> PyTree:
    """Draws [chain · draw, …]."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), run.draws)


def _apart(run: Run | Resampled, made: PyTree) -> PyTree:
    """[chain · draw, …] as [chain, draw, …]."""
    return jax.tree.map(lambda x: x.reshape(*run.weights.shape, *x.shape[1:]), made)


def _transformed(run: Run | Resampled, transform: Callable[..., PyTree]) -> dict[str, PyTree]:
    made = _apart(run, evaluate(transform, _flat(run)))
    if not isinstance(made, Mapping):
        raise TypeError(f"transform: it returned {type(made).__name__}; expected {{name: array}}")
    return dict(made)


def _log_likelihoods(run: Run | Resampled, posterior: Posterior, data: PyTree) -> np.ndarray:
    """log p(y_i | x_i, θ) of every draw and example, [chain, draw, n]; no likelihood power."""
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    if not posterior.has_data or data is None:
        raise ValueError(
            "data: a log likelihood of each example needs a likelihood and its data; got a target "
            "without them, or data=None"
        )
    checks.check_data(data, posterior.data_size)
    weights = run.weights
    if np.ptp(weights[weights > 0], axis=None) > 0:
        raise ValueError(
            "posterior: these draws have unequal weights, which ArviZ's loo does not read; pass "
            "it to run.resampled(key).to_arviz(…), whose draws weigh the same"
        )
    n, draws = trees.leading_axis(data), weights.size
    needed, free = 4 * n * draws, free_memory()
    if free is not None and needed > free / 2:
        raise MemoryError(
            f"posterior: {draws:,} draws of {n:,} examples take {needed:,} bytes, over half of the "
            f"{free:,} free; keep fewer draws (run.sel) or pass some of the data"
        )
    flat = _flat(run)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), flat)
    size = min(n, ROWS)
    posterior.check_shapes(one, data, size)
    found = np.empty((draws, n), np.float32)
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)  # padded: one shape, one trace
        block = jax.tree.map(lambda x, r=rows: np.asarray(x)[r], data)
        made = evaluate(Partial(_pointwise, posterior), flat, block)
        found[:, start : start + size] = made[:, : n - start]
    return _apart(run, found)


def _pointwise(posterior: Posterior, params: PyTree, rows: PyTree) -> Array:
    assert posterior.log_likelihood is not None
    return trees.widened(posterior.log_likelihood(params, rows))


def _predicted(run: Run | Resampled, options: Options, said: str) -> dict[str, np.ndarray]:
    """What `predictive` makes of every draw, by name, [chain, draw, …]."""
    predictive = trees.as_callable(options.predictive, "predictive")
    flat, data = _flat(run), options.data
    if options.key is None:
        made = evaluate(predictive, flat, data)
    else:
        key = checks.typed_key(options.key)
        words = np.asarray(jax.random.key_data(jax.random.split(key, run.weights.size)))
        drawn = Partial(_drawn, str(jax.random.key_impl(key)), predictive)
        made = evaluate(drawn, (flat, words), data)
    made = _apart(run, made)
    named = made if isinstance(made, Mapping) else {said: made}
    for name, x in named.items():
        if not isinstance(x, np.ndarray):
            raise TypeError(f"predictive: {name} is {type(x).__name__}; expected arrays by name")
    return {str(name): x for name, x in named.items()}


def _drawn(
    impl: str, predictive: Callable[..., PyTree], draw: tuple[PyTree, Array], data: PyTree
) -> PyTree:
    params, words = draw
    return predictive(params, data, jax.random.wrap_key_data(jnp.asarray(words), impl=impl))
