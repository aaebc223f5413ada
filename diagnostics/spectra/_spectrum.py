"""Eigenvalues of the Hessian and of the Gauss-Newton matrix, by stochastic Lanczos quadrature.

From a random v of ±1, k Lanczos steps give a tridiagonal matrix whose eigenvalues θ_i, and the
squared first entries w_i of its eigenvectors, are a Gauss rule: Σ w_i f(θ_i) = vᵀ f(H) v / d,
exactly for polynomials up to degree 2k − 1, and its mean over v is tr f(H) / d.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sgmcmc import _checks as checks
from sgmcmc import _tree as trees
from sgmcmc._checks import check_range
from sgmcmc._posterior import Posterior
from sgmcmc._tree import leading_axis
from sgmcmc.diagnostics.spectra._operator import KINDS, Curvature, outputs_and_likelihood
from sgmcmc.diagnostics.spectra._record import Spectrum
from sgmcmc.types import Array, Key, PyTree

FUNCTIONS = ("loss", "potential")

NUM_TOP = 10


def spectrum(
    key: Key,
    posterior: Posterior,
    params: PyTree,
    data: PyTree = None,
    *,
    curvature: str = "hessian",
    of: str | None = None,
    num_steps: int | None = None,
    num_probes: int = 10,
    num_trace_probes: int = 100,
    threshold: float = 1e-4,
    block_size: int = 1024,
) -> Spectrum:
    """The spectrum of a curvature at `params`: density, trace, extremes, share near zero.

    Costs num_probes × num_steps + num_trace_probes products with the matrix over all of
    `data`, each about two to four gradients. Memory: num_steps vectors like the parameters,
    and the derivatives of `block_size` examples. Computed in the parameters' precision, float32
    at least, with full reorthogonalisation.

    Args:
        key: `jax.random.key(seed)`, of the probes.
        posterior: a `Posterior`.
        params: pytree of floating arrays, where the curvature is taken.
        data: the examples, fixed: all of them, or any part; None for targets without data.
        curvature: "hessian" (default), or "gauss_newton": Jᵀ H_out J, J the Jacobian of the
            outputs and H_out the loss's Hessian in them. It is positive semi-definite where
            the loss is convex in the outputs: labels and logits, a Gaussian with a fixed
            scale, not a learned one. Needs a log likelihood as `sgmcmc.models` make it,
            `Partial(f, predict)`.
        of: "loss", the mean negative log likelihood of `data`, in nats per example (default
            where there are data, and the papers' convention); or "potential", U estimated
            from `data`, prior and likelihood power included.
        num_steps: k, Lanczos steps of a probe, 1 to the number of parameters d; default 100,
            or d. What is near zero is told from zero by many of them: compare with k/2.
        num_probes: m ≥ 1; errors, between probes, need two.
        num_trace_probes: ≥ 2 further vectors, of one product each. They see what the first
            probe's k directions Q leave of the trace: tr(QHQᵀ) is known exactly.
        threshold: τ > 0 of the share |λ| < τ.
        block_size: examples at a time.

    Returns:
        A `Spectrum`.

    Raises:
        ImportError: `matfree` is missing (the extra `spectrum`).
        TypeError, ValueError: bad input, by name.
        FloatingPointError: the curvature at `params` is not finite.
    """
    checks.on_host("spectrum", key, posterior, params, data)
    key = checks.typed_key(key)
    operator = curvature_of(posterior, params, data, curvature, of, block_size)
    size = trees.size(operator.params)
    num_steps = min(100, size) if num_steps is None else num_steps
    checks.count(num_steps, "num_steps", least=1)
    if num_steps > size:
        raise ValueError(
            f"num_steps: got {num_steps}; allowed: at most {size}, the number of parameters"
        )
    checks.count(num_probes, "num_probes", least=1)
    checks.count(num_trace_probes, "num_trace_probes", least=2)
    check_range(threshold, "threshold", above_zero=True)
    _require_matfree()
    probe_key, trace_key = jax.random.split(key)
    first, steps = _decompose(operator, probe_key, int(num_probes), int(num_steps))
    precision = float(jnp.finfo(first.dtype).eps)
    rules = [gauss_rule(t[0], t[1], precision) for t in np.asarray(steps, np.float64)]
    rank = len(rules[0][0])
    first = jnp.where(np.arange(num_steps)[:, None] < rank, first, 0)
    rest = np.asarray(_rest(operator, first, rank, trace_key, int(num_trace_probes)), np.float64)
    return _record(rules, rest, operator, float(threshold), int(num_steps))


def gauss_rule(
    diagonal: np.ndarray, couplings: np.ndarray, precision: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes (ascending), weights and residual bounds of k Lanczos steps, or of fewer.

    Args:
        diagonal: (k,).
        couplings: (k,), each step's to the next; the last is the residual's norm.
        precision: the machine epsilon of the steps. A coupling below ten of them says that the
            space is exhausted: the rule ends there, and what follows is no Lanczos vector.
    """
    sizes = np.maximum(np.abs(diagonal), np.concatenate([[0.0], couplings[:-1]]))
    sizes = np.fmax.accumulate(sizes)
    over = ~(couplings > 10 * precision * sizes)  # NaN too
    length = int(np.argmax(over)) + 1 if over.any() else len(diagonal)
    diagonal, couplings = diagonal[:length], couplings[:length]
    if not np.isfinite(diagonal).all():
        raise FloatingPointError("params: the curvature there is not finite")
    off = np.diag(couplings[:-1], 1)
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + off + off.T)
    return nodes, vectors[0] ** 2, couplings[-1] * np.abs(vectors[-1])


def _record(
    rules: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
    rest: np.ndarray,
    operator: Curvature,
    threshold: float,
    num_steps: int,
) -> Spectrum:
    def padded(part: int, fill: float) -> np.ndarray:
        rows = [np.pad(r[part], (0, num_steps - len(r[part])), constant_values=fill) for r in rules]
        return np.stack(rows)

    nodes, weights, bounds = padded(0, np.nan), padded(1, 0.0), padded(2, 0.0)
    high = -np.sort(-nodes, axis=1)  # NaN last
    order = np.argsort(-nodes, axis=1)
    # Ritz values interlace: the i-th of every probe is at most the i-th eigenvalue.
    best = np.argmax(np.where(np.isnan(high), -np.inf, high), axis=0)
    columns = np.arange(min(NUM_TOP, num_steps))
    columns = columns[~np.isnan(high).all(axis=0)[columns]]
    top_bounds = np.take_along_axis(bounds, order, axis=1)[best[columns], columns]
    lowest = int(np.argmin(nodes[:, 0]))
    trace = float(rules[0][0].sum() + rest.mean())
    return Spectrum(
        nodes=nodes,
        weights=weights,
        trace=trace,
        trace_error=float(rest.std(ddof=1) / np.sqrt(len(rest))),
        top=high[best[columns], columns],
        top_bounds=top_bounds,
        lowest=float(nodes[lowest, 0]),
        lowest_bound=float(bounds[lowest, 0]),
        threshold=threshold,
        num_parameters=trees.size(operator.params),
        num_steps=num_steps,
        num_probes=len(rules),
        curvature=operator.kind,
    )


@eqx.filter_jit
def _decompose(
    operator: Curvature, key: Key, num_probes: int, num_steps: int
) -> tuple[Array, Array]:
    """The first probe's directions Q (k, d); every probe's diagonal and couplings (m, 2, k)."""
    from matfree import decomp

    # What tridiag_sym(reortho="full") runs. That averages the couplings with their other half,
    # which is noise after the space is exhausted and would hide the end.
    lanczos = decomp.hessenberg(num_steps, reortho="full", custom_vjp=False)

    def one(first: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        probe, key = given
        found = lanczos(operator, signs(key, operator.params))
        residual = jnp.sqrt(trees.dot(found.residual, found.residual))
        couplings = jnp.append(jnp.diagonal(found.J_small, -1), residual)
        directions = jax.vmap(lambda q: ravel_pytree(q)[0])(found.Q_tall)
        first = jnp.where(probe == 0, directions, first)
        return first, jnp.stack([jnp.diagonal(found.J_small), couplings])

    flat, _ = ravel_pytree(operator.params)
    keys = jax.random.split(key, num_probes)
    nothing = jnp.zeros((num_steps, len(flat)), flat.dtype)
    return jax.lax.scan(one, nothing, (jnp.arange(num_probes), keys))


@eqx.filter_jit
def _rest(operator: Curvature, directions: Array, rank: int, key: Key, count: int) -> Array:
    """wᵀ H w for w on the sphere of radius √(d − rank) in what Q's rows leave: mean tr H − tr QHQᵀ.

    Uniform there, and not ±1: projected signs have no fixed length, which is noise of its own.
    """
    unravel = ravel_pytree(operator.params)[1]
    left = directions.shape[1] - rank

    def one(key: Key) -> Array:
        v = trees.normal_like(key, directions[0])
        w = v - directions.T @ (directions @ v)
        length = jnp.sqrt(jnp.sum(w**2))
        w = unravel(w * jnp.where(length > 0, jnp.sqrt(left) / length, 0.0).astype(w.dtype))
        return trees.dot(w, operator(w))

    return jax.lax.map(one, jax.random.split(key, count))


def signs(key: Key, like: PyTree) -> PyTree:
    """A pytree like `like` of independent ±1."""
    flat, unravel = ravel_pytree(like)
    return unravel(jax.random.rademacher(key, flat.shape, flat.dtype))


def curvature_of(
    posterior: object,
    params: PyTree,
    data: PyTree = None,
    curvature: str = "hessian",
    of: str | None = None,
    block_size: int = 1024,
) -> Curvature:
    """The Hessian or Gauss-Newton matrix of a loss at a point, as an operator.

    Called with a pytree like the parameters it gives the matrix times that, one block of
    examples in memory at a time; `spectrum` and `flatness` are made of such products.

    Args:
        posterior, params, data, curvature, of, block_size: as in `spectrum`.

    Returns:
        A `Curvature`: `operator(vector)`, and `operator.value(params)`, the function itself.

    Raises:
        TypeError, ValueError: bad input, by name.

    Examples:
        >>> from sgmcmc import Posterior
        >>> target = Posterior.from_log_density(lambda x: -2.0 * (x @ x))
        >>> operator = curvature_of(target, jnp.zeros(2))
        >>> operator(jnp.array([1.0, 0.0])).tolist()
        [4.0, 0.0]
    """
    if not isinstance(posterior, Posterior):
        raise TypeError(f"posterior: got {type(posterior).__name__}; expected a Posterior")
    checks.require_floating(params, "params")
    checks.choice(curvature, "curvature", KINDS)
    checks.count(block_size, "block_size", least=1)
    wide = lambda x: jnp.asarray(x, trees.common_dtype(jnp.asarray(x).dtype, jnp.float32))  # noqa: E731
    params = jax.tree.map(wide, checks.as_arrays(params, "params"))
    if not posterior.has_data:
        if data is not None:
            raise ValueError("data: this posterior has no likelihood; allowed: None")
        if of not in (None, "potential") or curvature != "hessian":
            raise ValueError(
                f"of, curvature: got {of!r}, {curvature!r}; a target without data has the "
                '"hessian" of its "potential" alone'
            )
        return Curvature(posterior, params, None, jnp.ones(()), curvature, int(block_size))
    of = "loss" if of is None else of
    checks.choice(of, "of", FUNCTIONS)
    if data is None:
        raise ValueError("data: got None; this posterior has a likelihood and needs examples")
    data = checks.as_arrays(data, "data")
    n = leading_axis(data)
    assert posterior.data_size is not None
    if curvature == "gauss_newton":
        outputs_and_likelihood(posterior, data)
    total = posterior.data_size
    if of == "loss":
        # The types do not know that it is there: it has been looked at above.
        posterior, total = Posterior(posterior.log_likelihood, flat, data_size=n), 1
    eqx.filter_eval_shape(posterior.example_potentials, params, data)
    return Curvature(posterior, params, data, jnp.asarray(total / n), curvature, int(block_size))


def flat(params: PyTree) -> Array:
    """A flat log prior: log p = 0."""
    return jnp.zeros(())


def _require_matfree() -> None:
    try:
        import matfree  # noqa: F401
    except ImportError as error:
        raise ImportError('spectra need matfree: pip install "sgmcmc[spectrum]"') from error
