"""Finished and unfinished networks of the recipe, small enough to be committed.

A stage's folder holds ``model.safetensors`` (fp16) and ``stage.json``. A stage that is not
finished is where the next training continues when it finds no checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import nn

from redediting.errors import WorldError
from redediting.io import replace_json

STAGES = Path(__file__).parent / "stages"


class StageRecord(BaseModel):
    """What is known of a stage.

    Attributes:
        finished: whether its schedule was run to the end.
        step: optimiser steps taken.
        steps: optimiser steps planned.
        seconds: training time on the machine it ran on.
        recipe: digest of the settings and the language that it was trained with.
        figures: what was measured, each with its n where it is a rate.
        settings: what the module needs besides the configuration, e.g. a scaling factor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    finished: bool
    step: int
    steps: int
    seconds: float
    recipe: str
    figures: dict[str, Any] = {}
    settings: dict[str, Any] = {}


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
    """Fills a module, kept in fp32, with a stage's weights.

    Raises:
        WorldError: there is no such stage.
    """
    record = read_record(folder)
    if record is None:
        raise WorldError(
            f"expected a trained stage at {folder}; run it with --stage {folder.name}"
        )
    state = load_file(folder / "model.safetensors")
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value
         for name, value in state.items()}
    )  # fmt: skip
    return record
