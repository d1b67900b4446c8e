"""The training code: a few steps of every stage, and the promise of resuming."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from experiments.training import autoencoder, denoiser, judges, text
from experiments.training.data import Split, as_pixels, load_split
from experiments.training.loop import Schedule, train
from experiments.training.recipe import Recipe, WorldConfig
from redediting.config import load_config
from redediting.errors import ConfigError
from redediting.world.captions import captions
from redediting.world.scenes import render

FEW = Schedule(steps=2, batch=4, lr=1e-3, warmup=1)


@pytest.fixture(scope="module")
def split() -> Split:
    items = list(islice(captions("train"), 12))
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
    return train(model, loss, schedule, name="fit", folder=folder)


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
    assert text.tokenize(tokenizer, ["a cat", ""]).shape == (2, 77)


def test_contrastive_loss_is_lowest_for_matching_pairs() -> None:
    texts = torch.tensor([0, 1, 1])
    good = 20.0 * (texts[:, None] == texts[None]).float()
    assert text.contrastive_loss(good, texts) < text.contrastive_loss(-good, texts)
    assert text.contrastive_loss(good, texts) == pytest.approx(2 / 3 * np.log(2), abs=1e-3)


def test_every_stage_trains(tmp_path: Path, split: Split) -> None:
    vae = autoencoder.train_autoencoder(
        split.images, FEW, tmp_path, channels=8, latent_channels=4, noise=0.1
    )
    assert vae.config.scaling_factor > 0
    tokenizer = text.build_tokenizer(500)
    encoder = text.train_text_encoder(split, tokenizer, FEW, tmp_path, width=64, layers=1)
    cache = denoiser.cache_latents(split, vae, encoder, tokenizer)
    assert cache.latents.shape == (12, 4, 8, 8)
    cache.save(tmp_path / "cache.safetensors")
    cache = denoiser.Cache.read(tmp_path / "cache.safetensors")
    unet = denoiser.build(4, 64, widths=(32, 32), layers=1, head=16)
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    denoiser.train_denoiser(unet, cache, FEW, tmp_path)
    moved = [not torch.equal(before[k], v) for k, v in unet.state_dict().items()]
    assert np.mean(moved) > 0.9
    judge = judges.train_judge_b(split, FEW, tmp_path, width=8)
    logits = judge(as_pixels(split.images))
    assert {name: value.shape[1] for name, value in logits.items()} == {
        name: len(labels) for name, labels in judge.classes.items()
    }
    clip = judges.train_judge_a(split, tokenizer, FEW, tmp_path)
    assert clip.encode_image(as_pixels(split.images)).shape == (12, 128)


def test_restore_refuses_a_folder_whose_training_would_win(tmp_path: Path) -> None:
    recipe = Recipe(load_config(Path("configs/world/default.yaml"), WorldConfig), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/denoiser.ckpt").touch()
    with pytest.raises(ConfigError, match="without a UNet in training"):
        recipe.run_restore()
    assert not (tmp_path / "vae").exists()
