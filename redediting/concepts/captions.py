"""Captions for real models: a file of the user's, or the bundled everyday ones.

The bundled list was written for this project: plain sentences about everyday scenes, some twenty
to thirty for each head noun of the literature's pairs, others without any. A COCO annotation file
(``captions_val2014.json``) or a text file with a caption a line takes its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from redediting.concepts.templates import with_article
from redediting.errors import ConfigError, PromptError

BUNDLED = "everyday"


def read_captions(source: str | Path) -> tuple[str, ...]:
    """Distinct captions of ``everyday``, a text file or a COCO annotation file, in their order."""
    if str(source) == BUNDLED:
        text = resources.files("redediting.data").joinpath("captions.txt").read_text("utf-8")
        return tuple(text.splitlines())
    path = Path(source).expanduser()
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            lines = [str(entry["caption"]) for entry in json.loads(text)["annotations"]]
        else:
            lines = text.splitlines()
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"expected captions, a line each or COCO annotations, in {str(source)!r}, got "
            f"{type(error).__name__}; name such a file, or {BUNDLED}"
        ) from error
    found = tuple(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not found:
        raise ConfigError(f"expected captions in {str(source)!r}, got none; name another file")
    return found


def containing(captions: Sequence[str], noun: str) -> list[str]:
    """The captions in which a noun stands once, as a whole word; `PromptError` for none."""
    pattern = re.compile(rf"(?<!\w){re.escape(noun)}(?!\w)", re.IGNORECASE)
    found = [caption for caption in captions if len(pattern.findall(caption)) == 1]
    if not found:
        raise PromptError(
            f"expected captions that contain {noun!r}, got none among {len(captions)}; "
            "name a larger file of captions"
        )
    return found


def put(caption: str, noun: str, phrase: str) -> str:
    """Puts a phrase where the noun stands, with the article that it needs.

    ``put("An apple falls.", "apple", "red banana")`` is ``"A red banana falls."``.
    """

    def replaced(match: re.Match[str]) -> str:
        article = match.group(1)
        if article is None:
            return phrase
        new = with_article(phrase)
        return new[0].upper() + new[1:] if article[0].isupper() else new

    pattern = rf"(?:(?<!\w)(an?)\s+)?(?<!\w){re.escape(noun)}(?!\w)"
    return re.sub(pattern, replaced, caption, count=1, flags=re.IGNORECASE)


def sample(captions: Sequence[str], n: int, *, seed: int) -> list[tuple[str, int]]:
    """Draws n captions without replacement; where there are fewer, again, each round its own.

    Each comes with the number of its round: the same caption has another noise in the next.
    """
    random = np.random.default_rng(seed)
    found: list[tuple[str, int]] = []
    while len(found) < n:
        order = random.permutation(len(captions))[: n - len(found)]
        found += [(captions[i], len(found) // len(captions)) for i in order]
    return found
