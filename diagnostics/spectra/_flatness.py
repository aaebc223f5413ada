"""The flatness of a minimum by the measures in use: spectrum, rise under noise, local entropy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc import noise
from sgmcmc._checks import check_range
from sgmcmc._posterior import Posterior
from sgmcmc.diagnostics._tables import Tabular, frame
from sgmcmc.diagnostics.spectra._operator import Curvature
from sgmcmc.diagnostics.spectra._record import NOTICE, Spectrum
from sgmcmc.diagnostics.spectra._spectrum import curvature_of, spectrum
from sgmcmc.local._entropy import LocalEntropy, LocalValue
from sgmcmc.types import Array, Key, PyTree

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Flatness:
    """What `flatness` returns. Every number depends on how the layers are scaled.

    Attributes:
        spectrum: trace, largest eigenvalues and share near zero, each with its error.
        loss: f(x), in nats per example (of a potential: in nats).
        width: σ of the perturbation, in the parameters' units.
        rise: E f(x + σξ) − f(x), ξ ~ N(0, 1) on every parameter. For small σ, σ²/2 × trace of a
            smooth f; more with ReLU, whose kinks no Hessian sees.
        rise_error: its standard error.
        local_entropy: F(x; γ) with its error, or None where none was asked for.
    """

    spectrum: Spectrum
    loss: float
    width: float
    rise: float
    rise_error: float
    local_entropy: LocalValue | None

    def __repr__(self) -> str:
        return repr(compare_flatness({"": self}))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FlatnessComparison(Tabular):
    """What `compare_flatness` returns.

    Attributes:
        table: `pandas.DataFrame`, a row a network, its columns loss, trace, trace_error,
            largest and lowest (eigenvalue), near_zero and near_zero_error (share of the
            eigenvalues within `threshold` of 0), rise, rise_error; and, where one was asked
            for, local_entropy and local_entropy_error (NaN where not). Not rounded.
        width: σ of the perturbation behind `rise`.
        threshold: of |λ|, behind `near_zero`.
        notes: of which matrix, and what such a comparison does not say.
    """

    table: pandas.DataFrame
    width: float
    threshold: float
    notes: tuple[str, ...]

    def _title(self) -> str:
        return (
            f"Flatness of {len(self.table)}: near_zero |λ| < {self.threshold:g}, "
            f"rise at σ = {self.width:g}"
        )

    def _lines(self) -> tuple[str, ...]:
        return self.notes


def flatness(
    key: Key,
    posterior: Posterior,
    params: PyTree,
    data: PyTree = None,
    *,
    width: float,
    num_samples: int = 200,
    entropy: LocalEntropy | None = None,
    of: str | None = None,
    block_size: int = 1024,
    **settings: Any,
) -> Flatness:
    """The measures of flatness that the papers use, of one function at one point.

    Args:
        key: `jax.random.key(seed)`.
        posterior, params, data, of, block_size: as in `spectrum`.
        width: σ > 0 of the perturbation loss.
        num_samples: of ξ, in pairs ±ξ: even, ≥ 4. Each costs one pass over `data`.
        entropy: `local.local_entropy(kernel, precision)`, whose value F(x; γ) is estimated too,
            with its own f (the kernel's potential, which needs all its data here). Honest in
            a few dimensions: watch its `effective_samples`.
        settings: further arguments of `spectrum`.

    Returns:
        A `Flatness`.

    Raises:
        TypeError, ValueError, ImportError, FloatingPointError: as in `spectrum`.
    """
    key = checks.typed_key(key)
    check_range(width, "width", above_zero=True)
    checks.count(num_samples, "num_samples", least=4)
    if num_samples % 2:
        raise ValueError(f"num_samples: got {num_samples}; expected an even number, for pairs ±ξ")
    if entropy is not None and not isinstance(entropy, LocalEntropy):
        raise TypeError(
            f"entropy: got {type(entropy).__name__}; expected sgmcmc.local.local_entropy(kernel, γ)"
        )
    spectrum_key, noise_key, entropy_key = jax.random.split(key, 3)
    found = spectrum(
        spectrum_key, posterior, params, data, of=of, block_size=block_size, **settings
    )
    function = curvature_of(posterior, params, data, "hessian", of, block_size)
    loss, pairs = _rises(function, jnp.asarray(width, float), noise_key, int(num_samples) // 2)
    rises = np.asarray(pairs, np.float64)
    value = None if entropy is None else entropy.value(entropy_key, function.params, data)
    return Flatness(
        spectrum=found,
        loss=float(loss),
        width=float(width),
        rise=float(rises.mean()),
        rise_error=float(rises.std(ddof=1) / np.sqrt(len(rises))),
        local_entropy=value,
    )


def compare_flatness(found: Mapping[str, Flatness]) -> FlatnessComparison:
    """A table of networks, one a row, and the note that no number in it is scale-invariant.

    Args:
        found: records of `flatness` by name, with one width and one threshold, else no two
            rows could be compared.

    Raises:
        TypeError, ValueError: there are none, they are other records, or their widths,
            thresholds or curvatures differ.
    """
    if not found:
        raise ValueError("found: got no records; expected one or more of `flatness`")
    for name, one in found.items():
        if not isinstance(one, Flatness):
            raise TypeError(f"found: {name!r} is a {type(one).__name__}; expected a Flatness")
    settings = {(f.width, f.spectrum.threshold, f.spectrum.curvature) for f in found.values()}
    if len(settings) > 1:
        raise ValueError(f"found: (width, threshold, curvature) differ: {sorted(settings)}")
    width, threshold, curvature = settings.pop()
    rows = [_row(one, threshold) for one in found.values()]
    columns = {name: [row.get(name, np.nan) for row in rows] for row in rows for name in row}
    matrix = "Gauss-Newton matrix" if curvature == "gauss_newton" else "Hessian"
    notes = (f"Spectra of the {matrix}. {NOTICE}",)
    return FlatnessComparison(frame(columns, list(found)), width, threshold, notes)


def _row(one: Flatness, threshold: float) -> dict[str, float]:
    of = one.spectrum
    share, error = of.share_within(threshold)
    row = {
        "loss": one.loss, "trace": of.trace, "trace_error": of.trace_error,
        "largest": of.top[0], "lowest": of.lowest, "near_zero": share, "near_zero_error": error,
        "rise": one.rise, "rise_error": one.rise_error,
    }  # fmt: skip
    if one.local_entropy is not None:
        row["local_entropy"] = float(one.local_entropy.value)
        row["local_entropy_error"] = float(one.local_entropy.standard_error)
    return row


@eqx.filter_jit
def _rises(function: Curvature, width: Array, key: Key, pairs: int) -> tuple[Array, Array]:
    """f(x), and of each pair ±ξ the mean rise."""
    start = function.value(function.params)

    def one(key: Key) -> Array:
        normals = noise.draw(key, function.params, 1, "gaussian")[0]
        shift = noise.to_tree(normals, function.params)
        ends = [function.value(trees.axpy(s * width, shift, function.params)) for s in (1, -1)]
        return (ends[0] - start) / 2 + (ends[1] - start) / 2

    return start, jax.lax.map(one, jax.random.split(key, pairs))
