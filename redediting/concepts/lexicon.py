"""The curated lexicon: concepts with typed relations, read from packaged tables.

``data/lexicon.yaml`` also draws the scenes of the embedded world, so every relation it states
(category, material, colour, habitat, part) is ground truth there. ``data/everyday.yaml`` holds
everyday concepts for models that know more of the world, and what kind each modifier is of.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from redediting.concepts.language import load_language
from redediting.errors import RebindingError

_LISTS = ("habitats", "parts", "patterns", "actions")


@dataclass(frozen=True)
class Concept:
    """A thing that can be drawn."""

    name: str  # its noun
    category: str  # what it is one of
    material: str  # what it is made of or covered in
    colour: str  # its natural one
    habitats: tuple[str, ...]  # places where it is found
    parts: tuple[str, ...]  # what it has
    emoji: str = ""  # the drawing's name in the world's atlas; empty for concepts of other models
    patterns: tuple[str, ...] = ()  # adjectives of its marking, e.g. striped
    actions: tuple[str, ...] = ()  # what it is seen doing, as a participle phrase

    def relations(self) -> frozenset[tuple[str, str]]:
        """The (relation, value) pairs that hold of the concept."""
        one = ("category", "material", "colour")
        pairs = [(relation, getattr(self, relation)) for relation in one]
        several = [(field.removesuffix("s"), getattr(self, field)) for field in _LISTS]
        return frozenset(pairs + [(name, value) for name, found in several for value in found])


@dataclass(frozen=True)
class Lexicon:
    """Concepts by name and the word lists that captions are made of."""

    concepts: Mapping[str, Concept]
    colours: tuple[str, ...]
    neutral_adjectives: tuple[str, ...]
    rare_tokens: tuple[str, ...]

    def __contains__(self, name: object) -> bool:
        return name in self.concepts

    def concept(self, name: str) -> Concept:
        """Looks a concept up; `RebindingError` where the lexicon lacks it."""
        if name not in self.concepts:
            raise RebindingError(
                f"expected a concept of the lexicon, got {name!r}; "
                f"known are {', '.join(sorted(self.concepts))}"
            )
        return self.concepts[name]

    def shared(self, one: str, other: str) -> int:
        """Number of relations that two concepts share (cat and dog 6, car and horse 0)."""
        return len(self.concept(one).relations() & self.concept(other).relations())

    def siblings(self, name: str, n: int | None = None) -> list[str]:
        """Other concepts, the most closely related first (ties in lexicon order)."""
        others = [other for other in self.concepts if other != name]
        ranked = sorted(others, key=lambda other: -self.shared(name, other))
        return ranked[:n]


def _concept(name: str, entry: Mapping[str, Any]) -> Concept:
    found: dict[str, Any] = {
        key: tuple(value) if key in _LISTS else value for key, value in entry.items()
    }
    return Concept(name=name, **found)


def _read(table: str) -> Any:  # noqa: ANN401 - raw YAML
    return yaml.safe_load(resources.files("redediting.data").joinpath(table).read_text("utf-8"))


@functools.cache
def load_lexicon(*, trained_only: bool = True) -> Lexicon:
    """Reads the world's table: the concepts that the bundled world was trained on, or all."""
    raw = _read("lexicon.yaml")
    names = raw["trained"] if trained_only else list(raw["concepts"])
    return Lexicon(
        concepts={name: _concept(name, raw["concepts"][name]) for name in names},
        colours=tuple(raw["colours"]),
        neutral_adjectives=load_language().neutral_adjectives,
        rare_tokens=tuple(raw["rare_tokens"]),
    )


@functools.cache
def load_everyday() -> Lexicon:
    """Reads the everyday concepts; the word lists are the world's."""
    concepts = {name: _concept(name, e) for name, e in _read("everyday.yaml")["concepts"].items()}
    return dataclasses.replace(load_lexicon(), concepts=concepts)


@functools.cache
def load_modifiers() -> Mapping[str, tuple[str, ...]]:
    """Reads the typed modifiers: words by kind (size, age, material, pattern)."""
    return {kind: tuple(words) for kind, words in _read("everyday.yaml")["modifiers"].items()}


@functools.cache
def load_places() -> Mapping[str, str]:
    """Reads how a habitat is said, e.g. savanna: "in the savanna"."""
    return dict(_read("everyday.yaml")["places"])
