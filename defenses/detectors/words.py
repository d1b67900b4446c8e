"""Words of a prompt that carry content: what can be a trigger."""

from __future__ import annotations

_STOP = "a an the of in on at by to for with and or from into over under is are it its this that"
STOP_WORDS = frozenset(_STOP.split())


def content_words(prompt: str) -> list[int]:
    """Places of the words other than stop words, as `str.split` counts them."""
    words = [word.strip(",.;:!?").casefold() for word in prompt.split()]
    return [i for i, word in enumerate(words) if word and word not in STOP_WORDS]


def without_word(prompt: str, place: int) -> str:
    """The prompt with one of its words left out."""
    words = prompt.split()
    return " ".join(words[:place] + words[place + 1 :])


def word_spans(prompt: str) -> list[tuple[int, int]]:
    """Where each word begins and ends, in characters."""
    spans, start = [], 0
    for word in prompt.split():
        begin = prompt.index(word, start)
        start = begin + len(word)
        spans.append((begin, start))
    return spans
