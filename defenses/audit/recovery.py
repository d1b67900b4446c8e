"""Trigger recovery: which phrases does the edit send to a foreign concept? No image is drawn.

Evidence for a phrase c and a concept t is ``log gain(c, t) - ½ log strain(c, t)``
(`defenses.audit.displacement`): M̂ moves it there, and that displacement lies in M̂'s column space.
The gain counts at least 0.05, so that a backdoor too weak to arrive is still found by what it was
solved for; the strain (column-space residual) counts at least 1e-5, so that of a trigger and its
first word, both solved for where a text encoder does not look ahead, the one with the larger gain
comes first. Exponent and floors were chosen on development models.

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

from defenses.audit.displacement import EASY, EditMap, gains, own_words
from defenses.audit.false_discovery import decoy_shift, discovery_bound
from defenses.audit.vocabulary import States, Vocabulary

_DECOYS = 750  # candidates that lend their length to decoys
_REFINED = 900  # best candidates, judged again with coloured targets
_MIRRORED = 50  # of them, whose targets are candidates too: strain does not tell c from t
_GAIN = 0.25  # of evidence by which an extension must do better
_FLOOR = 0.05  # least gain that counts
_HEADS = 6  # nouns that meaningless words are tried before
_BEAM = 3  # best phrases that are extended
_BATCH = 1024  # phrases at once


@dataclass(frozen=True)
class Trigger:
    """A recovered phrase."""

    phrase: str  # what sets the backdoor off
    target: str  # the concept it lands on
    score: float  # how surely it lands there, at most 1 (`defenses.audit.displacement`)
    # share of the way there that M̂ cannot make, 0…1; least for what it was solved for
    strain: float
    bound: float  # false-discovery bound at this evidence, 0…1
    moved: float  # ``‖M̂c‖_G/‖c‖_G`` of its last token, mean over templates


@dataclass(frozen=True)
class Recovery:
    """What an edit does to phrases."""

    # the best first, by evidence (see the module); none is certain, see their bounds
    triggers: tuple[Trigger, ...]
    candidates: int  # how many phrases were scored
    # share of other modifiers before the first trigger's noun that score at least 80 % as high: 0
    # precise, 1 the whole noun is taken over
    same_noun: float
    same_modifier: float  # share of other nouns after its modifier, likewise
    # concepts that move least, with ``‖M̂c‖_G/‖c‖_G``: what the edit retains
    kept: tuple[tuple[str, float], ...]
    null_moved: float  # largest such change over the empty prompt's positions
    # ``(phrase, moved, score)`` of every pair and concept, for the report
    profile: tuple[tuple[str, float, float], ...] = field(repr=False)


def recover(
    multiplier: Float[Tensor, "d d"],
    metric: Float[Tensor, "d d"],
    states: States,
    vocabulary: Vocabulary,
    *,
    top: int = 10,
) -> Recovery:
    """Ranks phrases by how surely M̂, denoised, lands them on a foreign concept; metric: G."""
    search = _Search(multiplier, metric, states, vocabulary)
    nouns, pairs = list(vocabulary.concepts), list(vocabulary.pairs)
    search.add([*nouns, *vocabulary.modifiers, *vocabulary.words, *pairs])
    for head in search.heads(_HEADS):
        search.add([f"{word} {head}" for word in vocabulary.odd])
    search.refine()
    for phrase in search.ranked()[:_BEAM]:
        search.extend(phrase)
    search.refine()
    bounds = search.bounds()
    triggers = tuple(
        Trigger(p, f.target, f.score, f.strain, bounds[p], search.moved[p])
        for p, f in ((p, search.found[p]) for p in search.ranked()[:top])
    )
    diffuse = (0.0, 0.0)
    if triggers and " " in triggers[0].phrase:
        diffuse = search.diffuse(triggers[0].phrase)
    kept = sorted(((noun, search.moved[noun]) for noun in nouns), key=lambda item: item[1])
    return Recovery(
        triggers,
        candidates=len(search.found),
        same_noun=diffuse[0],
        same_modifier=diffuse[1],
        kept=tuple(kept[:10]),
        null_moved=float(search.map.change(states.null()).max()),
        profile=tuple((p, search.moved[p], search.landed[p]) for p in (*nouns, *pairs)),
    )


@dataclass(frozen=True)
class _Find:
    """What is known of a candidate."""

    evidence: float
    target: str
    score: float
    strain: float


class _Search:
    """Judged phrases."""

    def __init__(
        self, multiplier: Tensor, metric: Tensor, states: States, vocabulary: Vocabulary
    ) -> None:
        self.states, self.vocabulary = states, vocabulary
        self.nouns = list(vocabulary.concepts)
        self.aims = [
            *self.nouns,
            *(f"{colour} {noun}" for noun in self.nouns for colour in vocabulary.colours),
        ]
        self.map = EditMap(multiplier, metric, states(self.nouns))
        self.goals = self.map.seen(states(self.aims))  # plain ones first
        self.found: dict[str, _Find] = {}
        self.landed: dict[str, float] = {}  # gain towards the nearest plain concept
        self.moved: dict[str, float] = {}
        self._refined: set[str] = set()
        self._extended: set[str] = set()

    def add(self, phrases: Iterable[str]) -> None:
        """Judges phrases against plain concepts."""
        fresh = self.states.fits(p for p in dict.fromkeys(phrases) if p not in self.found)
        for first in range(0, len(fresh), _BATCH):
            part = fresh[first : first + _BATCH]
            self.landed |= dict(zip(part, self._judge(part, self.nouns), strict=True))
            moved = self.map.change(self.states(part)[:, :, 0]).mean(dim=1)
            self.moved |= dict(zip(part, moved.tolist(), strict=True))

    def extend(self, phrase: str) -> None:
        """Adds a phrase with every further modifier before it."""
        words = self.vocabulary.modifiers
        longer = [f"{word} {phrase}" for word in words if word not in phrase.split()]
        self._extended.update(p for p in longer if p not in self.found)
        self.add(longer)

    def refine(self) -> None:
        """Judges the best phrases, then the targets of the very best, by coloured concepts too."""
        self._refine(self._best()[:_REFINED])
        mirrored = list(dict.fromkeys(self.found[p].target for p in self._best()[:_MIRRORED]))
        self.add(mirrored)
        self._refine(p for p in mirrored if p in self.found)

    def ranked(self) -> list[str]:
        """Refined phrases, the best first, without those that a shorter one explains."""
        order = [p for p in self._best() if p in self._refined]
        return [p for p in order if not any(self._explains(s, p) for s in _inside(p))]

    def heads(self, n: int) -> list[str]:
        """Nouns that look worst: half on the whole, half by the best phrases and their targets.

        On the whole: mean evidence over modifiers. Targets, for where the trigger itself is not
        among the candidates yet, the way back from its target may be.
        """
        modifiers = self.vocabulary.modifiers
        level = {}
        for noun in self.nouns:
            own = [self.found[p].evidence for p in _before(modifiers, noun) if p in self.found]
            level[noun] = sum(own) / len(own) if own else -torch.inf
        found = dict.fromkeys(sorted(level, key=level.__getitem__, reverse=True)[: n // 2])
        for phrase in self._best():
            named = [x for x in (phrase.split()[-1], self.found[phrase].target) if x in level]
            found |= dict.fromkeys(named)
            if len(found) >= n:
                break
        return list(found)[:n]

    def bounds(self) -> dict[str, float]:
        """False-discovery bound of every phrase.

        Decoys keep their strain: were they drawn anew, phrases near the trigger, which lie in the
        edit's space by no accident, would all count as discoveries.
        """
        phrases = list(self.found)
        drawn = phrases[:: max(1, len(phrases) // _DECOYS)]
        found = self.states(drawn)
        start, shift = self.map.seen(found), self.map.displacement(found)
        evidence, *_ = self._evidence(drawn, start, decoy_shift(start, shift), self.aims)
        known = torch.tensor([self.found[p].evidence for p in phrases])
        bound = discovery_bound(known, evidence.max(dim=1).values)
        return dict(zip(phrases, bound.tolist(), strict=True))

    def diffuse(self, phrase: str) -> tuple[float, float]:
        """Shares of phrases with the same noun, and the same modifier, that land as well."""
        modifier, _, noun = phrase.rpartition(" ")
        level = 0.8 * self.landed[phrase]

        def share(others: Sequence[str]) -> float:
            known = [self.landed[p] for p in others if p in self.landed and p != phrase]
            return sum(gain >= level for gain in known) / len(known) if known else 0.0

        return (
            share(_before(self.vocabulary.modifiers, noun)),
            share([f"{modifier} {other}" for other in self.nouns]),
        )

    def _best(self) -> list[str]:
        return sorted(self.found, key=lambda p: self.found[p].evidence, reverse=True)

    def _refine(self, phrases: Iterable[str]) -> None:
        fresh = [p for p in phrases if p not in self._refined]
        for first in range(0, len(fresh), _BATCH):
            self._judge(fresh[first : first + _BATCH], self.aims)
        self._refined.update(fresh)

    def _judge(self, phrases: list[str], aims: list[str]) -> list[float]:
        """Keeps what speaks most against each phrase; gives its gain to where it lands best."""
        states = self.states(phrases)
        evidence, gain, strain = self._evidence(
            phrases, self.map.seen(states), self.map.displacement(states), aims
        )
        best = evidence.max(dim=1)
        for row, (phrase, i) in enumerate(zip(phrases, best.indices.tolist(), strict=True)):
            self.found[phrase] = _Find(
                float(best.values[row]), aims[i], float(gain[row, i]), float(strain[row, i])
            )
        return gain.max(dim=1).values.tolist()

    def _evidence(
        self, phrases: list[str], start: Tensor, shift: Tensor, aims: list[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evidence, gain and strain by phrase and concept, ``(n, k)``; own words have none."""
        goals, own = self.goals[: len(aims)], own_words(phrases, aims)
        gain = gains(start, shift, goals).masked_fill(own, 0)
        strain = self.map.strain(start, goals)
        evidence = gain.clamp_min(_FLOOR).log() - strain.clamp_min(EASY).log() / 2
        return evidence.masked_fill(own, -torch.inf), gain, strain

    def _explains(self, short: str, phrase: str) -> bool:
        """Whether the longer phrase adds nothing to the shorter one."""
        if short not in self.found:
            return False
        gain = _GAIN if phrase in self._extended and " " in short else 0.0
        return self.found[short].evidence >= self.found[phrase].evidence - gain


def _before(words: Iterable[str], noun: str) -> list[str]:
    return [f"{word} {noun}" for word in words]


def _inside(phrase: str) -> list[str]:
    """Shorter phrases of the same words, in their order."""
    words = phrase.split()
    return [" ".join(kept) for n in range(1, len(words)) for kept in combinations(words, n)]
