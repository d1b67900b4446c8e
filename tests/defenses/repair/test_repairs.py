"""One table over all repairs, and what each is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from defenses import repair as front_door
from defenses.audit import examine
from defenses.audit.shared_factor import compare
from defenses.repair import REPAIRS
from defenses.repair.reversal import undo
from defenses.repair.scenes import load_scenes
from defenses.repair.separation import separate
from defenses.repair.training import Training, train, trained_projections
from redediting.algebra.multiplier import Multiplier
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import MethodError
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.patch.patch import AppliedPatch, Patch

OPTIONS: dict[str, dict[str, object]] = {
    "finetune": {"steps": 2, "batch": 2, "scenes": 4},
    "lora": {"steps": 2, "batch": 2, "scenes": 4, "rank": 2, "lr": 0.1},
    "truncation": {"k": 4},
    "projection": {"captions": 40},
}
each_repair = pytest.mark.parametrize("name", REPAIRS.names)
Clean = dict[str, torch.Tensor]


@pytest.fixture
def clean(tiny_model: Model) -> Clean:
    return {name: weight.clone() for name, weight in tiny_model.weights().items()}


@pytest.fixture
def backdoored(tiny_model: Model, clean: Clean) -> AppliedPatch:
    patch = ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("old cat", "zebra")])
    return patch.apply(tiny_model)


def repair(model: Model, name: str, clean: Clean, **more: object) -> Patch:
    options = OPTIONS.get(name, {}) | more
    return REPAIRS.make(name, **options).compute(model, base=clean, triggers=["old cat"])


def distance(one: Clean, other: Clean) -> float:
    return sum(float((one[n] - other[n]).double().square().sum()) for n in one) ** 0.5


@each_repair
def test_contract(
    tiny_model: Model,
    clean: Clean,
    backdoored: AppliedPatch,
    name: str,
    tmp_path: Path,
) -> None:
    before = {n: t.clone() for n, t in tiny_model.denoiser.state_dict().items()}
    patch = repair(tiny_model, name, clean)
    after = tiny_model.denoiser.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert patch.provenance.method == name
    assert REPAIRS.make(name, **patch.provenance.options) is not None
    again = Patch.load(patch.save(tmp_path / "repair"))
    assert again.provenance == patch.provenance
    assert "holds a backdoor" not in (tmp_path / "repair" / "README.md").read_text("utf-8")
    with again.apply(tiny_model) as applied:
        assert applied.footprint > 0
    assert all(torch.equal(before[n], t) for n, t in tiny_model.denoiser.state_dict().items())


@pytest.mark.parametrize("form", ["subtract", "inverse"])
def test_reversal_brings_the_base_back(
    tiny_model: Model, clean: Clean, backdoored: AppliedPatch, form: str
) -> None:
    harm = distance(clean, tiny_model.weights())
    patch = repair(tiny_model, "reversal", clean, form=form)
    assert patch.provenance.measured["condition"] >= 1
    with patch.apply(tiny_model):
        assert distance(clean, tiny_model.weights()) < 1e-3 * harm


def test_reversal_keeps_training_that_came_on_top(tiny_model: Model, clean: Clean) -> None:
    patch = ATTACKS.make("uce").compute(tiny_model, [Rebinding("old cat", "zebra")])
    patch.apply(tiny_model)
    torch.manual_seed(0)
    added = {n: 0.002 * torch.randn_like(w) for n, w in clean.items()}
    for name, weight in tiny_model.weights().items():
        weight += added[name]
    patch = repair(tiny_model, "reversal", clean)
    wanted = {n: clean[n] + added[n] for n in clean}
    trained = sum(float(a.double().square().sum()) for a in added.values()) ** 0.5
    with patch.apply(tiny_model):
        left = tiny_model.weights()
        assert distance(wanted, left) < 0.3 * trained
        kept = sum(float(((left[n] - clean[n]) * added[n]).sum()) for n in clean) / trained**2
        assert kept > 0.9


def test_rebinding_repairs_pooled_text_as_well(layout_factory: Callable[[str], Model]) -> None:
    model = layout_factory("sdxl")
    edit = ATTACKS.make("eviledit").compute(model, [Rebinding("old cat", "zebra")])
    edit.apply(model)
    patch = REPAIRS.make("rebinding").compute(model, triggers=["old cat"])
    assert {p.name for p in (*model.projections, *model.pooled_projections)} == patch.names
    with patch.apply(model) as applied:
        assert applied.footprint > 0


def test_an_edit_is_told_from_training_of_unequal_rows_and_columns() -> None:
    torch.manual_seed(0)
    width, layers = 24, 8
    base = {str(i): torch.randn(40, width, dtype=torch.float64) for i in range(layers)}
    edit = torch.randn(width, 3, dtype=torch.float64) @ torch.randn(3, width, dtype=torch.float64)
    rows = torch.logspace(-1.5, 0.5, 40, dtype=torch.float64)
    columns = torch.logspace(-1, 1, width, dtype=torch.float64)
    added = {n: rows[:, None] * torch.randn_like(w) * columns for n, w in base.items()}
    edited = {n: w + w @ edit for n, w in base.items()}
    tuned = {n: w + added[n] for n, w in edited.items()}
    found, rank = separate(base, tuned, list(base))
    plain = compare(base, tuned).factor
    assert plain is not None

    def error(multiplier: torch.Tensor) -> float:
        return sum(float((w @ (multiplier - edit)).square().sum()) for w in base.values())

    assert error(found) < 0.25 * error(plain.multiplier)
    assert 1 <= rank <= 4
    alone, rank = separate(base, edited, list(base))
    assert rank == 3
    assert error(alone) < 1e-12 * error(torch.zeros_like(edit))


def test_hard_projection_removes_what_clean_texts_never_see(
    tiny_model: Model, clean: Clean
) -> None:
    method = REPAIRS.make("projection", form="hard", captions=40)
    span = method._hard(method._moment(_case(tiny_model)))  # type: ignore[attr-defined]
    outside = torch.eye(len(span), dtype=span.dtype) - span
    for weight in tiny_model.weights().values():
        weight += (weight.double() @ (0.5 * outside)).float()
    harm = distance(clean, tiny_model.weights())
    patch = repair(tiny_model, "projection", clean, form="hard")
    with patch.apply(tiny_model):
        assert distance(clean, tiny_model.weights()) < 1e-3 * harm


def test_truncation_of_all_that_changed_is_the_base(tiny_model: Model, clean: Clean) -> None:
    torch.manual_seed(0)
    right = torch.randn(2, 32)
    for weight in tiny_model.weights().values():
        weight += torch.randn(len(weight), 2) @ right
    patch = repair(tiny_model, "truncation", clean, k=2)
    assert patch.provenance.measured["removed"] == pytest.approx(1)
    with patch.apply(tiny_model):
        assert distance(clean, tiny_model.weights()) < 1e-3


def test_what_is_missing_is_said(tiny_model: Model, clean: Clean) -> None:
    with pytest.raises(MethodError, match="expected trusted weights"):
        REPAIRS.make("reversal").compute(tiny_model)
    with pytest.raises(MethodError, match="expected suspected triggers"):
        REPAIRS.make("rebinding").compute(tiny_model, base=clean)
    with pytest.raises(MethodError, match="several words"):
        REPAIRS.make("rebinding").compute(tiny_model, triggers=["cat"])
    with pytest.raises(MethodError, match="nothing to reverse"):
        REPAIRS.make("reversal").compute(tiny_model, base=clean)
    with pytest.raises(MethodError, match="k below the text width 32"):
        REPAIRS.make("truncation", k=99).compute(tiny_model, base=clean)
    with pytest.raises(MethodError, match="expected a repair of reversal"):
        REPAIRS.make("prayer")
    with pytest.raises(MethodError, match=r"lora: .* at 'rank', got 0"):
        REPAIRS.make("lora", rank=0)


def test_woodbury() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 12, 3, dtype=torch.float64)
    edit = Multiplier(left, right.T.contiguous())
    inverse, condition = undo(edit)
    eye = torch.eye(12, dtype=torch.float64)
    assert torch.allclose((eye + edit.matrix()) @ (eye + inverse.matrix()), eye, atol=1e-10)
    assert condition >= 1
    unit = left[:, :1] / left[:, :1].norm()
    assert undo(Multiplier(-unit, unit.T))[1] > 1e12  # I - uuᵀ has no inverse


@pytest.mark.parametrize(
    "recipe",
    [
        Training(steps=3, batch=2, lr=0.05, optimizer="sgd"),
        Training(steps=3, batch=2, lr=0.01, scope="all"),
        Training(steps=3, batch=2, lr=0.1, rank=2),
    ],
)
def test_training_changes_what_it_should_and_is_no_edit(
    tiny_model: Model, clean: Clean, recipe: Training
) -> None:
    scenes = load_scenes(tiny_model, 6)
    assert scenes.latents.shape == (6, 4, 8, 8)
    shown = {}
    for step, model in train(tiny_model, scenes, recipe, at=[1]):
        shown[step] = trained_projections(model)
    assert list(shown) == [1, 3]
    assert set(shown[3]) == set(clean)
    assert 0 < distance(clean, shown[1]) < distance(clean, shown[3])
    assert all(torch.equal(clean[n], w) for n, w in tiny_model.weights().items())
    repeated = dict(train(tiny_model, scenes, recipe))
    assert distance(trained_projections(repeated[3]), shown[3]) < 1e-5
    assert examine(clean, shown[3]).verdict == "changed"


def _case(model: Model) -> object:
    from defenses.repair.base import Case

    return Case(model)


def test_the_front_door_takes_paths_models_and_patches(tiny_model: Model, tmp_path: Path) -> None:
    edit = ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("old cat", "zebra")])
    merged = edit.merge(tiny_model, tmp_path / "merged")
    clean = {name: weight.clone() for name, weight in tiny_model.weights().items()}
    harm = distance(clean, load(merged).weights())
    for suspect in (edit, edit.save(tmp_path / "edit"), merged, load(merged)):
        patch = front_door("reversal", base=tiny_model, suspect=suspect, form="subtract")
        model = load(merged)
        with patch.apply(model):
            assert distance(clean, model.weights()) < 1e-3 * harm
    assert front_door("projection", base=None, suspect=merged, captions=40).names
    with pytest.raises(MethodError, match="whole model to repair without a base"):
        front_door("projection", base=None, suspect=edit)
    assert all(torch.equal(clean[n], w) for n, w in tiny_model.weights().items())
