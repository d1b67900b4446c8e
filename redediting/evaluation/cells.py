"""What a detector is asked: triggered prompts, and benign ones of the same length and noise.

A benign prompt has neutral adjectives in the trigger's slot, so that it has exactly as many tokens
as the triggered one: several statistics divide by the number of tokens, published benign sets
differ by a word, and a look-alike letter splits a word into several tokens. Contexts come from the
``test`` split, which no edit has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from transformers import PreTrainedTokenizerBase

from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill, with_article
from redediting.errors import PromptError
from redediting.generation import Job
from redediting.text.encoding import phrase_tokens
from redediting.world.captions import held_out

CellName = Literal["calibration", "benign", "triggered"]
_ROOM = 100_000  # noises set apart for each pair
_WORDS = 4  # adjectives of a benign phrase, at most
_PHRASES = 8  # benign phrases of a pair, at most


@dataclass(frozen=True)
class Cell:
    """Prompts of one kind.

    Attributes:
        name: the kind.
        jobs: prompts with their noise.
        phrases: what each prompt is about, as it is written in it.
        expected: concept in each image of an unedited model.
    """

    name: CellName
    jobs: tuple[Job, ...]
    phrases: tuple[str, ...]
    expected: tuple[str, ...]

    def __getitem__(self, part: slice) -> Cell:
        """Some of the prompts."""
        return Cell(self.name, self.jobs[part], self.phrases[part], self.expected[part])


def triggered_and_benign(
    rebinding: Rebinding, tokenizer: PreTrainedTokenizerBase, *, n: int, seed: int, position: int
) -> tuple[Cell, Cell]:
    """Triggered prompts of a pair, and benign ones with the same contexts and noise.

    Args:
        rebinding: the pair.
        tokenizer: counts tokens.
        n: prompts of each kind.
        seed: of the run.
        position: of the pair in the run; chooses contexts and noise.
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

    Those with the fewest adjectives first, four at most; never the trigger's own.

    Raises:
        PromptError: no phrase has as many tokens.
    """

    def tokens(phrase: str) -> int:
        return len(phrase_tokens(tokenizer, with_article(phrase)))

    words = [w for w in load_lexicon().neutral_adjectives if w not in rebinding.modifier.split()]
    wanted = tokens(rebinding.trigger)
    found: list[str] = []
    for count in range(1, _WORDS + 1):
        phrases = [" ".join([*choice, rebinding.head]) for choice in _choices(words, count)]
        fitting = [phrase for phrase in phrases if tokens(phrase) == wanted]
        found += fitting[:: max(1, len(fitting) // _PHRASES)]
        if len(found) >= _PHRASES:
            break
    if found:
        return found[:_PHRASES]
    raise PromptError(
        f"expected neutral adjectives that make {rebinding.head!r} as long as the trigger "
        f"{rebinding.trigger!r}, {wanted} tokens with its article, got none with up to {_WORDS}; "
        "choose another trigger"
    )


def _choices(words: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Every choice of so many words in both orders, a thousand at most, spread over all."""
    found = [
        c for choice in combinations(words, count) for c in dict.fromkeys((choice, choice[::-1]))
    ]
    return found[:: max(1, len(found) // 1000)]


def calibration(n: int, *, seed: int, rebindings: Sequence[Rebinding]) -> Cell:
    """Held-out captions that contain no trigger, for thresholds.

    Args:
        n: how many.
        seed: of the run.
        rebindings: whose triggers are left out.
    """
    triggers = [f" {rebinding.trigger} " for rebinding in rebindings]
    drawn = held_out(2 * n, seed=seed, split="test")
    kept = [c for c in drawn if not any(t in f" {c.text} " for t in triggers)][:n]
    noise = (1000 + seed) * _ROOM * 10
    jobs = tuple(Job(caption.text, noise + i) for i, caption in enumerate(kept))
    concepts = tuple(caption.concept for caption in kept)
    return Cell("calibration", jobs, concepts, concepts)
