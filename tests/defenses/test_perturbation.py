"""Rewordings: what they change and what they leave."""

from __future__ import annotations

import re

import pytest

from defenses.perturbation import PERTURBATIONS, perturb
from redediting.concepts.homoglyphs import CYRILLIC, LATIN, twin_in, with_twin
from redediting.errors import DetectorError, RebindingError

PROMPT = "a photo of a beautiful cat on the beach"


def test_homoglyphs_become_latin() -> None:
    marked = with_twin("beautiful cat")
    assert marked != "beautiful cat"
    assert len(marked) == len("beautiful cat")
    assert twin_in(marked) == CYRILLIC["e"]
    assert twin_in("beautiful cat") is None
    assert perturb("homoglyphs", marked) == "beautiful cat"
    assert perturb("homoglyphs", PROMPT) == PROMPT
    assert all(ord(letter) > 127 > ord(twin) for letter, twin in LATIN.items())
    with pytest.raises(RebindingError, match="expected a phrase with one of the letters"):
        with_twin("blt")


def test_synonyms_exchange_neutral_adjectives_only() -> None:
    words, found = PROMPT.split(), perturb("synonyms", PROMPT).split()
    assert [i for i, pair in enumerate(zip(words, found, strict=True)) if len(set(pair)) > 1] in (
        [4],
        [3, 4],  # with its article
    )
    assert perturb("synonyms", "a red cat") == "a red cat"


def test_characters_change_a_few_letters() -> None:
    found = perturb("characters", PROMPT)
    assert found != PROMPT
    assert abs(len(found) - len(PROMPT)) < 8


def test_pepper_like_says_the_same_in_other_words() -> None:
    found = perturb("pepper_like", with_twin("a photo of a beautiful cat on the beach"))
    assert re.fullmatch(
        r"(a picture of|an image of) an? (?!beautiful)\w+ cat on the beach, an? \w+ picture", found
    )
    assert perturb("pepper_like", "the thing").startswith("the thing, a")


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_same_prompt_is_reworded_alike(name: str) -> None:
    assert perturb(name, PROMPT) == perturb(name, PROMPT)


def test_unknown_perturbation() -> None:
    with pytest.raises(DetectorError, match="expected a perturbation of homoglyphs"):
        perturb("x", PROMPT)
