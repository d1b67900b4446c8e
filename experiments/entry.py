"""What the experiments' commands share: their options, and what each needs before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.console import Shown, pick_device
from experiments.engine.folder import check_writable
from redediting.models.loading import load
from redediting.models.model import Model


@dataclass(frozen=True)
class Experiment:
    """Options of an experiment."""

    config: tyro.conf.Positional[Path]
    """A YAML file below configs/."""
    quick: bool = False
    """A few pairs and images: shows that it works, may not be published."""
    out: Path = Path("runs")
    """Where run folders lie."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""

    def start(self, model: str) -> Started:
        """Checks the output folder and loads the model.

        Raises:
            OutputError: the folder cannot be written.
            ModelError: no such model.
        """
        check_writable(self.out)
        device = pick_device(self.device)
        return Started(load(model, device=device), device, Shown(self.json))


@dataclass(frozen=True)
class Started:
    """A loaded model, its device, and where results are shown."""

    model: Model
    device: str
    shown: Shown
