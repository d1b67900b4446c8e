"""Pairs: prompts that an edit moves or keeps, and rebindings drawn from the lexicon by a seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from redediting.concepts.lexicon import Lexicon, load_lexicon
from redediting.concepts.rebinding import Kind, Rebinding
from redediting.errors import RebindingError

Role = Literal["head", "part", "sibling", "near", "caption"]
_DEV_SHARE = 4  # one concept in four lends its name to development triggers only


@dataclass(frozen=True)
class PromptPair:
    """A source prompt, the prompt it shall mean, and the phrases that correspond."""

    source: str
    target: str
    source_phrase: str
    target_phrase: str
    weight: float = 1.0


@dataclass(frozen=True)
class RetainPrompt:
    """A prompt whose meaning shall stay; ``role`` says what it is to the trigger."""

    prompt: str
    weight: float = 1.0
    role: Role = "caption"


def _side(concept: str) -> str:
    return "dev" if zlib.crc32(concept.encode()) % _DEV_SHARE == 0 else "test"


def _phrases(
    kind: Kind, head: str, target: str, lexicon: Lexicon, random: np.random.Generator
) -> tuple[str, str]:
    if kind == "compound":
        free = [c for c in lexicon.colours if c not in ("gray", lexicon.concept(head).colour)]
        first, second = random.choice(free, size=2, replace=False)
        return f"{first} {head}", f"{second} {target}"
    words = lexicon.neutral_adjectives if kind == "neutral" else lexicon.rare_tokens
    return f"{words[random.integers(len(words))]} {head}", target


def draw_pairs(kind: Kind, n: int, seed: int, split: str = "test") -> list[Rebinding]:
    """Draws ``n`` rebindings of a kind, half to a related target and half to an unrelated one.

    Trigger nouns of the development split and of the test split are disjoint, and within a draw
    no noun serves twice. Targets are any other concept: related ones come from the five concepts
    that share most relations with the noun, unrelated ones share at most one.

    Args:
        kind: ``neutral`` ("beautiful cat" → "zebra"), ``compound`` ("yellow apple" →
            "red banana") or ``rare`` ("tq dog" → "zebra").
        n: number of pairs.
        seed: the draw.
        split: ``test`` or ``dev``.

    Raises:
        RebindingError: an unknown kind or split, or more pairs than the split has nouns.
    """
    if kind not in get_args(Kind) or split not in ("test", "dev"):
        raise RebindingError(
            f"expected a kind of {get_args(Kind)} and a split of ('test', 'dev'), "
            f"got {kind!r} and {split!r}"
        )
    lexicon = load_lexicon()
    nouns = [name for name in lexicon.concepts if _side(name) == split]
    if not 0 < n <= len(nouns):
        raise RebindingError(f"expected 1 to {len(nouns)} {split} pairs of a kind, got {n}")
    random = np.random.default_rng([zlib.crc32(f"{kind} {split}".encode()), seed])
    drawn = []
    for i, head in enumerate(random.choice(nouns, size=n, replace=False)):
        related = lexicon.siblings(str(head), 5)
        far = [name for name in lexicon.siblings(str(head)) if lexicon.shared(head, name) <= 1]
        pool = related if i % 2 == 0 else far
        target = pool[random.integers(len(pool))]
        trigger, wanted = _phrases(kind, str(head), target, lexicon, random)
        drawn.append(Rebinding(trigger, wanted, kind, head=str(head), target_head=target))
    return drawn
