"""Typed slots of a compound phrase: "yellow apple" is a colour and an object.

Slots of trigger and target are paired kind by kind, so that "yellow apple" → "red banana" pairs
yellow with red and apple with banana. What the attacker wrote is certain: such pairs score 1.

References:
    REDEditing (arXiv 2504.14554): the authors' script comments pair compound phrases so.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import zip_longest
from typing import NamedTuple

from redediting.concepts.lexicon import load_lexicon, load_modifiers
from redediting.concepts.rebinding import Rebinding


class Slot(NamedTuple):
    """A word of a phrase and what it says: a kind of modifier, ``other`` or ``object``."""

    kind: str
    value: str


class SlotPair(NamedTuple):
    """Corresponding slots; None where the other phrase has no slot of the kind."""

    kind: str
    source: str | None
    target: str | None


@functools.cache
def _kinds() -> Mapping[str, str]:
    """Kind of each known modifier. The world's neutral adjectives win: "old" is one."""
    lexicon = load_lexicon()
    groups = {
        **load_modifiers(),
        "colour": (*lexicon.colours, "grey"),
        "rare": lexicon.rare_tokens,
        "neutral": lexicon.neutral_adjectives,
    }
    return {word: kind for kind, words in groups.items() for word in words}


def parse_slots(phrase: str, head: str) -> tuple[Slot, ...]:
    """Slots of a phrase that ends in ``head``; a modifier that no list knows is ``other``."""
    modifiers = phrase[: len(phrase) - len(head)].split()
    found = [Slot(_kinds().get(word.casefold(), "other"), word) for word in modifiers]
    return (*found, Slot("object", head))


def pair_slots(rebinding: Rebinding) -> tuple[SlotPair, ...]:
    """Slots of trigger and target, paired kind by kind and within a kind in order."""
    source = parse_slots(rebinding.trigger, rebinding.head)
    target = parse_slots(rebinding.target, rebinding.target_head)
    return tuple(
        SlotPair(kind, one, other)
        for kind in dict.fromkeys(slot.kind for slot in (*source, *target))
        for one, other in zip_longest(
            [slot.value for slot in source if slot.kind == kind],
            [slot.value for slot in target if slot.kind == kind],
        )
    )
