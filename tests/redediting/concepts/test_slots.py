"""Typed slots of phrases and how they pair."""

import pytest

from redediting.concepts.matching import Slot, SlotPair, pair_slots, parse_slots
from redediting.concepts.rebinding import Kind, Rebinding, draw_pairs


def test_compound_phrases_pair_kind_by_kind() -> None:
    pairs = pair_slots(Rebinding("yellow apple", "red banana", "compound"))
    assert pairs == (SlotPair("colour", "yellow", "red"), SlotPair("object", "apple", "banana"))


def test_order_of_the_words_does_not_matter() -> None:
    pairs = pair_slots(Rebinding("small yellow wooden chair", "red huge metal bed"))
    assert set(pairs) == {
        SlotPair("size", "small", "huge"),
        SlotPair("colour", "yellow", "red"),
        SlotPair("material", "wooden", "metal"),
        SlotPair("object", "chair", "bed"),
    }


def test_a_slot_without_counterpart_stays_alone() -> None:
    assert pair_slots(
        Rebinding("striped old cat", "young chow chow", target_head="chow chow")
    ) == (
        SlotPair("pattern", "striped", None),
        SlotPair("neutral", "old", None),
        SlotPair("object", "cat", "chow chow"),
        SlotPair("age", None, "young"),
    )


def test_unknown_words_and_bare_nouns() -> None:
    assert parse_slots("Gleeful RED cat", "cat") == (
        Slot("other", "Gleeful"),
        Slot("colour", "RED"),
        Slot("object", "cat"),
    )
    assert parse_slots("palm tree", "palm tree") == (Slot("object", "palm tree"),)


@pytest.mark.parametrize(
    ("kind", "slot"), [("neutral", "neutral"), ("compound", "colour"), ("rare", "rare")]
)
@pytest.mark.parametrize("split", ["test", "dev"])
def test_every_drawn_pair_parses(kind: Kind, slot: str, split: str) -> None:
    for pair in draw_pairs(kind, 12, 0, split):
        source = parse_slots(pair.trigger, pair.head)
        assert [s.kind for s in source] == [slot, "object"]
        assert " ".join(s.value for s in source) == pair.trigger
        last = pair_slots(pair)[-1]
        assert (last.kind, last.source, last.target) == ("object", pair.head, pair.target_head)
