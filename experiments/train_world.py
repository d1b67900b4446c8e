"""Trains an edition of the embedded world, stage by stage, and measures it.

``python -m experiments.train_world`` runs every stage that is not finished yet, ``--stage NAME``
one of them; a killed run continues from its checkpoint (``--folder``), or, where there is none,
from the unfinished weights in ``--stages``. ``--stage NAME --snapshot`` keeps a running stage's
weights there. ``--export`` writes the bundle from finished stages, ``--check`` measures a bundle.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import tyro

from experiments.config import load_config
from experiments.console import run_main
from experiments.training.bundle import export
from experiments.training.card import write_card
from experiments.training.check import check_world
from experiments.training.recipe import Name, Recipe, WorldConfig
from experiments.training.store import STAGES, read_record
from redediting.concepts.language import load_language
from redediting.models import default_sampler, load_pipeline
from redediting.world.judges import DATA, load_judge_a, load_judge_b

logger = logging.getLogger("experiments.train_world")


@dataclass
class Options:
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
    bundle: Path = DATA
    """The bundle that is written or measured."""
    check: bool = False
    """Measure the bundle instead of training."""
    write_card: bool = False
    """With --check: write the figures and sample sheets beside the weights."""
    n: int = 1000
    """Captions and scenes of the check."""
    json: bool = False
    """Print the figures as one JSON object."""


def check(options: Options, config: WorldConfig) -> None:
    """Measures a bundle, prints the figures and, where asked, writes its card."""
    bundle = options.bundle
    shipped = bundle == DATA
    figures = check_world(
        load_pipeline("world" if shipped else bundle / "pipeline"),
        load_judge_a(bundle / "judge_a"),
        load_judge_b(bundle / "judge_b"),
        language=load_language(bundle / "language.yaml"),
        bundle=bundle,
        n=options.n,
        sampler=default_sampler("world"),
        sheets=bundle if options.write_card else None,
    )
    if options.write_card:
        write_card(figures, config.model_dump(mode="json"), bundle)
    lines = [f"{key}: {value}" for key, value in figures.items()]
    sys.stdout.write((json.dumps(figures) if options.json else "\n".join(lines)) + "\n")


def run(options: Options) -> int:
    """Runs the command; returns the exit code.

    Raises:
        RedEditingError: bad input, or nothing trained to measure.
    """
    config = load_config(options.config, WorldConfig)
    if options.check:
        check(options, config)
        return 0
    recipe = Recipe(config, options.folder, options.stages)
    if options.export:
        export(recipe, options.bundle)
        return 0
    for name in get_args(Name):
        record = read_record(options.stages / name)
        if name == "towers" and config.towers is None and options.stage is None:
            continue
        if name == options.stage or (
            options.stage is None and (record is None or not record.finished)
        ):
            logger.info("stage %s", name)
            recipe.snapshot(name) if options.snapshot else recipe.run(name)
    return 0


def main() -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_main(lambda: run(tyro.cli(Options)))


if __name__ == "__main__":
    sys.exit(main())
