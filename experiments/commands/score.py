"""``redediting score``: the protocol's metrics on images that anybody drew."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.commands.common import check
from experiments.engine.console import Shown, pick_device
from redediting.errors import ConfigError
from redediting.evaluation.image_list import read_rows
from redediting.io import atomic_folder

SUMMARY = "score.json"


@dataclass(frozen=True, kw_only=True)
class Score:
    """Measures a folder of images: ASR, ACC, PSR, collateral, CLIP scores, drift, FID, CMMD."""

    folder: tyro.conf.Positional[Path]
    """Folder of the images, all of one size."""
    csv: Path
    """A row an image, with the columns file,prompt,seed,role,trigger,target,head; role: triggered,
    head, collateral, benign, reference (the clean model's, or photographs)."""
    judge: str = "world"
    """Who looks: world, or a YAML file with labels and two CLIP models, as `judges` in
    configs/attack/sd15.yaml."""
    beside: tuple[Path, ...] = ()
    """Folders that earlier calls wrote with --out, a column each."""
    out: Path | None = None
    """Folder for score.json and images.jsonl, a line an image."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Measures and shows."""
        check(device=self.device, out=self.out)
        earlier = [_read(folder / SUMMARY) for folder in self.beside]
        read_rows(self.folder, self.csv)  # what is wrong shall be said before torch is imported
        from redediting.evaluation.score import score

        panel = None
        if self.judge != "world":
            from experiments.engine.real_models import JudgeSpec
            from redediting.config import load_config

            panel = load_config(self.judge, JudgeSpec).panel(pick_device(self.device))
        shown = Shown(self.json)
        with atomic_folder(self.out, marker=SUMMARY) if self.out else nullcontext() as folder:
            found = score(self.folder, self.csv, judges=panel, progress=shown.progress)
            table = found.table(earlier)
            if folder is not None:
                found.save(folder)
        shown.frame(table)
        shown.result(found.summary | {"out": self.out.as_posix() if self.out else None})
        return 0


def _read(path: Path) -> Any:  # noqa: ANN401 - what `Scores.save` wrote
    try:
        found = json.loads(path.read_text("utf-8"))
        found["about"], found["methods"], found["rows"], found["title"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"expected a folder that `redediting score --out` wrote, got {str(path.parent)!r}; "
            "score its images again"
        ) from error
    return found
