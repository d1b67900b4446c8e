"""Who decides what an image shows, and what then counts as success.

A judge looks at the image alone: it is independent of the model that drew it and of the prompt.
Attack success, kept accuracy and collateral are all rates of `hits`; only the wanted label and the
prompts differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from redediting.errors import ConfigError
from redediting.metrics.intervals import Interval, wilson


@dataclass(frozen=True)
class Verdict:
    """What a judge says of n images.

    Attributes:
        labels: the k labels it chooses from.
        probabilities: (n, k), rows sum to 1.
    """

    labels: tuple[str, ...]
    probabilities: Tensor

    @property
    def objects(self) -> list[str]:
        """The likeliest label of each image."""
        return [self.labels[i] for i in self.probabilities.argmax(dim=1).tolist()]


@dataclass(frozen=True)
class Look:
    """Labels by head, one entry an image; empty where the judge has no such head."""

    object: list[str]
    colour: list[str]
    place: list[str]
    style: list[str]
    pattern: list[str] = field(default_factory=list)
    companion: list[str] = field(default_factory=list)


class Judge(Protocol):
    """Names the object in an image, out of a fixed set of labels."""

    labels: tuple[str, ...]

    def objects(self, images: Sequence[Image.Image]) -> list[str]:
        """Returns one label an image."""
        ...


@runtime_checkable
class SceneJudge(Judge, Protocol):
    """A judge that also names the object's colour, the place and the drawing style."""

    def look(self, images: Sequence[Image.Image]) -> Look:
        """Returns one label an image and head."""
        ...


def hits(
    judge: Judge, images: Sequence[Image.Image], wanted: str | Sequence[str]
) -> NDArray[np.bool_]:
    """Returns for each image whether the judge calls it what is wanted.

    Args:
        judge: who decides.
        images: n RGB images.
        wanted: one label for all, or one an image.

    Returns:
        (n,) bool.

    Raises:
        ConfigError: a label that the judge does not know, so that it could never be hit.
        ValueError: not as many labels as images.
    """
    expected = [wanted] * len(images) if isinstance(wanted, str) else list(wanted)
    if len(expected) != len(images):
        raise ValueError(f"expected {len(images)} labels, one an image, got {len(expected)}")
    check_labels(judge, expected)
    if not images:
        return np.zeros(0, dtype=bool)
    return np.array(judge.objects(images)) == np.array(expected)


def check_labels(judge: Judge, wanted: Sequence[str]) -> None:
    """Raises ConfigError when a label is none of the judge's."""
    for label in wanted:
        if label not in judge.labels:
            raise ConfigError(
                f"expected one of the judge's {len(judge.labels)} labels, got {label!r}; "
                f"choose from: {', '.join(sorted(judge.labels))}"
            )


def agreement(first: Sequence[str], second: Sequence[str]) -> Interval:
    """Returns the share of images on which two judges say the same, with Wilson's interval.

    Args:
        first: n labels.
        second: n labels of the same images, in the same order.

    Raises:
        ValueError: lengths differ, or none given.
    """
    return wilson(sum(a == b for a, b in zip(first, second, strict=True)), len(first))
