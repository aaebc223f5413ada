"""A step that was chosen by a rule for another kernel, tried with the kernel that is to make it."""

from __future__ import annotations

from typing import Any

import jax

from sgmcmc import batches
from sgmcmc.trial import TRIAL_STEPS, Trial, tried
from sgmcmc.tuning import HALVINGS, Tuning, tuned
from sgmcmc.types import Key, PyTree


def verified(
    kernel: Any,
    choice: Tuning,
    start: PyTree,
    source: batches.Source,
    key: Key,
    warmer: float = 1.0,
) -> tuple[Tuning, Trial]:
    """`choice`, halved until a trial of the kernel stays finite and cool; and that trial.

    Args:
        kernel: untuned, with temperature and friction that are constant.
        choice: its `halvings` count on.
        start: near the mode.
        source: the kernel's batches.
        key: used anew for each trial.
        warmer: how much hotter than T the kernel's own law may be.

    Raises:
        FloatingPointError: not even the smallest step will do.
    """
    temperature = warmer * float(kernel.temperature(0))
    spent = 0
    while True:
        trial = tried(tuned(kernel, choice), start, source, jax.random.clone(key), temperature)
        spent += 2 * trial.steps
        if trial.good:
            total = choice.gradient_evaluations + spent
            return choice._replace(gradient_evaluations=total), trial
        if choice.halvings >= HALVINGS:
            raise FloatingPointError(
                f"step_size: none found; {choice} did not stay finite, or cool, for "
                f"{TRIAL_STEPS} steps of {kernel.name} from the mode. Give a step_size, rescale "
                "the parameters (metric=), or look for NaN in the data"
            )
        choice = choice.halved()
