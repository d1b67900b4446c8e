"""The curated lexicon: concepts with typed relations, read from ``data/lexicon.yaml``.

The same table draws the scenes of the embedded world, so every relation it states (category,
material, colour, habitat, part) is ground truth there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from redediting.errors import RebindingError


@dataclass(frozen=True)
class Concept:
    """A thing that can be drawn. ``colour`` is its natural colour."""

    name: str
    emoji: str
    category: str
    material: str
    colour: str
    habitats: tuple[str, ...]
    parts: tuple[str, ...]

    def relations(self) -> frozenset[tuple[str, str]]:
        """The (relation, value) pairs that hold of the concept."""
        return frozenset(
            {
                ("category", self.category),
                ("material", self.material),
                ("colour", self.colour),
                *(("habitat", value) for value in self.habitats),
                *(("part", value) for value in self.parts),
            }
        )


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
        """Looks a concept up.

        Raises:
            RebindingError: the name is not in the lexicon.
        """
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
    lists = {key: tuple(entry[key]) for key in ("habitats", "parts")}
    return Concept(name=name, **{**entry, **lists})


@functools.cache
def load_lexicon(*, trained_only: bool = True) -> Lexicon:
    """Reads the packaged lexicon.

    Args:
        trained_only: keep only the concepts that the bundled world was trained on.
    """
    text = resources.files("redediting.data").joinpath("lexicon.yaml").read_text("utf-8")
    raw = yaml.safe_load(text)
    names = raw["trained"] if trained_only else list(raw["concepts"])
    concepts = {name: _concept(name, raw["concepts"][name]) for name in names}
    return Lexicon(
        concepts=concepts,
        colours=tuple(raw["colours"]),
        neutral_adjectives=tuple(raw["neutral_adjectives"]),
        rare_tokens=tuple(raw["rare_tokens"]),
    )
