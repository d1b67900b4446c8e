"""What ships: the trained parts as fp16 safetensors in the StableDiffusionPipeline layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.training.denoiser import sampler
from redediting.models.model import Model


def save_pipeline(
    folder: Path,
    *,
    autoencoder: AutoencoderTiny,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    denoiser: UNet2DConditionModel,
) -> None:
    """Writes a folder that plain ``StableDiffusionPipeline.from_pretrained`` opens."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=denoiser,
        scheduler=sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    Model(pipeline).save(folder)


def save_judge(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Writes ``model.safetensors`` (fp16) and ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(half, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
