"""Five posteriors of posteriordb (Magnusson et al. 2024), whose reference draws are published.

`load(folder, name)` reads the data of one and makes its `Problem`, in the parametrisation that
is sampled; `reference_draws(folder, name)` reads what to compare with. To add a posterior
write a function `data -> Problem`, for the most part a call of `linear_problem` or
`logistic_problem`, and name it in `POSTERIORS`.

In the priors below a density cut to the positive half line is written as the whole one:
constants do not matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import cauchy, norm, t
from jax.tree_util import Partial
from jax.typing import ArrayLike

from sgmcmc._posterior import Posterior
from sgmcmc.models._problem import Problem, linear_problem
from sgmcmc.types import Array, PyTree

__all__ = [
    "POSTERIORS",
    "Columns",
    "diamonds",
    "earnings",
    "eight_schools",
    "gather",
    "kidiq",
    "load",
    "nes",
    "reference_draws",
]

Columns = Mapping[str, ArrayLike]
"""The data of a posterior, by posteriordb's names of its columns."""


def diamonds(data: Columns) -> Problem:
    """Log price on 24 collinear predictors, centred: Intercept, b and sigma."""
    x = np.asarray(data["X"], np.float64)[:, 1:]
    design = np.column_stack([np.ones(len(x)), x - x.mean(axis=0)])
    return linear_problem(design, data["Y"], _diamonds_prior, transform=_diamonds_names)


def earnings(data: Columns) -> Problem:
    """Log earnings on height, sex and their product; flat priors."""
    height, male = _column(data, "height"), _column(data, "male")
    design = np.column_stack([np.ones(len(male)), height, male, height * male])
    return linear_problem(design, np.log(_column(data, "earn")))


def kidiq(data: Columns) -> Problem:
    """A child's score on the mother's school, her IQ and their product; sigma ~ Cauchy⁺(2.5)."""
    school, iq = _column(data, "mom_hs"), _column(data, "mom_iq")
    design = np.column_stack([np.ones(len(iq)), school, iq, school * iq])
    return linear_problem(design, data["kid_score"], _kidiq_prior)


def nes(data: Columns) -> Problem:
    """Party identification on eight predictors, age as three indicators; flat priors."""
    age = _column(data, "age_discrete")
    ages = [age == group for group in (2, 3, 4)]
    before = [_column(data, name) for name in ("real_ideo", "race_adj")]
    after = [_column(data, name) for name in ("educ1", "gender", "income")]
    design = np.column_stack([np.ones(len(age)), *before, *ages, *after])
    return linear_problem(design, data["partyid7"])


def eight_schools(data: Columns) -> Problem:
    """Effects theta = mu + tau z of coaching in eight schools; z, mu and log_tau are sampled."""
    effect, error = _column(data, "y"), _column(data, "sigma")
    params = {"z": jnp.zeros(len(effect)), "mu": jnp.zeros(()), "log_tau": jnp.zeros(())}
    return Problem(
        Posterior(Partial(_school), Partial(_schools_prior), data_size=len(effect)),
        (np.arange(len(effect)), effect, error),
        params,
        Partial(_schools_names),
    )


POSTERIORS: Mapping[str, Callable[[Columns], Problem]] = MappingProxyType(
    {
        "diamonds-diamonds": diamonds,
        "earnings-logearn_interaction": earnings,
        "kidiq-kidscore_interaction": kidiq,
        "nes1972-nes": nes,
        "eight_schools-eight_schools_noncentered": eight_schools,
    }
)
"""{posteriordb's name: `data -> Problem`}."""


def load(folder: str | Path, name: str) -> Problem:
    """The posterior `name`, with the data of `folder`/`name`.data.json.

    Raises:
        ValueError: `name` is not one of `POSTERIORS`.
        FileNotFoundError: the file is not there.
    """
    if name not in POSTERIORS:
        raise ValueError(f"name: got {name!r}; allowed: {', '.join(POSTERIORS)}")
    text = (Path(folder).expanduser() / f"{name}.data.json").read_text("utf-8")
    return POSTERIORS[name](json.loads(text))


def reference_draws(folder: str | Path, name: str) -> dict[str, np.ndarray]:
    """The reference draws of `folder`/`name`.draws.npz: {name: [chain, draw, …]}.

    Raises:
        FileNotFoundError: the file is not there.
    """
    with np.load(Path(folder).expanduser() / f"{name}.draws.npz", allow_pickle=False) as file:
        return gather([str(n) for n in file["names"]], file["draws"])


def gather(names: list[str], draws: np.ndarray) -> dict[str, np.ndarray]:
    """Columns called "beta[1]", "beta[2]", "sigma", …, as arrays "beta" and "sigma".

    Args:
        names: of the columns; indices count from 1, as in Stan.
        draws: (…, columns).

    Raises:
        ValueError: names and columns differ in number, a name is of another form, or some of an
            array's entries lack.

    Examples:
        >>> arrays = gather(["b[1]", "b[2]", "s"], np.zeros((10, 1000, 3)))
        >>> {name: array.shape for name, array in arrays.items()}
        {'b': (10, 1000, 2), 's': (10, 1000)}
    """
    draws = np.asarray(draws)
    if draws.shape[-1:] != (len(names),):
        raise ValueError(f"draws: got shape {draws.shape}; expected (…, {len(names)})")
    places: dict[str, dict[tuple[int, ...], int]] = {}
    for column, name in enumerate(names):
        match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+(?:,\d+)*)\])?", name)
        if match is None:
            raise ValueError(f"names: got {name!r}; expected a name, or one as b[1] or m[1,2]")
        base, indices = match.groups()
        index = tuple(int(i) - 1 for i in indices.split(",")) if indices else ()
        places.setdefault(base, {})[index] = column
    out = {}
    for base, columns in places.items():
        if len({len(index) for index in columns}) > 1:
            raise ValueError(f"names: {base} is named in two ways, with more indices and fewer")
        shape = tuple(max(i) + 1 for i in zip(*columns, strict=True))
        if len(columns) != int(np.prod(shape)):
            raise ValueError(f"names: {base} has {len(columns)} entries of shape {shape}")
        order = np.empty(shape, int)
        for index, column in columns.items():
            order[index] = column
        out[base] = draws[..., order]
    return out


def _column(data: Columns, name: str) -> np.ndarray:
    return np.asarray(data[name], np.float64)


def _diamonds_prior(beta: Array, sigma: Array) -> Array:
    slopes = jnp.sum(norm.logpdf(beta[1:]))
    return slopes + t.logpdf(beta[0], 3, 8, 10) + t.logpdf(sigma, 3, 0, 10)


def _diamonds_names(params: PyTree) -> dict[str, Array]:
    beta = params["beta"]
    return {"b": beta[1:], "Intercept": beta[0], "sigma": jnp.exp(params["log_sigma"])}


def _kidiq_prior(beta: Array, sigma: Array) -> Array:
    return cauchy.logpdf(sigma, 0, 2.5)


def _school(params: PyTree, batch: PyTree) -> Array:
    school, effect, error = batch
    theta = params["mu"] + jnp.exp(params["log_tau"]) * params["z"][school]
    return norm.logpdf(effect, theta, error)


def _schools_prior(params: PyTree) -> Array:
    tau = jnp.exp(params["log_tau"])
    prior = jnp.sum(norm.logpdf(params["z"])) + norm.logpdf(params["mu"], 0, 5)
    return prior + cauchy.logpdf(tau, 0, 5) + params["log_tau"]


def _schools_names(params: PyTree) -> dict[str, Array]:
    mu, tau = params["mu"], jnp.exp(params["log_tau"])
    return {"theta": mu + tau * params["z"], "mu": mu, "tau": tau}


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
