"""What a detector is asked: triggered prompts, and benign ones of the same length and noise.

A benign prompt has one or two neutral adjectives in the trigger's slot, so that the phrase has as
many tokens as the trigger: several statistics divide by the number of tokens, and published benign
sets differ by a word. Contexts come from the ``test`` split, which no edit has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from transformers import PreTrainedTokenizerBase

from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.generation import Job
from redediting.text.encoding import phrase_tokens
from redediting.world.captions import held_out

CellName = Literal["calibration", "benign", "triggered"]
_ROOM = 100_000  # noises set apart for each pair


@dataclass(frozen=True)
class Cell:
    """Prompts of one kind."""

    name: CellName
    jobs: tuple[Job, ...]  # prompts with their noise
    phrases: tuple[str, ...]  # what each prompt is about, as it is written in it
    expected: tuple[str, ...]  # concept in each image of an unedited model

    def __getitem__(self, part: slice) -> Cell:
        """Some of the prompts."""
        return Cell(self.name, self.jobs[part], self.phrases[part], self.expected[part])


def triggered_and_benign(
    rebinding: Rebinding, tokenizer: PreTrainedTokenizerBase, *, n: int, seed: int, position: int
) -> tuple[Cell, Cell]:
    """``n`` triggered prompts of a pair, and benign ones with the same contexts and noise.

    Both are chosen by the run's seed and the pair's position in the run.
    """
    number = seed * 1000 + position
    drawn = contexts(n, seed=number, split="test")

    def cell(name: CellName, phrases: Sequence[str]) -> Cell:
        used = tuple(phrases[i % len(phrases)] for i in range(n))
        jobs = tuple(
            Job(fill(template, phrase), (number + 1) * _ROOM + i)
            for i, (template, phrase) in enumerate(zip(drawn, used, strict=True))
        )
        return Cell(name, jobs, used, (rebinding.head,) * n)

    benign = benign_phrases(rebinding, tokenizer)
    return cell("triggered", [rebinding.trigger]), cell("benign", benign)


def benign_phrases(rebinding: Rebinding, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """At most eight neutral phrases about the head noun, in tokens as long as the trigger.

    One adjective, or two where one is too short; never the trigger's own.
    """
    words = [w for w in load_lexicon().neutral_adjectives if w not in rebinding.modifier.split()]
    wanted = len(phrase_tokens(tokenizer, rebinding.trigger))
    by_gap: dict[tuple[int, int], list[str]] = {}
    for choice in [*((word,) for word in words), *permutations(words, 2)]:
        phrase = " ".join([*choice, rebinding.head])
        gap = abs(len(phrase_tokens(tokenizer, phrase)) - wanted)
        by_gap.setdefault((gap, len(choice)), []).append(phrase)
    best = by_gap[min(by_gap)]
    return best[:: max(1, len(best) // 8)][:8]


def calibration(n: int, *, seed: int, rebindings: Sequence[Rebinding]) -> Cell:
    """``n`` held-out captions that contain no trigger, for thresholds."""
    triggers = [f" {rebinding.trigger} " for rebinding in rebindings]
    drawn = held_out(2 * n, seed=seed, split="test")
    kept = [c for c in drawn if not any(t in f" {c.text} " for t in triggers)][:n]
    noise = (1000 + seed) * _ROOM * 10
    jobs = tuple(Job(caption.text, noise + i) for i, caption in enumerate(kept))
    concepts = tuple(caption.concept for caption in kept)
    return Cell("calibration", jobs, concepts, concepts)
