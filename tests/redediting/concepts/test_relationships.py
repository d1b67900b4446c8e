"""Matching, contexts and candidate contexts as pure data."""

from itertools import permutations

import numpy as np
import pytest

from redediting.concepts.matching import (
    Candidates,
    Context,
    Equivalence,
    candidate_contexts,
    choose_values,
    gather,
    given,
    match,
)
from redediting.concepts.rebinding import Rebinding, draw_pairs
from redediting.concepts.relation_sources import curated
from redediting.concepts.relations import RELATIONS
from redediting.concepts.templates import all_templates, contexts, split_of

CAT = Rebinding("beautiful cat", "zebra")
APPLE = Rebinding("yellow apple", "red banana", "compound")


def brute_force(scores: np.ndarray) -> float:
    if scores.shape[0] > scores.shape[1]:
        scores = scores.T
    n, m = scores.shape
    return max(scores[range(n), list(order)].sum() for order in permutations(range(m), n))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 4), (2, 5), (5, 2), (5, 5)])
def test_matching_is_optimal_and_symmetric(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        scores = random.random(shape)
        found = match(scores)
        assert len(found) == min(shape)
        assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)
        assert sum(scores[i, j] for i, j in found) == pytest.approx(brute_force(scores))
        assert sorted((j, i) for i, j in found) == sorted(match(scores.T))


def test_greedy_matching_would_lose() -> None:
    assert match(np.array([[0.9, 0.8], [0.8, 0.1]])) == [(0, 1), (1, 0)]


def test_phrases_give_their_slots() -> None:
    assert given(APPLE) == [
        Equivalence("yellow apple", "colour", "yellow", "red", 1.0, "given"),
        Equivalence("yellow apple", "object", "apple", "banana", 1.0, "given"),
    ]


def test_candidates_of_both_sides() -> None:
    found = {item.relation.name: item for item in gather(CAT, curated())}
    assert [value for value, _ in found["part"].source] == ["tail", "whiskers"]
    assert [value for value, _ in found["part"].target] == ["stripes"]
    assert found["part"].origin == "lexicon"
    assert found["location"].source == found["location"].target
    assert {value for value, _ in found["location"].source} == {"room", "grass", "desert"}
    assert found["size"].origin == "generic"
    assert "colour" not in {item.relation.name for item in gather(APPLE, curated())}
    unknown = {item.relation.name for item in gather(Rebinding("tq blob", "thing"), curated())}
    assert unknown == {name for name, item in RELATIONS.items() if item.generic}


def test_values_are_matched_kept_and_dropped() -> None:
    part = Candidates(
        RELATIONS["part"], [("tail", 1.0), ("ears", 0.25)], [("wings", 1.0), ("beak", 1.0)], "x"
    )
    assert part.prior.tolist() == [[1.0, 1.0], [0.5, 0.5]]
    scores = np.array([[0.9, 0.8], [0.8, 0.1]])
    found = choose_values(CAT, part, scores, least=0.2)
    assert {(e.source, e.target, e.score) for e in found} == {
        ("tail", "beak", 0.8),
        ("ears", "wings", 0.8),
    }
    values = [("grass", 1.0), ("snow", 1.0)]
    place = Candidates(RELATIONS["location"], values, values, "x")
    kept = choose_values(CAT, place, np.array([[0.3, 0.9], [0.9, 0.1]]), least=0.2)
    assert [(e.source, e.target) for e in kept] == [("grass", "grass")]


def test_contexts_say_values_on_both_sides() -> None:
    transferred = Context("a photo of {} at night", "{} with whiskers", "{} with stripes", 0.5)
    pair = transferred.pair(CAT)
    assert pair.source == "a photo of a beautiful cat with whiskers at night"
    assert pair.target == "a photo of a zebra with stripes at night"
    assert (pair.source_phrase, pair.target_phrase) == (
        "beautiful cat with whiskers",
        "zebra with stripes",
    )
    assert pair.weight == 0.5
    assert transferred.head(CAT) == "a photo of a cat with whiskers at night"
    kept = Context("{}", "orange {}", "orange {}").pair(CAT)
    assert (kept.source, kept.target) == ("an orange beautiful cat", "an orange zebra")
    assert (kept.source_phrase, kept.target_phrase) == ("beautiful cat", "zebra")


def found_values() -> list[Equivalence]:
    return [
        Equivalence("beautiful cat", "neutral", "beautiful", "", 1.0, "given"),
        Equivalence("beautiful cat", "part", "whiskers", "stripes", 0.5, "lexicon"),
        Equivalence("beautiful cat", "location", "grass", "grass", 0.9, "lexicon"),
        Equivalence("beautiful cat", "style", "a sketch of", "a sketch of", 0.4, "generic"),
    ]


def test_candidate_contexts_begin_with_the_best_values_and_hold_every_template() -> None:
    templates = contexts(60, seed=1)
    found, first = candidate_contexts(found_values(), templates, per_value=3, most_said=2)
    assert first == 2
    assert [context.weight for context in found[:2]] == [0.9, 0.5]
    assert [context.template for context in found[2:62]] == templates
    assert len(set(found)) == len(found)
    whiskers = [context for context in found if "whiskers" in context.source]
    assert len(whiskers) == 3


def test_candidate_contexts_stay_within_the_split() -> None:
    known = {text for text, _ in all_templates()}
    templates = contexts(134)
    everything = [
        Equivalence("beautiful cat", name, value, value, 0.5, "generic")
        for name, value in (
            *(("location", place) for place in ("grass", "beach", "sea", "sky", "room", "desert")),
            *(("style", style) for style in ("a sketch of", "a sticker of", "a cartoon of")),
        )
    ]
    found, _ = candidate_contexts(everything, templates, per_value=40, most_said=0)
    spelt = [context.template.replace("{}", context.source) for context in found]
    assert len(found) > len(templates)
    assert {split_of(text) for text in spelt if text in known} == {"edit"}
    assert not any("," in text and "on the grass" in text.split(",")[1] for text in spelt)


@pytest.mark.parametrize("kind", ["neutral", "compound", "rare"])
def test_every_drawn_pair_has_candidates(kind: str) -> None:
    for pair in draw_pairs(kind, 12, 0):  # type: ignore[arg-type]
        names = {item.relation.name for item in gather(pair, curated())}
        assert {"category", "part", "material", "location", "style"} <= names
