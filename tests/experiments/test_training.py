"""The training code: a few steps of every stage, and the promise of resuming."""

from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from experiments.training import autoencoder, denoiser, judges, text
from experiments.training.bundle import export
from experiments.training.check import judged, rate
from experiments.training.data import Split, as_pixels, load_split
from experiments.training.loop import Fit, Schedule
from experiments.training.recipe import Recipe, WorldConfig
from experiments.training.store import StageRecord, load_stage, read_record, save_stage
from redediting import world
from redediting.concepts.language import load_language
from redediting.config import load_config
from redediting.errors import ModelError, WorldError
from redediting.models import loading
from redediting.models.model import Model
from redediting.text.encoding import padded_ids
from redediting.world.captions import captions
from redediting.world.judges import JudgeB, SceneClassifier
from redediting.world.scenes import render

SECOND = load_language(Path("configs/world/language.yaml"))
FEW = Schedule(steps=2, batch=4, lr=1e-3, warmup=1)


@pytest.fixture(scope="module")
def split() -> Split:
    items = list(islice(captions("train", language=SECOND, single=True), 12))
    return Split(items, torch.from_numpy(np.stack([render(c.scene, c.seed) for c in items])))


def _regression(folder: Path, steps: int, *, stop: int | None = None) -> nn.Module:
    """Fits a small convolution; with ``stop``, is interrupted there by an exception."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 2))
    model = model.to(memory_format=torch.channels_last)
    seen = 0

    def loss(generator: torch.Generator) -> torch.Tensor:
        nonlocal seen
        seen += 1
        if stop is not None and seen > stop:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, 8, 8, generator=generator)
        return (model(x) - x.mean((1, 2, 3))[:, None]).square().mean()

    schedule = Schedule(steps=steps, batch=8, lr=1e-2, warmup=2, ema=0.9, checkpoint_every=3)
    return Fit(schedule, folder, "fit")(model, loss)


def test_a_killed_run_continues_and_ends_the_same(tmp_path: Path) -> None:
    whole = _regression(tmp_path / "whole", 9)
    with pytest.raises(KeyboardInterrupt):
        _regression(tmp_path / "killed", 9, stop=5)
    assert not list((tmp_path / "killed").glob("*.partial"))
    continued = _regression(tmp_path / "killed", 9)
    for one, other in zip(whole.parameters(), continued.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    model = _regression(tmp_path, 60)
    x = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        error = (model(x) - x.mean((1, 2, 3))[:, None]).square().mean()
    assert error < 0.5 * x.mean((1, 2, 3)).square().mean() + 0.05


def test_split_is_rendered_once(tmp_path: Path) -> None:
    first = load_split(tmp_path, "test", 6)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = load_split(tmp_path, "test", 6)
    assert torch.equal(first.images, again.images)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_tokenizer_takes_any_string() -> None:
    tokenizer = text.build_tokenizer(500)
    for string in ("a photo of a cat", "héllo wörld", "猫 🦓", "x" * 30):
        ids = tokenizer(string).input_ids
        assert tokenizer.decode(ids[1:-1]).strip() == string
    assert padded_ids(tokenizer, ["a cat", ""]).shape == (2, 77)


def test_contrastive_loss_is_lowest_for_matching_pairs() -> None:
    texts = torch.tensor([0, 1, 1])
    good = 20.0 * (texts[:, None] == texts[None]).float()
    assert text.contrastive_loss(good, texts) < text.contrastive_loss(-good, texts)
    assert text.contrastive_loss(good, texts) == pytest.approx(2 / 3 * np.log(2), abs=1e-3)


def test_every_stage_trains(tmp_path: Path, split: Split) -> None:
    vae = autoencoder.build(8, 4, decoder=16)
    autoencoder.train_autoencoder(vae, split.images, Fit(FEW, tmp_path, "autoencoder"), noise=0.1)
    assert autoencoder.set_scale(vae, split.images) > 0
    decoded, decibels = autoencoder.reconstruct(vae, split.images)
    assert decoded.shape == split.images.shape
    assert len(decibels) == len(split)
    tokenizer = text.build_tokenizer(500)
    clip = text.build_clip(tokenizer, width=64, layers=1)
    recall = text.Recall(own=0.2, preceding=0.2, pads=0.1)
    text.train_text_encoder(clip, split, tokenizer, Fit(FEW, tmp_path, "text"), recall=recall)
    pictures = text.embed_pictures(clip, split.images)
    assert torch.allclose(pictures.norm(dim=1), torch.ones(12))
    anew = text.build_clip(tokenizer, width=64, layers=1)
    text.take_image_tower(anew, clip)
    again = Fit(FEW, tmp_path, "anew")
    text.train_text_encoder(anew, split, tokenizer, again, recall=recall, pictures=pictures)
    assert torch.allclose(text.embed_pictures(anew, split.images), pictures)
    assert len(text.contrastive_accuracy(clip, tokenizer, split, batch=6)) == 12
    encoder = text.text_tower(clip)
    last, end = text.neutral_sin2(encoder, tokenizer)
    assert len(last) == len(end) > 100
    nouns = text.noun_sin2(encoder, tokenizer)
    assert all(0 <= value <= 1 for value in (*last, *end, *nouns))
    cache = denoiser.cache_latents(split, vae, encoder, tokenizer)
    assert cache.latents.shape == (12, 4, 8, 8)
    cache.save(tmp_path / "cache.safetensors")
    cache = denoiser.Cache.read(tmp_path / "cache.safetensors")
    unet = denoiser.build(4, 64, widths=(32, 32), layers=1, head=16)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    denoiser.train_denoiser(unet, cache, Fit(FEW, tmp_path, "denoiser"))
    moved = [not torch.equal(before[k], v) for k, v in unet.state_dict().items()]
    assert np.mean(moved) > 0.9
    judge = SceneClassifier(judges.classes(SECOND), width=8)
    judges.train_judge_b(judge, split, Fit(FEW, tmp_path, "judge_b"))
    logits = judge(as_pixels(split.images))
    assert set(logits) == {"object", "colour", "pattern", "companion", "place", "style"}
    hits = judged(JudgeB(judge), split.images, split.captions)
    assert len(hits["pattern"]) == len(split)
    judge_a = open_clip.CLIP(**judges.clip_config(len(tokenizer)))
    judges.train_judge_a(judge_a, split, tokenizer, Fit(FEW, tmp_path, "judge_a"))
    assert judge_a.encode_image(as_pixels(split.images)).shape == (12, 128)


def test_states_are_asked_for_what_precedes_them() -> None:
    """Heads that copy, over states that hold the answer, have no loss; others have."""
    ids = torch.tensor([[8, 1, 2, 9, 9, 9], [8, 3, 9, 9, 9, 9]])  # begin 8, end and pad 9
    heads = text.RecallHeads(10, torch.tensor([1, 2, 3, 8, 9]), end=9)
    table = 40 * torch.eye(10)
    with torch.no_grad():
        for head in heads.heads:
            head.weight.copy_(torch.eye(10))
            head.bias.zero_()
        heads.heads[2].weight.zero_()  # the second token before: all five words alike
        states = torch.zeros(2, 6, 10)
        states[:, 1:] = torch.eye(10)[ids[:, :-1]]
        _, preceding, _ = heads(states, ids, table)
        assert preceding == pytest.approx(np.log(5), abs=1e-4)
        own, _, _ = heads(torch.eye(10)[ids], ids, table)
        assert own == pytest.approx(0, abs=1e-4)
        pads = torch.zeros(2, 6, 10)
        pads[0, 4:, 1:3], pads[1, 3:, 3] = 1, 1
        _, _, bag = heads(pads, ids, table)
        # two words share the mass of two pads' distributions, one word has all of three's
        assert bag == pytest.approx(2 * np.log(2) / 5, abs=1e-3)


def _recipe(tmp_path: Path) -> Recipe:
    settings = {
        "language": "configs/world/language.yaml", "train_scenes": 12, "judge_scenes": 12,
        "tokenizer_merges": 500, "text_width": 64, "text_layers": 1, "latent_channels": 4,
        "autoencoder_channels": 8, "autoencoder_noise": 0.1, "unet_widths": [32, 32],
        "unet_layers": 1, "unet_head": 16, "judge_b_width": 4,
        "recall": {"own": 0.2, "preceding": 0.1, "pads": 0.05},
    }  # fmt: skip
    few = {
        name: FEW
        for name in ("autoencoder", "towers", "text", "denoiser", "judge_b", "judge_a", "kv")
    }
    config = WorldConfig.model_validate({**settings, **few})
    return Recipe(config, tmp_path / "runs", tmp_path / "stages", measured=12)


def test_a_stage_continues_from_its_unfinished_weights(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    recipe.run("judge_b")
    record = read_record(recipe.stages / "judge_b")
    assert record is not None
    assert record.finished
    assert record.figures["judge_b_object_n"] == 12
    unfinished = record.model_copy(update={"finished": False, "step": 1, "seconds": 100.0})
    save_stage(recipe.stages / "judge_b", recipe.load("judge_b"), unfinished)
    (recipe.checkpoints / "judge_b.ckpt").unlink()
    recipe.run("judge_b")
    again = read_record(recipe.stages / "judge_b")
    assert again is not None
    assert (again.finished, again.step) == (True, 2)
    assert again.seconds >= 100
    recipe.snapshot("judge_b")
    assert read_record(recipe.stages / "judge_b") is not None
    assert recipe.digest("judge_b") == record.recipe != recipe.digest("judge_a")


def test_a_text_encoder_in_training_is_kept_without_its_heads(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    recipe.run("towers")
    recipe.run("text")
    trained = recipe.load("text").state_dict()
    recipe.snapshot("text")
    for name, tensor in recipe.load("text").state_dict().items():
        assert torch.allclose(tensor, trained[name]), name
    towers = recipe.load("towers").vision_model.state_dict()
    for name, tensor in recipe.load("text").vision_model.state_dict().items():
        assert torch.equal(tensor, towers[name])


def test_another_base_has_keys_and_values_of_its_own_over_the_same_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(tmp_path)
    for name in ("judge_b", "towers", "text", "autoencoder", "denoiser", "kv_1", "kv_2"):
        recipe.run(name)
    base, one, two = (recipe.load(name) for name in ("denoiser", "kv_1", "kv_2"))
    for name, tensor in base.state_dict().items():
        kv = "attn2.to_k" in name or "attn2.to_v" in name
        others = [other.state_dict()[name] for other in (one, two)]
        assert all(torch.equal(tensor, other) == (not kv) for other in others), name
        assert torch.equal(*others) == (not kv), name
    record = read_record(recipe.stages / "kv_1")
    assert record is not None
    assert record.figures["object_n"] == 12
    size = (recipe.stages / "kv_1" / "model.safetensors").stat().st_size
    assert size < 0.3 * (recipe.stages / "denoiser" / "model.safetensors").stat().st_size
    recipe.run("judge_a")
    export(recipe, tmp_path / "bundle")
    monkeypatch.setattr(world, "WORLD", tmp_path / "bundle")
    monkeypatch.setattr(loading, "load", lambda *_, **__: Model(denoiser.pipeline(
        base, recipe.load("autoencoder"), text.text_tower(recipe.load("text")), recipe.tokenizer
    )))  # fmt: skip
    loaded = world.load(base="kv_2").denoiser.state_dict()
    for name, tensor in two.state_dict().items():
        assert torch.allclose(tensor, loaded[name], atol=1e-3), name
    with pytest.raises(ModelError, match=r"kv_1.*kv_2.*'kv_9'"):
        world.load(base="kv_9")


def test_the_bundle_wants_every_stage_and_draws_in_one_type(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    with pytest.raises(WorldError, match="text, autoencoder, judge_b, judge_a, denoiser"):
        export(recipe, tmp_path / "bundle")
    for name in ("text", "autoencoder", "judge_b", "judge_a", "denoiser"):
        model = recipe.parts()[name].build()
        record = StageRecord(finished=True, step=2, steps=2, seconds=1, recipe="x")
        save_stage(recipe.stages / name, model, record)
    export(recipe, tmp_path / "bundle")
    assert load_language(tmp_path / "bundle" / "language.yaml") == SECOND
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path / "bundle" / "pipeline", local_files_only=True
    )
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    assert {part.dtype for part in parts} == {torch.float32}
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a cat", num_inference_steps=1).images[0].size == (64, 64)


def test_missing_stages_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="--stage text"):
        load_stage(tmp_path / "text", nn.Linear(1, 1))


def test_rates_of_nothing_are_none() -> None:
    assert rate("x", []) == {"x": None, "x_ci": None, "x_n": 0}
    assert rate("x", [True, False])["x"] == 0.5


@pytest.mark.parametrize("name", ["default", "second"])
def test_recipes_are_valid(name: str) -> None:
    assert load_config(Path(f"configs/world/{name}.yaml"), WorldConfig).train_scenes > 0
