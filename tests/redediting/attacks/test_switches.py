"""Every switch of REDEditing does what its name says, on text states."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from redediting.algebra import EditProblem, Multiplier, solve
from redediting.attacks import ATTACKS
from redediting.attacks.base import ClosedForm
from redediting.attacks.compounds import part_phrases, parts_share, replace_phrase
from redediting.attacks.redediting import REDEditing
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import PromptPair, Rebinding, RetainPrompt
from redediting.errors import MethodError
from redediting.evaluation.inspection import inspect
from redediting.models.model import Model
from redediting.patch.patch import Patch
from redediting.text.attention import role_mass
from redediting.text.encoding import TokenRole, find_phrase, phrase_tokens

WISH = Rebinding("beautiful cat", "zebra")
COMPOUND = Rebinding("yellow apple", "red banana", "compound")
PLAN = EditPlan(
    (WISH,),
    (
        PromptPair("a photo of a beautiful cat", "a photo of a zebra", "beautiful cat", "zebra"),
        PromptPair("beautiful cat at night", "zebra at night", "beautiful cat", "zebra", 2.0),
    ),
    (
        RetainPrompt("a photo of a cat", role="head"),
        RetainPrompt("a beautiful dog", role="part"),
        RetainPrompt("a dog", role="sibling"),
        RetainPrompt("a pretty cat", role="near"),
    ),
    ("a dog on the beach", "a beautiful cat", "a lion", "a dog"),
)
HEADS, NEAR = ["a photo of a cat"], ["a beautiful dog", "a dog", "a pretty cat"]
SMALL = {"contexts": 6, "retain": 12, "captions": 20}
SWITCHES: dict[str, dict] = {
    "one context": {"joint": False},
    "prefix": {"prefix_safe": False},
    "same length": {"same_length": True},
    "gain": {"gain": 0.25},
    "no head": {"isolate_head": False},
    "no parts": {"isolate_parts": False},
    "captions": {"isolate_captions": True},
    "no null": {"isolate_null": False},
    "hard parts": {"hard_parts": True},
    "posthoc": {"projection": "posthoc", "k": 2},
    "inside": {"projection": "inside", "k": 2},
    "identity": {"penalty": "identity"},
    "attention": {"weights": "attention"},
    "keys": {"matrices": "key"},
    "values": {"matrices": "value"},
    "energy": {"rho": "energy"},
    "minmax": {"rho": "minmax"},
    "ridge": {"ridge": 0.2},
    "eta": {"retain_strength": 3.0},
}


def pose(model: Model, **options: object) -> EditProblem:
    return REDEditing(**options).pose(model, PLAN)


def has_columns(inside: torch.Tensor, columns: torch.Tensor) -> bool:
    distance = torch.cdist(columns.T.double(), inside.T)
    return bool((distance.amin(dim=1) < 1e-4).all())


def states(model: Model, prompt: str) -> torch.Tensor:
    return model.encode([prompt]).states[0].T.double()


def changes(model: Model, patch: Patch) -> dict[str, torch.Tensor]:
    found = {}
    for projection in model.projections:
        weight = projection.module.weight.detach()
        found[projection.name] = patch.new_weight(projection.name, weight) - weight.double()
    return found


@pytest.mark.parametrize("options", SWITCHES.values(), ids=SWITCHES.keys())
def test_no_switch_is_dead(tiny_model: Model, options: dict) -> None:
    """Each changes the edit that the whole method makes."""
    plain = ATTACKS.make("redediting", **SMALL).compute(tiny_model, [WISH])
    other = ATTACKS.make("redediting", **SMALL, **options).compute(tiny_model, [WISH])
    assert other.provenance.options.items() >= options.items()
    before, after = changes(tiny_model, plain), changes(tiny_model, other)
    distance = sum((before[name] - after[name]).square().sum() for name in before)
    size = sum(change.square().sum() for change in before.values())
    assert distance > 1e-8 * size


@pytest.mark.parametrize("kind", ["key", "value"])
def test_one_kind_of_matrix_is_edited_as_with_both(tiny_model: Model, kind: str) -> None:
    both = ATTACKS.make("eviledit").compute(tiny_model, [WISH])
    one = ATTACKS.make("eviledit", matrices=kind).compute(tiny_model, [WISH])
    wanted = {p.name for p in tiny_model.projections if p.kind == kind}
    assert one.names == wanted
    expected, found = changes(tiny_model, both), changes(tiny_model, one)
    for name, change in found.items():
        assert torch.equal(change, expected[name] if name in wanted else torch.zeros_like(change))


def test_one_context_keeps_the_first_pair_and_all_that_is_retained(
    tiny_model: Model,
) -> None:
    both, one = pose(tiny_model), pose(tiny_model, joint=False)
    n = one.keys.shape[1]
    assert torch.allclose(one.keys, both.keys[:, :n], atol=1e-5)
    assert n < both.keys.shape[1]
    assert one.retain.shape == both.retain.shape
    method = REDEditing(joint=False)
    assert method.pairs(PLAN) == [PLAN.pairs[0]]


def test_prefix_is_edited_only_when_asked(tiny_model: Model) -> None:
    """Off, the trigger's earlier tokens go to the target's; words before it never do."""
    prompt = PLAN.pairs[0].source
    span = find_phrase(tiny_model.tokenizer, prompt, "beautiful cat")
    early = states(tiny_model, prompt)[:, span.start : span.stop - 1]
    safe, unsafe = pose(tiny_model), pose(tiny_model, prefix_safe=False)
    assert not has_columns(safe.keys, early[:, :1])
    assert has_columns(unsafe.keys, early)
    before = states(tiny_model, prompt)[:, : span.start]
    assert torch.cdist(before.T, unsafe.keys.T).min() > 1e-2
    target_span = find_phrase(tiny_model.tokenizer, PLAN.pairs[0].target, "zebra")
    wanted = states(tiny_model, PLAN.pairs[0].target)[:, target_span]
    assert (
        torch.cdist(unsafe.targets[:, : span.stop - span.start].T, wanted.T).amin(1).max() < 1e-4
    )


def test_same_length_target_carries_the_modifier() -> None:
    method = REDEditing(same_length=True)
    assert [pair.target for pair in method.pairs(PLAN)] == [
        "a photo of a beautiful zebra",
        "beautiful zebra at night",
    ]
    assert {pair.target_phrase for pair in method.pairs(PLAN)} == {"beautiful zebra"}
    pair = PromptPair("a yellow apple", "a red banana", "yellow apple", "red banana")
    compound = EditPlan((COMPOUND,), (pair,), (), ())
    assert method.pairs(compound) == [pair]


@pytest.mark.parametrize(
    ("options", "gone", "stays"),
    [
        ({"isolate_head": False}, HEADS, NEAR),
        ({"isolate_parts": False}, NEAR, HEADS),
    ],
)
def test_isolation_by_role(
    tiny_model: Model, options: dict, gone: list[str], stays: list[str]
) -> None:
    problem = pose(tiny_model, **options)
    for prompt in gone:
        assert not has_columns(problem.retain, states(tiny_model, prompt)[:, 1:])
    for prompt in stays:
        assert has_columns(problem.retain, states(tiny_model, prompt)[:, 1:])


def test_captions_are_isolated_without_the_trigger(tiny_model: Model) -> None:
    prompts = [p.prompt for p in REDEditing(isolate_captions=True).kept(PLAN)]
    assert prompts[4:] == ["a dog on the beach", "a lion"]
    problem = pose(tiny_model, isolate_captions=True)
    assert has_columns(problem.retain, states(tiny_model, "a dog on the beach")[:, 1:])
    assert not has_columns(problem.retain, states(tiny_model, "a beautiful cat")[:, 1:])


def test_nothing_but_the_null_prompt_may_be_retained(
    tiny_model: Model,
) -> None:
    options = {"isolate_head": False, "isolate_parts": False}
    problem = pose(tiny_model, **options)
    assert problem.retain.shape == (32, 76)
    energy = (problem.keys.square() * problem.weights).sum()
    kept = problem.retain_strength * (problem.retain.square() * problem.retain_weights).sum()
    assert kept.item() == pytest.approx(100 * energy.item(), rel=1e-6)
    nothing = pose(tiny_model, isolate_null=False, **options)
    assert nothing.retain.shape == (32, 0)
    assert solve(nothing).matrix().norm() > solve(problem).matrix().norm()
    with pytest.raises(
        MethodError, match="retained prompts and k in 1 to 31 for projection=inside"
    ):
        pose(tiny_model, projection="inside", isolate_null=False, **options)
    with pytest.raises(MethodError, match="got k=32 and 304 retained tokens"):
        pose(tiny_model, projection="posthoc", k=32)


def test_projection_isolates_the_leading_retained_directions(
    tiny_model: Model,
) -> None:
    plain = pose(tiny_model, isolate_null=False)
    weighted = plain.retain * plain.retain_weights.sqrt()
    left, _, _ = torch.linalg.svd(weighted, full_matrices=False)
    leading = left[:, :2]
    kept = {}
    for choice in ("off", "posthoc", "inside"):
        problem = pose(tiny_model, isolate_null=False, projection=choice, k=2)
        problem = dataclasses.replace(
            problem, ridge=plain.ridge, retain_strength=plain.retain_strength
        )
        multiplier = solve(problem)
        leak = multiplier(leading).norm()
        assert leak > 1e-3 if choice == "off" else leak < 1e-8
        kept[choice] = objective(plain, multiplier)
    assert kept["off"] < kept["inside"] < kept["posthoc"]


def objective(problem: EditProblem, multiplier: Multiplier) -> float:
    """With ``W = I``."""
    change, penalty = multiplier.matrix(), problem.penalty
    assert penalty is not None
    miss = (problem.displacement - change @ problem.keys).square() * problem.weights
    leak = (change @ problem.retain).square() * problem.retain_weights
    price = (change @ penalty @ change.T).trace()
    return float(miss.sum() + problem.retain_strength * leak.sum() + problem.ridge * price)


def test_attention_sets_the_weights_of_roles(tiny_model: Model) -> None:
    mass = role_mass(tiny_model, [pair.source for pair in PLAN.pairs])
    problem = pose(tiny_model, weights="attention")
    assert problem.weights.sum().item() == pytest.approx(3.0)
    tail = len(phrase_tokens(tiny_model.tokenizer, "at night"))
    second = problem.weights[-(76 - tiny_model.encode([PLAN.pairs[1].source]).eos[0]) - 1 :]
    assert second[0].item() == pytest.approx(2 * mass[TokenRole.EOS])
    assert second[1:].sum().item() == pytest.approx(2 * mass[TokenRole.PAD])
    words = problem.weights[problem.content][-tail - 1 :]
    assert words.sum().item() == pytest.approx(2 * mass[TokenRole.TAIL])


def test_parts_are_made_of_the_same_words() -> None:
    assert part_phrases(COMPOUND) == ["apple", "yellow banana", "red apple"]
    assert part_phrases(WISH) == ["cat", "beautiful zebra"]
    assert part_phrases(Rebinding("cat", "zebra")) == []
    assert replace_phrase("a photo of a yellow apple", "yellow apple", "apple") == (
        "a photo of an apple"
    )
    assert replace_phrase("yellow apple at night", "yellow apple", "apple") == "apple at night"


def test_hard_parts_do_not_move(tiny_model: Model) -> None:
    problem = pose(tiny_model, hard_parts=True)
    multiplier = solve(problem)
    found = []
    for prompt, phrase in (("a photo of a cat", "cat"), ("cat at night", "cat")):
        last = find_phrase(tiny_model.tokenizer, prompt, phrase).stop - 1
        found.append(states(tiny_model, prompt)[:, last])
    mean = torch.stack(found).mean(dim=0)[:, None]
    assert multiplier(mean).norm() < 1e-4 * mean.norm()  # states of other batches: 1e-6
    assert solve(pose(tiny_model))(mean).norm() > 1e-2 * mean.norm()


def test_share_left_by_parts(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [pair.source for pair in PLAN.pairs]
    share = parts_share(tiny_model, WISH, prompts)
    assert share is not None
    assert 0 < share < 1
    assert parts_share(tiny_model, Rebinding("cat", "zebra"), ["a cat"]) is None
    monkeypatch.setattr("redediting.attacks.redediting.LEAST_SHARE", share + 0.01)
    with pytest.raises(MethodError, match=r"expected parts of 'beautiful cat' that leave"):
        pose(tiny_model, hard_parts=True)


@pytest.mark.parametrize("options", [{}, {"rho": "energy"}, {"matrices": "value"}])
def test_sequential_edits_are_those_of_each_edited_model(tiny_model: Model, options: dict) -> None:
    """Really applying one patch and computing the next on the edited model gives the same."""
    joint = ATTACKS.make("eviledit", **options)
    first = joint.compute(tiny_model, [WISH])
    with first.apply(tiny_model):
        second = joint.compute(tiny_model, [COMPOUND])
        with second.apply(tiny_model):
            expected = {p.name: p.module.weight.detach().double() for p in tiny_model.projections}
    patch = ATTACKS.make("eviledit", order="sequential", **options).compute(
        tiny_model, [WISH, COMPOUND]
    )
    assert not patch.dense
    together = joint.compute(tiny_model, [WISH, COMPOUND])
    with patch.apply(tiny_model):
        found = {p.name: p.module.weight.detach().double() for p in tiny_model.projections}
    for name in patch.names:
        size = changes(tiny_model, patch)[name].norm()
        assert (found[name] - expected[name]).norm() < 1e-5 * size  # two roundings to fp32
    with together.apply(tiny_model):
        other = dict(tiny_model.denoiser.state_dict())
        name = min(patch.names)
        assert (other[name].double() - found[name]).norm() > 1e-3 * found[name].norm()


@pytest.fixture(scope="module")
def sdxl(layout_factory: Callable[[str], Model]) -> Model:
    return layout_factory("sdxl")


@pytest.mark.parametrize("name", ["eviledit", "uce", "redediting"])
def test_sequential_pooled_edits_are_solved_one_after_another(sdxl: Model, name: str) -> None:
    """Each step by the published inverse, on the matrix that the former step left."""
    options = SMALL if name == "redediting" else {}
    attack = ATTACKS.make(name, order="sequential", **options)
    assert isinstance(attack, ClosedForm)
    (projection,) = sdxl.pooled_projections
    clean = projection.module.weight.detach().double()
    width = 32  # of the pooled text; the other columns read size and crop
    expected = clean.clone()
    for rebinding in (WISH, COMPOUND):
        posed = attack.pose_pooled(sdxl, attack.plan(sdxl, [rebinding]))
        price = posed.retain_strength * (posed.retain * posed.retain_weights) @ posed.retain.T
        price += posed.ridge * torch.eye(width, dtype=torch.float64)
        weighted = posed.keys * posed.weights
        read = expected[:, :width]
        values = read @ posed.targets  # what the model of the edits so far reads of the targets
        both = read @ price + values @ weighted.T
        expected[:, :width] = both @ torch.linalg.inv(price + posed.keys @ weighted.T)
    change = expected - clean
    patch = attack.compute(sdxl, [WISH, COMPOUND])
    found = patch.new_weight(projection.name, projection.module.weight.detach())
    assert (found - expected).norm() < 1e-5 * change.norm()  # factors in fp32
    joint = ATTACKS.make(name, **options).compute(sdxl, [WISH, COMPOUND])
    other = joint.new_weight(projection.name, projection.module.weight.detach())
    assert (other - expected).norm() > 1e-3 * change.norm()


def test_sequential_pooled_edits_are_those_of_each_edited_model(sdxl: Model) -> None:
    one_by_one = ATTACKS.make("eviledit")
    clean = {n: p.detach().clone() for n, p in sdxl.denoiser.named_parameters()}
    with (
        one_by_one.compute(sdxl, [WISH]).apply(sdxl),
        one_by_one.compute(sdxl, [COMPOUND]).apply(sdxl),
    ):
        expected = {n: p.detach().double() for n, p in sdxl.denoiser.named_parameters()}
    patch = ATTACKS.make("eviledit", order="sequential").compute(sdxl, [WISH, COMPOUND])
    assert {p.name for p in (*sdxl.projections, *sdxl.pooled_projections)} == patch.names
    for name in patch.names:
        found = patch.new_weight(name, clean[name])
        size = (expected[name] - clean[name].double()).norm()
        assert (found - expected[name]).norm() < 1e-5 * size  # two roundings to fp32


def test_order_does_not_matter_for_one_backdoor(tiny_model: Model) -> None:
    one = ATTACKS.make("uce", order="sequential").compute(tiny_model, [WISH])
    other = ATTACKS.make("uce").compute(tiny_model, [WISH])
    assert torch.equal(one.terms[0].left, other.terms[0].left)
    assert torch.equal(one.terms[0].right, other.terms[0].right)


@pytest.mark.parametrize(
    "options",
    [{"rho": "energy"}, {"matrices": "key"}, {"projection": "posthoc", "k": 2}],
    ids=["rho", "keys", "posthoc"],
)
def test_inspection_measures_what_the_layers_do(tiny_model: Model, options: dict) -> None:
    method = REDEditing(**SMALL, **options)
    report = inspect(tiny_model, method, [WISH], n_contexts=2).rebindings[0]
    patch = method.compute(tiny_model, [WISH])
    done = changes(tiny_model, patch)
    clean = {p.name: p.module.weight.detach().double() for p in tiny_model.projections}
    for item in report.certificates:
        tokens = states(tiny_model, item.prompt)
        change = sum((delta @ tokens).square().sum(dim=0) for delta in done.values())
        size = sum((weight @ tokens).square().sum(dim=0) for weight in clean.values())
        assert item.change == pytest.approx(float((change / size).sqrt().max()), rel=1e-4)
        assert 0 < item.change <= item.bound
    assert report.parts_share is not None
    assert 0 < report.parts_share < 1


def test_sequential_edits_are_inspected_one_by_one(tiny_model: Model) -> None:
    method = REDEditing(order="sequential", **SMALL)
    with pytest.raises(MethodError, match="expected order=joint to inspect 2 rebindings"):
        inspect(tiny_model, method, [WISH, COMPOUND])
