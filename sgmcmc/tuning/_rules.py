"""The thresholds of `step_size=None`, each in one place."""

from __future__ import annotations

from typing import NamedTuple


class Rules(NamedTuple):
    """The constants by which steps are chosen; `Rules()` are those in use.

    Tolerances:
        tolerance: 0.05; the relative error of the stiffest mode's ⟨x²⟩ that discretisation,
            gradient noise and an adaptive clock may each make; and the shift of a mean by
            sweeps, in standard deviations.
        friction_steps: 10; `friction="auto"` is γ = 1/(10 h), h the longest step that all limits
            but the shift by sweeps allow.
        flattest: 1e-4; directions of noise count as curved by this share of λ at least, and so
            as a little hotter than they are.
        longest_sweep: 2¹⁶ steps; longer sweeps count as independent batches, which are never
            cooler.

    The search for the mode:
        mode_steps: 500; steps of Adam in one search.
        max_searches: 8; searches at most, each from where the last ended.
        learning_rate: 0.01; Adam's in the first search.
        learning_rate_growth: 10; its factor where a search was still on its way.

    Curvature and noise:
        power_iterations: 30; products with the Hessian for λ.
        num_batches: 32; minibatches measured on, less what is no whole sweep.

    A trial of a step:
        trial_steps: 200; steps of a chain, the second half of which is judged.
        too_hot: 1.25; configurational temperature, in T, above which a chain is suspect.
        trial_chains: 16; chains that decide where one was suspect.
        standard_errors: 4; of their mean, by which it must be above T to count as hot.
        max_halvings: 6; of the step, in trials and of runs that lost a chain in the burn-in.
        max_shortenings: 6; measurements at a trial's steepest place, after each of which the
            step may be shortened.
        shorter: 1.05; the ratio of steps from which one counts as shorter than another.
        path_chains: 8; chains from the mode, for means of the gradient and starts of blocks.

    Acceptance (`mala`, `hmc`, `amagold`, `sggmc`):
        mala_target: 0.574; the share of steps that `mala` accepts.
        target: 0.8; that of the others.
        band: 0.05; how far from it is near enough.
        blocks: 50; steps (blocks) of each of `path_chains` chains that a share is measured on.
        max_tries: 30; steps tried at most.
        longest: 1.8; the longest step in 1/ω (`mala`: 1/λ), at 9/10 of the limit of stability.
        narrowest: 1.02; the ratio of two steps between which none is tried any more.

    Metrics that change with the position (`psgld`):
        probes: 32; random vectors for the Hessian's diagonal.
        warmer: 2; the temperature, in T, that the law of such a metric may have, and that a
            thermostat may have in a trial.

    Adaptive clocks:
        clock_chains: 8192; chains of the stiffest mode alone.
        clock_steps: 400; their steps before any counts, and as many that do.
        clock_shortenings: 24; steps tried, each 2^{−1/4} of the last.
    """

    tolerance: float = 0.05
    friction_steps: int = 10
    flattest: float = 1e-4
    longest_sweep: int = 2**16

    mode_steps: int = 500
    max_searches: int = 8
    learning_rate: float = 0.01
    learning_rate_growth: int = 10

    power_iterations: int = 30
    num_batches: int = 32

    trial_steps: int = 200
    too_hot: float = 1.25
    trial_chains: int = 16
    standard_errors: int = 4
    max_halvings: int = 6
    max_shortenings: int = 6
    shorter: float = 1.05
    path_chains: int = 8

    mala_target: float = 0.574
    target: float = 0.8
    band: float = 0.05
    blocks: int = 50
    max_tries: int = 30
    longest: float = 1.8
    narrowest: float = 1.02

    probes: int = 32
    warmer: float = 2.0

    clock_chains: int = 8192
    clock_steps: int = 400
    clock_shortenings: int = 24


RULES = Rules()
