"""The planner: rotation, counts of gradients and normals, and errors with a caret."""

import pytest

from sgmcmc.kernels import _words as words
from sgmcmc.kernels._flows import LANGEVIN

FLOWS = words.table(*LANGEVIN)


def plan_of(word, fractions=None, **options):
    return words.plan(word, FLOWS, fractions, **options).plan


def letters(plan):
    return "".join(step.letter for step in plan.substeps)


def end(plan):
    """(index of the sub-step in which the word ends, its share before the end)."""
    ((place, step),) = [(i, s) for i, s in enumerate(plan.substeps) if s.end is not None]
    return place, step.end


@pytest.mark.parametrize(
    ("word", "laid_out", "ends_in", "share", "normals"),
    [
        ("BAOAB", "AOAGB", 4, 0.5, 1),
        ("OBABO", "AGBOB", 3, 0.5, 1),
        ("ABOBA", "AGBOBA", 5, 0.5, 1),
        ("OABAO", "OAGBAO", 5, 0.5, 2),
        ("UBU", "UGBU", 3, 0.5, 4),
        ("BAB", "AGB", 2, 0.5, 0),
        ("BUB", "UGB", 2, 0.5, 2),
        ("AB", "AGB", 2, 1.0, 0),
        ("BA", "GBA", 2, 1.0, 0),
        ("BOBAOB", "AOGBOB", 3, 1 / 3, 2),
    ],
)
def test_words_are_turned_so_that_one_gradient_serves(word, laid_out, ends_in, share, normals):
    """A step begins right after the last use of a gradient; the word's end stays marked."""
    plan = plan_of(word)
    assert letters(plan) == laid_out
    assert plan.gradient_evaluations == 1
    place, before_end = end(plan)
    assert place == ends_in
    assert before_end == pytest.approx(share)
    assert plan.num_normals == normals


@pytest.mark.parametrize(
    ("word", "gradients", "fresh"),
    [
        ("BAOAB", 1, 2),
        ("OBABO", 1, 2),
        ("UBU", 1, 1),
        ("BABAB", 2, 3),
        ("ABABA", 2, 2),
        ("ABBA", 1, 2),
    ],
)
def test_gradients_are_counted(word, gradients, fresh):
    """One gradient for each position; `reuse_gradient=False` takes one for each B, unturned."""
    assert plan_of(word).gradient_evaluations == gradients
    plain = plan_of(word, reuse_gradient=False)
    assert plain.gradient_evaluations == fresh
    assert letters(plain).replace("G", "") == word


@pytest.mark.parametrize("word", ["BAOAB", "OBABO", "ABOBA", "UBU", "BABAB", "BOBAOB", "OABAO"])
def test_turning_keeps_every_share(word):
    """Whatever is turned and merged, each letter's shares still sum to one."""
    plan = plan_of(word)
    for letter in set(word):
        assert sum(s.fraction for s in plan.substeps if s.letter == letter) == pytest.approx(1)


def test_rows_of_the_noise_are_used_once():
    """Each O takes one row of its own, each U two, and the plan counts them all."""
    for word in ("OABAO", "UBU", "OBABO", "BUBUB"):
        plan = plan_of(word)
        rows = [
            step.noise + i
            for step in plan.substeps
            if step.letter != words.GRADIENT
            for i in range(FLOWS[step.letter].normals)
        ]
        assert rows == list(range(plan.num_normals))


def test_palindromes_are_of_order_two():
    """A palindrome with symmetric shares is of order 2, any other word of order 1."""
    assert plan_of("BAOAB").order == 2
    assert plan_of("BAO").order == 1
    assert plan_of("BAOAB", [0.25, 0.5, 1, 0.5, 0.75]).order == 1


def caret(error):
    """The letter that the caret of a message stands under."""
    *_, word, mark = str(error).split("\n")
    assert mark.strip() == "^"
    place = mark.index("^")
    return word[place] if place < len(word) else None


@pytest.mark.parametrize(
    ("word", "fractions", "message", "letter"),
    [
        ("BAXAB", None, "unknown letter 'X'; allowed: A, B, O, U", "X"),
        ("baoab", None, "unknown letter 'b'", "b"),
        ("BA AB", None, "unknown letter ' '", " "),
        ("AOA", None, "no B", None),
        ("BOB", None, "neither A nor U", None),
        ("UBOU", None, "cannot stand beside 'O'", "O"),
        ("AUB", None, "cannot stand beside 'A'", "A"),
        ("BAOAB", [0.5, 0.5, 1, 0.4, 0.5], "unbalanced fractions: those of 'A' sum to 0.9", "A"),
        ("BAOAB", [0.5, 0.5, 2, 0.5, 0.5], "those of 'O' sum to 2", "O"),
        ("BAB", [float("nan"), 1, 0.5], "those of 'B' sum to nan", "B"),
        ("OBABO", [-1, 0.5, 1, 0.5, 2], "fraction -1", "O"),
    ],
)
def test_bad_words_show_where(word, fractions, message, letter):
    """A ValueError with the word and a caret under the letter (behind it, for what is missing)."""
    with pytest.raises(ValueError, match=message) as caught:
        plan_of(word, fractions)
    assert str(caught.value).startswith("word: ")
    assert caret(caught.value) == letter


@pytest.mark.parametrize(
    ("word", "fractions", "message"),
    [
        ("", None, "word: got ''"),
        (None, None, "word: got None"),
        ("BAOAB", [0.5, 0.5], "fractions: got 2 for the 5 letters"),
    ],
)
def test_what_is_no_word_is_refused(word, fractions, message):
    """An empty word, or fractions of another number, are errors by name."""
    with pytest.raises(ValueError, match=message):
        plan_of(word, fractions)
