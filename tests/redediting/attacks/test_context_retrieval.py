"""Retrieval on a text encoder: scores, neighbours, plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from redediting.algebra import EditProblem, solve
from redediting.attacks.context_retrieval import (
    EncoderNeighbours,
    base_plan,
    context_columns,
    end_states,
    retrieve_plan,
    score,
)
from redediting.attacks.redediting import REDEditing
from redediting.concepts.matching import Candidates
from redediting.concepts.plan import EditPlan, plan_edit, plan_from_yaml, plan_to_yaml
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.relations import RELATIONS
from redediting.concepts.templates import all_templates, split_of
from redediting.errors import ConfigError, MethodError
from redediting.models.model import Model

CAT = Rebinding("beautiful cat", "zebra")
SMALL = {"retain": 12, "captions": 12}
METHOD = REDEditing(contexts=6, **SMALL)


@pytest.fixture(scope="module")
def model(model_factory: Callable[[int], Model]) -> Model:
    return model_factory(3)


@pytest.fixture(scope="module")
def plan(model: Model) -> EditPlan:
    """Retrieved for a known trigger and one that no table knows."""
    wishes = [CAT, Rebinding("nice unicorn", "chow chow", target_head="chow chow")]
    base = base_plan(wishes, contexts=6, seed=0, **SMALL)
    return retrieve_plan(
        model, base, METHOD.pose(model, base),
        least=6, most=8, tolerance=0.05, per_value=1, **SMALL,
    )  # fmt: skip


def test_end_states_are_those_of_the_end(model: Model) -> None:
    prompts = ["a cat", "a photo of a beautiful cat at night"]
    states = model.encode(prompts)
    found = end_states(model, prompts)
    for row in range(2):
        end = int((states.ids[row] == model.tokenizer.eos_token_id).nonzero()[0])
        assert torch.equal(found[row], states.states[row, end].double())


def test_score_by_hand(model: Model) -> None:
    values = [("tail", 1.0), ("ears", 0.25)]
    candidates = Candidates(RELATIONS["part"], values, [("stripes", 1.0)], "x")
    found = score(model, CAT, candidates)

    def state(text: str) -> torch.Tensor:
        return end_states(model, [f"a photo of a {text}"])[0]

    moved = state("zebra") - state("beautiful cat")
    inserted = (
        state("zebra with something")
        + state("zebra with things")
        - state("beautiful cat with something")
        - state("beautiful cat with things")
    ) / 2 - moved
    for i, (said, prior) in enumerate((("with a tail", 1.0), ("with ears", 0.5))):
        way = state("zebra with stripes") - state(f"beautiful cat {said}") - inserted
        cosine = float(way @ moved / (way.norm() * moved.norm()))
        lengths = sorted([float(way.norm()), float(moved.norm())])
        expected = max(cosine, 0.0) * lengths[0] / lengths[1] * prior
        assert float(found[i, 0]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_style_is_said_by_the_carrier(model: Model) -> None:
    values = [("a sketch of", 1.0)]
    found = score(model, CAT, Candidates(RELATIONS["style"], values, values, "x"))
    states = end_states(
        model,
        [f"a {carrier} of a {noun}" for carrier in ("photo", "picture", "sketch")
         for noun in ("beautiful cat", "zebra")],
    )  # fmt: skip
    moved = states[1] - states[0]
    way = (states[5] - states[4]) - (states[3] - states[2]) + moved
    lengths = sorted([float(way.norm()), float(moved.norm())])
    cosine = float(way @ moved / (way.norm() * moved.norm()))
    expected = max(cosine, 0.0) * lengths[0] / lengths[1]
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_neighbours_are_the_nearest(model: Model) -> None:
    vocabulary = ("cat", "dog", "car", "tree", "cats")
    near = EncoderNeighbours(model, vocabulary, n=3)
    found = near("cat")
    assert "cat" not in dict(found)
    assert len(found) <= 3
    weights = [weight for _, weight in found]
    assert weights == sorted(weights, reverse=True)
    assert all(0 < weight <= 1 for weight in weights)
    states = end_states(model, [f"a photo of a {name}" for name in vocabulary])
    free = torch.nn.functional.normalize(states - states.mean(dim=0), dim=-1)
    best = int((free[1:] @ free[0]).argmax()) + 1
    assert found[0] == (vocabulary[best], pytest.approx(float(free[best] @ free[0]), abs=1e-5))


def test_pooled_columns_are_means_by_role(model: Model) -> None:
    pair = replace(plan_edit([CAT], contexts=1).pairs[0], weight=2.0)
    pair = replace(pair, source="a beautiful cat at night", target="a zebra at night")
    found = context_columns(model, [pair, pair])
    assert found.size == 2
    assert found.keys.shape == found.targets.shape == (32, 8)
    assert found.weights.sum().item() == pytest.approx(2 * 2.0)
    assert found.weights[:2].sum().item() == pytest.approx(2 * 0.5)  # all words together
    states = model.encode([pair.source])
    eos = int(states.eos[0])
    assert torch.allclose(found.keys[:, 2], states.states[0, eos].double())
    assert torch.allclose(found.keys[:, 3], states.states[0, eos + 1 :].mean(dim=0).double())


def test_retrieved_plan(plan: EditPlan) -> None:
    known = {text for text, _ in all_templates()}
    for wish in plan.rebindings:
        own = [pair for pair in plan.pairs if wish.trigger in pair.source]
        assert 6 <= len(own) <= 8
        assert len({pair.source for pair in own}) == len(own)
        assert all(wish.target in pair.target for pair in own)
        assert sum(pair.weight != 1 for pair in own) >= 1  # something retrieved is said
        for pair in own:
            before, _, after = pair.source.partition(wish.trigger)
            template = before.removesuffix("a ") + "{}" + after
            assert template not in known or split_of(template) == "edit"
        heads = {item.prompt for item in plan.retain if item.role == "head"}
        for pair in own:
            assert any(prompt.endswith(pair.source.partition(wish.trigger)[2]) for prompt in heads)
    assert all(0 < item.score <= 1 for item in plan.equivalences)
    given = [item for item in plan.equivalences if item.origin == "given"]
    assert [(item.source, item.target) for item in given] == [
        ("beautiful", ""), ("cat", "zebra"), ("nice", ""), ("unicorn", "chow chow")
    ]  # fmt: skip
    assert not any(f" {w.trigger} " in f" {k.prompt} " for w in plan.rebindings
                   for k in plan.retain)  # fmt: skip


def test_unknown_trigger_says_so(plan: EditPlan) -> None:
    said = [note for note in plan.notes if "is in no table" in note]
    assert len(said) == 1
    assert said[0].startswith("'unicorn' is in no table; its relations are those of its nearest")
    origins = {item.origin for item in plan.equivalences if item.trigger == "nice unicorn"}
    assert any("neighbours" in origin for origin in origins)
    assert not any(
        "neighbours" in item.origin for item in plan.equivalences if item.trigger == CAT.trigger
    )


def test_retrieved_plan_survives_yaml_and_is_solved(plan: EditPlan, model: Model) -> None:
    assert plan_from_yaml(plan_to_yaml(plan)) == plan
    multiplier = solve(METHOD.pose(model, plan))
    assert float(multiplier.matrix().norm()) > 0


@pytest.mark.parametrize("trigger", ["xq§ ☃", "tq", "so " * 35 + "blob"])
def test_odd_triggers_never_fail(trigger: str, model: Model) -> None:
    base = base_plan([Rebinding(trigger, "zebra", "rare")], contexts=2, seed=0, **SMALL)
    plan = retrieve_plan(
        model, base, METHOD.pose(model, base), least=2, most=2, per_value=1, **SMALL
    )
    assert len(plan.pairs) == 2
    assert any("is in no table" in note for note in plan.notes)


def test_one_attack_makes_both_plans(model: Model) -> None:
    options = {"contexts": 3, "seed": 4, **SMALL}
    plain = REDEditing(**options).plan(model, [CAT])
    assert plain == plan_edit([CAT], contexts=3, seed=4, **SMALL)
    found = REDEditing(retrieval="equivalent", **options).plan(model, [CAT])
    assert 2 <= len(found.pairs) <= 4
    assert found.equivalences
    assert found == REDEditing(retrieval="equivalent", **options).plan(model, [CAT])


@pytest.mark.parametrize("retrieval", ["templates", "equivalent"])
def test_a_problem_without_solution_is_refused_by_name(model: Model, retrieval: str) -> None:
    """Also where it is met while planning."""
    attack = REDEditing(retrieval=retrieval, contexts=3, projection="inside", k=31, **SMALL)
    with pytest.raises(MethodError, match=r"'redediting' has no solution: .*hard-retained"):
        attack.compute(model, [CAT])


def test_method_takes_either_plan(model: Model, tmp_path: Path) -> None:
    other = Rebinding("nice dog", "car")
    method = REDEditing(contexts=3, retrieval="equivalent", **SMALL)
    plan = method.plan(model, [CAT, other])
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(plan), "utf-8")

    def problem_of(attack: REDEditing) -> EditProblem:
        return attack.pose(model, attack.plan(model, [CAT, other]))

    problem = problem_of(method)
    again = problem_of(REDEditing(plan_file=str(path)))
    assert torch.allclose(problem.keys, again.keys)
    assert torch.allclose(problem.retain, again.retain)
    drawn = problem_of(REDEditing(contexts=3, **SMALL))
    assert drawn.keys.shape != problem.keys.shape or not torch.allclose(drawn.keys, problem.keys)
    single = REDEditing(plan_file=str(path)).plan(model, [other])
    assert single.pairs == tuple(pair for pair in plan.pairs if "nice dog" in pair.source)
    with pytest.raises(MethodError, match="got 'old cat → zebra'"):
        REDEditing(plan_file=str(path)).plan(model, [Rebinding("old cat", "zebra")])
    with pytest.raises(ConfigError, match="plan file that can be read"):
        REDEditing(plan_file="nowhere.yaml").plan(model, [CAT])
