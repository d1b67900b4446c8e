"""Reading suspects: tensors decide, not names of files nor metadata."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from defenses import audit
from defenses.audit import Vocabulary, examine
from defenses.audit.coverage import survey
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError, PatchError
from redediting.inventory import read_suspect
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.patch.patch import Patch

SMALL = Vocabulary(
    concepts=("cat", "dog", "zebra", "car"),
    modifiers=("beautiful", "old", "red"),
    colours=("red",),
    words=("photo", "water"),
    odd=("tq", "xv"),
)


def projections(suspect: Path, base: Model) -> Mapping[str, torch.Tensor]:
    return survey(base, read_suspect(suspect, base)).projections


@pytest.fixture
def patch(tiny_model: Model) -> Patch:
    return ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("old cat", "zebra")])


def test_the_same_whatever_the_files_are_called(
    tiny_model: Model, patch: Patch, tmp_path: Path
) -> None:
    merged = patch.merge(tiny_model, tmp_path / "merged")
    base = tiny_model.weights()
    honest = projections(merged, tiny_model)
    assert examine(base, honest).verdict == "edited"
    bare = tmp_path / "bare"
    bare.mkdir()
    unet = load_file(merged / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({f"unet.{k}": v for k, v in unet.items()}, bare / "x.safetensors")  # no metadata
    for place in (bare, bare / "x.safetensors"):
        found = projections(place, tiny_model)
        assert list(found) == list(base)
        assert all(torch.equal(found[name], honest[name]) for name in base)
    saved = patch.save(tmp_path / "patch")
    from_patch = projections(saved, tiny_model)
    assert all(torch.equal(from_patch[name], honest[name]) for name in base)


def test_a_change_elsewhere_is_a_change(
    tiny_model: Model,
    model_factory: Callable[[int], Model],
    tmp_path: Path,
) -> None:
    other = model_factory(0)
    other.pipeline.to(torch.float16).save_pretrained(tmp_path / "half")
    found = audit(base=tiny_model, suspect=tmp_path / "half")
    assert (found.evidence.verdict, found.verdict, found.others) == ("clean", "clean", ())
    other = model_factory(0)
    other.text_encoder.get_input_embeddings().weight.data[5] += 1
    other.pipeline.save_pretrained(tmp_path / "other")
    found = audit(base=tiny_model, suspect=tmp_path / "other")
    (name,) = found.others
    assert name.endswith("token_embedding.weight")
    assert (found.evidence.verdict, found.verdict) == ("clean", "changed")


def test_only_some_projections_in_a_file(tiny_model: Model, tmp_path: Path) -> None:
    base = tiny_model.weights()
    name = next(iter(base))
    save_file({name: base[name] + 1}, tmp_path / "one.safetensors")
    found = projections(tmp_path / "one.safetensors", tiny_model)
    changed = [n for n in base if not torch.equal(found[n], base[n])]
    assert changed == [name]
    coverage = audit(base=tiny_model, suspect=tmp_path / "one.safetensors").coverage
    unet = len(tiny_model.denoiser.state_dict())
    assert {(part.component, part.status): part.tensors for part in coverage} == {
        ("unet", "changed"): 1,
        ("unet", "missing"): unet - 1,
        ("text_encoder", "not_carried"): len(tiny_model.text_encoder.state_dict()),
        ("vae", "not_carried"): len(tiny_model.component("vae").state_dict()),
        ("tokenizer", "not_carried"): 1,
        ("scheduler", "not_carried"): 1,
    }


def test_what_other_tools_save_is_read(
    tiny_model: Model,
    model_factory: Callable[[int], Model],
    patch: Patch,
    tmp_path: Path,
) -> None:
    base = tiny_model.weights()
    with patch.apply(tiny_model):
        torch.save(tiny_model.denoiser.state_dict(), tmp_path / "unet.pt")  # as EvilEdit
        expected = {name: weight.clone() for name, weight in base.items()}
    pickled = projections(tmp_path / "unet.pt", tiny_model)
    assert all(torch.equal(pickled[name], expected[name]) for name in base)
    assert audit(base=tiny_model, suspect=tmp_path / "unet.pt", vocabulary=SMALL).others == ()
    other = model_factory(0)
    targets = ["attn2.to_v", "attn1.to_q"]
    other.denoiser.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=targets))
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(other.denoiser))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=state)
    adapted = projections(tmp_path / "lora", tiny_model)
    changed = {n for n in base if not torch.equal(adapted[n], base[n])}
    assert changed == {name for name in base if "to_v" in name}
    assert examine(base, adapted).verdict == "changed"
    found = audit(base=tiny_model, suspect=tmp_path / "lora")
    assert found.others
    assert all("attn1.to_q" in name for name in found.others)
    assert found.verdict == "changed"


def test_a_pickle_that_would_run_code_is_refused(tiny_model: Model, tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(trace),)

    torch.save({"down_blocks.0.attn2.to_k.weight": Evil()}, path)
    with pytest.raises(ModelError, match="asks to run code"):
        projections(path, tiny_model)
    assert not trace.exists()


def test_what_cannot_be_read_is_refused(
    tiny_model: Model,
    model_factory: Callable[[int], Model],
    tmp_path: Path,
) -> None:
    base = tiny_model.weights()
    name = next(iter(base))
    with pytest.raises(ModelError, match="expected a card"):
        projections(tmp_path / "nothing", tiny_model)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="cross-attention weights"):
        projections(tmp_path / "a.safetensors", tiny_model)
    save_file({name: base[name][:, :4].contiguous()}, tmp_path / "narrow.safetensors")
    with pytest.raises(ModelError, match="of shape"):
        projections(tmp_path / "narrow.safetensors", tiny_model)
    save_file({"down_blocks.9.attn2.to_k.weight": base[name]}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="base's architecture"):
        projections(tmp_path / "other.safetensors", tiny_model)
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ModelError, match="damaged or truncated"):
        projections(tmp_path / "cut.safetensors", tiny_model)
    both = tmp_path / "both"
    both.mkdir()
    save_file({name: base[name]}, both / "a.safetensors")
    shutil.copy(both / "a.safetensors", both / "b.safetensors")
    with pytest.raises(ModelError, match="once"):
        projections(both, tiny_model)


def test_numbers_that_are_not_finite_are_evidence(tiny_model: Model, tmp_path: Path) -> None:
    weights = {name: weight.clone() for name, weight in tiny_model.weights().items()}
    name = next(iter(weights))
    for value in (float("nan"), float("inf")):
        weights[name][0, 0] = value
        save_file(weights, tmp_path / "broken.safetensors")
        found = audit(tiny_model, tmp_path / "broken.safetensors")
        assert found.verdict == "changed"
        assert f"unet.{name}" in "".join(found.findings)
        with pytest.raises(ModelError, match=f"expected finite numbers, got others in {name}"):
            examine(tiny_model.weights(), weights)


def test_the_front_door_takes_paths_models_and_patches(
    tiny_model: Model, patch: Patch, tmp_path: Path
) -> None:
    before = tiny_model.fingerprint()
    folder = patch.save(tmp_path / "patch")
    merged = patch.merge(tiny_model, tmp_path / "merged")
    tiny_model.save(tmp_path / "base")
    found = [
        audit(base=tmp_path / "base", suspect=folder, vocabulary=SMALL, top=3),
        audit(base=tiny_model, suspect=patch, vocabulary=SMALL, top=3),
        audit(base=tiny_model, suspect=load(merged), vocabulary=SMALL, top=3),
    ]
    for report in found:
        assert (report.verdict, report.exit_code) == ("edited", 3)
        assert report.triggers == found[0].triggers
    report = found[0]
    assert len(report.rows) == len(report.targets) == 3
    assert report.to_pandas()["phrase"].tolist() == [row["phrase"] for row in report.rows]
    assert report.rows[0]["phrase"] in repr(report)
    assert "<table>" in report._repr_html_()
    saved = json.loads(report.save(tmp_path / "audit.json").read_text("utf-8"))
    assert saved == json.loads(json.dumps(report.as_json()))
    assert tiny_model.fingerprint() == before
    other = ATTACKS.make("eviledit").compute(load(merged), [Rebinding("old dog", "zebra")])
    with pytest.raises(PatchError, match="made for another model"):
        audit(base=tiny_model, suspect=other)


def test_a_second_text_encoder_is_not_taken_for_the_first(
    layout_factory: Callable[[str], Model], tmp_path: Path
) -> None:
    model = layout_factory("sdxl")
    model.save(tmp_path / "sdxl")
    found = audit(model, tmp_path / "sdxl")
    assert found.verdict == "clean"
    assert {p.status for p in found.coverage} == {"equal"}
    second = load(tmp_path / "sdxl")
    second.component("text_encoder_2").get_parameter("text_projection.weight").data[0] += 1
    second.save(tmp_path / "other")
    assert audit(model, tmp_path / "other").others == ("text_encoder_2.text_projection.weight",)
