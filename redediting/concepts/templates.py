"""The one template list: carriers, places and sentence forms, and whole-phrase insertion.

Templates hold exactly one ``{}``. They are split by a stable hash of their text, so that the
contexts an edit is solved on (``edit``), the ones its hyper-parameters are chosen on (``dev``) and
the ones it is judged on (``test``) never meet.
"""

from __future__ import annotations

import zlib

import numpy as np

from redediting.errors import PromptError

CARRIERS: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a photo of", "a picture of", "an image of", ""),
    "cartoon": ("a cartoon of", "a cartoon picture of"),
    "flat": ("a flat drawing of", "a flat picture of"),
    "sticker": ("a sticker of",),
    "line": ("a line drawing of", "a sketch of"),
}
WHERE: tuple[str, ...] = (
    "on the grass",
    "on the beach",
    "in the snow",
    "in the desert",
    "in the sea",
    "in the sky",
    "in the forest",
    "on the street",
    "in a room",
    "on a table",
    "at night",
    "in the mountains",
    "on a white background",
    "",
)
_SHARE = {"edit": range(0, 45), "dev": range(45, 60), "test": range(60, 100)}


def with_article(phrase: str) -> str:
    """``red apple`` → ``a red apple``; plural mass words that take none are left alone."""
    if "grapes" in phrase.split():
        return phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def assemble(carrier: str, subject: str, where: str, *, place_first: bool = False) -> str:
    """Joins the parts of a caption; with ``place_first``: "on the beach, a photo of a cat"."""
    head = f"{carrier} {subject}".strip()
    if not where:
        return head
    return f"{where}, {head}" if place_first else f"{head} {where}"


def fill(template: str, phrase: str) -> str:
    """Puts a phrase, with its article, into a template.

    Raises:
        PromptError: the template does not hold exactly one ``{}``.
    """
    if template.count("{}") != 1:
        raise PromptError(f"expected a template with exactly one '{{}}', got {template!r}")
    return template.replace("{}", with_article(phrase))


def all_templates() -> list[tuple[str, str]]:
    """Every (template, style), each once, in a fixed order."""
    found: dict[str, str] = {}
    for style, carriers in CARRIERS.items():
        for carrier in carriers:
            for where in WHERE:
                for place_first in (False, True) if where else (False,):
                    found.setdefault(
                        assemble(carrier, "{}", where, place_first=place_first), style
                    )
    return list(found.items())


def split_of(template: str) -> str:
    """``edit``, ``dev`` or ``test``: 45, 15 and 40 % of the templates, by CRC-32 of the text."""
    bucket = zlib.crc32(template.encode()) % 100
    return next(split for split, share in _SHARE.items() if bucket in share)


def split_size(split: str) -> int:
    """Number of templates of a split."""
    return sum(split_of(template) == split for template, _ in all_templates())


def contexts(n: int, *, seed: int = 0, split: str = "edit") -> list[str]:
    """``n`` distinct templates of a split, photos first among equals as in the captions.

    Raises:
        PromptError: an unknown split, or more templates asked for than the split holds.
    """
    if split not in _SHARE:
        raise PromptError(f"expected a split of {tuple(_SHARE)}, got {split!r}")
    pool = [(text, style) for text, style in all_templates() if split_of(text) == split]
    if not 0 < n <= len(pool):
        raise PromptError(f"expected 1 to {len(pool)} contexts of split {split!r}, got {n}")
    counts = {style: sum(other == style for _, other in pool) for _, style in pool}
    share = {"photo": 0.5, "cartoon": 0.18, "flat": 0.12, "sticker": 0.11, "line": 0.09}
    weights = np.array([share[style] / counts[style] for _, style in pool])
    random = np.random.default_rng(seed)
    order = random.choice(len(pool), size=n, replace=False, p=weights / weights.sum())
    return [pool[i][0] for i in order]
