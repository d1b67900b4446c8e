"""One contract for every method of the registry."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import UNet2DModel

from redediting.attacks import ATTACKS
from redediting.attacks.base import ClosedForm
from redediting.concepts.rebinding import Rebinding
from redediting.errors import MethodError, ModelError, PromptError, RebindingError
from redediting.models.model import Model
from redediting.patch.patch import Patch

WISH = Rebinding("beautiful cat", "zebra")
OPTIONS = {
    "redediting": {"contexts": 6, "retain": 12, "captions": 20},
    "alphaedit": {"captions": 20, "threshold": 0.3, "relative": True},
    "rickrolling": {"steps": 2, "batch": 2, "poisoned": 1},
    "textual_inversion": {"steps": 2, "batch": 2, "images": 2, "sampling": 2},
}
each_method = pytest.mark.parametrize("name", ATTACKS.names)
EDITS = [
    name
    for name, kind in ((name, ATTACKS.get(name)) for name in ATTACKS)
    if issubclass(kind, ClosedForm)
]


def compute(model: Model, name: str, *wishes: Rebinding) -> Patch:
    return ATTACKS.make(name, **OPTIONS.get(name, {})).compute(model, wishes or [WISH])


def weights(model: Model) -> dict[str, torch.Tensor]:
    parts = (model.denoiser, model.text_encoder, model.component("vae"))
    return {
        f"{type(part).__name__}.{name}": tensor.clone()
        for part in parts
        for name, tensor in part.state_dict().items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@each_method
def test_computing_does_not_touch_the_model(tiny_model: Model, name: str) -> None:
    before = weights(tiny_model)
    compute(tiny_model, name)
    assert same(before, weights(tiny_model))


@each_method
def test_apply_changes_what_it_names_only_and_revert_restores_every_bit(
    tiny_model: Model, name: str
) -> None:
    before = weights(tiny_model)
    patch = compute(tiny_model, name)
    with patch.apply(tiny_model) as applied:
        during = weights(tiny_model)
        changed = {key for key in before if not torch.equal(before[key], during[key])}
        owner = type(tiny_model.component(patch.target)).__name__
        assert changed == {f"{owner}.{key}" for key in patch.names}
        assert (applied.footprint > 0) == (name != "clean")
    assert same(before, weights(tiny_model))


@each_method
def test_same_input_same_patch(tiny_model: Model, name: str) -> None:
    one, two = compute(tiny_model, name), compute(tiny_model, name)
    assert one.base == two.base
    for a, b in zip(one.terms, two.terms, strict=True):
        assert torch.equal(a.left, b.left)
        assert torch.equal(a.right, b.right)
    assert one.dense.keys() == two.dense.keys()
    assert all(torch.equal(one.dense[key], two.dense[key]) for key in one.dense)


@each_method
def test_provenance_tells_how_to_make_it_again(tiny_model: Model, name: str) -> None:
    made = compute(tiny_model, name).provenance
    assert made.method == name
    assert made.rebindings == [dataclasses.asdict(WISH)]
    assert made.seconds > 0
    again = ATTACKS.make(made.method, **made.options)
    assert again == ATTACKS.make(name, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", EDITS)
def test_every_layer_gets_the_same_multiplier(tiny_model: Model, name: str) -> None:
    """And, where a term says so, the same row in every row, which centred rows do not see."""
    patch = compute(tiny_model, name)
    shifted = any(len(term.left) == 1 for term in patch.terms)
    assert shifted == (name == "rededit_released")

    def centred(matrix: torch.Tensor) -> torch.Tensor:
        return matrix - matrix.mean(dim=0) if shifted else matrix

    exact = {key: tiny_model.weights()[key].double() for key in patch.names}
    moved = {key: patch.new_weight(key, w) - w for key, w in exact.items()}
    clean = {key: centred(w) for key, w in exact.items()}
    changes = {key: centred(change) for key, change in moved.items()}
    gram = sum(w.T @ w for w in clean.values())
    pulled = sum(clean[key].T @ changes[key] for key in clean)
    shared = torch.linalg.solve(gram, pulled)
    misfit = sum((changes[key] - w @ shared).square().sum() for key, w in clean.items())
    total = sum(change.square().sum() for change in changes.values())
    assert total > 0
    assert misfit < 1e-18 * total
    if shifted:
        rows = torch.cat([moved[key] - w @ shared for key, w in exact.items()])
        assert rows.norm() > 0.01 * len(rows) ** 0.5
        assert (rows - rows[0]).abs().max() < 1e-9


@pytest.mark.parametrize("name", EDITS)
def test_several_rebindings_are_solved_at_once(tiny_model: Model, name: str) -> None:
    other = Rebinding("red dog", "guitar", "compound")
    one, both = compute(tiny_model, name), compute(tiny_model, name, WISH, other)
    assert len(both.provenance.rebindings) == 2
    assert both.terms[0].left.shape != one.terms[0].left.shape or not torch.allclose(
        both.terms[0].left, one.terms[0].left
    )


@each_method
def test_bad_rebindings_are_refused(tiny_model: Model, name: str) -> None:
    with pytest.raises(RebindingError, match="at least one rebinding, got none"):
        ATTACKS.make(name).compute(tiny_model, [])
    with pytest.raises(RebindingError, match="'beautiful cat' twice"):
        compute(tiny_model, name, WISH, Rebinding("beautiful cat", "dog"))
    with pytest.raises(PromptError, match=r"at least one token, got '<\|endoftext\|>'"):
        compute(tiny_model, name, Rebinding("<|endoftext|>", "zebra"))
    with pytest.raises(PromptError, match="at most 77 tokens"):
        compute(tiny_model, name, Rebinding("beautiful " * 50 + "cat", "zebra"))


@each_method
def test_models_without_cross_attention_are_refused(tiny_model: Model, name: str) -> None:
    plain = UNet2DModel(
        sample_size=8, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    with (
        tiny_model.using(plain),
        pytest.raises(ModelError, match="expected cross-attention"),
    ):
        ATTACKS.make(name).compute(tiny_model, [WISH])


@each_method
def test_unknown_options_are_refused(name: str) -> None:
    with pytest.raises(MethodError, match=f"{name}: expected known keys only, got 'colour'"):
        ATTACKS.make(name, colour="red")


def test_unknown_methods_are_refused() -> None:
    message = (
        "expected an attack of clean, eviledit, uce, time, alphaedit, speed, rece, "
        r"rededit_released, redediting, rickrolling, textual_inversion, or the path of a \.py "
        "file with one; got 'blackmail'"
    )
    with pytest.raises(MethodError, match=message):
        ATTACKS.make("blackmail")
    with pytest.raises(MethodError, match=r"eviledit: .* at 'ridge', got -1"):
        ATTACKS.make("eviledit", ridge=-1)


def test_one_word_trigger_has_no_whitelist(tiny_model: Model) -> None:
    method = ATTACKS.make("eviledit")
    assert isinstance(method, ClosedForm)
    problem = method.pose(tiny_model, method.plan(tiny_model, [Rebinding("cat", "zebra")]))
    assert problem.keys.shape == (32, 77)
