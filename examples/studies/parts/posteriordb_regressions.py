"""The linear regressions of posteriordb, {name: data -> Problem}."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import cauchy, norm

from sgmcmc.models import Problem, linear_problem, posteriordb


def columns(data: Mapping, *names: str) -> list[np.ndarray]:
    return [np.asarray(data[name], np.float64) for name in names]


def regression(y: np.ndarray, *x: np.ndarray) -> Problem:
    """y on an intercept and x, flat in beta and sigma."""
    return linear_problem(np.column_stack([np.ones(len(y)), *x]), y)


def product(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> Problem:
    return regression(y, a, b, a * b)


def earn_height(data: Mapping) -> Problem:
    return regression(*columns(data, "earn", "height"))


def logearn_height_male(data: Mapping) -> Problem:
    earn, *rest = columns(data, "earn", "height", "male")
    return regression(np.log(earn), *rest)


def logearn_interaction_z(data: Mapping) -> Problem:
    earn, height, male = columns(data, "earn", "height", "male")
    return product(np.log(earn), (height - height.mean()) / height.std(ddof=1), male)


def half_cauchy(beta, sigma):
    return cauchy.logpdf(sigma, 0, 2.5)


def kidscore_momhs(data: Mapping) -> Problem:
    score, school = columns(data, "kid_score", "mom_hs")
    design = np.column_stack([np.ones(len(score)), school])
    return linear_problem(design, score, half_cauchy)


def kidscore_interaction_c(data: Mapping) -> Problem:
    score, school, iq = columns(data, "kid_score", "mom_hs", "mom_iq")
    return product(score, school - school.mean(), iq - iq.mean())


def kidscore_interaction_c2(data: Mapping) -> Problem:
    score, school, iq = columns(data, "kid_score", "mom_hs", "mom_iq")
    return product(score, school - 0.5, iq - 100)


def kidscore_mom_work(data: Mapping) -> Problem:
    score, work = columns(data, "kid_score", "mom_work")
    return regression(score, *(work == group for group in (2, 3, 4)))


SHRUB = ("weight", "diam1", "diam2", "canopy_height", "total_height", "density", "group")


def mesquite(data: Mapping) -> Problem:
    return regression(*columns(data, *SHRUB))


def logmesquite_logva(data: Mapping) -> Problem:
    weight, one, two, canopy, _, _, group = columns(data, *SHRUB)
    return regression(np.log(weight), np.log(one * two * canopy), np.log(one * two), group)


def logmesquite_logvas(data: Mapping) -> Problem:
    weight, one, two, canopy, height, density, group = columns(data, *SHRUB)
    shape = [np.log(one * two * canopy), np.log(one * two), np.log(one / two)]
    return regression(np.log(weight), *shape, np.log(height), np.log(density), group)


def kilpisjarvi(data: Mapping) -> Problem:
    year, temperature = columns(data, "x", "y")
    a, b = (data["pmualpha"], data["psalpha"]), (data["pmubeta"], data["psbeta"])

    def prior(beta, sigma):
        return norm.logpdf(beta[0], *a) + norm.logpdf(beta[1], *b)

    def names(params):
        alpha, beta = params["beta"]
        return {"alpha": alpha, "beta": beta, "sigma": jnp.exp(params["log_sigma"])}

    design = np.column_stack([np.ones(len(year)), year])
    return linear_problem(design, temperature, prior, transform=names)


REGRESSIONS: Mapping[str, Callable[[Mapping], Problem]] = {
    "diamonds-diamonds": posteriordb.diamonds,
    "earnings-earn_height": earn_height,
    "earnings-logearn_height_male": logearn_height_male,
    "earnings-logearn_interaction": posteriordb.earnings,
    "earnings-logearn_interaction_z": logearn_interaction_z,
    "kidiq-kidscore_interaction": posteriordb.kidiq,
    "kidiq-kidscore_momhs": kidscore_momhs,
    "kidiq_with_mom_work-kidscore_interaction_c": kidscore_interaction_c,
    "kidiq_with_mom_work-kidscore_interaction_c2": kidscore_interaction_c2,
    "kidiq_with_mom_work-kidscore_mom_work": kidscore_mom_work,
    "kilpisjarvi_mod-kilpisjarvi": kilpisjarvi,
    "mesquite-logmesquite_logva": logmesquite_logva,
    "mesquite-logmesquite_logvas": logmesquite_logvas,
    "mesquite-mesquite": mesquite,
    "nes1972-nes": posteriordb.nes,
    "nes1976-nes": posteriordb.nes,
    "nes1984-nes": posteriordb.nes,
    "nes1992-nes": posteriordb.nes,
}
