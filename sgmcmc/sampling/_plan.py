"""Which chunk comes next, and where a run ends: arithmetic of steps and draws alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sgmcmc.loop._chunk import Piece
from sgmcmc.types import Array


class Settings(NamedTuple):
    """What was asked of a run; it does not change while the run goes.

    `num_samples`: draws of each chain; with a `total_time`, the most until it is covered.
    """

    num_chains: int
    num_burnin: int
    num_samples: int
    thinning: int
    on_nonfinite: str
    chunk_steps: int | None
    chain_method: str
    total_time: float | None = None

    def steps_until(self, num_draws: int) -> int:
        """Steps of a chain until it has made so many draws, burn-in included."""
        return self.num_burnin + num_draws * self.thinning

    def must_stop(self, failed: np.ndarray) -> bool:
        """Whether the run ends here, where `failed` is each chain's first bad step, or −1."""
        if self.on_nonfinite == "raise":
            return bool(np.any(failed >= 0))
        return self.on_nonfinite == "stop_chain" and bool(np.all(failed >= 0))


def next_piece(settings: Settings, goal: int, step: int, chunk_steps: int, capacity: int) -> Piece:
    """The chunk that begins at `step`, of about `chunk_steps` steps, on the way to `goal` draws."""
    thinning = settings.thinning
    if step < settings.num_burnin:
        return Piece(1, min(chunk_steps, settings.num_burnin - step), False)
    made, within = divmod(step - settings.num_burnin, thinning)
    if within == 0 and chunk_steps >= thinning:
        draws = min(chunk_steps // thinning, goal - made, capacity)
        return Piece(draws, thinning, True)
    steps = min(chunk_steps, thinning - within)
    return Piece(1, steps, within + steps == thinning)


def draws_until(
    total_time: float, elapsed: Array | None, piece: Piece, step: int, failed: np.ndarray
) -> int | None:
    """How many of a chunk's draws it takes until every chain has covered `total_time`.

    Args:
        total_time: since the end of the burn-in.
        elapsed: time at each draw, [chain, slot].
        piece: the chunk, which began at `step`.
        failed: each chain's first step that was not finite, or −1.

    Returns:
        None: they are not there yet.
    """
    assert elapsed is not None
    times = np.asarray(elapsed)[:, : piece.num_draws]
    # A chain is not waited for from the draw on at which it has failed.
    last_steps = step + piece.steps_per_draw * np.arange(1, piece.num_draws + 1)
    lost = (failed[:, None] >= 0) & (failed[:, None] < last_steps)
    there = (lost | ~(times < total_time)).all(axis=0)
    return int(np.argmax(there)) + 1 if there.any() else None
