"""The closed form of a deep linear network's learning coefficient."""

import itertools

import pytest

from sgmcmc.diagnostics import deep_linear_coefficient

TABLE = {
    ((1, 1, 1), 0): (0.5, 2),
    ((2, 2, 2), 0): (1.5, 1),
    ((2, 2, 2), 1): (2, 2),
    ((3, 2, 3), 1): (3.5, 2),
    ((5, 3, 5), 1): (8, 1),
    ((5, 5, 5), 2): (11.5, 2),
    ((5, 5, 5), 5): (12.5, 1),
    ((10, 10, 10), 3): (44, 2),
    ((5, 5, 5, 5), 2): (11, 1),
    ((10, 5, 5, 10), 3): (27.5, 1),
    ((4, 6, 6, 4), 0): (7.5, 3),
    ((10, 10, 10, 10, 10), 5): (45.5, 4),
    ((20, 10, 20), 4): (115.5, 1),
    ((2, 1, 2), 0): (1, 2),
}


@pytest.mark.parametrize(("network", "expected"), TABLE.items())
def test_known_values(network, expected):
    """Coefficient and multiplicity of fourteen networks."""
    assert deep_linear_coefficient(*network) == expected


def reduced_rank(inputs, hidden, outputs, rank):
    """Two layers, by cases (Aoyagi and Watanabe 2005, Neural Networks 18)."""
    m, h, n, r = inputs, hidden, outputs, rank
    if n + r <= m + h and m + r <= n + h and h + r <= m + n:
        square = 2 * (h + r) * (m + n) - (m - n) ** 2 - (h + r) ** 2
        if (m + h + n + r) % 2 == 0:
            return square / 8, 1
        return (square + 1) / 8, 2
    if m + n < h + r:
        return m * n / 2, 1
    if n + h < m + r:
        return (h * n - h * r + m * r) / 2, 1
    return (h * m - h * r + n * r) / 2, 1


def test_two_layers():
    """All networks of two layers of widths 1 to 8 have the reduced-rank regression's value."""
    checked = 0
    for inputs, hidden, outputs in itertools.product(range(1, 9), repeat=3):
        for rank in range(min(inputs, hidden, outputs) + 1):
            found = deep_linear_coefficient((inputs, hidden, outputs), rank)
            assert found == reduced_rank(inputs, hidden, outputs, rank)
            checked += 1
    assert checked == 1808


def test_a_regular_model():
    """One layer is a regular model, and order of the layers changes the hidden ones only."""
    assert deep_linear_coefficient((4, 3), 2) == (6, 1)
    assert deep_linear_coefficient((4, 9, 5, 6), 2) == deep_linear_coefficient((4, 5, 9, 6), 2)


@pytest.mark.parametrize(
    ("widths", "rank", "message"),
    [
        ((3,), 0, "expected an input, an output and between"),
        ((3, 0, 3), 0, "widths: got 0; allowed: at least 1"),
        ((3, 2, 3), 3, "rank: got 3; allowed: at most the smallest width, 2"),
        ((3, 2, 3), -1, "rank: got -1; allowed: at least 0"),
    ],
)
def test_bad_input(widths, rank, message):
    """Named, with what is allowed."""
    with pytest.raises(ValueError, match=message):
        deep_linear_coefficient(widths, rank)
