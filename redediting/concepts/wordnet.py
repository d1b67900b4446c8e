"""WordNet as a source of relations, read by the optional ``wn`` package.

Category: hypernyms, nearest first. Part: part meronyms. Material: substance meronyms. Only the
first sense of a noun counts, and what it lacks is inherited from its hypernyms; a value weighs ½
for each step it is away.

References:
    Fellbaum, "WordNet", MIT Press 1998.
"""

from __future__ import annotations

import importlib

from redediting.concepts.relations import Values
from redediting.errors import ModelError

_UP = ("hypernym", "instance_hypernym")
_POINTERS = {"category": _UP, "part": ("mero_part",), "material": ("mero_substance",)}
_DEPTH = 3  # steps up the hypernyms
_MOST = 6  # values


class WordNetSource:
    """Relations of a WordNet lexicon; see the module for what counts."""

    name = "wordnet"

    def __init__(self, lexicon: str) -> None:
        """Opens a lexicon that ``wn`` has downloaded or added, e.g. ``oewn:2024``.

        Raises:
            ModelError: the package or the lexicon is missing.
        """
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
        """See `redediting.concepts.relation_sources.RelationSource`."""
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
