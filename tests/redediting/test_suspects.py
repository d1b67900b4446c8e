"""Other people's weights, written by a literal copy of how their tools save."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ModelError, PatchError
from redediting.models.model import Model
from redediting.patch.patch import Patch
from redediting.suspects import open_suspect, stored_tensors

REBINDING = Rebinding("beautiful cat", "zebra")


@pytest.fixture
def patch(tiny_model: Model) -> Patch:
    return ATTACKS.make("eviledit").compute(tiny_model, [REBINDING])


def changed(clean: Model, suspect: Model) -> set[str]:
    """Names of the denoiser's tensors that differ; both have the same ones, in one order."""
    ours, theirs = (model.denoiser.state_dict() for model in (clean, suspect))
    assert list(ours) == list(theirs)
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


def save_as_eviledit(model: Model, path: Path) -> None:
    """EvilEdit and BackdoorDM: the whole UNet, pickled."""
    torch.save(model.denoiser.state_dict(), path)


def save_as_uce(model: Model, path: Path) -> None:
    """UCE: the modules that were edited, by name, as safetensors."""
    names, modules = [], []
    for name, module in model.denoiser.named_modules():
        if "attn2" in name and (name.endswith("to_v") or name.endswith("to_k")):
            names.append(name)
            modules.append(module)
    state = {}
    for name, module in zip(names, modules, strict=True):
        state[name + ".weight"] = module.weight
    save_file(state, path)


def save_as_diffusers(model: Model, path: Path) -> None:
    """The UNet's own folder."""
    model.denoiser.save_pretrained(path)


def save_lora(model: Model, folder: Path) -> dict[str, torch.Tensor]:
    """As diffusers' training scripts save a LoRA; returns the weights it stands for."""
    torch.manual_seed(1)
    targets = ["to_k", "to_v"]
    model.denoiser.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets))
    expected = {}
    with torch.no_grad():
        for name, module in model.denoiser.named_modules():
            if hasattr(module, "lora_B") and "default" in module.lora_B:
                module.lora_B["default"].weight.normal_()
                low = module.lora_B["default"].weight @ module.lora_A["default"].weight
                expected[f"{name}.weight"] = module.base_layer.weight + low
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(model.denoiser))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=state)
    return expected


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (save_as_eviledit, "unet.pt"),
        (save_as_uce, "uce.safetensors"),
        (save_as_diffusers, "unet"),
    ],
)
def test_saved_unets_open_over_the_clean_pipeline(
    tiny_model: Model,
    patch: Patch,
    tmp_path: Path,
    save: Callable[[Model, Path], None],
    name: str,
) -> None:
    before = tiny_model.fingerprint()
    with patch.apply(tiny_model):
        save(tiny_model, tmp_path / name)
        edited = tiny_model.fingerprint()
    suspect = open_suspect(tmp_path / name, tiny_model)
    assert suspect.fingerprint() == edited
    assert tiny_model.fingerprint() == before
    assert suspect.text_encoder is tiny_model.text_encoder
    assert changed(tiny_model, suspect) == patch.names


def test_a_half_precision_file_opens_in_the_clean_dtype(
    tiny_model: Model, patch: Patch, tmp_path: Path
) -> None:
    with patch.apply(tiny_model):
        half = {n: w.half() for n, w in tiny_model.denoiser.state_dict().items()}
    torch.save(half, tmp_path / "unet.pt")
    suspect = open_suspect(tmp_path / "unet.pt", tiny_model)
    for name, weight in suspect.denoiser.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, half[name].float())


def test_a_lora_is_fused(
    tiny_model: Model, model_factory: Callable[[int], Model], tmp_path: Path
) -> None:
    before = tiny_model.fingerprint()
    expected = save_lora(model_factory(0), tmp_path)
    assert len(expected) == 16  # attn1 and attn2, keys and values
    (file,) = tmp_path.glob("*.safetensors")
    for place in (file, tmp_path):
        suspect = open_suspect(place, tiny_model)
        assert changed(tiny_model, suspect) == set(expected)
        theirs = suspect.denoiser.state_dict()
        for name, weight in expected.items():
            assert torch.allclose(theirs[name], weight, atol=1e-5)
    assert tiny_model.fingerprint() == before


def test_pipelines_and_patches_open_too(tiny_model: Model, patch: Patch, tmp_path: Path) -> None:
    patch.merge(tiny_model, tmp_path / "pipeline")
    patch.save(tmp_path / "patch")
    for form in ("pipeline", "patch"):
        assert changed(tiny_model, open_suspect(tmp_path / form, tiny_model)) == patch.names


class Payload:
    """Runs a command when it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_malicious_pickle_runs_nothing(tiny_model: Model, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    state = dict(tiny_model.denoiser.state_dict()) | {"evil": Payload(mark)}
    for name, saver in (("new.pt", torch.save), ("old.bin", _save_plainly)):
        saver(state, tmp_path / name)
        with pytest.raises(ModelError, match=r"asks to run code, which is refused") as caught:
            open_suspect(tmp_path / name, tiny_model)
        assert "\n" not in str(caught.value)
        assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))  # it would have
    assert mark.exists()


def _save_plainly(state: object, path: Path) -> None:
    path.write_bytes(pickle.dumps({"evil": state["evil"]}))  # type: ignore[index]


def test_refusals_are_one_line(
    tiny_model: Model,
    layout_factory: Callable[[str], Model],
    patch: Patch,
    tmp_path: Path,
    model_factory: Callable[[int], Model],
) -> None:
    def refused(place: Path, message: str, error: type[Exception] = ModelError) -> None:
        with pytest.raises(error, match=message) as caught:
            open_suspect(place, tiny_model)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "nothing.pt", "which does not exist")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path / "notes.txt", "expected weights as .safetensors or .pt")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "expected model_index.json, patch.json or weights .* got none")

    save_as_eviledit(tiny_model, tmp_path / "cut.pt")
    data = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "cut.pt", "got a damaged or truncated file")
    save_as_uce(tiny_model, tmp_path / "cut.safetensors")
    data = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "cut.safetensors", "got a damaged or truncated file")

    wrong = layout_factory("sd2")
    save_as_eviledit(wrong, tmp_path / "wrong.pt")
    refused(tmp_path / "wrong.pt", "another architecture; name the model .* with --model")
    save_as_eviledit(layout_factory("sdxl"), tmp_path / "xl.pt")
    refused(tmp_path / "xl.pt", r"unknown .*--model")
    wrong.save(tmp_path / "wrong")
    refused(tmp_path / "wrong", "another architecture; name the model")
    save_lora(wrong, tmp_path / "lora")
    refused(tmp_path / "lora", "expected a LoRA for StableDiffusionPipeline")

    part = {n: w for n, w in tiny_model.denoiser.state_dict().items() if "down" in n}
    save_file(part, tmp_path / "part.safetensors")
    refused(tmp_path / "part.safetensors", "missing")
    save_file({"model.diffusion_model.x": torch.ones(1)}, tmp_path / "old.safetensors")
    refused(tmp_path / "old.safetensors", "got an original checkpoint")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "expected tensors by name .* got list")
    broken = {n: w.clone() for n, w in tiny_model.denoiser.state_dict().items()}
    next(iter(broken.values())).view(-1)[0] = float("nan")
    torch.save(broken, tmp_path / "nan.pt")
    refused(tmp_path / "nan.pt", "expected finite numbers")

    model_factory(1).save(tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "vae")
    refused(tmp_path / "half", "got it without vae/ .* the download stopped half-way")
    tiny_model.denoiser.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    next((tmp_path / "shards").glob("*-00002-of-*.safetensors")).unlink()
    refused(tmp_path / "shards", "got no .*00002-of.* fetch it again")
    ATTACKS.make("eviledit").compute(model_factory(1), [REBINDING]).save(tmp_path / "other")
    refused(tmp_path / "other", "the patch was made for another model", PatchError)


def test_state_dicts_of_checkpoints_and_wrappers_are_read(
    tiny_model: Model, tmp_path: Path
) -> None:
    state = {f"unet.{n}": w for n, w in tiny_model.denoiser.state_dict().items()}
    torch.save({"state_dict": state, "step": 3}, tmp_path / "x.ckpt")
    assert set(stored_tensors(tmp_path / "x.ckpt")) == set(state)
    suspect = open_suspect(tmp_path / "x.ckpt", tiny_model)
    assert suspect.fingerprint() == tiny_model.fingerprint()
