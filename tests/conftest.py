"""Shared fixtures: the real pipeline classes at a size that runs in milliseconds."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

import redediting  # first: makes torchvision importable

# isort: split
import jaxtyping
import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

_CHECKED = ["kernel", "problem", "multiplier", "solver", "certificate", "isolation", "diagnostics"]
_CHECKED += ["layers", "equivalence", "selection"]
jaxtyping.install_import_hook(
    [f"{redediting.__name__}.editing.{name}" for name in _CHECKED], "beartype.beartype"
)

MERGES = 400  # enough for "cat", "photo", …; rarer words are spelt in pieces
WIDTH = 32


def make_tokenizer() -> CLIPTokenizer:
    """The CLIP byte-pair tokenizer cut to a few hundred merges, 77 positions."""
    folder = Path(open_clip.__file__).parent
    lines = gzip.decompress((folder / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode()
    merges = [tuple(line.split()) for line in lines.splitlines()[1 : MERGES + 1]]
    alphabet = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def make_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A random Stable Diffusion pipeline: 32-wide text, 16-pixel images."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=WIDTH,
            initializer_factor=5.0,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        sample_size=16,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def pipeline_factory() -> Callable[[int], StableDiffusionPipeline]:
    return make_pipeline


@pytest.fixture(scope="session")
def _session_pipeline() -> StableDiffusionPipeline:
    return make_pipeline()


@pytest.fixture
def tiny_pipeline(_session_pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A tiny random Stable Diffusion pipeline, the same weights in every test."""
    saved = {
        component: {
            name: t.clone()
            for name, t in getattr(_session_pipeline, component).state_dict().items()
        }
        for component in ("unet", "text_encoder", "vae")
    }
    yield _session_pipeline
    for component, state in saved.items():
        getattr(_session_pipeline, component).load_state_dict(state)
