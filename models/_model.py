"""`Model`: four functions that say what is sampled and how it predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from sgmcmc._posterior import Posterior
from sgmcmc.types import PyTree


class Model(NamedTuple):
    """A statistical model of data (x, y), as plain functions.

    Attributes:
        init: `key -> params`, a starting point; call it once a chain for dispersed starts.
        predict: `(params, x) -> logits (n, k)` for categorical likelihoods, or
            `(mean, scale)`, each (n,), for Gaussian ones. None without a likelihood. In the
            diagnostics values are (n,) and a two-axis array is logits; see their `kind`.
        log_likelihood: `(params, (x, y)) -> (n,)`, log p(y_i | x_i, θ) in nats. None for
            targets without data, whose whole log density is `log_prior`.
        log_prior: `params -> ()`, in nats, up to a constant.
        exact_posterior: `*data -> (mean, covariance)` where it is known, else None.
        check_data: `data -> None`, which raises a ValueError where data do not fit, as labels
            out of range; see `Posterior`. Default None.

    The builders of `sgmcmc.models` make every one of these a `jax.tree_util.Partial` or an
    equinox module whose numbers are leaves: models that differ in numbers alone share a
    trace. Plain module-level functions do as well.

    Examples:
        >>> import jax
        >>> from sgmcmc import models
        >>> model = models.mlp((4, 8, 3))
        >>> params = model.init(jax.random.key(0))
        >>> model.predict(params, jax.numpy.ones((5, 4))).shape
        (5, 3)
        >>> model.posterior(data_size=5).data_size
        5
    """

    init: Callable[..., PyTree]
    predict: Callable[..., PyTree] | None
    log_likelihood: Callable[..., PyTree] | None
    log_prior: Callable[..., PyTree]
    exact_posterior: Callable[..., PyTree] | None = None
    check_data: Callable[..., None] | None = None

    def posterior(
        self, data_size: int | None = None, *, likelihood_power: float | jax.Array = 1.0
    ) -> Posterior:
        """The posterior given `data_size` examples.

        Args:
            data_size: N, the number of examples in the full data; None for a target
                without data.
            likelihood_power: multiplies the log likelihood alone; default 1.

        Raises:
            ValueError: `data_size` is missing, or given to a target without data.
        """
        if self.log_likelihood is None:
            if data_size is not None:
                raise ValueError(
                    f"data_size: got {data_size!r}; this target has no data, leave it out"
                )
            return Posterior.from_log_density(self.log_prior)
        if data_size is None:
            raise ValueError("data_size: got None; expected the number of examples, an integer ≥ 1")
        return Posterior(
            self.log_likelihood,
            self.log_prior,
            data_size=data_size,
            likelihood_power=likelihood_power,
            check_data=self.check_data,
        )

    def exact(self, *data: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The exact posterior's (mean, covariance): `exact(x, y)`, or `exact()` without data.

        Raises:
            ValueError: the model has no posterior in closed form.
        """
        if self.exact_posterior is None:
            raise ValueError("exact: this model has no posterior in closed form")
        return self.exact_posterior(*data)
