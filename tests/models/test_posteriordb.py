"""posteriordb's posteriors: two identities of the density, checked on its own reference draws.

For a density p = exp(−U) on ℝ^d that vanishes at infinity E[∂_j U] = 0 and, for any fixed a,
E[(θ − a)_i ∂_j U] = δ_ij. Reference draws of p must satisfy both within their Monte Carlo error
(10,000 draws, ArviZ's MCSE); d + d² figures a posterior, each within 5.5 of it: false alarm of a
normal figure 4e-8, of all five posteriors together below 1e-4.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import cauchy, norm

import sgmcmc
from sgmcmc.diagnostics import statistics
from sgmcmc.models import posteriordb
from sgmcmc.models._problem import linear_problem

NAMES = list(posteriordb.POSTERIORS)
BOUND = 5.5


def unconstrained(name, reference):
    """The reference draws as the parameters that are sampled: pytree [chain, draw, …]."""
    if name.startswith("eight_schools"):
        theta, mu, tau = (reference[key] for key in ("theta", "mu", "tau"))
        z = (theta - mu[..., None]) / tau[..., None]
        return {"z": z, "mu": mu, "log_tau": np.log(tau)}
    beta = reference.get("beta")
    if beta is None:
        beta = np.concatenate([reference["Intercept"][..., None], reference["b"]], axis=-1)
    return {"beta": beta, "log_sigma": np.log(reference["sigma"])}


def largest_deviation(made, name, folder, every=1):
    """Of all the identities' figures, in Monte Carlo standard errors; of every so many draws."""
    reference = posteriordb.reference_draws(folder / "posteriordb", name)
    draws = unconstrained(name, {key: value[:, ::every] for key, value in reference.items()})
    shape = jax.tree.leaves(draws)[0].shape[:2]
    flat = jax.tree.map(lambda v: jnp.asarray(v).reshape(-1, *v.shape[2:]), draws)
    data = jax.tree.map(jnp.asarray, made.data)
    batch = sgmcmc.Batch(data)

    def one(params):
        gradient = jax.grad(made.posterior.potential)(params, batch)
        return ravel_pytree(params)[0], ravel_pytree(gradient)[0]

    theta, gradient = jax.jit(lambda f: jax.lax.map(one, f, batch_size=100))(flat)
    theta, gradient = np.asarray(theta), np.asarray(gradient)
    d = theta.shape[1]
    centred = (theta - theta.mean(axis=0)) / theta.std(axis=0)
    # The centre is that of the draws: it costs a share 1/10,000 of what is compared.
    products = centred[:, :, None] * gradient[:, None, :]
    values = np.concatenate([gradient, products.reshape(-1, d * d)], axis=1)
    expected = np.concatenate([np.zeros(d), np.diag(1 / theta.std(axis=0)).ravel()])
    table = statistics(values.reshape(*shape, -1))
    return np.max(np.abs(table["mean"] - expected) / table["mcse_mean"])


@pytest.mark.data
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_reference_draws_satisfy_the_identities_of_the_density(name, data_folder):
    made = posteriordb.load(data_folder / "posteriordb", name)
    assert largest_deviation(made, name, data_folder) < BOUND


def flat_in_log_scale(params):
    """The eight schools' prior without its Jacobian."""
    return posteriordb._schools_prior(params) - params["log_tau"]


def narrow_cauchy(params):
    tau = jnp.exp(params["log_tau"])
    prior = posteriordb._schools_prior(params)
    return prior - cauchy.logpdf(tau, 0, 5) + cauchy.logpdf(tau, 0, 2.5)


def replaced_prior(made, log_prior):
    posterior = sgmcmc.Posterior(
        made.posterior.log_likelihood, log_prior, data_size=made.posterior.data_size
    )
    return made._replace(posterior=posterior)


def narrow_slopes(beta, sigma):
    return posteriordb._diamonds_prior(beta, sigma) + jnp.sum(
        norm.logpdf(beta[1:], 0, 0.5) - norm.logpdf(beta[1:])
    )


DEFECTS = {
    "no Jacobian": (NAMES[4], lambda made: replaced_prior(made, flat_in_log_scale)),
    "a Cauchy of half the scale": (NAMES[4], lambda made: replaced_prior(made, narrow_cauchy)),
    "a prior half as wide": (NAMES[0], lambda made: linear_problem(*made.data, narrow_slopes)),
    "predictors not centred": (
        NAMES[0],
        lambda made: linear_problem(
            made.data[0] + [[0.0] + [0.1] * 24], made.data[1], posteriordb._diamonds_prior
        ),
    ),
    "no interaction": (
        NAMES[2],
        lambda made: linear_problem(made.data[0] * [1, 1, 1, 0.99], made.data[1]),
    ),
    "a response in other units": (
        NAMES[1],
        lambda made: linear_problem(made.data[0], 1.01 * made.data[1]),
    ),
}


@pytest.mark.data
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_of_the_density_show(defect, data_folder):
    name, spoil = DEFECTS[defect]
    """Of a fifth of the draws: a defect that these see is seen by all."""
    made = posteriordb.load(data_folder / "posteriordb", name)
    assert largest_deviation(spoil(made), name, data_folder, every=5) > BOUND


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_transform_names_what_the_reference_names(name, data_folder):
    """And inverts the way from the reference's draws to what is sampled."""
    made = posteriordb.load(data_folder / "posteriordb", name)
    reference = posteriordb.reference_draws(data_folder / "posteriordb", name)
    first = {key: value[0, 0] for key, value in reference.items()}
    draws = unconstrained(name, {key: value[:1, :1] for key, value in reference.items()})
    there = made.transform(jax.tree.map(lambda v: jnp.asarray(v[0, 0]), draws))
    assert set(there) == set(first)
    for key, value in first.items():
        np.testing.assert_allclose(there[key], value, rtol=1e-4)


def test_names_of_columns_are_gathered():
    """Indices count from 1, in any order and in any number."""
    draws = np.arange(12.0).reshape(2, 6)
    found = posteriordb.gather(["m[2,1]", "s", "m[1,1]", "m[1,2]", "m[2,2]", "b[1]"], draws)
    np.testing.assert_array_equal(found["m"][0], [[2, 3], [0, 4]])
    np.testing.assert_array_equal(found["s"], [1, 7])
    np.testing.assert_array_equal(found["b"], [[5], [11]])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"got shape \(5, 3\); expected \(…, 2\)"),
        (["b[1]", "b[3]", "a"], r"b has 2 entries of shape \(3,\)"),
        (["b[1]", "b", "a"], "b is named in two ways"),
        (["b[1]", "b[x]", "a"], r"got 'b\[x\]'"),
    ],
)
def test_bad_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        posteriordb.gather(names, np.zeros((5, 3)))


def test_unknown_posteriors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="allowed: diamonds-diamonds, earnings"):
        posteriordb.load(tmp_path, "radon")
    with pytest.raises(FileNotFoundError, match=r"nes1972-nes\.data\.json"):
        posteriordb.load(tmp_path, "nes1972-nes")
