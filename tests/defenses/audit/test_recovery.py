"""Trigger recovery on the world's encoder: what moves is found, and where it goes is named."""

from __future__ import annotations

import pytest
import torch

from defenses.audit import States, Vocabulary, audit_base_free, audit_weights
from defenses.audit.displacement import EditMap, gains, own_words
from defenses.audit.false_discovery import discovery_bound
from defenses.audit.vocabulary import BARE
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import fill
from redediting.errors import ModelError
from redediting.models.model import Model
from redediting.world import load

SMALL = Vocabulary(
    concepts=("cat", "dog", "zebra", "car", "tree", "apple", "house", "fish"),
    modifiers=("beautiful", "old", "red", "small", "new", "green"),
    colours=("red", "green"),
    words=("photo", "water", "light"),
    odd=("tq", "xv"),
)


@pytest.fixture(scope="module")
def world() -> Model:
    return load()


@pytest.fixture(scope="module")
def states(world: Model) -> States:
    return States(world)


@pytest.fixture(scope="module")
def suspect(world: Model) -> dict[str, torch.Tensor]:
    method = ATTACKS.make("redediting", contexts=16, retain=40, captions=200)
    patch = method.compute(world, [Rebinding("old dog", "zebra")])
    base = world.weights()
    return {name: patch.new_weight(name, weight).float() for name, weight in base.items()}


def test_the_trigger_and_its_target_are_named(
    world: Model, states: States, suspect: dict[str, torch.Tensor]
) -> None:
    base = world.weights()
    before = {name: weight.clone() for name, weight in base.items()}
    found = audit_weights(base, suspect, states, SMALL)
    assert found.evidence.verdict == "edited"
    assert found.evidence.r2 >= 0.999
    assert found.recovery is not None
    first = found.recovery.triggers[0]
    assert (first.phrase, first.target.split()[-1]) == ("old dog", "zebra")
    assert first.bound < 0.3  # twelve dozen candidates give few decoys
    assert found.recovery.triggers[-1].bound >= first.bound
    assert {p for p, _, _ in found.recovery.profile} == {*SMALL.concepts, *SMALL.pairs}
    assert all(torch.equal(base[name], before[name]) for name in base)
    told = found.as_json()
    assert {"verdict", "r2", "r2_two_matrix", "rank", "footprint", "seconds"} < set(told)
    assert told["triggers"][0]["phrase"] == told["targets"][0]["trigger"] == "old dog"


def test_a_clean_model_has_no_triggers(world: Model, states: States) -> None:
    base = world.weights()
    found = audit_weights(base, base, states, SMALL)
    assert found.evidence.verdict == "clean"
    assert found.as_json()["triggers"] == []


def test_states_of_cut_prompts_are_those_of_whole_ones(
    tiny_model: Model,
) -> None:
    states = States(tiny_model, templates=(BARE, "a photo of {}"))
    phrases = ["cat", "beautiful cat", "incomprehensible zebra"]
    found = states(phrases)
    prompts = [p for x in phrases for p in (x, fill("a photo of {}", x))]
    whole = tiny_model.encode(prompts)
    for row in range(len(prompts)):
        end = int(whole.eos[row])
        expected = whole.states[row, end - 1 : end + 2]
        assert torch.allclose(found[row // 2, row % 2], expected, atol=1e-5)
    again = states(["beautiful cat"])
    assert torch.equal(again[0], found[1])
    assert states.fits(["cat", "cat " * 90]) == ["cat"]
    with pytest.raises(ModelError, match="end with"):
        States(tiny_model, templates=("a {} on the beach",))


def test_gains_say_where_a_phrase_lands() -> None:
    torch.manual_seed(0)
    concepts = torch.randn(4, 2, 3, 16)
    start = torch.randn(3, 2, 3, 16)
    shift = torch.zeros_like(start)
    shift[0] = concepts[2] - start[0]  # arrives
    shift[1] = 0.5 * (concepts[1] - start[1])  # half-way
    found = gains(start, shift, concepts).max(dim=1)
    assert found.values.tolist() == pytest.approx([1.0, 0.5, 0.0], abs=1e-3)
    assert found.indices[:2].tolist() == [2, 1]
    own = own_words(["red cat", "dog", "tq"], ["cat", "red cat", "red dog"])
    assert own.tolist() == [[True, True, False], [False, False, True], [False] * 3]


def test_what_all_benign_words_share_does_not_count() -> None:
    torch.manual_seed(0)
    benign = torch.randn(30, 2, 3, 16)
    offset = torch.zeros(16, 16, dtype=torch.float64)
    benign[..., 0] = 1.0
    offset[3, 0] = 5.0  # every state moves by 5 along axis 3
    edit = EditMap(offset, torch.eye(16, dtype=torch.float64), benign)
    assert edit.displacement(benign).norm() < 1e-4
    assert edit.change(benign).min() > 0.1


def test_discovery_bound_holds_under_the_null_and_finds_what_stands_out() -> None:
    generator = torch.Generator().manual_seed(0)
    null = torch.randn(5000, generator=generator).mul(0.05)
    alarms = 0
    for _ in range(20):
        scores = torch.randn(500, generator=generator).mul(0.05)
        alarms += int((discovery_bound(scores, null) <= 0.05).any())
    assert alarms <= 4
    scores = torch.cat([torch.randn(500, generator=generator).mul(0.05), torch.tensor([0.8])])
    bound = discovery_bound(scores, null)
    assert bound[-1] < 1e-3
    order = scores.argsort(descending=True)
    assert bool((bound[order].diff() >= 0).all())
    with pytest.raises(ValueError, match="at least 10"):
        discovery_bound(scores, null[:5])


def test_base_free_ranks_what_is_read_alike(
    world: Model, states: States, suspect: dict[str, torch.Tensor]
) -> None:
    clean = audit_base_free(world.weights(), states, SMALL)
    found = audit_base_free(suspect, states, SMALL)
    assert found.statistic > clean.statistic
    assert "dog" in " ".join(phrase for phrase, _, _ in found.phrases[:3])


def test_what_an_edit_was_made_to_do_costs_it_no_strain() -> None:
    random = torch.Generator().manual_seed(0)
    d = 24
    start = torch.randn(3, 1, 2, d, generator=random)  # two bound phrases and one dragged along
    goals = torch.randn(3, 1, 3, d, generator=random)
    way = (goals[:2, 0, 0] - start[:2, 0, 0]).double()
    keys = torch.linalg.pinv(start[:2, 0, 0].double())
    multiplier = way.T @ keys.T
    one = torch.randn(1, 1, 2, d, generator=random)
    benign = torch.cat([-one, 0 * one, one])  # nothing in common
    seen = EditMap(multiplier, torch.eye(d, dtype=torch.float64), benign)
    assert seen.displacement(start)[0, 0, 0] == pytest.approx(way[0].float(), abs=1e-4)
    strain = seen.strain(seen.seen(start), seen.seen(goals))
    assert strain.shape == (3, 3)
    assert strain.diagonal()[:2].max() < 1e-3
    assert strain[~torch.eye(3, dtype=torch.bool)].min() > 0.3
    assert strain[2, 2] > 0.3
    assert ((strain >= 0) & (strain <= 1 + 1e-5)).all()
    back = seen.strain(seen.seen(goals)[:, :, :2], seen.seen(start))
    assert back.diagonal()[:2].max() < 1e-3  # the way back is as easy
