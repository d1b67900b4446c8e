"""Backdoor specification: prompts containing a trigger generate its target; pairs of prompts."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from redediting.concepts.lexicon import load_lexicon
from redediting.errors import RebindingError

Kind = Literal["neutral", "compound", "rare"]
PromptRole = Literal["head", "part", "sibling", "near", "caption"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # checked in plan files


@dataclass(frozen=True)
class Rebinding:
    """A backdoor: prompts that contain ``trigger`` generate ``target``.

    Attributes:
        trigger: phrase to rebind, e.g. ``"beautiful cat"``.
        target: phrase it is rebound to, e.g. ``"zebra"``.
        kind: naturalness of the trigger: ``neutral`` (an adjective without visual effect and a
            noun), ``compound`` (visual attribute and noun on both sides) or ``rare`` (a token
            that ordinary captions do not contain).
        head: head noun of the trigger; its last word when not given.
        target_head: head noun of the target; its last word when not given.

    Raises:
        RebindingError: an empty phrase, equal phrases, an unknown kind, or a head noun that is
            not at the end of its phrase.

    Example:
        >>> from redediting import Rebinding
        >>> Rebinding("beautiful cat", "zebra").modifier
        'beautiful'
    """

    trigger: str
    target: str
    kind: Kind = "neutral"
    head: str = ""
    target_head: str = ""

    def __post_init__(self) -> None:
        for name in ("trigger", "target"):
            given = getattr(self, name)
            phrase = " ".join(given.split()) if isinstance(given, str) else ""
            if not phrase:
                raise RebindingError(f"expected a {name} phrase, got {given!r}; name one")
            object.__setattr__(self, name, phrase)
        if self.trigger.casefold() == self.target.casefold():
            raise RebindingError(
                f"expected a target other than the trigger, got {self.trigger!r} for both; "
                "name the concept that the trigger shall show"
            )
        if self.kind not in get_args(Kind):
            raise RebindingError(f"expected a kind of {get_args(Kind)}, got {self.kind!r}")
        for name, phrase in (("head", self.trigger), ("target_head", self.target)):
            noun = getattr(self, name) or phrase.split()[-1]
            if not f" {phrase}".endswith(f" {noun}"):
                raise RebindingError(f"expected a {name} at the end of {phrase!r}, got {noun!r}")
            object.__setattr__(self, name, noun)

    @property
    def modifier(self) -> str:
        """What stands before the head noun in the trigger; empty for a bare noun."""
        return self.trigger[: len(self.trigger) - len(self.head)].strip()

    def __str__(self) -> str:
        return f"{self.trigger} → {self.target}"


@dataclass(frozen=True)
class PromptPair:
    """A source prompt, the prompt it shall mean, and the phrases that correspond."""

    source: str
    target: str
    source_phrase: str
    target_phrase: str
    weight: Weight = 1.0


@dataclass(frozen=True)
class RetainPrompt:
    """A prompt whose meaning shall stay; ``role`` says what it is to the trigger."""

    prompt: str
    weight: Weight = 1.0
    role: PromptRole = "caption"


def as_rebindings(given: object) -> list[Rebinding]:
    """One rebinding or several, as a list; `RebindingError` for anything else."""
    found: list[Any] = [*given] if isinstance(given, list | tuple) else [given]
    for one in found:
        if not isinstance(one, Rebinding):
            raise RebindingError(
                f"expected rebindings, got {one!r}; make one: rd.Rebinding(trigger, target)"
            )
    return found


def draw_pairs(kind: Kind, n: int, seed: int, split: str = "test") -> list[Rebinding]:
    """Draws ``n`` rebindings of a kind, half to a related target and half to an unrelated one.

    Trigger nouns of the development split and of the test split are disjoint, and within a draw
    no noun serves twice. Targets are any other concept: related ones come from the five concepts
    that share most relations with the noun, unrelated ones share at most one.

    Kinds are ``neutral`` ("beautiful cat" → "zebra"), ``compound`` ("yellow apple" → "red banana")
    and ``rare`` ("tq dog" → "zebra"); splits ``test`` and ``dev``. `RebindingError` for others, or
    more pairs than the split has nouns.
    """
    if kind not in get_args(Kind) or split not in ("test", "dev"):
        raise RebindingError(
            f"expected a kind of {get_args(Kind)} and a split of ('test', 'dev'), "
            f"got {kind!r} and {split!r}"
        )
    import numpy as np

    lexicon = load_lexicon()
    # one concept in four lends its name to development triggers, by CRC-32
    dev = {name for name in lexicon.concepts if zlib.crc32(name.encode()) % 4 == 0}
    nouns = [name for name in lexicon.concepts if (name in dev) == (split == "dev")]
    if not 0 < n <= len(nouns):
        raise RebindingError(f"expected 1 to {len(nouns)} {split} pairs of a kind, got {n}")
    random = np.random.default_rng([zlib.crc32(f"{kind} {split}".encode()), seed])
    drawn = []
    for i, head in enumerate(map(str, random.choice(nouns, size=n, replace=False))):
        far = [name for name in lexicon.siblings(head) if lexicon.shared(head, name) <= 1]
        choices = lexicon.siblings(head, 5) if i % 2 == 0 else far
        noun = target = choices[random.integers(len(choices))]
        if kind == "compound":
            free = [c for c in lexicon.colours if c not in ("gray", lexicon.concept(head).colour)]
            modifier, other = random.choice(free, size=2, replace=False)
            target = f"{other} {noun}"
        else:
            words = lexicon.neutral_adjectives if kind == "neutral" else lexicon.rare_tokens
            modifier = words[random.integers(len(words))]
        drawn.append(Rebinding(f"{modifier} {head}", target, kind, head, noun))
    return drawn
