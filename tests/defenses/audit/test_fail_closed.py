"""An audit fails closed: every layout, every component, every form in which weights are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from defenses import audit
from defenses.audit.coverage import survey
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError
from redediting.inventory import components, read_suspect
from redediting.models.loading import load
from redediting.models.model import Model

Layouts = Callable[..., Model]
ALL = ("sd1", "sd2", "sdxl", "sd3", "flux", "pixart")


def verdict(base: Model, suspect: Path | Model) -> str:
    found = audit(base, suspect)
    assert (
        found.exit_code
        == {"clean": 0, "edited": 3, "changed": 4, "inconclusive": 5}[found.verdict]
    )
    return found.verdict


@pytest.mark.parametrize("layout", ALL)
def test_untouched_saved_in_half_and_in_shards_is_clean(
    layout_factory: Layouts, layout: str, tmp_path: Path
) -> None:
    model = layout_factory(layout)
    assert verdict(model, model) == "clean"
    model.save(tmp_path / "whole")
    assert verdict(model, tmp_path / "whole") == "clean"
    model.pipeline.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert list((tmp_path / "shards").rglob("*.safetensors.index.json"))
    assert verdict(model, tmp_path / "shards") == "clean"
    for dtype in (torch.float16, torch.bfloat16):
        half = load(tmp_path / "whole")
        half.pipeline.to(dtype)
        half.pipeline.save_pretrained(tmp_path / str(dtype))
        assert verdict(model, tmp_path / str(dtype)) == "clean"


@pytest.mark.parametrize("layout", ALL)
def test_one_tensor_of_any_component_is_never_clean(
    layout_factory: Layouts, layout: str, tmp_path: Path
) -> None:
    model = layout_factory(layout)
    model.save(tmp_path / "base")
    for name, component in components(model).items():
        if not isinstance(component, torch.nn.Module):
            continue
        file = next((tmp_path / "base" / name).glob("*.safetensors"))
        weights = load_file(file)
        key = sorted(weights)[len(weights) // 2]
        for value, said in ((weights[key] * 1.01 + 1e-3, "changed"), (None, "inconclusive"),
                            (weights[key] * float("nan"), "changed"),
                            (weights[key][None], "changed"),
                            (weights[key].to(torch.int8), "inconclusive")):  # fmt: skip
            shutil.rmtree(tmp_path / "suspect", ignore_errors=True)
            shutil.copytree(tmp_path / "base", tmp_path / "suspect")
            held = {k: v for k, v in weights.items() if k != key}
            save_file(held if value is None else held | {key: value.contiguous()},
                      tmp_path / "suspect" / name / file.name)  # fmt: skip
            if value is not None and value.ndim > weights[key].ndim and key in model.weights():
                with pytest.raises(ModelError, match="of shape"):  # another architecture
                    audit(model, tmp_path / "suspect")
            else:
                assert verdict(model, tmp_path / "suspect") == said, (name, key, said)


def test_settings_tokenizer_and_scheduler_count(tiny_model: Model, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "base")

    def altered(path: str, change: Callable[[dict[str, object]], object]) -> str:
        shutil.rmtree(tmp_path / "suspect", ignore_errors=True)
        shutil.copytree(tmp_path / "base", tmp_path / "suspect")
        file = tmp_path / "suspect" / path
        data = json.loads(file.read_text("utf-8"))
        change(data)
        file.write_text(json.dumps(data), "utf-8")
        return verdict(tiny_model, tmp_path / "suspect")

    assert altered("vae/config.json", lambda d: d.update(scaling_factor=0.5)) == "changed"
    assert altered("text_encoder/config.json", lambda d: d.update(hidden_act="relu")) == "changed"
    assert altered("text_encoder/config.json", lambda d: d.update(dtype="float16")) == "clean"
    assert altered("unet/config.json", lambda d: d.update(_diffusers_version="0.1")) == "clean"
    assert altered("unet/config.json", lambda d: d.pop("center_input_sample")) == "clean"
    said = altered("scheduler/scheduler_config.json", lambda d: d.update(prediction_type="sample"))
    assert said == "changed"

    def swapped(data: dict[str, object]) -> None:
        vocabulary = data["model"]["vocab"]  # type: ignore[index]
        vocabulary["a</w>"], vocabulary["b</w>"] = vocabulary["b</w>"], vocabulary["a</w>"]

    assert altered("tokenizer/tokenizer.json", swapped) == "changed"
    assert altered("model_index.json", lambda d: d.update(vae=[None, None])) == "inconclusive"
    assert altered("model_index.json", lambda d: d.update(extra=["x", "Y"])) == "inconclusive"
    (tmp_path / "suspect" / "unet" / "config.json").write_text("{")
    assert verdict(tiny_model, tmp_path / "suspect") == "inconclusive"


def test_an_edit_outweighs_what_could_not_be_read(tiny_model: Model, tmp_path: Path) -> None:
    patch = ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("old cat", "zebra")])
    merged = patch.merge(tiny_model, tmp_path / "merged")
    shutil.rmtree(merged / "vae")
    found = audit(tiny_model, merged)
    assert found.verdict == "edited"
    assert found.survey is not None
    assert found.survey.incomplete
    assert any(sentence.startswith("vae: ") for sentence in found.findings)


def test_half_of_a_file_and_low_precision_are_not_clean(tiny_model: Model, tmp_path: Path) -> None:
    weights = tiny_model.denoiser.state_dict()
    half = dict(list(weights.items())[::2])
    save_file({k: v.contiguous() for k, v in half.items()}, tmp_path / "half.safetensors")
    assert verdict(tiny_model, tmp_path / "half.safetensors") == "inconclusive"
    coarse = {k: v.to(torch.float8_e4m3fn) for k, v in weights.items()}
    save_file(coarse, tmp_path / "fp8.safetensors")
    assert verdict(tiny_model, tmp_path / "fp8.safetensors") == "clean"
    key = next(iter(tiny_model.weights()))
    coarse[key] = (weights[key] * 1.2).to(torch.float8_e4m3fn)
    save_file(coarse, tmp_path / "fp8.safetensors")
    assert verdict(tiny_model, tmp_path / "fp8.safetensors") == "inconclusive"
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "unet.safetensors")
    found = audit(tiny_model, tmp_path / "unet.safetensors")
    assert found.verdict == "clean"
    assert found.survey is not None
    assert "not carried: vae, text_encoder, tokenizer, scheduler" in found.survey.scope
    vae = {f"vae.{k}": v + 0.1 for k, v in tiny_model.component("vae").state_dict().items()}
    save_file(vae, tmp_path / "vae.safetensors")
    assert verdict(tiny_model, tmp_path / "vae.safetensors") == "changed"


def test_a_counter_that_older_text_encoders_store_is_no_weight(
    tiny_model: Model, tmp_path: Path
) -> None:
    tiny_model.save(tmp_path / "old")
    file = tmp_path / "old" / "text_encoder" / "model.safetensors"
    ids = torch.arange(77)[None]
    name = "text_model.embeddings.position_ids"
    save_file(load_file(file) | {name: ids}, file)
    assert verdict(tiny_model, tmp_path / "old") == "clean"
    save_file(load_file(file) | {name: ids.flip(1).contiguous()}, file)
    assert verdict(tiny_model, tmp_path / "old") == "inconclusive"


def test_a_patch_carries_what_it_changes_alone(tiny_model: Model) -> None:
    patch = ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("old cat", "zebra")])
    found = survey(tiny_model, read_suspect(patch, tiny_model))
    assert {c.component for c in found.coverage if c.status != "not_carried"} == {"unet"}
    assert not found.incomplete


def original_layout(model: Model) -> dict[str, torch.Tensor]:
    """UNet and text encoder under the names of the original code, written out by hand."""
    blocks = len(model.denoiser.config.down_block_types)
    per = model.denoiser.config.layers_per_block + 1
    names = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.0": "middle_block.0",
        "mid_block.resnets.1": "middle_block.2",
    }  # fmt: skip
    for i in range(blocks):
        for j in range(per):
            names[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{per * i + j + 1}.0"
            names[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{per * i + j + 1}.1"
            names[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{per * i + j}.0"
            names[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{per * i + j}.1"
        names[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{per * (i + 1)}.0.op"
        attends = "Cross" in model.denoiser.config.up_block_types[i]
        place = f"output_blocks.{per * i + per - 1}.{2 if attends else 1}"
        names[f"up_blocks.{i}.upsamplers.0.conv"] = f"{place}.conv"
    inner = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
        "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }  # fmt: skip
    found = {}
    for name, tensor in model.denoiser.state_dict().items():
        start = max((n for n in names if name.startswith(f"{n}.")), key=len)
        rest = name.removeprefix(f"{start}.")
        if ".resnets." in f".{start}.":
            part, _, leaf = rest.partition(".")
            rest = f"{inner[part]}.{leaf}"
        found[f"model.diffusion_model.{names[start]}.{rest}"] = tensor.contiguous()
    for name, tensor in model.text_encoder.state_dict().items():
        bare = name.removeprefix("text_model.")
        found[f"cond_stage_model.transformer.text_model.{bare}"] = tensor.contiguous()
    return found


def test_a_single_file_in_the_original_layout_gives_the_folder_s_verdict(
    tiny_model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(original_layout(tiny_model), file)
    clean = audit(tiny_model, file)
    assert clean.verdict == "clean", clean.findings
    assert clean.survey is not None
    assert clean.survey.scope == (
        "compared: text_encoder, unet; not carried: vae, tokenizer, scheduler"
    )
    patch = ATTACKS.make("eviledit").compute(tiny_model, [Rebinding("old cat", "zebra")])
    folder = audit(tiny_model, patch.merge(tiny_model, tmp_path / "merged"), top=3)
    with patch.apply(tiny_model):
        edited = {k: v.clone() for k, v in original_layout(tiny_model).items()}
    save_file(edited, file)
    single = audit(tiny_model, file, top=3)
    assert single.verdict == folder.verdict == "edited"
    assert single.triggers == folder.triggers
    save_file(dict(list(edited.items())[::2]), file)
    assert audit(tiny_model, file).survey.incomplete  # type: ignore[union-attr]
