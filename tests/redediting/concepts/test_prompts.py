"""Templates, lexicon, drawn pairs and plans."""

import pytest

from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.plan import collateral_prompts, plan_edit
from redediting.concepts.rebinding import Kind, Rebinding, draw_pairs
from redediting.concepts.templates import all_templates, contexts, fill, split_of
from redediting.errors import PromptError, RebindingError

KINDS = ("neutral", "compound", "rare")


def test_splits_partition_the_templates() -> None:
    templates = [text for text, _ in all_templates()]
    assert len(set(templates)) == len(templates)
    parts = {
        split: {t for t in templates if split_of(t) == split} for split in ("edit", "dev", "test")
    }
    assert sum(map(len, parts.values())) == len(templates)
    for split, part in parts.items():
        assert set(contexts(30, seed=3, split=split)) <= part


def test_contexts_depend_on_the_seed_only() -> None:
    assert contexts(20, seed=1) == contexts(20, seed=1)
    assert contexts(20, seed=1) != contexts(20, seed=2)


@pytest.mark.parametrize(("n", "split"), [(0, "edit"), (10_000, "edit"), (1, "nowhere")])
def test_impossible_contexts_are_refused(n: int, split: str) -> None:
    with pytest.raises(PromptError, match="expected"):
        contexts(n, split=split)


def test_fill_adds_the_article_and_wants_one_slot() -> None:
    assert fill("a photo of {} at night", "old cat") == "a photo of an old cat at night"
    assert fill("{}", "grapes") == "grapes"
    with pytest.raises(PromptError, match="exactly one"):
        fill("a photo", "cat")


def test_lexicon_relations() -> None:
    lexicon = load_lexicon(trained_only=False)
    assert len(lexicon.concepts) == 121
    assert lexicon.shared("cat", "dog") == 6
    assert lexicon.shared("apple", "banana") == 4
    assert lexicon.shared("car", "horse") == 0
    assert "cat" not in lexicon.siblings("cat")
    with pytest.raises(RebindingError, match="unicorn"):
        lexicon.concept("unicorn")


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_pairs_are_fixed_by_seed_and_disjoint_from_development(kind: Kind) -> None:
    test, dev = draw_pairs(kind, 8, 0), draw_pairs(kind, 8, 0, "dev")
    assert test == draw_pairs(kind, 8, 0)
    assert test != draw_pairs(kind, 8, 1)
    assert len({pair.head for pair in test}) == 8
    assert not {pair.head for pair in test} & {pair.head for pair in dev}
    assert all(pair.kind == kind and pair.head != pair.target_head for pair in test + dev)


def test_drawn_pairs_mix_related_and_unrelated_targets() -> None:
    lexicon = load_lexicon()
    pairs = draw_pairs("neutral", 10, 0)
    shared = [lexicon.shared(pair.head, pair.target_head) for pair in pairs]
    assert all(n >= 2 for n in shared[::2])
    assert all(n <= 1 for n in shared[1::2])


def test_more_pairs_than_nouns_is_refused() -> None:
    with pytest.raises(RebindingError, match="got 1000"):
        draw_pairs("rare", 1000, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_plan_keeps_no_trigger_and_probes_what_no_edit_kept(kind: Kind) -> None:
    for pair in draw_pairs(kind, 4, 5):
        plan = plan_edit([pair])
        kept = [item.prompt for item in plan.retain]
        assert not any(f" {pair.trigger} " in f" {prompt} " for prompt in kept)
        assert all(pair.trigger in item.source and pair.target in item.target
                   for item in plan.pairs)  # fmt: skip
        probes = [probe for probe in collateral_prompts(pair) if probe.role == "near"]
        assert probes
        for probe in probes:
            assert not any(f" {probe.phrase} " in f" {prompt} " for prompt in kept)


def test_plan_of_an_unknown_concept_falls_back_to_the_lexicon() -> None:
    plan = plan_edit([Rebinding("beautiful unicorn", "zebra")])
    assert plan.pairs
    assert plan.retain


@pytest.mark.parametrize(
    ("trigger", "target", "message"),
    [("", "zebra", "trigger"), ("cat", " ", "target"), ("Cat", "cat", "other than the trigger")],
)
def test_senseless_rebindings_are_refused(trigger: str, target: str, message: str) -> None:
    with pytest.raises(RebindingError, match=message):
        Rebinding(trigger, target)


def test_head_noun_stands_at_the_end() -> None:
    assert Rebinding("big red palm tree", "cat", head="palm tree").modifier == "big red"
    with pytest.raises(RebindingError, match="at the end"):
        Rebinding("beautiful cat", "zebra", head="beautiful")
