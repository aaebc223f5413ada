"""Some chains and draws of a run; who is who among chains of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np

from sgmcmc.types import PyTree

if TYPE_CHECKING:
    from sgmcmc.sampling._run import Run

# Positions along an axis, as NumPy takes them; None: all.
Positions: TypeAlias = int | slice | Sequence[int] | Sequence[bool] | np.ndarray | None


def fields(run: Run, chain: Positions, draw: Positions) -> dict[str, Any]:
    """The fields of `Run.sel`'s run that differ from those of `run`, but its continuation."""
    chains = _positions(chain, run.num_chains, "chain")
    draws = _positions(draw, run.num_samples, "draw")
    share = chains.size / run.num_chains
    pick = lambda x: x[chains[:, None], draws[None, :]]  # noqa: E731
    origins = chain_origins(run)
    config = {
        **run.config,
        "num_chains": int(chains.size),
        "num_samples": int(draws.size),
        "origins": [origins[c] for c in chains],
        "made_by": "run.sel",
    }
    last = int(draws.max())
    stopped = {
        new: run.stopped[int(old)]
        for new, old in enumerate(chains)
        if int(old) in run.stopped and first_lost(run, int(old)) <= last + 1
    }
    return {
        "draws": jax.tree.map(pick, run.draws),
        "weights": pick(run.weights),
        "info": jax.tree.map(pick, run.info),
        "reduced": {},
        "config": config,
        "stopped": stopped,
        "gradient_evaluations": run.gradient_evaluations * share,
        "compile_time": run.compile_time * share,
        "burnin_time": run.burnin_time * share,
        "wall_time": run.wall_time * share,
    }


def chain_origins(run: Run) -> list[list[PyTree]]:
    """Of each chain the (key of a run, place in it) of which its draws are: one, or several."""
    known = run.config.get("origins")
    return known or [[[run.config["key"], c]] for c in range(run.num_chains)]


def first_lost(run: Run, chain: int) -> int:
    """The first draw of a stopped chain that is lost; the number of draws where none is."""
    finite = np.asarray(run.info.finite)[chain]
    return run.num_samples if finite.all() else int(np.argmin(finite))


def _positions(given: Positions, length: int, name: str) -> np.ndarray:
    """Positions 0 … length − 1 that `given` takes, in the order in which it takes them."""
    if given is None:
        given = slice(None)
    try:
        taken = np.atleast_1d(np.arange(length)[given])
    except IndexError as error:
        raise IndexError(f"{name}: got {given!r}; positions are 0 … {length - 1}") from error
    if taken.ndim != 1 or not taken.size:
        raise ValueError(f"{name}: {given!r} takes none of the {length}; take one at least")
    if np.unique(taken).size < taken.size:
        raise ValueError(f"{name}: got {given!r}, which takes one twice; take each once")
    return taken
