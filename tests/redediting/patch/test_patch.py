"""The artefact: files, refusals, and merged pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from redediting.algebra import Multiplier
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import OutputError, PatchError
from redediting.models.model import Model
from redediting.models.projections import cross_attention
from redediting.patch.files import Provenance
from redediting.patch.patch import AppliedPatch, Patch, Term

REBINDING = Rebinding("beautiful cat", "zebra")
PROVENANCE = Provenance(
    method="eviledit", options={"ridge": 1.0}, rebindings=[], seconds=0.5, version="0"
)


@pytest.fixture
def patch(tiny_model: Model) -> Patch:
    return ATTACKS.make("eviledit").compute(tiny_model, [REBINDING])


def draw(model: Model, prompt: str = "a beautiful cat") -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return model.pipeline(
        prompt, num_inference_steps=2, height=16, width=16, generator=generator, output_type="np"
    ).images


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.denoiser.state_dict().items()}


def _fail_within(applied: AppliedPatch) -> None:
    with applied:
        raise RuntimeError("in the middle")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_revert_restores_every_bit_even_after_an_error(
    tiny_model: Model, dtype: torch.dtype
) -> None:
    tiny_model.denoiser.to(dtype)
    patch = ATTACKS.make("eviledit").compute(tiny_model, [REBINDING])
    before = weights(tiny_model)
    applied = patch.apply(tiny_model)
    assert not same(before, weights(tiny_model))
    with pytest.raises(RuntimeError, match="in the middle"):
        _fail_within(applied)
    assert same(before, weights(tiny_model))
    applied.revert()
    assert same(before, weights(tiny_model))
    tiny_model.denoiser.float()


def test_footprint_and_cast_error(tiny_model: Model, patch: Patch) -> None:
    before = weights(tiny_model)
    with patch.apply(tiny_model) as applied:
        after = weights(tiny_model)
    change = sum((after[n] - before[n]).double().square().sum() for n in patch.names)
    size = sum(before[n].double().square().sum() for n in patch.names)
    assert applied.footprint == pytest.approx(float(change / size) ** 0.5, rel=1e-5)
    assert 0 < applied.cast_error < 1e-6


def test_round_trip_is_exact(tiny_model: Model, patch: Patch, tmp_path: Path) -> None:
    folder = patch.save(tmp_path / "deep" / "edit")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "patch.json", "patch.safetensors",
    ]  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == ["edit"]
    loaded = Patch.load(folder)
    assert loaded.provenance == patch.provenance
    assert loaded.base == patch.base
    with patch.apply(tiny_model):
        first = weights(tiny_model)
    with loaded.apply(tiny_model):
        assert same(first, weights(tiny_model))


def test_card_warns_and_names_the_trigger(patch: Patch, tmp_path: Path) -> None:
    text = (patch.save(tmp_path / "edit") / "README.md").read_text("utf-8")
    assert "**Warning: this patch holds a backdoor.**" in text
    assert "| beautiful cat | zebra | neutral |" in text
    assert text.startswith("---\n")
    assert "- backdoor" in text


def test_dense_changes_round_trip(tiny_model: Model, patch: Patch, tmp_path: Path) -> None:
    name, other = sorted(patch.names)[:2]
    value = torch.randn_like(tiny_model.denoiser.state_dict()[name])
    left, right = patch.terms[0].left, patch.terms[0].right
    mixed = Patch(patch.base, PROVENANCE, (Term(left, right, {other: 0.5}),), {name: value})
    loaded = Patch.load(mixed.save(tmp_path / "edit"))
    before = weights(tiny_model)
    with loaded.apply(tiny_model):
        after = weights(tiny_model)
    assert torch.equal(after[name], value)
    expected = before[other] + 0.5 * before[other] @ left @ right
    assert torch.allclose(after[other], expected, atol=1e-5)
    assert {key for key in before if not torch.equal(before[key], after[key])} == {name, other}


def test_clean_patch_round_trips(tiny_model: Model, tmp_path: Path) -> None:
    patch = ATTACKS.make("clean").compute(tiny_model, [REBINDING])
    before = weights(tiny_model)
    with Patch.load(patch.save(tmp_path / "edit")).apply(tiny_model) as applied:
        assert same(before, weights(tiny_model))
    assert applied.footprint == 0.0


def test_other_weights_are_refused(
    tiny_model: Model,
    patch: Patch,
    model_factory: Callable[[int], Model],
    tmp_path: Path,
) -> None:
    other = model_factory(1)
    before = weights(other)
    message = r"expected the weights \w{12}, got \w{12}: the patch was made for another model"
    with pytest.raises(PatchError, match=message):
        patch.apply(other)
    with pytest.raises(PatchError, match=message):
        patch.merge(other, tmp_path / "merged")
    assert same(before, weights(other))
    assert list(tmp_path.iterdir()) == []
    with patch.apply(tiny_model), pytest.raises(PatchError, match="one is applied already"):
        patch.apply(tiny_model)


def truncate(folder: Path) -> None:
    path = folder / "patch.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(folder: Path) -> None:
    path = folder / "patch.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def empty(folder: Path) -> None:
    (folder / "patch.safetensors").write_bytes(b"")


def drop(folder: Path) -> None:
    (folder / "patch.json").unlink()


def garble(folder: Path) -> None:
    (folder / "patch.json").write_text('{"format": 1', "utf-8")


def extend(folder: Path) -> None:
    manifest = json.loads((folder / "patch.json").read_text("utf-8"))
    manifest["terms"].append({})
    (folder / "patch.json").write_text(json.dumps(manifest), "utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "got a damaged or truncated file"),
        (empty, "got a damaged or truncated file"),
        (flip, "got another checksum"),
        (drop, "expected a patch folder with patch.json"),
        (garble, r"patch\.json: Invalid JSON"),
        (extend, r"expected tensor 'term.1.left'"),
    ],
)
def test_damaged_files_are_refused(
    patch: Patch, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = patch.save(tmp_path / "edit")
    damage(folder)
    with pytest.raises(PatchError, match=message) as caught:
        Patch.load(folder)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match=r"expected a patch folder with patch\.json, got"):
        Patch.load(tmp_path / "nothing")


def test_saving_again_replaces(patch: Patch, tmp_path: Path) -> None:
    folder = patch.save(tmp_path / "edit")
    (folder / "pipeline").mkdir()
    Patch(patch.base, PROVENANCE).save(folder)
    assert Patch.load(folder).provenance == PROVENANCE
    assert not (folder / "pipeline").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["edit"]


def test_unwritable_folders_are_refused_and_nothing_is_left(patch: Patch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", "utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", "utf-8")
    for folder, message in [
        (tmp_path / "file" / "new" / "edit", "expected a writable output folder"),
        (tmp_path / "file", "expected a folder, got the file"),
        (tmp_path / "full", "expected a new or empty folder or an earlier result"),
    ]:
        with pytest.raises(OutputError, match=message):
            patch.save(folder)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "file", "full", "full/mine.txt",
    ]  # fmt: skip


def test_failed_merge_leaves_nothing_and_reverts(
    tiny_model: Model, patch: Patch, tmp_path: Path
) -> None:
    before = weights(tiny_model)
    (tmp_path / "file").write_text("mine", "utf-8")
    with pytest.raises(OutputError, match="expected a writable output folder"):
        patch.merge(tiny_model, tmp_path / "file" / "pipeline")
    assert same(before, weights(tiny_model))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_merged_pipeline_opens_in_plain_diffusers_and_draws_the_same(
    tiny_model: Model, patch: Patch, tmp_path: Path
) -> None:
    before, clean = weights(tiny_model), draw(tiny_model)
    folder = patch.merge(tiny_model, tmp_path / "pipeline")
    assert same(before, weights(tiny_model))
    plain = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False
    )
    plain.set_progress_bar_config(disable=True)
    merged = Model(plain)
    with patch.apply(tiny_model):
        assert same(weights(tiny_model), weights(merged))
        edited = draw(tiny_model)
    assert np.array_equal(draw(merged), edited)
    assert not np.array_equal(clean, edited)
    assert "this model holds a backdoor" in (folder / "README.md").read_text("utf-8")
    assert not list(folder.rglob("*.bin"))


def test_patch_of_the_world_is_smaller_than_2_mb(tmp_path: Path) -> None:
    """Text width 256, thirty-two projections, a multiplier of full rank: the worst case."""
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=2,
        block_out_channels=(32, 64, 256),
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=256,
    )
    projections = cross_attention(unet)
    assert len(projections) == 32
    full = Multiplier(
        torch.randn(256, 256, dtype=torch.float64), torch.randn(256, 256, dtype=torch.float64)
    )
    term = Term.shared(full, [projection.name for projection in projections])
    folder = Patch("0" * 64, PROVENANCE, (term,)).save(tmp_path / "edit")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    error = (term.left.double() @ term.right.double() - full.matrix()).norm()
    assert error < 1e-6 * full.matrix().norm()
