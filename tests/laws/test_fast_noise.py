"""What `noise="fast"` keeps: its law has a normal's moments through order 5, not the sixth.

A step's noise enters with √h, so the sixth moment is first felt at h³ in one step and at h²
in the stationary law: words of order 2 stay of order 2 with another constant, those of order
3 do not stay of order 3 (`test_shifted_ode.py`). Stationary laws are by quadrature through
the kernels' own `drive`, with the Gauss rule of the 256 values in the place of Gauss-Hermite.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgmcmc
from sgmcmc import noise
from tests.laws import densities, samplers
from tests.laws.test_non_gaussian import FIGURES, compare
from tests.laws.test_orders import exact_second_moment, quartic, quartic_potential, slope

STEPS = (0.1, 0.05, 0.025)
WORDS = ("BAOAB", "ABOBA", "OBABO", "OABAO", "BAOA", "AOAB", "BABO", "UBU", "BUB")
PLAIN = ("sgld", "leimkuhler_matthews", "sghmc")
ORDERS = dict.fromkeys(WORDS, 2) | {"sgld": 1, "leimkuhler_matthews": 2, "sghmc": 2}


@functools.cache
def fast_values():
    """The 256 values of one number, as kernels see them."""
    words = jnp.arange(256, dtype=jnp.uint32)
    like = jax.ShapeDtypeStruct((1,), jnp.float64)
    return np.asarray(jax.vmap(lambda word: noise.to_tree(word[None], like))(words)).ravel()


def gauss_rule(values, count):
    """Nodes and weights that give the first 2 count − 1 moments of equally likely values."""
    weights = np.full(len(values), 1 / len(values))
    return densities.Polynomials(values, weights, count).gauss(count)


def biases(name, rule, degree):
    steps = [h / 4 for h in STEPS] if name in samplers.OVERDAMPED else STEPS
    posterior = sgmcmc.Posterior.from_log_density(quartic)
    exact = exact_second_moment()
    kernels = [samplers.make(name, posterior, h) for h in steps]
    return steps, np.array(
        [densities.second_moment(k, quartic_potential, degree, rule) - exact for k in kernels]
    )


@pytest.mark.parametrize("name", [*WORDS, *PLAIN])
def test_order_on_the_quartic(name):
    """Every word of order 2 keeps it, and so does the order of ⟨x²⟩ of the others; what the
    sixth moment adds is of order h² at least, and smaller than the bias of plain normals."""
    # UBU takes four normals: five nodes each, which still know moments through 9.
    count, degree = (5, 12) if name == "UBU" else (10, 14)
    steps, fast = biases(name, gauss_rule(fast_values(), count), degree)
    _, normal = biases(name, np.polynomial.hermite_e.hermegauss(count), degree)
    assert abs(slope(fast, steps) - ORDERS[name]) < 0.06
    assert slope(fast - normal, steps) > 1.9
    assert np.all(np.abs(fast - normal) < 0.1 * np.abs(normal))


def test_fewer_moments_cost_an_order():
    """The test above sees it: signs ±1, of a normal's moments through order 3, leave order 1."""
    steps, signs = biases("BAOAB", (np.array([-1.0, 1.0]), np.array([0.5, 0.5])), 14)
    assert abs(slope(signs, steps) - 1) < 0.1


@pytest.mark.parametrize(
    "row",
    [row for row in FIGURES if row[0] in ("F6", "F7", "F8", "F10", "F11", "F12", "F16", "F17")],
    ids=lambda row: f"{row[0]}-{row[2]}-{row[3]}",
)
def test_time_averages(row):
    """Words drawn by the generator give the printed figures of `test_non_gaussian.py`."""
    compare(row, 3_000, seed=3, noise="fast")
