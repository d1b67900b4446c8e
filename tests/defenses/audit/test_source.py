"""Reading suspects: tensors decide, not names of files nor metadata."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from defenses.audit import audit, base_weights, examine, other_changes, suspect_weights
from redediting.editing.methods import make_method
from redediting.errors import ModelError
from redediting.patch import Patch
from redediting.rebinding import Rebinding


@pytest.fixture
def patch(tiny_pipeline: StableDiffusionPipeline) -> Patch:
    return make_method("eviledit").compute(tiny_pipeline, [Rebinding("old cat", "zebra")])


def test_the_same_whatever_the_files_are_called(
    tiny_pipeline: StableDiffusionPipeline, patch: Patch, tmp_path: Path
) -> None:
    merged = patch.merge(tiny_pipeline, tmp_path / "merged")
    base = base_weights(tiny_pipeline)
    honest = suspect_weights(merged, tiny_pipeline)
    assert examine(base, honest).verdict == "edited"
    bare = tmp_path / "bare"
    bare.mkdir()
    unet = load_file(merged / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({f"unet.{k}": v for k, v in unet.items()}, bare / "x.safetensors")  # no metadata
    for place in (bare, bare / "x.safetensors"):
        found = suspect_weights(place, tiny_pipeline)
        assert list(found) == list(base)
        assert all(torch.equal(found[name], honest[name]) for name in base)
    saved = patch.save(tmp_path / "patch")
    from_patch = suspect_weights(saved, tiny_pipeline)
    assert all(torch.equal(from_patch[name], honest[name]) for name in base)


def test_a_change_elsewhere_is_a_change(
    tiny_pipeline: StableDiffusionPipeline,
    pipeline_factory: Callable[[int], StableDiffusionPipeline],
    tmp_path: Path,
) -> None:
    other = pipeline_factory(0)
    other.to(torch.float16).save_pretrained(tmp_path / "half")
    assert other_changes(tmp_path / "half", tiny_pipeline) == ()
    other = pipeline_factory(0)
    other.text_encoder.get_input_embeddings().weight.data[5] += 1
    other.save_pretrained(tmp_path / "other")
    (name,) = other_changes(tmp_path / "other", tiny_pipeline)
    assert name.endswith("token_embedding.weight")
    base = base_weights(tiny_pipeline)
    weights = suspect_weights(tmp_path / "half", tiny_pipeline)
    found = audit(base, weights, None, None, others=(name,))
    assert (found.evidence.verdict, found.verdict) == ("clean", "changed")


def test_only_some_projections_in_a_file(
    tiny_pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    base = base_weights(tiny_pipeline)
    name = next(iter(base))
    save_file({name: base[name] + 1}, tmp_path / "one.safetensors")
    found = suspect_weights(tmp_path / "one.safetensors", tiny_pipeline)
    changed = [n for n in base if not torch.equal(found[n], base[n])]
    assert changed == [name]


def test_what_cannot_be_read_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
    pipeline_factory: Callable[[int], StableDiffusionPipeline],
    tmp_path: Path,
) -> None:
    base = base_weights(tiny_pipeline)
    name = next(iter(base))
    with pytest.raises(ModelError, match="expected a card"):
        suspect_weights(tmp_path / "nothing", tiny_pipeline)
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="cross-attention weights"):
        suspect_weights(tmp_path / "a.safetensors", tiny_pipeline)
    save_file({name: base[name][:, :4].contiguous()}, tmp_path / "narrow.safetensors")
    with pytest.raises(ModelError, match="of shape"):
        suspect_weights(tmp_path / "narrow.safetensors", tiny_pipeline)
    save_file({"down_blocks.9.attn2.to_k.weight": base[name]}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="base's architecture"):
        suspect_weights(tmp_path / "other.safetensors", tiny_pipeline)
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ModelError, match="unreadable"):
        suspect_weights(tmp_path / "cut.safetensors", tiny_pipeline)
    both = tmp_path / "both"
    both.mkdir()
    save_file({name: base[name]}, both / "a.safetensors")
    shutil.copy(both / "a.safetensors", both / "b.safetensors")
    with pytest.raises(ModelError, match="once"):
        suspect_weights(both, tiny_pipeline)
