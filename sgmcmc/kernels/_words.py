"""The planner: from a word to the sub-steps of a kernel, with its gradients counted.

A word is read left to right in time. The planner checks it, places the gradient
evaluations (G), and turns the word so that a gradient used at its end and at its next
beginning need not be kept: it begins right after the last use of a gradient evaluated
before. BAOAB becomes A O A G B, recorded halfway through its B; OBABO becomes A G B O B,
recorded halfway through its O. Positions do not move under B and O, so the recorded
position has the word's own law at its end, and so has the momentum *reported* with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOVERS = "AU"

READERS = "BZ"  # the letters that read a gradient

LETTERS = "ABOUZ"

THERMOSTAT_LETTERS = "ABDO"

NORMALS = {"O": 1, "U": 2, "E": 1, "M": 1, "F": 1}


class SubStep(NamedTuple):
    """One sub-step: its letter, its share of the step, and its row of the noise.

    `end` is the share after which the word ends, where it ends within this sub-step.
    """

    letter: str
    fraction: float
    noise: int = 0
    end: float | None = None


class Plan(NamedTuple):
    """What a kernel executes each step."""

    substeps: tuple[SubStep, ...]
    num_normals: int
    gradient_evaluations: int
    order: int


def plan(
    word: str,
    fractions: Sequence[float] | None = None,
    *,
    reuse_gradient: bool = True,
    thermostat: bool = False,
) -> Plan:
    """The sub-steps of a word over A, B, O, U and Z, or with a thermostat over A, B, D and O.

    Args:
        word: for example "BAOAB"; with the flow Z of an adaptive clock, "ZBAOABZ".
        fractions: the share of the step of each letter, summing to one for each flow;
            default 1/(the letter's count).
        reuse_gradient: one gradient wherever the position has not moved since the last;
            False evaluates one for each B, on the step's own batch.
        thermostat: the friction of O is a variable that D moves.

    Raises:
        ValueError: an unknown letter, no B, nothing that moves the position, U beside A or
            O, Z without reuse of gradients, or fractions that do not sum to one; a caret
            shows where.
    """
    shares = _check(word, fractions, THERMOSTAT_LETTERS if thermostat else LETTERS)
    letters = [SubStep(letter, share) for letter, share in zip(word, shares, strict=True)]
    palindrome = word == word[::-1] and shares == shares[::-1]
    order = 2 if palindrome else 1
    if not reuse_gradient:
        if "Z" in word:
            raise _error(word, word.index("Z"), "Z shares B's gradient: reuse_gradient=True")
        spelled = [s for step in letters for s in _with_gradient(step)]
        return _finish(_mark_end(spelled), order)
    moves = [i for i, letter in enumerate(word) if letter in MOVERS]
    head = [i for i in range(moves[0]) if word[i] in READERS]
    tail = [i for i in range(moves[-1], len(word)) if word[i] in READERS]
    if not (head and tail):
        return _finish(_mark_end(_place_gradients(letters)), order)
    # The last gradient of a step is the first of the next: turn the word past its use.
    cut = head[-1] + 1
    first, second = letters[cut:], letters[:cut]
    if first[-1].letter == second[0].letter:
        merged = SubStep(first[-1].letter, first[-1].fraction + second[0].fraction)
        turned = [*first[:-1], merged._replace(end=first[-1].fraction), *second[1:]]
    else:
        turned = [*_mark_end(first), *second]
    return _finish(_place_gradients(turned), order)


def spell(letters: str, order: int, recorded: str | None = None) -> Plan:
    """A plan of whole sub-steps, its gradient evaluations written out as G.

    `recorded`: the letter after which the draw is recorded; default the last.
    """
    steps = [SubStep(letter, 1.0) for letter in letters]
    place = letters.index(recorded) if recorded else len(letters) - 1
    steps[place] = steps[place]._replace(end=1.0)
    return _finish(steps, order)


def _check(word: str, fractions: Sequence[float] | None, letters: str) -> list[float]:
    if not isinstance(word, str) or not word:
        raise ValueError(f"word: got {word!r}; expected a string of the letters {letters}")
    for i, letter in enumerate(word):
        if letter not in letters:
            hint = "; D is the thermostat of sgmcmc.sgnht(word=…)" if letter == "D" else ""
            message = f"unknown letter {letter!r}; allowed: {', '.join(letters)}{hint}"
            raise _error(word, i, message)
    for letter in "DO" if "D" in letters else "":
        if letter not in word:
            raise _error(word, len(word), f"no {letter}, so the thermostat does nothing")
    if "B" not in word:
        raise _error(word, len(word), "no B, so nothing feels the gradient")
    if not set(word) & set(MOVERS):
        raise _error(word, len(word), "neither A nor U, so the position never moves")
    if "U" in word and set(word) & set("AO"):
        clash = next(i for i, letter in enumerate(word) if letter in "AO")
        raise _error(word, clash, f"U is A and O together; it cannot stand beside {word[clash]!r}")
    if fractions is None:
        return [1 / word.count(letter) for letter in word]
    shares = [float(share) for share in fractions]
    if len(shares) != len(word):
        raise ValueError(
            f"fractions: got {len(shares)} for the {len(word)} letters of word {word!r}"
        )
    for i, (letter, share) in enumerate(zip(word, shares, strict=True)):
        if letter in "OU" and share < 0:
            raise _error(word, i, f"fraction {share:g}: friction and noise cannot run backwards")
    for letter in dict.fromkeys(word):
        total = sum(share for share, other in zip(shares, word, strict=True) if other == letter)
        if not abs(total - 1) <= 1e-9:
            message = f"unbalanced fractions: those of {letter!r} sum to {total:g}, not 1"
            raise _error(word, word.index(letter), message)
    return shares


def _error(word: str, place: int, message: str) -> ValueError:
    return ValueError(f"word: {message}\n    {word}\n    {' ' * place}^")


def _with_gradient(step: SubStep) -> list[SubStep]:
    return [SubStep("G", 0.0), step] if step.letter == "B" else [step]


def _place_gradients(steps: list[SubStep]) -> list[SubStep]:
    """A gradient before each letter that is the first to read it since the position moved."""
    placed, fresh = [], False
    for step in steps:
        if step.letter in READERS and not fresh:
            placed.append(SubStep("G", 0.0))
            fresh = True
        if step.letter in MOVERS:
            fresh = False
        placed.append(step)
    return placed


def _mark_end(steps: list[SubStep]) -> list[SubStep]:
    return [*steps[:-1], steps[-1]._replace(end=steps[-1].fraction)]


def _finish(steps: list[SubStep], order: int) -> Plan:
    """Number the rows of the noise, in the order in which the sub-steps use them."""
    numbered, row = [], 0
    for step in steps:
        numbered.append(step._replace(noise=row))
        row += NORMALS.get(step.letter, 0)
    gradients = sum(step.letter == "G" for step in steps)
    return Plan(tuple(numbered), row, gradients, order)
