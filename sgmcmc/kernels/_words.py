"""The planner: from a word to the sub-steps of a kernel, with its gradients counted.

A word is read left to right in time. The planner checks it, places the gradient
evaluations (G), and turns the word so that a gradient used at its end and at its next
beginning need not be kept: it begins right after the last use of a gradient evaluated
before. BAOAB becomes A O A G B, recorded halfway through its B; OBABO becomes A G B O B,
recorded halfway through its O. Positions do not move under B and O, so the recorded
position has the word's own law at its end, and so has the momentum *reported* with it.

What a letter does is its flow's to say (`_flows.AbstractFlow`): the planner reads whether it
moves θ, whether it reads the gradient, and how many normals it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from sgmcmc.kernels._flows import AbstractFlow

GRADIENT = "G"

Flows: TypeAlias = Mapping[str, AbstractFlow]


class SubStep(NamedTuple):
    """One sub-step: its letter, its share of the step, and its row of the noise.

    `end` is the share after which the word ends, where it ends within this sub-step.
    """

    letter: str
    fraction: float
    noise: int = 0
    end: float | None = None


class Plan(NamedTuple):
    """The sub-steps of one step, its rows of normals, its gradients, and its weak order."""

    substeps: tuple[SubStep, ...]
    num_normals: int
    gradient_evaluations: int
    order: int


class Word(NamedTuple):
    """A plan, and {letter: flow} of its letters."""

    plan: Plan
    flows: Flows


def table(*flows: AbstractFlow) -> dict[str, AbstractFlow]:
    """{letter: flow}; of two flows with one letter the later."""
    return {flow.letter: flow for flow in flows}


def plan(
    word: str,
    flows: Flows,
    fractions: Sequence[float] | None = None,
    *,
    reuse_gradient: bool = True,
) -> Word:
    """The sub-steps of a word over the letters of `flows`.

    Args:
        word: for example "BAOAB"; with the flow Z of an adaptive clock, "ZBAOABZ".
        flows: {letter: flow}.
        fractions: the share of the step of each letter, summing to one for each flow;
            default 1/(the letter's count).
        reuse_gradient: one gradient wherever the position has not moved since the last;
            False evaluates one for each letter that reads it, on the step's own batch.

    Returns:
        The plan, with those of `flows` that the word uses.

    Raises:
        ValueError: an unknown letter, one that must not lack or whose work another does,
            nothing that moves the position, a letter that shares gradients without their
            reuse, or fractions that do not sum to one; a caret shows where.
    """
    shares = _check(word, fractions, flows)
    letters = [SubStep(letter, share) for letter, share in zip(word, shares, strict=True)]
    palindrome = word == word[::-1] and shares == shares[::-1]
    order = 2 if palindrome else 1
    if not reuse_gradient:
        for i, letter in enumerate(word):
            if flows[letter].shares_gradient:
                raise _error(word, i, f"{letter} shares B's gradient: reuse_gradient=True")
        spelled = [s for step in letters for s in _with_gradient(step, flows)]
        return _finish(_mark_end(spelled), order, flows)
    moves = [i for i, letter in enumerate(word) if flows[letter].moves]
    head = [i for i in range(moves[0]) if flows[word[i]].reads_gradient]
    tail = [i for i in range(moves[-1], len(word)) if flows[word[i]].reads_gradient]
    if not (head and tail):
        return _finish(_mark_end(_place_gradients(letters, flows)), order, flows)
    # The last gradient of a step is the first of the next: turn the word past its use.
    cut = head[-1] + 1
    first, second = letters[cut:], letters[:cut]
    if first[-1].letter == second[0].letter:
        merged = SubStep(first[-1].letter, first[-1].fraction + second[0].fraction)
        turned = [*first[:-1], merged._replace(end=first[-1].fraction), *second[1:]]
    else:
        turned = [*_mark_end(first), *second]
    return _finish(_place_gradients(turned, flows), order, flows)


def spell(letters: str, order: int, flows: Flows, recorded: str | None = None) -> Word:
    """A plan of whole sub-steps, its gradient evaluations written out as G.

    `recorded`: the letter after which the draw is recorded; default the last.
    """
    steps = [SubStep(letter, 1.0) for letter in letters]
    place = letters.index(recorded) if recorded else len(letters) - 1
    steps[place] = steps[place]._replace(end=1.0)
    return _finish(steps, order, flows)


def pending_kick(word: Word) -> float:
    """The share of a step by which the state's momentum is kicked beyond the word's end.

    Raises:
        ValueError: friction acts on that kick within the step.
    """
    past, share = False, 0.0
    for step in word.plan.substeps:
        beyond = step.fraction if past else 0.0
        if step.end is not None:
            past, beyond = True, step.fraction - step.end
        if step.letter == GRADIENT:
            continue
        if word.flows[step.letter].kicks:
            share += beyond
        elif share and word.flows[step.letter].rubs:
            raise ValueError(
                "kernel: in its word friction follows a kick that belongs to the next step; "
                "allowed: words that begin with O and B, in that order, or with B or A"
            )
    return share


def _check(word: str, fractions: Sequence[float] | None, flows: Flows) -> list[float]:
    if not isinstance(word, str) or not word:
        raise ValueError(f"word: got {word!r}; expected a string of the letters {''.join(flows)}")
    for i, letter in enumerate(word):
        if letter not in flows:
            hint = "; D is the thermostat of sgmcmc.sgnht(word=…)" if letter == "D" else ""
            message = f"unknown letter {letter!r}; allowed: {', '.join(flows)}{hint}"
            raise _error(word, i, message)
    for letter, flow in flows.items():
        if flow.purpose and letter not in word:
            raise _error(word, len(word), f"no {letter}, so {flow.purpose}")
    if not any(flows[letter].moves for letter in word):
        movers = " nor ".join(letter for letter, flow in flows.items() if flow.moves)
        raise _error(word, len(word), f"neither {movers}, so the position never moves")
    for letter in word:
        replaced = flows[letter].replaces
        for i, other in enumerate(word):
            if other in replaced:
                both = " and ".join(replaced)
                message = f"{letter} is {both} together; it cannot stand beside {other!r}"
                raise _error(word, i, message)
    if fractions is None:
        return [1 / word.count(letter) for letter in word]
    shares = [float(share) for share in fractions]
    if len(shares) != len(word):
        raise ValueError(
            f"fractions: got {len(shares)} for the {len(word)} letters of word {word!r}"
        )
    for i, (letter, share) in enumerate(zip(word, shares, strict=True)):
        if flows[letter].normals and share < 0:
            raise _error(word, i, f"fraction {share:g}: friction and noise cannot run backwards")
    for letter in dict.fromkeys(word):
        total = sum(share for share, other in zip(shares, word, strict=True) if other == letter)
        if not abs(total - 1) <= 1e-9:
            message = f"unbalanced fractions: those of {letter!r} sum to {total:g}, not 1"
            raise _error(word, word.index(letter), message)
    return shares


def _error(word: str, place: int, message: str) -> ValueError:
    return ValueError(f"word: {message}\n    {word}\n    {' ' * place}^")


def _with_gradient(step: SubStep, flows: Flows) -> list[SubStep]:
    return [SubStep(GRADIENT, 0.0), step] if flows[step.letter].reads_gradient else [step]


def _place_gradients(steps: list[SubStep], flows: Flows) -> list[SubStep]:
    """A gradient before each letter that is the first to read it since the position moved."""
    placed, fresh = [], False
    for step in steps:
        if flows[step.letter].reads_gradient and not fresh:
            placed.append(SubStep(GRADIENT, 0.0))
            fresh = True
        if flows[step.letter].moves:
            fresh = False
        placed.append(step)
    return placed


def _mark_end(steps: list[SubStep]) -> list[SubStep]:
    return [*steps[:-1], steps[-1]._replace(end=steps[-1].fraction)]


def _finish(steps: list[SubStep], order: int, flows: Flows) -> Word:
    """Number the rows of the noise, in the order in which the sub-steps use them."""
    numbered, row = [], 0
    used: dict[str, AbstractFlow] = {}
    for step in steps:
        numbered.append(step._replace(noise=row))
        if step.letter != GRADIENT:
            used[step.letter] = flows[step.letter]
            row += used[step.letter].normals
    gradients = sum(step.letter == GRADIENT for step in steps)
    return Word(Plan(tuple(numbered), row, gradients, order), used)
