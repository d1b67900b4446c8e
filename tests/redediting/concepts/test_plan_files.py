"""Plans as YAML: round trip, hand edits, and what is wrong with the others."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from redediting.concepts.matching import Equivalence
from redediting.concepts.plan import EditPlan, load_plan, plan_edit, plan_from_yaml, plan_to_yaml
from redediting.concepts.rebinding import PromptPair, Rebinding, RetainPrompt
from redediting.errors import ConfigError, RebindingError

PLAN = EditPlan(
    (
        Rebinding("yellow apple", "red banana", "compound"),
        Rebinding("on dog", "chow chow", "rare", target_head="chow chow"),
    ),
    (
        PromptPair("a yellow apple", "a red banana", "yellow apple", "red banana"),
        PromptPair("an on dog – “x”: y", "a chow chow – “x”: y", "on dog", "chow chow", 0.25),
    ),
    (RetainPrompt("an apple", 2.0, "head"), RetainPrompt("no"), RetainPrompt("1984")),
    ("a cat", "yes", "12:30"),
    (Equivalence("yellow apple", "colour", "yellow", "red", 1.0, "given"),),
    ("'blob' is in no table",),
)
LEAST = """
rebindings: [{trigger: nice cat, target: zebra}]
pairs: [{source: a nice cat, target: a zebra, source_phrase: nice cat, target_phrase: zebra}]
retain: [{prompt: a cat, role: head}]
captions: [a dog]
"""


def test_round_trip() -> None:
    assert plan_from_yaml(plan_to_yaml(PLAN)) == PLAN


def test_round_trip_of_a_whole_plan_through_a_file(tmp_path: Path) -> None:
    plan = plan_edit([Rebinding("beautiful cat", "zebra")])
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), "utf-8")
    assert load_plan(tmp_path / "plan.yaml") == plan


def test_defaults_need_not_be_written() -> None:
    plan = plan_from_yaml(LEAST)
    assert plan.rebindings == (Rebinding("nice cat", "zebra"),)
    assert plan.pairs[0].weight == 1.0
    assert plan.equivalences == plan.notes == ()
    assert "weight" not in plan_to_yaml(plan).partition("rebindings:")[2]
    edited = plan_from_yaml(
        LEAST.replace("target_phrase: zebra", "target_phrase: zebra, weight: 3")
    )
    assert edited.pairs[0].weight == 3.0


def changed(path: str, value: object) -> str:
    """``LEAST`` with one value set, or deleted where it is None."""
    data = yaml.safe_load(LEAST)
    *places, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = data
    for place in places:
        inner = inner[place]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return yaml.safe_dump(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("pears", [], "plan: expected known keys only, got 'pears'; its keys are rebindings"),
        ("pairs.0.wait", 2, r"plan: expected known keys only, got 'pairs\.0\.wait'"),
        ("rebindings.0.aim", "x", r"known keys only, got 'rebindings\.0\.aim'"),
        ("captions", None, "plan: expected the key 'captions', got none"),
        ("pairs.0.source", None, r"expected the key 'pairs\.0\.source'"),
        ("pairs.0.weight", "much", r"plan: .* valid number at 'pairs\.0\.weight', got 'much'"),
        ("pairs.0.weight", True, r"valid number at 'pairs\.0\.weight', got True"),
        ("pairs.0.weight", -1, r"greater than or equal to 0 at 'pairs\.0\.weight', got -1"),
        ("pairs.0.weight", float("nan"), r"finite number at 'pairs\.0\.weight', got nan"),
        ("retain.0.weight", -2.0, r"greater than or equal to 0 at 'retain\.0\.weight', got -2"),
        ("captions.0", 7, r"valid string at 'captions\.0', got 7"),
        ("captions", "a dog", "valid array at 'captions', got 'a dog'"),
        ("retain.0.role", "tail", r"'head', .* at 'retain\.0\.role', got 'tail'"),
        ("rebindings.0.kind", "odd", r"'neutral', .* at 'rebindings\.0\.kind', got 'odd'"),
        ("retain", [], "at least 1 item.* at 'retain'"),
        ("pairs", [], "at least 1 item.* at 'pairs'"),
        ("rebindings.0.trigger", "nice dog", "plan: .*weight with 'nice dog', got none"),
        ("pairs.0.weight", 0, "a pair of positive weight with 'nice cat'"),
        (
            "pairs.0.source_phrase",
            "nice dog",
            r"source_phrase as .* at 'pairs\.0', got 'nice dog'",
        ),
        (
            "pairs.0.target_phrase",
            "zeb",
            r"target_phrase as whole words .* at 'pairs\.0', got 'zeb'",
        ),
        ("pairs.0.target_phrase", " ", "target_phrase"),
        (
            "captions.0",
            date(2020, 1, 2),
            "put dates and the like in quotes",
        ),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_from_yaml(changed(path, value))


def test_no_plan_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected YAML in 'plan'"):
        plan_from_yaml("pairs: [")
    with pytest.raises(
        ConfigError, match="plan: Input should be an object at 'the top', got 'just a text'"
    ):
        plan_from_yaml("just a text")
    with pytest.raises(ConfigError, match="redediting inspect --write"):
        load_plan(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="can be read"):
        load_plan(tmp_path / "bytes.yaml")
    with pytest.raises(RebindingError, match="other than the trigger"):
        plan_from_yaml(changed("rebindings.0.target", "nice cat"))
