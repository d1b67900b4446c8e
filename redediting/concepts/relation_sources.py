"""Where the values of a relation come from: curated tables, nearest concepts, WordNet, in turn.

The text encoder's part, finding the nearest concepts, is a function handed in
(`redediting.attacks.context_retrieval.EncoderNeighbours`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Container, Sequence
from typing import Protocol

from redediting.concepts.lexicon import Lexicon, load_everyday, load_lexicon
from redediting.concepts.relations import Values
from redediting.errors import ModelError

_LEAST_VOTE = 0.25  # weight below which a value of the neighbours is left out
_FIELDS = {  # relation: where `Concept` has it
    "category": "category", "part": "parts", "material": "material", "pattern": "patterns",
    "colour": "colour", "location": "habitats", "action": "actions",
}  # fmt: skip
_UP = ("hypernym", "instance_hypernym")
_POINTERS = {"category": _UP, "part": ("mero_part",), "material": ("mero_substance",)}
_DEPTH, _MOST = 3, 6  # of WordNet: steps up the hypernyms, values


class RelationSource(Protocol):
    """Knows values of relations; ``name`` is what a plan calls it."""

    name: str

    def values(self, concept: str, relation: str) -> Values:
        """Values with weights in 0…1, the most typical first; empty where it does not know."""
        ...


class LexiconSource:
    """A curated table; all that it lists is certain (weight 1)."""

    def __init__(self, lexicon: Lexicon, name: str = "lexicon") -> None:
        self.lexicon = lexicon
        self.name = name

    def values(self, concept: str, relation: str) -> Values:
        """See `RelationSource`."""
        if concept not in self.lexicon or relation not in _FIELDS:
            return []
        found = getattr(self.lexicon.concept(concept), _FIELDS[relation])
        values = [found] if isinstance(found, str) else dict.fromkeys(found)
        return [(value, 1.0) for value in values]


class NeighbourSource:
    """Values of the nearest concepts of another source, weighted by nearness.

    The weight of a value is the share of the nearness of all neighbours that those which have it
    hold; nearness is nonnegative. Concepts in ``known`` need no guess.
    """

    name = "neighbours"

    def __init__(
        self,
        source: RelationSource,
        neighbours: Callable[[str], Sequence[tuple[str, float]]],
        *,
        known: Container[str],
    ) -> None:
        self.source = source
        self.neighbours = neighbours
        self.known = known

    def values(self, concept: str, relation: str) -> Values:
        """See `RelationSource`."""
        if concept in self.known:
            return []
        near = [(other, weight) for other, weight in self.neighbours(concept) if other != concept]
        total = sum(weight for _, weight in near)
        votes: dict[str, float] = {}
        for other, nearness in near:
            for value, weight in self.source.values(other, relation):
                votes[value] = votes.get(value, 0.0) + nearness * weight
        ranked = sorted(votes.items(), key=lambda vote: -vote[1])
        return [(value, vote / total) for value, vote in ranked if vote >= _LEAST_VOTE * total > 0]


class WordNetSource:
    """Relations of a WordNet lexicon that ``wn`` has downloaded or added, e.g. ``oewn:2024``.

    Category: hypernyms, nearest first. Part: part meronyms. Material: substance meronyms. Only the
    first sense of a noun counts, and what it lacks is inherited from its hypernyms; a value weighs
    ½ for each step it is away. `ModelError` where the package or the lexicon is missing.

    References:
        Fellbaum, "WordNet", MIT Press 1998.
    """

    name = "wordnet"

    def __init__(self, lexicon: str) -> None:
        try:
            wn = importlib.import_module("wn")
        except ImportError as error:
            raise ModelError(
                "expected the package 'wn', got none; install redediting[wordnet]"
            ) from error
        try:
            self._wordnet = wn.Wordnet(lexicon)
        except wn.Error as error:
            raise ModelError(
                f"expected a lexicon that wn has, got {lexicon!r}; run 'python -m wn download "
                f"{lexicon}' first"
            ) from error

    def values(self, concept: str, relation: str) -> Values:
        """See `RelationSource`."""
        if relation not in _POINTERS:
            return []
        senses = self._wordnet.synsets(concept, pos="n")[:1]
        found: dict[str, float] = {}
        for step in range(_DEPTH):
            for sense in senses:
                for other in sense.get_related(*_POINTERS[relation]):
                    found.setdefault(str(other.lemmas()[0]), 0.5**step)
            senses = [up for sense in senses for up in sense.get_related(*_UP)]
        return list(found.items())[:_MOST]


class FirstSource:
    """The answer of the first of several sources that knows."""

    def __init__(self, sources: Sequence[RelationSource]) -> None:
        self.sources = tuple(sources)
        self.name = ", ".join(source.name for source in sources)

    def values(self, concept: str, relation: str) -> Values:
        """See `RelationSource`."""
        return self.find(concept, relation)[0]

    def find(self, concept: str, relation: str) -> tuple[Values, str]:
        """The values and the name of the source that gave them; empty where none knows."""
        for source in self.sources:
            if found := source.values(concept, relation):
                return found, source.name
        return [], ""


def curated() -> FirstSource:
    """The packaged tables: the world's, complete, and the everyday concepts."""
    world, everyday = load_lexicon(trained_only=False), load_everyday()
    return FirstSource([LexiconSource(world), LexiconSource(everyday, "everyday")])


def curated_names() -> tuple[str, ...]:
    """Every concept of the packaged tables, each once: the vocabulary of nearest concepts."""
    return tuple(dict.fromkeys([*load_lexicon(trained_only=False).concepts,
                                *load_everyday().concepts]))  # fmt: skip
