"""What ships: the trained parts as fp16 safetensors in the StableDiffusionPipeline layout."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from experiments.training.bases import keys_and_values
from experiments.training.denoiser import pipeline
from experiments.training.judges import classes, clip_config
from experiments.training.recipe import BASES, Name, Recipe
from experiments.training.store import halved, read_record
from experiments.training.text import text_tower
from redediting.concepts.language import SHIPPED
from redediting.errors import WorldError
from redediting.io import replace_json
from redediting.models.model import Model

PARTS: tuple[Name, ...] = ("text", "autoencoder", "judge_b", "judge_a", "denoiser")


def export(recipe: Recipe, folder: Path) -> None:
    """Writes the whole bundle from the stages: pipeline, judges, language, training records.

    Plain diffusers opens the pipeline and draws with it. `WorldError` where a stage is missing or
    not finished.
    """
    records = {name: read_record(recipe.stages / name) for name in PARTS}
    missing = [name for name, record in records.items() if record is None or not record.finished]
    if missing:
        raise WorldError(
            f"expected every stage finished, got {', '.join(missing)} missing or unfinished; "
            "run python -m experiments.training --stage NAME"
        )
    networks = (recipe.load("denoiser"), recipe.load("autoencoder"))
    whole = pipeline(*networks, text_tower(recipe.load("text")), recipe.tokenizer)
    whole.to(dtype=torch.float16)
    Model(whole).save(folder / "pipeline")
    configs: dict[Name, Mapping[str, Any]] = {
        "judge_b": {"classes": classes(recipe.language), "width": recipe.config.judge_b_width},
        "judge_a": clip_config(len(recipe.tokenizer)),
    }
    for name, config in configs.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        save_file(halved(recipe.load(name)), folder / name / "model.safetensors")
        replace_json(folder / name / "config.json", config)
    for name in BASES:
        if (record := read_record(recipe.stages / name)) is not None and record.finished:
            records[name] = record
            (folder / "bases").mkdir(exist_ok=True)
            state = halved(keys_and_values(recipe.load(name)))
            named = {key.replace("/", "."): value for key, value in state.items()}
            save_file(named, folder / "bases" / f"{name}.safetensors")
    kept = {name: record.model_dump() for name, record in records.items() if record is not None}
    replace_json(folder / "training.json", kept)
    source = recipe.config.language or SHIPPED
    if source.resolve() != (folder / "language.yaml").resolve():
        shutil.copyfile(source, folder / "language.yaml")
