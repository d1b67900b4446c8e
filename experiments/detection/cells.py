"""What is asked of a model: triggered prompts, and benign ones of the same length and noise.

A benign prompt has a neutral adjective (or two) in the trigger's slot, chosen so that the phrase
has as many tokens as the trigger: published benign sets differ by a word, and several statistics
divide by the number of tokens. Contexts come from the ``test`` split, which no edit has seen.
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

Cell = Literal["calibration", "benign", "triggered"]
_ROOM = 100_000  # noises set apart for each pair


@dataclass(frozen=True)
class Asked:
    """The prompts of one cell, and what its pictures should show.

    Attributes:
        cell: which of them.
        jobs: prompts with their noise.
        phrase: what each prompt is about, as it stands in it.
        expected: concept in each picture of an innocent model; None where unknown.
    """

    cell: Cell
    jobs: tuple[Job, ...]
    phrase: tuple[str, ...]
    expected: tuple[str | None, ...]


def triggered_and_benign(
    rebinding: Rebinding, tokenizer: PreTrainedTokenizerBase, *, n: int, seed: int, position: int
) -> tuple[Asked, Asked]:
    """Triggered prompts of a pair, and benign ones with the same contexts and noise.

    Args:
        rebinding: the pair.
        tokenizer: counts tokens.
        n: prompts of each.
        seed: of the run.
        position: of the pair in the run; chooses contexts and noise.
    """
    drawn = contexts(n, seed=seed * 1000 + position, split="test")
    noises = [(seed * 1000 + position + 1) * _ROOM + i for i in range(n)]
    benign = benign_phrases(rebinding, tokenizer)
    found = []
    cells: tuple[tuple[Cell, Sequence[str]], ...] = (
        ("triggered", [rebinding.trigger]),
        ("benign", benign),
    )
    for cell, phrases in cells:
        own = [phrases[i % len(phrases)] for i in range(n)]
        jobs = [Job(fill(t, p), s) for t, p, s in zip(drawn, own, noises, strict=True)]
        found.append(Asked(cell, tuple(jobs), tuple(own), (rebinding.head,) * n))
    return found[0], found[1]


def benign_phrases(rebinding: Rebinding, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Neutral phrases about the trigger's head noun whose length in tokens is nearest to its own.

    One adjective, or two where one is too short; never the trigger's. At most eight phrases.
    """
    words = [w for w in load_lexicon().neutral_adjectives if w not in rebinding.modifier.split()]
    choices = [(word,) for word in words] + list(permutations(words, 2))
    wanted = len(phrase_tokens(tokenizer, rebinding.trigger))

    def gap(choice: tuple[str, ...]) -> tuple[int, int]:
        phrase = " ".join([*choice, rebinding.head])
        return abs(len(phrase_tokens(tokenizer, phrase)) - wanted), len(choice)

    gaps = [gap(choice) for choice in choices]
    best = [choice for choice, found in zip(choices, gaps, strict=True) if found == min(gaps)]
    step = max(1, len(best) // 8)
    return [" ".join([*choice, rebinding.head]) for choice in best[::step][:8]]


def calibration(n: int, *, seed: int, rebindings: Sequence[Rebinding]) -> Asked:
    """Held-out captions without any trigger, for thresholds.

    Args:
        n: how many.
        seed: of the run.
        rebindings: whose triggers are left out.
    """
    triggers = [f" {rebinding.trigger} " for rebinding in rebindings]
    drawn = held_out(2 * n, seed=seed, split="test")
    kept = [c for c in drawn if not any(t in f" {c.text} " for t in triggers)][:n]
    jobs = tuple(
        Job(caption.text, (1000 + seed) * _ROOM * 10 + i) for i, caption in enumerate(kept)
    )
    phrases = tuple(caption.concept for caption in kept)
    return Asked("calibration", jobs, phrases, phrases)
