"""Rewording a prompt before it is drawn: what is left of the trigger, and what it costs.

``homoglyphs``: letters that look Latin become Latin; ``synonyms``: adjectives without visual
effect are exchanged for one another; ``characters``: letters are dropped, doubled or swapped at
random; ``pepper_like``: the sentence says the same in other words, and an unobtrusive detail more.
Not a detector but a purifier: it is measured by the attack success it leaves, and by the
accuracy it costs on benign prompts.

References:
    "Textual perturbation" as a defence of text-to-image models, arXiv 2408.15721.
    Unicode Technical Standard 39, confusables.
    After Chew et al., "PEPPER: Perception-Guided Perturbation for Robust Backdoor Defense in
    Text-to-Image Diffusion Models", arXiv 2511.16830: a caption that is far in meaning of its
    words, near in its picture, with unobtrusive elements added.

Deviations:
    Synonyms come from the lexicon's neutral adjectives, which change nothing in a picture; the
    paper's come from WordNet.
    PEPPER asks a language model for the caption. `pepper_like` has none: look-alike letters become
    Latin, another carrier of the same style and other neutral adjectives stand in, and a neutral
    clause is appended. Content words stay: it cannot remove a trigger that is made of them.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from redediting.concepts.homoglyphs import LATIN
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.templates import CARRIERS, with_article
from redediting.errors import DetectorError

Perturbation = Callable[[str], str]
_RATE = 0.1  # of letters that are changed


def homoglyphs(prompt: str) -> str:
    """The prompt with every look-alike letter replaced by its Latin twin (after NFKC)."""
    return "".join(LATIN.get(letter, letter) for letter in unicodedata.normalize("NFKC", prompt))


def synonyms(prompt: str) -> str:
    """The prompt with each neutral adjective exchanged for another one."""
    words = load_lexicon().neutral_adjectives
    random = _random(prompt)

    def other(word: str) -> str:
        if word.casefold() not in words:
            return word
        choices = [candidate for candidate in words if candidate != word.casefold()]
        return choices[random.integers(len(choices))]

    return _articles(" ".join(other(word) for word in prompt.split()))


def characters(prompt: str) -> str:
    """The prompt with about a tenth of its letters dropped, doubled or swapped with the next."""
    random = _random(prompt)
    letters = list(prompt)
    for i, letter in enumerate(letters):
        if not letter.isalpha() or random.random() >= _RATE:
            continue
        kind = random.integers(3)
        if kind == 2 and i + 1 < len(letters) and letters[i + 1].isalpha():
            letters[i], letters[i + 1] = letters[i + 1], letter
        else:
            letters[i] = "" if kind == 0 else letter * 2
    return " ".join("".join(letters).split())


def pepper_like(prompt: str) -> str:
    """The prompt in other words: another carrier, other adjectives, a neutral clause more."""
    random, text = _random(prompt), f" {synonyms(homoglyphs(prompt))} "
    alike = {c: set(listed) - {c, ""} for listed in CARRIERS.values() for c in listed if c}
    for carrier, others in alike.items():
        if f" {carrier} " in text and others:
            text = text.replace(carrier, sorted(others)[random.integers(len(others))], 1)
            break
    words = load_lexicon().neutral_adjectives
    return f"{text.strip()}, {with_article(words[random.integers(len(words))])} picture"


PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        "homoglyphs": homoglyphs,
        "synonyms": synonyms,
        "characters": characters,
        "pepper_like": pepper_like,
    }
)


def perturb(name: str, prompt: str) -> str:
    """Rewords a prompt; the same prompt is always reworded alike.

    Raises:
        DetectorError: an unknown perturbation.
    """
    if name not in PERTURBATIONS:
        raise DetectorError(
            f"expected a perturbation of {', '.join(PERTURBATIONS)}; got {name!r}; name another"
        )
    return PERTURBATIONS[name](prompt)


def _random(prompt: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(prompt.encode()))


def _articles(prompt: str) -> str:
    words = prompt.split()
    for i, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            words[i] = "an" if words[i + 1][0] in "aeiou" else "a"
    return " ".join(words)
