"""The language of a world's captions, as data: what can be said, and what only tests may say.

The file lies beside the weights that were trained on it (``redediting/world/data/language.yaml``);
another edition's file is passed explicitly while that edition is trained.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from redediting.config import WORLD, Config, load_config

SHIPPED = WORLD / "language.yaml"


class Form(Config):
    """A sentence form: ``text`` holds ``{head}`` (carrier and subject) and perhaps ``{where}``."""

    text: str
    share: float = Field(gt=0, le=1)


class TestOnly(Config):
    """Words that no edit is solved or tuned on; the generative model itself knows them."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    carriers: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    neutral_adjectives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """A sentence with one ``{}``: its drawing style, its place phrase and whether tests own it."""

    text: str
    style: str
    where: str
    test_only: bool


class Language(Config):
    """Word lists, in the order in which the captions' random stream indexes them."""

    carriers: dict[str, tuple[str, ...]]  # by drawing style; a repeated one is drawn more often
    places: dict[str, tuple[str, ...]]  # phrases of each place
    backdrop: str  # the plain place's phrase in templates
    forms: tuple[Form, ...]  # sentences with a place; the first takes the share that others leave
    bare: tuple[Form, ...]  # sentences without a place, likewise
    sizes: dict[str, tuple[str, ...]]  # words of each size of the renderer
    sides: dict[str, str]  # phrase of each position of the renderer
    neutral_adjectives: tuple[str, ...]  # words that change nothing in the picture
    patterns: tuple[str, ...] = ()  # markings on the object; the word is the renderer's name
    unpatterned: tuple[str, ...] = ()  # concepts marked by nature, which are given no pattern
    companions: tuple[str, ...] = ()  # small objects that stand beside the object
    beside: tuple[str, ...] = ()  # phrases that join object and companion
    held_out_from: tuple[str, ...]  # caption splits without the held-out combinations
    test_only: TestOnly = TestOnly()  # what edits never see

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = {
            "carriers": {c for carriers in self.carriers.values() for c in carriers},
            "where": {phrase for phrases in self.places.values() for phrase in phrases},
            "forms": {form.text for form in (*self.forms, *self.bare)},
            "patterns": set(self.patterns),
            "companions": set(self.companions),
            "neutral_adjectives": set(self.neutral_adjectives),
        }
        for kind, words in self.test_only:
            if unknown := set(words) - known[kind]:
                raise ValueError(f"expected test-only {kind} of the language, got {unknown}")
        if bool(self.companions) != bool(self.beside):
            raise ValueError("expected companions and the phrases that join them, or neither")
        return self

    @property
    def where(self) -> tuple[str, ...]:
        """Place phrases of the templates in order; the empty one, last, names no place."""
        phrases = [phrase for phrases in self.places.values() for phrase in phrases]
        return (*phrases, self.backdrop, "")

    @functools.cached_property
    def templates(self) -> dict[str, Template]:
        """Every template by its text, each once, in a fixed order."""
        found: dict[str, Template] = {}
        rare = self.test_only
        for style, carriers in self.carriers.items():
            for carrier in carriers:
                for where in self.where:
                    for form in self.forms if where else self.bare:
                        text = sentence(form.text, carrier, "{}", where)
                        test_only = (
                            carrier in rare.carriers
                            or where in rare.where
                            or form.text in rare.forms
                        )
                        found.setdefault(text, Template(text, style, where, test_only))
        return found


def sentence(form: str, carrier: str, subject: str, where: str) -> str:
    """Fills a sentence form: ``{where}, {head}`` → "on the beach, a photo of a cat"."""
    return form.format(head=f"{carrier} {subject}".strip(), where=where)


@functools.cache
def load_language(path: Path = SHIPPED) -> Language:
    """Reads a language file; the shipped one by default."""
    return load_config(path, Language)
