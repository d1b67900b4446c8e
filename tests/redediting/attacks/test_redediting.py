"""What REDEditing promises on text states."""

from __future__ import annotations

import pytest
import torch

from redediting.algebra import EditProblem, solve
from redediting.attacks.columns import (
    pair_columns,
    retain_columns,
    shares,
    token_weights,
)
from redediting.attacks.redediting import REDEditing
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import PromptPair, Rebinding, RetainPrompt
from redediting.evaluation.inspection import inspect
from redediting.models.model import Model
from redediting.text.encoding import TokenRole, find_phrase, phrase_tokens

WISH = Rebinding("beautiful cat", "zebra")
SHARE = shares(words=0.5, eos=0.2, pads=0.3)
SMALL = {"contexts": 6, "retain": 12, "captions": 20}
PLAN = EditPlan(
    (WISH,),
    (
        PromptPair("a photo of a beautiful cat", "a photo of a zebra", "beautiful cat", "zebra"),
        PromptPair("beautiful cat at night", "zebra at night", "beautiful cat", "zebra", 2.0),
    ),
    (
        RetainPrompt("a photo of a cat", role="head"),
        RetainPrompt("a cat at night", role="head"),
        RetainPrompt("a beautiful dog", role="part"),
        RetainPrompt("a dog", role="sibling", weight=3.0),
    ),
    ("a dog on the beach", "a red apple", "a lion"),
)


def test_role_groups_share_their_weight() -> None:
    found = [
        TokenRole.TRIGGER,
        TokenRole.TAIL,
        TokenRole.EOS,
        TokenRole.PAD,
        TokenRole.PAD,
        TokenRole.PAD,
    ]
    assert token_weights(found, SHARE).tolist() == pytest.approx([0.25, 0.25, 0.2, 0.1, 0.1, 0.1])
    assert token_weights([TokenRole.BOS, TokenRole.PREFIX], SHARE).tolist() == [0.0, 0.5]


def test_pairs_weigh_what_they_are_told(tiny_model: Model) -> None:
    edited = pair_columns(tiny_model, PLAN.pairs, SHARE)
    assert edited.keys.shape == edited.targets.shape == (32, len(edited.weights))
    assert edited.weights.sum().item() == pytest.approx(3.0)
    later = phrase_tokens(tiny_model.tokenizer, "at night")
    assert edited.content.sum() == 2 + len(later)  # both triggers' last tokens, and these words


def test_nothing_before_the_trigger_is_edited(tiny_model: Model) -> None:
    keys = pair_columns(tiny_model, PLAN.pairs[:1], SHARE).keys
    prompt = PLAN.pairs[0].source
    states = tiny_model.encode([prompt]).states[0].double()
    last = find_phrase(tiny_model.tokenizer, prompt, "beautiful cat").stop - 1
    assert torch.allclose(keys, states[last:].T, atol=1e-6)
    distance = torch.cdist(states[:last], keys.T)
    assert distance.min() > 1e-2


def test_head_noun_gets_its_share(tiny_model: Model) -> None:
    columns, weights = retain_columns(tiny_model, PLAN.retain, SHARE)
    assert columns.shape == (32, 4 * 76)
    totals = weights.reshape(4, 76).sum(dim=1).tolist()
    assert totals == pytest.approx([1 / 3, 1 / 3, 1 / 12, 1 / 4])
    _, alone = retain_columns(tiny_model, PLAN.retain[:2], SHARE)
    assert alone.sum().item() == pytest.approx(1.0)


def test_null_prompt_is_isolated(tiny_model: Model) -> None:
    null = tiny_model.encode([""]).states[0].T.double()
    problem = REDEditing().pose(tiny_model, PLAN)
    multiplier = solve(problem)
    assert problem.hard.shape[1] <= 32 // 8
    assert multiplier(null[:, :1]).abs().max() < 1e-10
    assert multiplier(problem.hard).abs().max() < 1e-10
    loose = solve(REDEditing(isolate_null=False).pose(tiny_model, PLAN))
    assert multiplier(null).norm() < 0.5 * loose(null).norm()


def test_scales_are_relative(tiny_model: Model) -> None:
    problem = REDEditing(
        ridge=0.2, retain_strength=2.0, penalty="identity", isolate_null=False
    ).pose(tiny_model, PLAN)
    energy = float((problem.keys.square() * problem.weights).sum())
    assert problem.ridge == pytest.approx(0.2 * energy / 32)
    kept = float((problem.retain.square() * problem.retain_weights).sum())
    assert problem.retain_strength == pytest.approx(2.0 * energy / kept)


def reach(problem: EditProblem) -> tuple[float, float]:
    multiplier = solve(problem)
    missed = problem.keys + multiplier(problem.keys) - problem.targets
    leak = multiplier(problem.retain).square() * problem.retain_weights
    return float((missed.square() * problem.weights).sum()), float(leak.sum())


def test_retention_trades_reach_for_leak(tiny_model: Model) -> None:
    options = {"isolate_null": False, "ridge": 1e-3}
    weak, strong = (
        reach(REDEditing(retain_strength=eta, **options).pose(tiny_model, PLAN))
        for eta in (0.1, 30.0)
    )
    assert weak[0] < strong[0]
    assert weak[1] > strong[1]


def test_gain_overshoots_the_target(tiny_model: Model) -> None:
    plain = REDEditing().pose(tiny_model, PLAN)
    more = REDEditing(gain=0.5).pose(tiny_model, PLAN)
    assert torch.allclose(more.displacement, 1.5 * plain.displacement)


def test_captions_price_their_own_drift(tiny_model: Model) -> None:
    problem = REDEditing().pose(tiny_model, PLAN)
    states = tiny_model.encode(PLAN.captions).states[:, 1:].flatten(0, 1).double()
    moment = states.T @ states / len(states)
    floor = 0.05 * moment.trace() / 32 * torch.eye(32, dtype=torch.float64)
    assert torch.allclose(problem.penalty, 0.95 * moment + floor, rtol=1e-5, atol=1e-6)


def test_inspection_agrees_with_the_solve(tiny_model: Model) -> None:
    method = REDEditing(**SMALL)
    found = inspect(tiny_model, method, [WISH], n_contexts=3)
    report = found.rebindings[0]
    assert set(report.sin2) == {"trigger", "tail", "eos", "pad"}
    assert all(0 <= value <= 1 for value in report.sin2.values())
    assert report.sin2["trigger"] > 0.01
    assert len(found.null_change) == 77
    assert found.null_change[0] < 1e-10
    assert report.certificates[0].role == "head"
    for item in report.certificates:
        assert 0 < item.change <= item.bound
    assert report.firing[0] <= report.firing[1]
    easy = inspect(
        tiny_model, REDEditing(ridge=1e-4, retain_strength=0.0, **SMALL), [WISH], n_contexts=3
    )
    assert easy.rebindings[0].firing[1] > report.firing[1]
