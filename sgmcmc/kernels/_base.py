from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp

from sgmcmc.types import Info, Key, PyTree, State


class Kernel(Protocol):
    """The contract of a sampler; see `sgmcmc.kernels._splitting` for the usual one.

    A kernel is a pytree. Its numbers are array leaves, so that kernels which differ in
    numbers alone share one trace and can be vmapped; everything else is static.

    `batches_per_step` = L > 1: `step` is given L batches, with a leading axis L. A kernel may
    declare `needs_data = True` (static; default False): `step` is then given
    `Blocks(batches, data)`, the L batches, L = 1 included, with all data beside them. One that
    cannot do with every stream may have `check_stream(stream, data_size, batch_size)`, which
    `sample` calls before it starts, and which raises a ValueError. One that evaluates energies
    over all data says how many in `full_energies`, for the count of costs.
    """

    order: int
    gradient_evaluations: float
    batches_per_step: int
    refresh_every: int | None

    def init(self, position: PyTree, rng_key: Key, data: PyTree = None) -> State:
        """The first state; draws the momentum where there is one."""
        ...

    def draw(self, rng_key: Key, state: State) -> PyTree:
        """Every random number of one step; reads the shapes of `state`, never its values."""
        ...

    def drive(self, noise: PyTree, state: State, batch: PyTree) -> tuple[State, Info]:
        """One step, a deterministic function of its arguments."""
        ...

    def step(self, rng_key: Key, state: State, batch: PyTree) -> tuple[State, Info]:
        """`drive(draw(rng_key, state), state, batch)`."""
        ...

    def refresh(self, state: State, data: PyTree) -> State:
        """Recompute what depends on all data (a snapshot's gradient).

        The loop calls it before step t wherever t > 0 is a multiple of `refresh_every`, under
        a `cond` outside the chains' vmap; what step 0 needs is made by `init`.
        """
        ...


def require_kernel(kernel: Any) -> None:
    missing = [name for name in ("init", "draw", "drive", "step") if not hasattr(kernel, name)]
    if missing:
        raise TypeError(
            f"kernel: got {type(kernel).__name__} without {', '.join(missing)}; expected a "
            "sampler such as sgmcmc.sgld(posterior, step_size), or for BlackJAX's "
            "sgmcmc.from_blackjax(algorithm)"
        )
    clock = getattr(kernel, "clock", None)
    for name, owner in (("step_size", clock), ("friction", kernel), ("temperature", kernel)):
        shape = jnp.shape(getattr(getattr(owner, name, None), "value", 0.0))
        if shape != ():
            raise ValueError(
                f"{name}: got an array of shape {shape}; expected a number (a grid is for "
                "jax.vmap over kernels, or for one `sample` each, which share one trace)"
            )
