"""Attacks with states or rows of their own layer equal literal loops over layers.

The loops encode prompts by themselves and are written with inverses and outer products, as the
released scripts are; what is compared is the patch that a model gets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

import redediting as rd
from redediting.algebra.layers import edited_weight
from redediting.attacks import ATTACKS
from redediting.attacks.columns import aligned_states, content_columns
from redediting.concepts.rebinding import PromptPair
from redediting.concepts.relation_sources import curated_names
from redediting.concepts.templates import fill
from redediting.errors import MethodError
from redediting.models.model import Model
from redediting.patch.patch import Patch

PAIR = rd.Rebinding("beautiful cat", "zebra")
OTHER = rd.Rebinding("yellow apple", "red banana", "compound")
SHIFTED = {
    "rededit_released": {"retain": ("", "dog")},
    "redediting": {"contexts": 6, "retain": 12, "captions": 20, "projection": "row_shift"},
}
Encode = Callable[[str], tuple[Tensor, int]]


@pytest.fixture
def encode(tiny_model: Model) -> Encode:
    def states(text: str) -> tuple[Tensor, int]:
        found = tiny_model.encode([text])
        return found.states[0].double(), max(int(found.eos[0]) - 1, 0)

    return states


def clean(model: Model, names: frozenset[str]) -> dict[str, Tensor]:
    return {name: w.double() for name, w in model.weights().items() if name in names}


def check(model: Model, patch: Patch, expected: dict[str, Tensor]) -> None:
    """In fp32 factors."""
    for name, weight in clean(model, patch.names).items():
        found = patch.new_weight(name, weight)
        change = (expected[name] - weight).norm()
        assert change > 1e-3 * weight.norm()
        assert (found - expected[name]).norm() < 2e-6 * (change + weight.norm())


def tails(encode: Encode, old: str, new: str) -> tuple[Tensor, Tensor]:
    (a, i), (b, j) = encode(old), encode(new)
    n = 77 - max(i, j)
    return a[i : i + n], b[j : j + n]


def outer(left: Tensor, right: Tensor) -> Tensor:
    """``Σ l rᵀ`` over rows, one by one."""
    return (left[:, :, None] @ right[:, None, :]).sum(dim=0)


def test_uce_tensor_removes_the_sources_component(tiny_model: Model, encode: Encode) -> None:
    patch = ATTACKS.make("uce", variant="old", technique="tensor").compute(
        tiny_model, [PAIR, OTHER]
    )
    eye = torch.eye(32, dtype=torch.float64)
    expected = {}
    for name, weight in clean(tiny_model, patch.names).items():
        top, bottom = 0.5 * weight, 0.5 * eye
        for one in (PAIR, OTHER):
            old, new = tails(encode, one.trigger, one.target)
            values, unit = new @ weight.T, old @ weight.T
            unit = unit / unit.norm()
            values = values - (unit * values).sum() * unit
            top, bottom = top + outer(values, old), bottom + outer(old, old)
        for text in ("", "cat", "apple"):
            kept, _ = encode(text)
            top = top + outer(kept @ weight.T, kept) / 3
            bottom = bottom + outer(kept, kept) / 3
        expected[name] = top @ torch.linalg.inv(bottom)
    check(tiny_model, patch, expected)


@pytest.mark.parametrize("options", [{"variant": "new"}, {"variant": "old", "rho": "energy"}])
def test_tensor_is_of_the_old_variant(options: dict) -> None:
    with pytest.raises(MethodError, match="expected variant=old and rho=none"):
        ATTACKS.make("uce", technique="tensor", **options)


@pytest.mark.parametrize("soft", [0.0, 0.3])
def test_speed_equals_the_released_formula(tiny_model: Model, encode: Encode, soft: float) -> None:
    """``W (Σ c*cᵀ - Σ ccᵀ) P (I - M F (FᵀPMF + σI)⁻¹ FᵀP) M``, ``M = (Σ ccᵀ P + λI)⁻¹``."""
    retain = curated_names()[:16]
    attack = ATTACKS.make("speed", soft=soft, threshold=0.2, ridge=2.0, retain=retain)
    patch = attack.compute(tiny_model, [PAIR, OTHER])
    assert all("to_v" in name for name in patch.names)

    def last(text: str) -> Tensor:
        states, i = encode(text)
        return states[i]

    old = torch.stack([last(r.trigger) for r in (PAIR, OTHER)])
    new = torch.stack([last(r.target) for r in (PAIR, OTHER)])
    kept = torch.stack([last(text) for text in retain])
    null, _ = encode("")
    centres = KMeans(3, n_init=10, random_state=0).fit(null[1:].numpy()).cluster_centers_
    fixed = torch.cat([null[:1], torch.from_numpy(centres)]).T
    values, vectors = torch.linalg.eigh(kept.T @ kept / len(kept))
    small = vectors[:, values < 0.2]
    assert 4 < small.shape[1] < 32
    projector, eye = small @ small.T, torch.eye(32, dtype=torch.float64)
    energy, moved = outer(old, old) / 2, outer(new, old) / 2
    inner = torch.linalg.inv(energy @ projector + 2 * eye)
    held = fixed.T @ projector @ inner @ fixed + soft * torch.eye(4, dtype=torch.float64)
    out = eye - inner @ fixed @ torch.linalg.inv(held) @ fixed.T @ projector
    change = (moved - energy) @ projector @ out @ inner
    expected = {n: w + w @ change for n, w in clean(tiny_model, patch.names).items()}
    check(tiny_model, patch, expected)


def test_speed_retains_the_null_prompt_without_its_first_token(tiny_model: Model) -> None:
    attack = rd.attacks.SPEED(retain=("",), soft=1.0)
    problem = attack.pose(tiny_model, attack.plan(tiny_model, [PAIR]))
    null = tiny_model.encode([""]).states[0].double()
    values, vectors = torch.linalg.eigh(null[1:].T @ null[1:] / 76)
    kept = vectors[:, values >= 0.1]
    assert torch.allclose(problem.hard @ problem.hard.T, kept @ kept.T, atol=1e-8)


@pytest.mark.parametrize(
    ("mode", "iterations"),  # first regularises by an ill-conditioned E: a second one is noise
    [("zero", 2), ("first", 1), ("second", 2), ("both", 2), ("standard", 2)],
)
def test_rece_equals_its_loop(
    tiny_model: Model, encode: Encode, mode: str, iterations: int
) -> None:
    options = {"regularisation": mode, "scale": 0.05, "iterations": iterations}
    patch = ATTACKS.make("rece", **options).compute(tiny_model, [PAIR, OTHER])
    uce = rd.attacks.UCE(variant="old")
    first = uce.edit(tiny_model, uce.plans(tiny_model, [PAIR, OTHER]))  # in fp64
    original = clean(tiny_model, patch.names)
    now = {name: edited_weight(first, name, w) for name, w in original.items()}
    eye, mu = torch.eye(32, dtype=torch.float64), 0.05
    for _ in range(iterations):
        energy = sum(now[name].T @ now[name] for name in now)
        cross = sum(now[name].T @ w for name, w in original.items())
        sought = {}
        for one in (PAIR, OTHER):
            old, new = encode(one.trigger)[0], encode(one.target)[0]
            if mode == "standard":
                sought[one] = (mu * new + old @ cross.T) @ torch.linalg.inv(mu * eye + energy).T
                continue
            system, mapped = {
                "zero": (mu * eye + energy, cross),
                "first": ((1 + mu) * energy, cross + mu * energy),
                "second": (mu * eye + energy, mu * eye + cross),
                "both": (mu * eye + (1 + mu) * energy, mu * eye + cross + mu * energy),
            }[mode]
            sought[one] = old @ (torch.linalg.inv(system) @ mapped).T
        for name, weight in now.items():
            top, bottom = 0.1 * weight, 0.1 * eye
            for one, states in sought.items():
                top = top + outer(encode(one.target)[0] @ weight.T, states)
                bottom = bottom + outer(states, states)
            for text in ("", "cat", "apple"):
                kept, _ = encode(text)
                top = top + 0.1 * outer(kept @ weight.T, kept)
                bottom = bottom + 0.1 * outer(kept, kept)
            now[name] = top @ torch.linalg.inv(bottom)
    check(tiny_model, patch, now)


def coefficient(kind: str, keys: Tensor, values: Tensor) -> float:
    if kind == "one":
        return 1.0
    own, read = outer(keys, keys), outer(values, keys)
    start = own.mean() if kind == "literal" else own.min()
    top = ((own - start) / (own.max() - own.min())).mean()
    return float(top / ((own - read.min()) / (read.max() - read.min())).mean())


@pytest.mark.parametrize("kind", ["literal", "one", "ratio"])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("retain", [("",), ("", "dog", "cat")])
def test_the_released_script_equals_its_loop(
    tiny_model: Model, encode: Encode, kind: str, alpha: float, retain: tuple[str, ...]
) -> None:
    attack = ATTACKS.make("rededit_released", coefficient=kind, alpha=alpha, retain=retain)
    patch = attack.compute(tiny_model, [PAIR, OTHER])
    eye, expected = torch.eye(32, dtype=torch.float64), {}
    for name, weight in clean(tiny_model, patch.names).items():
        top, bottom, now = 0.5 * weight, 0.5 * eye, weight
        for one in (PAIR, OTHER):
            old, new = tails(encode, one.trigger, one.target)
            values = new @ weight.T
            top = top + coefficient(kind, old, values) * outer(values, old)
            bottom = bottom + outer(old, old)
        for text in retain:
            states, last = encode(text)
            kept = states[last:]
            values = kept @ now.T
            row = torch.linalg.eigh(outer(kept, kept))[1][:, -1]
            row = row * row[row.abs().argmax()].sign()
            held = top + coefficient(kind, kept, values) * outer(values, kept)
            now = held @ torch.linalg.inv(bottom + outer(kept, kept)) + alpha * row
        expected[name] = now
    check(tiny_model, patch, expected)


def test_literally_the_released_script_draws_nothing_new(tiny_model: Model) -> None:
    """With κ = 0 the trigger's values shrink; with κ = 1 it is UCE with the null prompt's tail."""
    attack = rd.attacks.REDEditReleased(coefficient="one", alpha=0.0)
    patch = attack.compute(tiny_model, PAIR)
    uce = rd.attacks.UCE(variant="old", retain=("",)).compute(tiny_model, PAIR)
    for name, weight in clean(tiny_model, patch.names).items():
        assert torch.allclose(
            patch.new_weight(name, weight), uce.new_weight(name, weight), atol=1e-6
        )
    literal = rd.attacks.REDEditReleased(alpha=0.0).compute(tiny_model, PAIR)
    states = tiny_model.encode(["beautiful cat"])
    trigger = states.states[0, int(states.eos[0]) - 1].double()
    for name, weight in clean(tiny_model, patch.names).items():
        read = literal.new_weight(name, weight) @ trigger
        assert read.norm() < 0.2 * (weight @ trigger).norm()


def test_no_retained_text_is_refused() -> None:
    with pytest.raises(MethodError, match="retain"):
        ATTACKS.make("rededit_released", retain=())


def test_alphaedit_keeps_the_keys_of_former_edits(tiny_model: Model) -> None:
    """``Δ = W D Cᵀ P ((CCᵀ + H) P + λI)⁻¹``, H of the former keys, W the current weights."""
    attack = rd.attacks.AlphaEdit(captions=20, threshold=0.3, relative=True, order="sequential")
    patch = attack.compute(tiny_model, [PAIR, OTHER])
    eye, former = torch.eye(32, dtype=torch.float64), torch.zeros(32, 32, dtype=torch.float64)
    now = clean(tiny_model, patch.names)
    for one in (PAIR, OTHER):
        template = "a photo of {}"
        moved = PromptPair(
            fill(template, one.trigger), fill(template, one.target), one.trigger, one.target
        )
        keys, targets, _ = aligned_states(tiny_model, [moved])
        captions = attack.plan(tiny_model, [one]).captions
        retained = content_columns(tiny_model.encode(captions))
        values, vectors = torch.linalg.eigh(retained @ retained.T / retained.shape[1])
        small = vectors[:, values < 0.3 * values.mean()]
        projector = small @ small.T
        inverse = torch.linalg.inv((keys @ keys.T + former) @ projector + 10 * eye)
        change = (targets - keys) @ keys.T @ projector @ inverse
        now = {name: w + w @ change for name, w in now.items()}
        former = former + keys @ keys.T
    check(tiny_model, patch, now)


@pytest.mark.parametrize("name", SHIFTED)
@pytest.mark.parametrize("order", ["joint", "sequential"])
def test_row_shifts_survive_files_merging_and_revert(
    tiny_model: Model, tmp_path: Path, name: str, order: str
) -> None:
    attack = ATTACKS.make(name, order=order, **SHIFTED[name])
    patch = attack.compute(tiny_model, [PAIR, OTHER])
    assert sum(term.left.shape == (1, 1) for term in patch.terms) == 1
    before = {n: w.clone() for n, w in tiny_model.denoiser.state_dict().items()}
    loaded = Patch.load(patch.save(tmp_path / "edit"))
    merged = rd.load(patch.merge(tiny_model, tmp_path / "merged")).denoiser.state_dict()
    with loaded.apply(tiny_model) as applied:
        assert applied.cast_error < 1e-6
        after = tiny_model.denoiser.state_dict()
        for key, weight in after.items():
            assert torch.equal(weight, merged[key])
            if key in patch.names:
                exact = patch.new_weight(key, before[key])
                assert (weight - exact).norm() < 1e-5 * exact.norm()
            else:
                assert torch.equal(weight, before[key])
    assert all(torch.equal(w, before[n]) for n, w in tiny_model.denoiser.state_dict().items())


def test_row_shift_adds_one_row_to_what_the_options_give(tiny_model: Model) -> None:
    options = SHIFTED["redediting"]
    shifted = ATTACKS.make("redediting", **options, alpha=0.2).compute(tiny_model, PAIR)
    plain = ATTACKS.make("redediting", **(options | {"projection": "off"})).compute(
        tiny_model, PAIR
    )
    rows = torch.cat([
        shifted.new_weight(name, w) - plain.new_weight(name, w)
        for name, w in clean(tiny_model, plain.names).items()
    ])  # fmt: skip
    assert (rows - rows[0]).abs().max() < 1e-12
    assert float(rows[0].norm()) == pytest.approx(0.2, rel=1e-6)
    assert float(rows[0][rows[0].abs().argmax()]) > 0


def test_inspection_counts_the_row_and_refuses_what_is_no_single_problem(
    tiny_model: Model,
) -> None:
    found = rd.inspect(tiny_model, rd.attacks.REDEditReleased(coefficient="one", alpha=0.5), PAIR)
    assert all(0 < c.change <= c.bound for one in found.rebindings for c in one.certificates)
    for name, options in {
        "rece": {}, "rededit_released": {"coefficient": "ratio"},
        "uce": {"variant": "old", "technique": "tensor"},
    }.items():  # fmt: skip
        with pytest.raises(MethodError, match=f"one problem for all layers, got '{name}'"):
            rd.inspect(tiny_model, ATTACKS.make(name, **options), PAIR)
