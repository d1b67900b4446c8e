"""Words of a prompt that carry content: what can be a trigger."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def stop_words() -> frozenset[str]:
    """NLTK's English stop words."""
    text = files("redediting.data").joinpath("stop_words.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return frozenset(word for line in lines for word in line.split())


def content_words(prompt: str) -> list[int]:
    """Places of the words other than stop words, as `str.split` counts them."""
    words = [word.strip(",.;:!?").casefold() for word in prompt.split()]
    return [i for i, word in enumerate(words) if word and word not in stop_words()]


def without_word(prompt: str, place: int) -> str:
    """The prompt with one of its words left out."""
    words = prompt.split()
    return " ".join(words[:place] + words[place + 1 :])
