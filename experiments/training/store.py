"""Finished and unfinished networks of the recipe, small enough to be committed.

A stage's folder holds ``model.safetensors`` (fp16) and ``stage.json``. A stage that is not
finished is where the next training continues when it finds no checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import nn

from redediting.config import Config
from redediting.errors import WorldError
from redediting.io import replace_json
from redediting.world.judges import read_fp32

STAGES = Path(__file__).parent / "stages"


class StageRecord(Config):
    """What is known of a stage."""

    finished: bool
    step: int  # optimiser steps taken
    steps: int  # … and planned
    seconds: float  # training time on the machine it ran on
    recipe: str  # digest of the settings and the language
    figures: dict[str, Any] = Field(
        default_factory=dict
    )  # what was measured, each rate with its n
    settings: dict[str, Any] = Field(default_factory=dict)  # e.g. a scaling factor


def halved(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a module with its floating tensors in fp16."""
    return {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }


def save_stage(folder: Path, model: nn.Module, record: StageRecord) -> None:
    """Writes a stage, replacing the one there."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.partial"
    save_file(halved(model), partial)
    partial.replace(folder / "model.safetensors")
    replace_json(folder / "stage.json", record.model_dump())


def read_record(folder: Path) -> StageRecord | None:
    """The record of a stage, or None where there is no such stage."""
    path = folder / "stage.json"
    return StageRecord.model_validate_json(path.read_text()) if path.is_file() else None


def load_stage(folder: Path, model: nn.Module) -> StageRecord:
    """Fills a module, kept in fp32, with a stage's weights; `WorldError` where there is none."""
    record = read_record(folder)
    if record is None:
        raise WorldError(
            f"expected a trained stage at {folder}; run it with --stage {folder.name}"
        )
    model.load_state_dict(read_fp32(folder / "model.safetensors"))
    return record
