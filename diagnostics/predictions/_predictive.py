"""`predictive(run, predict, x, y)`: how good are the posterior's predictions?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from scipy.special import logsumexp

from sgmcmc import _tree as trees
from sgmcmc._checks import as_arrays
from sgmcmc._predictions import are_logits, expected, is_one_logit, two_logits
from sgmcmc._tree import leading_axis
from sgmcmc.diagnostics._draws import BLOCK_BYTES, RunLike, evaluate, read
from sgmcmc.diagnostics.predictions._classification import Classification, labels
from sgmcmc.diagnostics.predictions._regression import Regression, regression_scores
from sgmcmc.types import Array, PyTree


def predictive(
    run: RunLike,
    predict: Callable[..., PyTree],
    x: PyTree,
    y: ArrayLike | None = None,
    *,
    kind: str | None = None,
) -> Classification | Regression:
    """The posterior predictive p(y | x, data) = Σ_s w_s p(y | x, θ_s), and its scores.

    Args:
        run: a `Run`, an ArviZ DataTree, or any object with `draws` [chain, draw, …] and
            `weights` [chain, draw], such as modes found by an optimizer. Draws count by
            their weights; stopped chains are dropped, and the result says so.
        predict: `(params, x) -> logits (m, k)` for labels, or `-> (mean (m,), scale (m,))`
            for Gaussian responses: a model's `predict`. Means alone have no density: give the
            scale of the noise beside them.
        x: m inputs, a pytree of arrays with that leading axis. They are taken block by
            block, so that about 64 MiB of predictions are held at a time.
        y: integer labels or responses (m,). Without them the result has probabilities and
            entropies (or means and spreads) but no scores.
        kind: None (default), or "logits": (m,) or (m, 1) is one logit a point, by which class 1
            of two has the probability σ(logit).

    Returns:
        A `Classification` (accuracy, lppd, nll, brier, ece, probabilities, confidence,
        entropy, mutual_information) or a `Regression` (rmse, lppd, nll, crps, ece, mean,
        sd, epistemic_sd); both with `plot_reliability()`. `lppd` is the mean per point.

    Raises:
        TypeError: `run` is neither a Run nor a DataTree, or labels are not integers.
        ValueError: predictions or y of another shape, labels out of range, predictions that are
            not finite, values without a scale, or (m, 1) without a `kind`: value or logit?

    Examples:
        >>> class Run:
        ...     draws, weights = np.zeros((2, 10, 3)), np.ones((2, 10))
        >>> predictive(Run, lambda w, x: x * w, np.ones((4, 3)), [0, 1, 2, 0]).accuracy
        0.5
    """
    draws = read(run)
    values, weights = draws.flat()
    x = jax.tree.map(np.asarray, x)
    m = leading_axis(x)
    if m == 0:
        raise ValueError("x: got no points; expected at least one")
    predict = expected(predict, kind).predict
    one = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), values)
    shapes = eqx.filter_eval_shape(predict, one, as_arrays(x, "x"))
    size = max(1, min(m, BLOCK_BYTES * m // max(1, trees.num_bytes(shapes) * len(weights))))
    if not are_logits(shapes, kind):
        if not isinstance(shapes, tuple | list):
            raise ValueError(
                f"predict: expected logits ({m}, k) or (mean, scale), each ({m},); got values "
                f'{shapes.shape} without the scale of their noise; for logits give kind="logits"'
            )
        if len(shapes) != 2 or any(s.shape != (m,) for s in shapes):
            raise ValueError(f"predict: expected (mean, scale), each ({m},), got {shapes}")
        score: Callable[..., PyTree] = _score_regression
        y = _responses(y, m)
    else:
        if len(shapes.shape) > 2 or shapes.shape[:1] != (m,):
            raise ValueError(f"predict: expected logits ({m}, k), got {shapes.shape}")
        num_classes = 2 if is_one_logit(shapes) else shapes.shape[1]
        score, y = _score_classification, labels(y, m, num_classes)

    blocks = []
    for start in range(0, m, size):
        rows = np.minimum(np.arange(start, start + size), m - 1)  # padded: one shape, one trace
        count = min(size, m - start)
        x_rows = jax.tree.map(lambda v, r=rows: v[r], x)
        y_rows = None if y is None else y[rows[:count]]
        blocks.append(score(predict, values, weights, x_rows, y_rows, count))
    return replace(_join(blocks), notes=draws.notes)


def _score_classification(
    predict: Callable[..., PyTree],
    values: PyTree,
    weights: np.ndarray,
    x: PyTree,
    y: ArrayLike | None,
    count: int,
) -> Classification:
    logs, entropy = evaluate(Partial(_log_probabilities, predict), values, x)
    logs, entropy = logs[:, :count], entropy[:, :count]
    _require_finite(entropy)
    mean = logsumexp(logs, axis=0, b=weights[:, None, None].astype(logs.dtype))
    # Rounding of the float32 sum must not make probabilities sum to anything but 1.
    mean = mean.astype(np.float64)
    mean -= logsumexp(mean, axis=1, keepdims=True)
    return Classification(mean, None if y is None else np.asarray(y), weights @ entropy)


def _log_probabilities(
    predict: Callable[..., PyTree], params: PyTree, x: PyTree
) -> tuple[Array, Array]:
    logs = jax.nn.log_softmax(two_logits(predict(params, x)), axis=-1)
    return logs, -jnp.sum(jnp.exp(logs) * logs, axis=-1)


def _score_regression(
    predict: Callable[..., PyTree],
    values: PyTree,
    weights: np.ndarray,
    x: PyTree,
    y: ArrayLike | None,
    count: int,
) -> Regression:
    mean, scale = evaluate(predict, values, x)
    mean, scale = mean[:, :count], scale[:, :count]
    _require_finite(mean, scale)
    return regression_scores(mean, scale, y, weights)


def _responses(y: ArrayLike | None, m: int) -> np.ndarray | None:
    if y is None:
        return None
    y = np.asarray(y)
    if y.shape != (m,):
        raise ValueError(f"y: got shape {y.shape}; expected (m,) = ({m},)")
    return y


def _require_finite(*arrays: np.ndarray) -> None:
    for array in arrays:
        bad = ~np.isfinite(array).all(axis=1)
        if bad.any():
            raise ValueError(
                f"predict: {int(bad.sum())} of {len(bad)} draws predict what is not finite"
            )


_Scores = TypeVar("_Scores", Classification, Regression)


def _join(blocks: list[_Scores]) -> _Scores:
    """One record out of those of consecutive points."""
    fields = [name for name in vars(blocks[0]) if name != "notes"]
    joined: dict[str, PyTree] = {
        name: None
        if getattr(blocks[0], name) is None
        else np.concatenate([getattr(block, name) for block in blocks])
        for name in fields
    }
    return type(blocks[0])(**joined)
