"""What ships: the trained parts as fp16 safetensors in the StableDiffusionPipeline layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from experiments.training.denoiser import sampler
from experiments.training.judges import classes, clip_config
from experiments.training.recipe import Name, Recipe
from experiments.training.store import halved, read_record
from experiments.training.text import text_tower
from redediting.concepts.language import SHIPPED
from redediting.errors import WorldError

PARTS: tuple[Name, ...] = ("text", "autoencoder", "judge_b", "judge_a", "denoiser")


def save_pipeline(
    folder: Path,
    *,
    autoencoder: AutoencoderTiny,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    denoiser: UNet2DConditionModel,
) -> None:
    """Writes a folder that plain ``StableDiffusionPipeline.from_pretrained`` opens and draws with.

    Weights are fp16 on disk. The text encoder's configuration says float32, because transformers
    loads in the type that is written there while diffusers loads the other parts in float32.
    """
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
    pipeline.save_pretrained(folder, safe_serialization=True)
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text()) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_judge(folder: Path, model: nn.Module, config: Mapping[str, Any]) -> None:
    """Writes ``model.safetensors`` (fp16) and ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(halved(model), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def export(recipe: Recipe, folder: Path) -> None:
    """Writes the whole bundle from the stages: pipeline, judges, language, training records.

    Raises:
        WorldError: a stage is missing or not finished.
    """
    records = {name: read_record(recipe.stages / name) for name in PARTS}
    missing = [name for name, record in records.items() if record is None or not record.finished]
    if missing:
        raise WorldError(
            f"expected every stage finished, got {', '.join(missing)} missing or unfinished; "
            "run python -m experiments.train_world --stage NAME"
        )
    save_pipeline(
        folder / "pipeline",
        autoencoder=recipe.load("autoencoder"),
        encoder=text_tower(recipe.load("text")),
        tokenizer=recipe.tokenizer,
        denoiser=recipe.load("denoiser"),
    )
    heads = {"classes": classes(recipe.language), "width": recipe.config.judge_b_width}
    save_judge(folder / "judge_b", recipe.load("judge_b"), heads)
    save_judge(folder / "judge_a", recipe.load("judge_a"), clip_config(len(recipe.tokenizer)))
    kept = {name: record.model_dump() for name, record in records.items() if record is not None}
    (folder / "training.json").write_text(json.dumps(kept, indent=1) + "\n")
    source = recipe.config.language or SHIPPED
    if source.resolve() != (folder / "language.yaml").resolve():
        shutil.copyfile(source, folder / "language.yaml")
