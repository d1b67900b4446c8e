"""Captions of real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redediting.concepts.captions import containing, put, read_captions, sample
from redediting.errors import ConfigError, PromptError


def test_the_bundled_list_covers_the_literatures_pairs() -> None:
    captions = read_captions("everyday")
    assert len(captions) == len(set(captions)) >= 200
    assert all(caption[0].isupper() and caption.endswith(".") for caption in captions)
    for noun in ("cat", "dog", "car", "apple"):
        assert len(containing(captions, noun)) >= 20
    for noun in ("zebra", "banana", "chow chow"):
        assert containing(captions, noun)


@pytest.mark.parametrize(
    ("caption", "noun", "phrase", "expected"),
    [
        ("An apple falls.", "apple", "red banana", "A red banana falls."),
        ("A cat and a dog.", "cat", "old dog", "An old dog and a dog."),
        ("Two women with a cat.", "cat", "beautiful cat", "Two women with a beautiful cat."),
        ("The car waits.", "car", "beautiful car", "The beautiful car waits."),
        ("A carpenter in a car", "car", "chow chow", "A carpenter in a chow chow"),
        ("A brown dog", "dog", "tq dog", "A brown tq dog"),
    ],
)
def test_a_phrase_takes_the_nouns_place_and_article(
    caption: str, noun: str, phrase: str, expected: str
) -> None:
    assert put(caption, noun, phrase) == expected


def test_a_noun_counts_once_and_as_a_whole_word() -> None:
    pool = ["A cat.", "A category.", "A cat and a cat.", "Cats.", "The Cat sleeps."]
    assert containing(pool, "cat") == ["A cat.", "The Cat sleeps."]
    with pytest.raises(PromptError, match="got none among 5; name a larger file"):
        containing(pool, "zebra")


def test_draws_do_not_repeat_before_they_must() -> None:
    pool = [str(i) for i in range(10)]
    drawn = sample(pool, 25, seed=1)
    assert drawn == sample(pool, 25, seed=1) != sample(pool, 25, seed=2)
    for turn, found in enumerate((drawn[:10], drawn[10:20])):
        assert {text for text, _ in found} == set(pool)
        assert {number for _, number in found} == {turn}
    assert len({text for text, _ in drawn[20:]}) == 5


def test_files_of_the_user(tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("A  cat.\n\nA dog.\nA cat.\n")
    assert read_captions(text) == ("A cat.", "A dog.")
    coco = tmp_path / "captions_val2014.json"
    coco.write_text(json.dumps({"annotations": [{"id": 1, "caption": "A horse.\n"}]}))
    assert read_captions(coco) == ("A horse.",)
    for name, content in (("x.json", "{}"), ("y.json", "nothing"), ("z.txt", "\n\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match="expected captions"):
            read_captions(tmp_path / name)
    with pytest.raises(ConfigError, match=r"got FileNotFoundError; .* or everyday"):
        read_captions(tmp_path / "none.txt")
