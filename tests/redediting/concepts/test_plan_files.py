"""Plans as YAML: round trip, hand edits, and what is wrong with the others."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from redediting.concepts.matching import Equivalence
from redediting.concepts.pairs import PromptPair, RetainPrompt
from redediting.concepts.plan import EditPlan, plan_edit
from redediting.concepts.plan_files import load_plan, plan_from_yaml, plan_to_yaml
from redediting.concepts.rebinding import Rebinding
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
        ("pears", [], "only known keys in 'plan', got 'pears'"),
        ("pairs.0.wait", 2, r"only known keys in 'plan', got 'pairs\.0\.wait'"),
        ("rebindings.0.aim", "x", r"got 'rebindings\.0\.aim'"),
        ("captions", None, "expected the key 'captions' in 'plan', got none"),
        ("pairs.0.source", None, r"expected the key 'pairs\.0\.source'"),
        ("pairs.0.weight", "much", r"valid 'pairs\.0\.weight' in 'plan', got 'much'"),
        ("pairs.0.weight", True, r"valid 'pairs\.0\.weight' in 'plan', got True"),
        ("pairs.0.weight", -1, r"weight >= 0 at 'pairs\.0', got -1|weight >= 0"),
        ("pairs.0.weight", float("nan"), "weight"),
        ("captions.0", 7, r"valid 'captions\.0' in 'plan', got 7"),
        ("captions", "a dog", "valid 'captions' in 'plan', got 'a dog'"),
        ("retain.0.role", "tail", r"valid 'retain\.0\.role' in 'plan', got 'tail'"),
        ("rebindings.0.kind", "odd", r"valid 'rebindings\.0\.kind' in 'plan', got 'odd'"),
        ("retain", [], "at least one of 'retain' in 'plan', got none"),
        ("pairs", [], "at least one of 'pairs'"),
        ("rebindings.0.trigger", "nice dog", "weight with 'nice dog' in 'plan', got none"),
        ("pairs.0.weight", 0, "a pair of positive weight with 'nice cat'"),
        ("pairs.0.source_phrase", "nice dog", r"source_phrase of 'pairs\.0'.*'nice dog'"),
        ("pairs.0.target_phrase", "zeb", r"target_phrase of 'pairs\.0'.*whole words.*'zeb'"),
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
    with pytest.raises(ConfigError, match="valid 'top level' in 'plan', got"):
        plan_from_yaml("just a text")
    with pytest.raises(ConfigError, match="redediting inspect --write"):
        load_plan(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="can be read"):
        load_plan(tmp_path / "bytes.yaml")
    with pytest.raises(RebindingError, match="other than the trigger"):
        plan_from_yaml(changed("rebindings.0.target", "nice cat"))
