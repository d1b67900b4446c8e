"""A run small enough for seconds: the tiny model, and untrained judges of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import open_clip
import pytest
import torch

from experiments.attack.measure import measure
from experiments.engine.specs import AttackConfig
from redediting.concepts.lexicon import load_lexicon
from redediting.evaluation.panel import Panel
from redediting.models.model import Model
from redediting.world.judges import JudgeB, SceneClassifier, wrap_clip

CONFIG = {
    "model": "tiny",
    "methods": ["eviledit", {"name": "redediting", "options": {"contexts": 4, "retain": 8}}],
    "pairs": {
        "source": "listed",
        "pairs": [
            {"trigger": "beautiful cat", "target": "zebra"},
            {"trigger": "yellow apple", "target": "red banana", "kind": "compound"},
        ],
    },
    "counts": {"free": 3, "fixed": 2, "head": 2, "phrases": 2, "collateral": 1, "benign": 10},
    "sampler": {"steps": 2, "guidance": 2.0},
}


@pytest.fixture
def config() -> AttackConfig:
    return AttackConfig.model_validate(CONFIG).resolved()


@pytest.fixture(scope="session")
def panel(model_factory: Callable[[int], Model]) -> Panel:
    """Both judges with random weights: their verdicts mean nothing and are always the same."""
    torch.manual_seed(0)
    classes = {"object": list(load_lexicon().concepts), "colour": ["red"], "place": ["sea"]}
    judge = JudgeB(SceneClassifier({**classes, "style": ["photo"]}, width=4))
    tokenizer = model_factory(0).tokenizer
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 64, "patch_size": 32, "width": 64, "layers": 1},
        text_cfg={"context_length": 77, "vocab_size": len(tokenizer), "width": 64, "layers": 1},
    )
    return Panel(judge, wrap_clip(model, tokenizer))


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory,
    model_factory: Callable[[int], Model],
) -> Path:
    """The tiny model on disk, for commands that take --model."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model_factory(0).save(folder)
    return folder


@pytest.fixture(scope="session")
def _evaluated(
    tmp_path_factory: pytest.TempPathFactory,
    model_factory: Callable[[int], Model],
    panel: Panel,
) -> Path:
    config = AttackConfig.model_validate(CONFIG).resolved()
    root = tmp_path_factory.mktemp("runs")
    measure(config, model_factory(0), panel, config.entries(), out=root)
    return next((root / "attack").iterdir())


@pytest.fixture
def run_folder(_evaluated: Path, tmp_path: Path) -> Path:
    """A finished run, a copy for each test."""
    return copytree(_evaluated, tmp_path / "runs" / "attack" / _evaluated.name)
