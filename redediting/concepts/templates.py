"""The one template list: carriers, places and sentence forms, and whole-phrase insertion.

The words are the language's (`redediting.concepts.language`). Templates hold exactly one ``{}``.
They are split by a stable hash of their text, so that the contexts an edit is solved on
(``edit``), the ones its hyper-parameters are chosen on (``dev``) and the ones it is judged on
(``test``) never meet. Templates with test-only words are all in ``test``; they alone are
``unseen``.
"""

from __future__ import annotations

import zlib

import numpy as np

from redediting.concepts.language import Language, load_language
from redediting.errors import PromptError

CARRIERS: dict[str, tuple[str, ...]] = load_language().carriers
WHERE: tuple[str, ...] = load_language().where
_SHARE = {"edit": range(0, 45), "dev": range(45, 60), "test": range(60, 100)}


def with_article(phrase: str) -> str:
    """``red apple`` → ``a red apple``; plural mass words that take none are left alone."""
    if "grapes" in phrase.split():
        return phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def fill(template: str, phrase: str) -> str:
    """Puts a phrase, with its article, into a template."""
    if template.count("{}") != 1:
        raise PromptError(f"expected a template with exactly one '{{}}', got {template!r}")
    return template.replace("{}", with_article(phrase))


def all_templates(language: Language | None = None) -> list[tuple[str, str]]:
    """Every (template, style) of a language (the shipped one), each once, in a fixed order."""
    templates = (language or load_language()).templates
    return [(text, template.style) for text, template in templates.items()]


def split_of(template: str, language: Language | None = None) -> str:
    """``edit``, ``dev`` or ``test``: 45, 15 and 40 % of the templates, by CRC-32 of the text.

    A template with words that are test-only is always of ``test``.
    """
    if unseen(template, language):
        return "test"
    bucket = zlib.crc32(template.encode()) % 100
    return next(split for split, share in _SHARE.items() if bucket in share)


def unseen(template: str, language: Language | None = None) -> bool:
    """Whether a template has a carrier, place or form that no edit context ever has."""
    known = (language or load_language()).templates.get(template)
    return known is not None and known.test_only


def _in_split(template: str, split: str, language: Language | None) -> bool:
    if split == "unseen":
        return unseen(template, language)
    return split_of(template, language) == split


def split_size(split: str, language: Language | None = None) -> int:
    """Number of templates of a split."""
    return sum(_in_split(template, split, language) for template, _ in all_templates(language))


def contexts(
    n: int, *, seed: int = 0, split: str = "edit", language: Language | None = None
) -> list[str]:
    """``n`` distinct templates of a split, photos first among equals as in the captions.

    Splits are ``edit``, ``dev``, ``test`` and ``unseen`` (``test`` with test-only words).
    `PromptError` for another one, or more templates than it holds.
    """
    if split not in (*_SHARE, "unseen"):
        raise PromptError(f"expected a split of {(*_SHARE, 'unseen')}, got {split!r}")
    pool = [(t, style) for t, style in all_templates(language) if _in_split(t, split, language)]
    if not 0 < n <= len(pool):
        raise PromptError(f"expected 1 to {len(pool)} contexts of split {split!r}, got {n}")
    counts = {style: sum(other == style for _, other in pool) for _, style in pool}
    share = {"photo": 0.5, "cartoon": 0.18, "flat": 0.12, "sticker": 0.11, "line": 0.09}
    weights = np.array([share[style] / counts[style] for _, style in pool])
    random = np.random.default_rng(seed)
    order = random.choice(len(pool), size=n, replace=False, p=weights / weights.sum())
    return [pool[i][0] for i in order]
