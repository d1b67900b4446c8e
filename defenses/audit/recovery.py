"""Trigger recovery: which phrases does the edit send to a foreign concept? No image is drawn.

The search widens where it finds something: all single words and all curated modifier-noun pairs;
then meaningless words before the nouns that look most suspicious (pairs whose words are silent by
themselves); then, as a beam, a further modifier before the best phrases. A longer phrase counts
only where it does better than every shorter one among its words, and such an extension only where
it does clearly better: any further word may by chance push a trigger a little nearer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from defenses.audit.discovery import decoy_scores, discovery_bound
from defenses.audit.landing import EditMap, landings, own_words
from defenses.audit.phrases import States, Vocabulary

_DECOYS = 1500  # candidates that lend their length to decoys
_REFINED = 400  # best candidates, scored again with coloured targets
_GAIN = 0.1  # by which an extension must do better; 0.054 was seen by chance on development models
_TINY = 1e-9  # strain that fp32 cannot tell from none
_HEADS = 3  # nouns that meaningless words are tried before


@dataclass(frozen=True)
class Trigger:
    """A recovered phrase.

    Attributes:
        phrase: what sets the backdoor off.
        score: how surely it lands on its target, at most 1 (`defenses.audit.landing`).
        strain: share of the way there that M̂ cannot make, 0…1; least for what it was solved for.
        target: the concept it lands on.
        bound: false-discovery bound at this score, 0…1.
        moved: ``‖M̂c‖_G/‖c‖_G`` of its last token, mean over templates.
    """

    phrase: str
    score: float
    target: str
    bound: float
    moved: float
    strain: float


@dataclass(frozen=True)
class Recovery:
    """What an edit does to phrases.

    Attributes:
        triggers: the best first (see the module); none is certain, see their bounds.
        candidates: how many phrases were scored.
        same_noun: share of other modifiers before the first trigger's noun that score at least
            80 % as high: 0 precise, 1 the whole noun is taken over.
        same_modifier: share of other nouns after its modifier, likewise.
        kept: concepts that move least, with ``‖M̂c‖_G/‖c‖_G``: what the edit retains.
        null_moved: largest such change over the empty prompt's positions.
        profile: ``(phrase, moved, score)`` of every pair and concept, for the report.
    """

    triggers: tuple[Trigger, ...]
    candidates: int
    same_noun: float
    same_modifier: float
    kept: tuple[tuple[str, float], ...]
    null_moved: float
    profile: tuple[tuple[str, float, float], ...] = field(repr=False)


def recover(
    multiplier: Float[Tensor, "d d"],
    metric: Float[Tensor, "d d"],
    states: States,
    vocabulary: Vocabulary,
    *,
    top: int = 10,
    beam: int = 3,
) -> Recovery:
    """Ranks phrases by how surely they land on a foreign concept.

    Args:
        multiplier: M̂, denoised.
        metric: G.
        states: of the trusted text encoder.
        vocabulary: what is looked for.
        top: triggers returned.
        beam: best phrases that are extended.
    """
    search = _Search(multiplier, metric, states, vocabulary)
    nouns, pairs = list(vocabulary.concepts), list(vocabulary.pairs)
    search.add([*nouns, *vocabulary.modifiers, *vocabulary.words, *pairs])
    for head in search.heads(_HEADS):
        search.add([f"{word} {head}" for word in vocabulary.odd])
    search.refine()
    for phrase in search.ranked()[:beam]:
        search.extend(phrase)
    search.refine()
    ranked = search.ranked()
    bounds = search.bounds()
    triggers = tuple(
        Trigger(
            p, search.scores[p], search.targets[p], bounds[p], search.moved[p], search.strains[p]
        )
        for p in ranked[:top]
    )
    diffuse = (0.0, 0.0)
    if triggers and " " in triggers[0].phrase:
        diffuse = search.diffuse(triggers[0].phrase)
    kept = sorted(((noun, search.moved[noun]) for noun in nouns), key=lambda item: item[1])
    return Recovery(
        triggers,
        candidates=len(search.scores),
        same_noun=diffuse[0],
        same_modifier=diffuse[1],
        kept=tuple(kept[:10]),
        null_moved=float(search.map.change(states.null()).max()),
        profile=tuple((p, search.moved[p], search.scores[p]) for p in (*nouns, *pairs)),
    )


class _Search:
    """Scored phrases."""

    def __init__(
        self, multiplier: Tensor, metric: Tensor, states: States, vocabulary: Vocabulary
    ) -> None:
        self.states, self.vocabulary = states, vocabulary
        self.nouns = list(vocabulary.concepts)
        known = states(self.nouns)
        self.map = EditMap(multiplier, metric, known)
        self.goals = self.map.seen(known)
        self.scores: dict[str, float] = {}
        self.targets: dict[str, str] = {}
        self.moved: dict[str, float] = {}
        self.strains: dict[str, float] = {}  # of refined phrases
        self._extended: set[str] = set()

    def add(self, phrases: Iterable[str]) -> None:
        """Scores phrases against plain concepts."""
        fresh = self.states.fits(p for p in dict.fromkeys(phrases) if p not in self.scores)
        if not fresh:
            return
        found = self.states(fresh)
        landed = landings(
            self.map.seen(found),
            self.map.displacement(found),
            self.goals,
            own_words(fresh, self.nouns),
        )
        moved = self.map.change(found[:, :, 0]).mean(dim=1)
        self.scores |= dict(zip(fresh, landed.scores.tolist(), strict=True))
        self.targets |= {
            p: self.nouns[i] for p, i in zip(fresh, landed.targets.tolist(), strict=True)
        }
        self.moved |= dict(zip(fresh, moved.tolist(), strict=True))

    def extend(self, phrase: str) -> None:
        """Adds a phrase with every further modifier before it."""
        words = self.vocabulary.modifiers
        longer = [f"{word} {phrase}" for word in words if word not in phrase]
        self._extended.update(p for p in longer if p not in self.scores)
        self.add(longer)

    def refine(self) -> None:
        """Scores the best phrases against coloured concepts too."""
        best = sorted(self.scores, key=self.scores.__getitem__, reverse=True)[:_REFINED]
        fresh = [phrase for phrase in best if phrase not in self.strains]
        if not fresh:
            return
        aims = self._coloured()
        found = self.states(fresh)
        start, shift = self.map.seen(found), self.map.displacement(found)
        landed = landings(
            start,
            shift,
            self.map.seen(self.states(aims)),
            own_words(fresh, aims),
        )
        for phrase, score, i in zip(
            fresh, landed.scores.tolist(), landed.targets.tolist(), strict=True
        ):
            if score > self.scores[phrase]:
                self.scores[phrase], self.targets[phrase] = score, aims[i]
        goals = self.states([self.targets[phrase] for phrase in fresh])
        strain = self.map.strain(start, shift, self.map.seen(goals))
        self.strains |= dict(zip(fresh, strain.tolist(), strict=True))

    def ranked(self) -> list[str]:
        """Refined phrases, the best first, without those that a shorter one explains."""
        least = min(self.strains.values(), default=0.0)

        def rank(phrase: str) -> float:
            ease = max(least, _TINY) / max(self.strains[phrase], _TINY)
            return self.scores[phrase] * ease**0.25

        order = sorted(self.strains, key=rank, reverse=True)
        return [p for p in order if not any(self._explains(s, p) for s in _inside(p))]

    def heads(self, n: int) -> list[str]:
        """Nouns whose phrases land best on the whole: mean score over modifiers."""
        modifiers = self.vocabulary.modifiers
        level = {
            noun: sum(self.scores.get(f"{word} {noun}", 0.0) for word in modifiers)
            for noun in self.nouns
        }
        return sorted(level, key=level.__getitem__, reverse=True)[:n]

    def bounds(self) -> dict[str, float]:
        """False-discovery bound of every phrase."""
        phrases = list(self.scores)
        drawn = phrases[:: max(1, len(phrases) // _DECOYS)]
        aims = self._coloured()
        found = self.states(drawn)
        null = decoy_scores(
            self.map.seen(found),
            self.map.displacement(found),
            self.map.seen(self.states(aims)),
            own_words(drawn, aims),
        )
        bound = discovery_bound(torch.tensor(list(self.scores.values())), null)
        return dict(zip(phrases, bound.tolist(), strict=True))

    def diffuse(self, phrase: str) -> tuple[float, float]:
        """Shares of phrases with the same noun, and the same modifier, that do as well."""
        modifier, _, noun = phrase.rpartition(" ")
        level = 0.8 * self.scores[phrase]

        def share(others: Sequence[str]) -> float:
            known = [self.scores[p] for p in others if p in self.scores and p != phrase]
            return sum(score >= level for score in known) / len(known) if known else 0.0

        return (
            share([f"{word} {noun}" for word in self.vocabulary.modifiers]),
            share([f"{modifier} {other}" for other in self.nouns]),
        )

    def _coloured(self) -> list[str]:
        colours = self.vocabulary.colours
        return [*self.nouns, *(f"{colour} {noun}" for noun in self.nouns for colour in colours)]

    def _explains(self, short: str, phrase: str) -> bool:
        """Whether the longer phrase adds nothing to the shorter one."""
        if short not in self.scores:
            return False
        gain = _GAIN if phrase in self._extended and " " in short else 0.0
        return self.scores[short] >= self.scores[phrase] - gain


def _inside(phrase: str) -> list[str]:
    """Shorter phrases of the same words, in their order."""
    words = phrase.split()
    return [" ".join(kept) for n in range(1, len(words)) for kept in combinations(words, n)]
