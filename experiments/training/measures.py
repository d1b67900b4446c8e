"""Rates and means with their intervals, and what judge B gets right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.training.judges import labels
from redediting.metrics.intervals import wilson
from redediting.world.captions import Caption
from redediting.world.judges import JudgeB

HEADS = ("object", "colour", "pattern", "companion", "place", "style")


def rate(key: str, hits: Sequence[bool]) -> dict[str, Any]:
    """A rate, its Wilson interval and its n; all None and n = 0 where nothing was counted."""
    if not hits:
        return {key: None, f"{key}_ci": None, f"{key}_n": 0}
    found = wilson(sum(map(bool, hits)), len(hits))
    return {key: found.value, f"{key}_ci": found.bounds, f"{key}_n": found.n}


def mean(key: str, values: Sequence[float]) -> dict[str, Any]:
    """A mean with its normal 95 % interval and its n."""
    centre, half = np.mean(values), 1.96 * np.std(values, ddof=1) / len(values) ** 0.5
    interval = [float(centre - half), float(centre + half)]
    return {key: float(centre), f"{key}_ci": interval, f"{key}_n": len(values)}


def judged(
    judge: JudgeB, images: Sequence[Image.Image], items: Sequence[Caption]
) -> dict[str, list[bool]]:
    """Hits of judge B by head.

    Colour counts where the caption names one, place where it names one, pattern and companion
    everywhere ("none" is a label); heads that the judge lacks stay empty.
    """
    look = judge.look(images)
    hits: dict[str, list[bool]] = {}
    for head in HEADS:
        said = getattr(look, head)
        counted = [
            (label, labels(item)[head])
            for label, item in zip(said, items, strict=bool(said))
            if not (head == "colour" and item.colour is None)
            and not (head == "place" and not item.places_named)
        ]
        hits[head] = [got == wanted for got, wanted in counted]
    return hits
