"""``python -m experiments.training``: trains an edition of the embedded world, and measures it.

Every stage that is not finished yet is run, with ``--stage NAME`` one of them; a killed run
continues from its checkpoint (``--folder``), or, where there is none, from the unfinished weights
in ``--stages``. ``--stage NAME --snapshot`` keeps a running stage's weights there. ``--export``
writes the bundle from finished stages, ``--check`` measures a bundle.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import tyro

from experiments.engine.console import parse, run_main
from experiments.training.bundle import export
from experiments.training.card import write_card
from experiments.training.check import check_world
from experiments.training.recipe import BASES, Name, Recipe, WorldConfig
from experiments.training.store import STAGES, read_record
from redediting.concepts.language import load_language
from redediting.config import WORLD, load_config
from redediting.models.cards import default_sampler
from redediting.models.loading import load
from redediting.world.judges import load_judge_a, load_judge_b

logger = logging.getLogger("experiments.training")


@dataclass(frozen=True)
class Training:
    """Trains or measures the embedded world."""

    config: Path = Path("configs/world/second.yaml")
    """Recipe."""
    folder: Path = Path("runs/world")
    """Rendered scenes and checkpoints."""
    stages: Path = STAGES
    """Trained networks, finished or not."""
    stage: Name | None = None
    """Run this stage only, also when it is finished."""
    snapshot: bool = False
    """With --stage: keep the weights of its checkpoint instead of training."""
    export: bool = False
    """Write the bundle from the stages instead of training."""
    bundle: Path = WORLD
    """The bundle that is written or measured."""
    check: bool = False
    """Measure the bundle instead of training."""
    write_card: bool = False
    """With --check: write the figures and sample sheets beside the weights."""
    n: int = 1000
    """Captions and scenes of the check."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the figures as one JSON object."""

    def run(self) -> int:
        """Runs the command; returns the exit code."""
        config = load_config(self.config, WorldConfig)
        if self.check:
            self._check(config)
            return 0
        recipe = Recipe(config, self.folder, self.stages)
        if self.export:
            export(recipe, self.bundle)
            return 0
        for name in get_args(Name):
            record = read_record(self.stages / name)
            family = "kv" if name in BASES else name
            if getattr(config, family) is None and self.stage is None:
                continue
            if name == self.stage or (
                self.stage is None and (record is None or not record.finished)
            ):
                logger.info("stage %s", name)
                recipe.snapshot(name) if self.snapshot else recipe.run(name)
        return 0

    def _check(self, config: WorldConfig) -> None:
        """Measures a bundle, prints the figures and, where asked, writes its card."""
        bundle = self.bundle
        figures = check_world(
            load("world" if bundle == WORLD else str(bundle / "pipeline")),
            load_judge_a(bundle / "judge_a"),
            load_judge_b(bundle / "judge_b"),
            language=load_language(bundle / "language.yaml"),
            bundle=bundle,
            n=self.n,
            sampler=default_sampler("world"),
            sheets=bundle if self.write_card else None,
        )
        if self.write_card:
            write_card(figures, config.model_dump(mode="json"), bundle)
        lines = [f"{key}: {value}" for key, value in figures.items()]
        sys.stdout.write((json.dumps(figures) if self.json else "\n".join(lines)) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m experiments.training``; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prog = "python -m experiments.training"
    return run_main(lambda: parse(Training, arguments, prog=prog).run())


if __name__ == "__main__":
    sys.exit(main())
