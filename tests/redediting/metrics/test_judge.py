"""Hits and agreement, with a judge whose rule is plain to see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from redediting.errors import ConfigError
from redediting.metrics.intervals import wilson
from redediting.metrics.judge import Judge, Verdict, agreement, hits


class ColourJudge:
    """A real judge of a simple world: the strongest channel."""

    labels = ("red", "green", "blue")

    def verdict(self, images: Sequence[Image.Image]) -> Verdict:
        means = np.stack(
            [np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) for image in images]
        )
        return Verdict(self.labels, torch.from_numpy(means).softmax(dim=1))

    def objects(self, images: Sequence[Image.Image]) -> list[str]:
        return self.verdict(images).objects


IMAGES = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "blue", "lime")]
JUDGE: Judge = ColourJudge()


def test_hits_compare_with_one_label_or_with_one_each() -> None:
    assert hits(JUDGE, IMAGES, "blue").tolist() == [False, True, True, False]
    assert hits(JUDGE, IMAGES, ["red", "red", "blue", "green"]).tolist() == [1, 0, 1, 1]
    assert hits(JUDGE, [], "blue").tolist() == []


def test_a_label_that_could_never_be_hit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got 'zebra'; choose from: blue, green, red"):
        hits(JUDGE, IMAGES, "zebra")
    with pytest.raises(ValueError, match="expected 4 labels, one an image, got 2"):
        hits(JUDGE, IMAGES, ["red", "blue"])


def test_agreement_is_a_rate_with_its_interval() -> None:
    said = JUDGE.objects(IMAGES)
    assert agreement(said, said) == wilson(4, 4)
    assert agreement(said, ["red", "red", "blue", "red"]) == wilson(2, 4)
    with pytest.raises(ValueError, match="zip"):
        agreement(said, said[:2])
