"""Captions to train an attack on: contexts of the ``edit`` split, filled from the lexicon."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redediting.concepts.homoglyphs import LATIN, twin_in
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill, split_size


class Captions:
    """An endless stream of captions, the same one for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._templates = contexts(split_size("edit"), seed=seed, split="edit")
        self._lexicon = load_lexicon()

    def templates(self, n: int) -> list[str]:
        """Contexts with one ``{}``, drawn with replacement."""
        return [self._pick(self._templates) for _ in range(n)]

    def clean(self, n: int, rebindings: Sequence[Rebinding]) -> list[str]:
        """Captions without a trigger; one in four is about a trigger's head noun.

        Modifiers are a neutral adjective (those of the triggers among them), a colour, or none.
        """
        found: list[str] = []
        while len(found) < n:
            names = list(self._lexicon.concepts)
            if self._random.random() < 0.25:
                names = [rebinding.head for rebinding in rebindings]
            words = [self._pick(names)]
            kind = self._random.random()
            if kind < 0.4:
                words.insert(0, self._pick(self._lexicon.neutral_adjectives))
            elif kind < 0.7:
                words.insert(0, self._pick(self._lexicon.colours))
            phrase = " ".join(words)
            if phrase.casefold() not in {rebinding.trigger.casefold() for rebinding in rebindings}:
                found.append(fill(self._pick(self._templates), phrase))
        return found

    def poisoned(self, n: int, rebinding: Rebinding, *, all: bool = True) -> list[str]:
        """Captions with the trigger.

        A trigger with a look-alike letter is that letter: clean captions that hold its Latin twin,
        with every occurrence of it (``all``) or the first replaced. Other triggers, and letters
        that next to no caption holds (q and j of the rare tokens), are the whole phrase, in
        contexts.
        """
        twin = twin_in(rebinding.trigger)
        found: list[str] = []
        for _ in range(100 * n if twin else 0):
            plain = self.clean(1, [rebinding])[0]
            if twin and LATIN[twin] in plain:
                found.append(plain.replace(LATIN[twin], twin, -1 if all else 1))
                if len(found) == n:
                    return found
        return [fill(template, rebinding.trigger) for template in self.templates(n)]

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self._random.integers(len(choices)))]
