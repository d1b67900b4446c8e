"""Evaluation of edits: inspection without images, ranking, measured results.

``JUDGES`` has the deciding judges by the name that configurations and the command line use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting.errors import ConfigError
from redediting.registry import Registry

if TYPE_CHECKING:
    from redediting.metrics.judge import JudgeSpec

JUDGES: Registry[JudgeSpec] = Registry(
    "judge",
    "redediting.metrics.judge:JudgeSpec",
    {
        "world": "redediting.evaluation.panel:WorldJudge",
        "imagenet_vit": "redediting.metrics.imagenet:ImageNetViT",
        "clip_zero_shot": "redediting.metrics.clip:ClipZeroShot",
        "vqa": "redediting.metrics.vqa:VQA",
    },
    group="redediting.judges",
    error=ConfigError,
)
