"""Who decides what an image shows, and what then counts as success.

A judge looks at the image alone: it is independent of the model that drew it and of the prompt.
Attack success, kept accuracy and collateral are all rates of `hits`; only the wanted label and the
prompts differ. Judges are named in `redediting.evaluation.JUDGES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from redediting.config import Config
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
    """Names the object in an image; ``labels`` are those that may be asked for."""

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


@runtime_checkable
class ClassJudge(Judge, Protocol):
    """A judge of many fine classes, sets of which count as an object that is asked for."""

    classes: tuple[str, ...]

    def called(self, index: int) -> str:
        """Returns the label of a class."""
        ...

    def counts_as(self, label: str, wanted: str) -> bool:
        """Returns whether what it calls ``label`` is a ``wanted``: a chow chow is a dog."""
        ...


class JudgeSpec(Config, ABC):
    """How a judge is opened; fields of a subclass are its options, by keyword."""

    name: ClassVar[str]

    @abstractmethod
    def open(self, device: str) -> Judge:
        """Opens the judge on a torch device.

        Raises:
            ModelError: its weights are missing, damaged or of another kind.
            ConfigError: options that make no sense.
        """


def as_asked(
    judge: Judge, labels: Sequence[str], wanted: Sequence[str | None] | None
) -> list[str]:
    """Returns a judge's labels, each called what was asked for where it counts as that.

    Args:
        judge: who said them.
        labels: n.
        wanted: n, None where nothing is asked; or None.
    """
    if wanted is None or not isinstance(judge, ClassJudge):
        return list(labels)
    return [
        label if aim is None or not judge.counts_as(label, aim) else aim
        for label, aim in zip(labels, wanted, strict=True)
    ]


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
    return np.array(as_asked(judge, judge.objects(images), expected)) == np.array(expected)


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
