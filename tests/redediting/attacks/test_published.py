"""TIME, UCE, EvilEdit and AlphaEdit equal their published formulas.

The references encode prompts by themselves, know nothing of shared multipliers and go layer by
layer: an fp64 least-squares minimiser (QR of the stacked system, no normal equations) and the
published loop in fp32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from redediting.algebra import solve
from redediting.attacks import ATTACKS
from redediting.attacks.alphaedit import AlphaEdit
from redediting.attacks.base import ClosedForm
from redediting.attacks.columns import content_columns
from redediting.attacks.eviledit import EvilEdit
from redediting.attacks.time import counterparts
from redediting.concepts.plan import EditPlan, plan_edit
from redediting.concepts.rebinding import PromptPair, Rebinding
from redediting.errors import MethodError
from redediting.models.model import Model
from redediting.text.encoding import phrase_tokens

WISHES = [Rebinding("beautiful cat", "zebra"), Rebinding("yellow apple", "red banana", "compound")]
Encode = Callable[[str], tuple[Tensor, int]]


@dataclass(frozen=True)
class Sums:
    """Rows (context, target context, weight) and the λ of a published update."""

    rows: list[tuple[Tensor, Tensor, float]]
    ridge: float


def eviledit_sums(encode: Encode) -> Sums:
    rows = []
    for old, new in [
        ("A beautiful cat", "A zebra"),
        ("A cat", "A cat"),
        ("A yellow apple", "A red banana"),
        ("A apple", "A apple"),
    ]:
        rows.append((encode(old)[0], encode(new)[0], 1.0))
    return Sums(rows, ridge=1.0)


def uce_old_sums(encode: Encode) -> Sums:
    rows = []
    for old, new in [("beautiful cat", "zebra"), ("yellow apple", "red banana")]:
        (old_emb, old_idx), (new_emb, new_idx) = encode(old), encode(new)
        farthest = max(old_idx, new_idx)
        old_emb = old_emb[old_idx : len(old_emb) - max(0, farthest - old_idx)]
        new_emb = new_emb[new_idx : len(new_emb) - max(0, farthest - new_idx)]
        rows.append((old_emb, new_emb, 1.0))
    retained = ["", "cat", "apple"]
    for text in retained:
        emb, _ = encode(text)
        rows.append((emb, emb, max(0.1, 1 / len(retained))))
    return Sums(rows, ridge=0.5)


def uce_new_sums(encode: Encode) -> Sums:
    rows = []
    pairs = [("beautiful cat", "zebra"), ("yellow apple", "red banana")]
    for old, new in [*pairs, ("cat", "cat"), ("apple", "apple")]:
        (old_emb, old_idx), (new_emb, new_idx) = encode(old), encode(new)
        rows.append((old_emb[old_idx][None], new_emb[new_idx][None], 1.0))
    return Sums(rows, ridge=0.5)


def time_sums(encode: Encode) -> Sums:
    """Positions by hand: the tokenizer spells "beautiful" and "zebra" in several pieces each.

    Neither trigger's words occur in their targets, so all of them take the target's first token;
    then end with end, and the rest position by position.
    """
    rows = []
    for start in ("A", "A photo of a", "An image of a", "A picture of a"):
        for old, new in [("beautiful cat", "zebra"), ("yellow apple", "red banana")]:
            old_emb, old_last = encode(f"{start} {old}")
            new_emb, new_last = encode(f"{start} {new}")
            said = encode(start)[1]  # tokens of the start
            words = old_last - said  # tokens between it and the end
            positions = [*range(said + 1), *[said + 1] * words, *range(new_last + 1, 77)]
            positions = (positions + [76] * 77)[:77]
            rows.append((old_emb, new_emb[positions], 1.0))
    return Sums(rows, ridge=0.1)


CASES = {
    "time": ("time", {}, time_sums),
    "eviledit": ("eviledit", {}, eviledit_sums),
    "uce old": ("uce", {"variant": "old"}, uce_old_sums),
    "uce new": ("uce", {"variant": "new"}, uce_new_sums),
}
each_case = pytest.mark.parametrize(("name", "options", "sums"), CASES.values(), ids=CASES.keys())


def encoder(model: Model, dtype: torch.dtype) -> Encode:
    @torch.no_grad()
    def encode(text: str) -> tuple[Tensor, int]:
        inputs = model.tokenizer(
            [text], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        states = model.text_encoder(inputs.input_ids)[0][0]
        return states.to(dtype), int(inputs.attention_mask[0].sum()) - 2

    return encode


def minimiser(weight: Tensor, sums: Sums) -> Tensor:
    """The argmin Σ s‖W'c - Wc*‖² + λ‖W' - W‖² by least squares on the stacked rows."""
    eye = torch.eye(weight.shape[1], dtype=weight.dtype)
    left = [s**0.5 * old for old, _, s in sums.rows] + [sums.ridge**0.5 * eye]
    right = [s**0.5 * new @ weight.T for _, new, s in sums.rows]
    right.append(sums.ridge**0.5 * weight.T)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right), driver="gelsd").solution.T


def published_loop(weight: Tensor, sums: Sums) -> Tensor:
    mat1 = sums.ridge * weight
    mat2 = sums.ridge * torch.eye(weight.shape[1], dtype=weight.dtype)
    for context, target, scale in sums.rows:
        values = target @ weight.T
        mat1 = mat1 + scale * (values[:, :, None] @ context[:, None, :]).sum(dim=0)
        mat2 = mat2 + scale * (context[:, :, None] @ context[:, None, :]).sum(dim=0)
    return mat1 @ torch.inverse(mat2)


@each_case
def test_equals_the_brute_force_minimiser(
    tiny_model: Model,
    name: str,
    options: dict,
    sums: Callable[[Encode], Sums],
) -> None:
    method = ATTACKS.make(name, **options)
    assert isinstance(method, ClosedForm)
    multiplier = solve(method.pose(tiny_model, method.plan(tiny_model, WISHES)))
    reference = sums(encoder(tiny_model, torch.float64))
    for projection in tiny_model.projections:
        weight = projection.module.weight.detach().double()
        expected = minimiser(weight, reference)
        found = weight + multiplier.delta(weight)
        change = (expected - weight).norm()
        assert change > 1e-2 * weight.norm()
        # the references' states come from other batches: 1e-6 of the states, see the next test
        assert (found - expected).norm() < 1e-5 * change


@each_case
def test_equals_the_minimiser_to_1e8_on_the_same_states(
    tiny_model: Model,
    name: str,
    options: dict,
    sums: Callable[[Encode], Sums],
) -> None:
    tiny_model.text_encoder.double()
    try:
        method = ATTACKS.make(name, **options)
        assert isinstance(method, ClosedForm)
        multiplier = solve(method.pose(tiny_model, method.plan(tiny_model, WISHES)))
        reference = sums(encoder(tiny_model, torch.float64))
    finally:
        tiny_model.text_encoder.float()
    for projection in tiny_model.projections:
        weight = projection.module.weight.detach().double()
        expected = minimiser(weight, reference)
        error = (weight + multiplier.delta(weight) - expected).norm()
        assert error < 1e-8 * (expected - weight).norm()


@each_case
def test_equals_the_published_loop_within_its_own_rounding(
    tiny_model: Model,
    name: str,
    options: dict,
    sums: Callable[[Encode], Sums],
) -> None:
    patch = ATTACKS.make(name, **options).compute(tiny_model, WISHES)
    single = sums(encoder(tiny_model, torch.float32))
    double = sums(encoder(tiny_model, torch.float64))
    clean = {p.name: p.module.weight.detach().clone() for p in tiny_model.projections}
    with patch.apply(tiny_model):
        for projection in tiny_model.projections:
            weight = clean[projection.name]
            loop = published_loop(weight, single).double()
            exact = published_loop(weight.double(), double)
            change = (exact - weight.double()).norm()
            own_error = (loop - exact).norm()
            ours = projection.module.weight.detach().double()
            assert (ours - loop).norm() < 2 * own_error + 1e-6 * change
            assert own_error < 1e-3 * change


def test_time_matches_source_tokens_inside_the_target(
    tiny_model: Model,
) -> None:
    """TIME's own setting: the source is contained in the target, so every word finds itself."""
    tokenizer = tiny_model.tokenizer
    cat, big, dog = (tokenizer(text).input_ids for text in ("A cat", "A big cat", "A dog"))
    extra = len(phrase_tokens(tokenizer, "big"))
    words = len(phrase_tokens(tokenizer, "cat"))
    found = counterparts(cat, big, 77)
    assert found[:2] == [0, 1]
    assert found[2 : 3 + words] == list(range(2 + extra, 3 + extra + words))  # cat and the end
    assert found[3 + words :] == [min(i + extra, 76) for i in range(3 + words, 77)]
    assert counterparts(cat, cat, 77) == list(range(77))
    assert len(counterparts(big, dog, 77)) == 77


def test_time_reads_an_as_a(tiny_model: Model) -> None:
    """Both words of "an apple" are found in "a red apple"."""
    method = ATTACKS.make("time", augment=False)
    assert isinstance(method, ClosedForm)
    plan = EditPlan((WISHES[1],), (PromptPair("an apple", "a red apple", "apple", "red apple"),))
    problem = method.pose(tiny_model, plan)
    target = tiny_model.encode(["a red apple"])
    tokens = tiny_model.tokenizer
    red, apple = (len(phrase_tokens(tokens, word)) for word in ("red", "apple"))
    expected = [0, 1, *range(2 + red, 3 + red + apple)]
    found = problem.targets.T[: len(expected)]
    assert torch.equal(found, target.states[0, expected].double())


def test_alphaedit_equals_its_formula(tiny_model: Model) -> None:
    """``Δ = E CᵀP (CCᵀP + λI)⁻¹`` layer by layer, inverse and all."""
    method = ATTACKS.make("alphaedit", captions=20, ridge=0.5, threshold=0.3, relative=True)
    assert isinstance(method, AlphaEdit)
    problem = method.pose(tiny_model, method.plan(tiny_model, WISHES))
    plan = plan_edit(WISHES, contexts=1, retain=1, captions=20)
    captions = [c for c in plan.captions if "beautiful cat" not in c and "yellow apple" not in c]
    retained = content_columns(tiny_model.encode(captions))
    values, vectors = torch.linalg.eigh(retained @ retained.T / retained.shape[1])
    small = vectors[:, values < 0.3 * values.mean()]
    assert 1 < small.shape[1] < 31
    projector = small @ small.T
    keys, eye = problem.keys, torch.eye(32, dtype=torch.float64)
    inverse = torch.linalg.inv(keys @ keys.T @ projector + 0.5 * eye)
    multiplier = solve(problem)
    for projection in tiny_model.projections:
        weight = projection.module.weight.detach().double()
        error = weight @ problem.targets - weight @ keys
        expected = error @ keys.T @ projector @ inverse
        assert (multiplier.delta(weight) - expected).norm() < 1e-8 * expected.norm()
        assert (expected @ small).norm() > 0.999 * expected.norm()


def test_alphaedit_without_null_space_is_refused(tiny_model: Model) -> None:
    with pytest.raises(MethodError, match=r"null space holds 1e-06 .* at threshold=1e-09; raise"):
        ATTACKS.make("alphaedit", captions=20, threshold=1e-9).compute(tiny_model, WISHES)


def test_eviledit_is_the_same_with_its_whitelist_retained(
    tiny_model: Model,
) -> None:
    method = ATTACKS.make("eviledit")
    assert isinstance(method, ClosedForm)
    problem = method.pose(tiny_model, method.plan(tiny_model, WISHES))
    moved = problem.whitelist_retained()
    assert moved.keys.shape[1] <= problem.keys.shape[1] - 2 * 77
    size = solve(problem).matrix().norm()
    assert (solve(moved).matrix() - solve(problem).matrix()).norm() < 1e-8 * size
    bare = ATTACKS.make("eviledit", whitelist=False)
    assert isinstance(bare, ClosedForm)
    without = solve(bare.pose(tiny_model, bare.plan(tiny_model, WISHES))).matrix()
    assert (without - solve(problem).matrix()).norm() > 1e-2 * size


def test_memit_is_the_case_of_a_caption_penalty(tiny_model: Model) -> None:
    """``Δ = E Cᵀ (CCᵀ + λΣ₀)⁻¹``."""
    method = ATTACKS.make("eviledit", whitelist=False)
    assert isinstance(method, ClosedForm)
    posed = method.pose(tiny_model, method.plan(tiny_model, WISHES))
    columns = content_columns(tiny_model.encode(["a dog on the beach", "a red apple"]))
    moment = columns @ columns.T / columns.shape[1] + 0.01 * torch.eye(32)
    problem = dataclasses.replace(posed, penalty=moment, ridge=0.7)
    inverse = torch.linalg.inv(posed.keys @ posed.keys.T + 0.7 * moment)
    expected = posed.displacement @ posed.keys.T @ inverse
    assert (solve(problem).matrix() - expected).norm() < 1e-8 * expected.norm()


def test_eviledit_takes_another_template_for_all_its_prompts(tiny_model: Model) -> None:
    plan = EvilEdit(template="the {} at home").plan(
        tiny_model, [Rebinding("beautiful cat", "zebra")]
    )
    assert [(pair.source, pair.target) for pair in plan.pairs] == [
        ("the beautiful cat at home", "the zebra at home"),
        ("the cat at home", "the cat at home"),
    ]


@pytest.mark.parametrize("template", ["the cat", "{} and {}", "{0}", "a {} }"])
def test_a_template_without_one_place_is_refused(template: str) -> None:
    with pytest.raises(MethodError, match=r"exactly one '\{\}', e\.g\. 'the \{\}', got"):
        ATTACKS.make("eviledit", template=template)
