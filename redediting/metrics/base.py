"""What a metric is: figures of single images, and their mean with an interval over one edit.

One class says everything that tables, pages and files need to know: a new metric is one file, and
its column appears wherever metrics are shown. Built-in metrics are `redediting.metrics.METRICS`.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from redediting.config import Config
from redediting.metrics.intervals import GAP, RATE, Interval, Support, finite, mean_over, wilson

if TYPE_CHECKING:
    from PIL import Image

PromptSet = Literal["free", "fixed", "head", "collateral", "benign", "target"]
PROMPT_SETS: tuple[PromptSet, ...] = ("free", "fixed", "head", "collateral", "benign", "target")
Unit = Literal["rate", "score", "distance", "seconds", "count"]
FORMS: Mapping[Unit, str] = {
    "rate": "{:.1%}", "score": "{:.2f}", "distance": "{:.4f}", "seconds": "{:.2f}",
    "count": "{:.0f}",
}  # fmt: skip


@dataclass(frozen=True)
class ImageRecord:
    """One image, what was asked for and what the judges saw."""

    set: PromptSet  # prompt set
    index: int  # within the set
    prompt: str  # as drawn
    noise: int  # seed of the image's noise
    phrase: str  # what the prompt is about
    role: str  # of a collateral phrase, else empty
    expected: str | None  # concept that counts as a hit; None where the prompt names no object
    label: str  # judge B's verdict
    label_a: str  # judge A's
    clean_label: str  # judge B's on the clean model's image of that prompt and noise, if any
    image: str  # file name under ``images/``
    clean_image: str  # the clean model's; empty where there is none
    seen: Mapping[str, str] = field(default_factory=dict)  # judge B's colour, place and style
    asked: Mapping[str, str] = field(default_factory=dict)  # what the prompt says of them
    values: Mapping[str, float] = field(default_factory=dict)  # by metric, see `Metric.per_image`

    @property
    def hit(self) -> bool:
        """Whether judge B saw what was expected."""
        return self.expected is not None and self.label == self.expected

    @property
    def clean_hit(self) -> bool:
        """Whether judge B saw it in the clean model's image."""
        return self.expected is not None and self.clean_label == self.expected


@dataclass(frozen=True)
class EditRecord:
    """The edit that drew the images; None is what was not measured."""

    seconds: float | None  # wall time of computing the edit; None where it was found, not made
    footprint: float | None  # Frobenius norm of the change over that of the changed weights
    weights: str  # fingerprint of what drew the images; empty where nobody knows
    rank: int | None = None  # of the change
    energy: float | None = None  # share of what ordinary captions read that changed, squared


@dataclass(frozen=True)
class Drawn:
    """Images of one edit as a metric may look at them; all lists have n entries."""

    images: Sequence[Image.Image]  # of the edited model, RGB
    clean: Sequence[Image.Image]  # of the clean model, same prompts and noise; see `Metric.paired`
    prompts: Sequence[str]  # as drawn
    compared: Sequence[str]  # of the CLIP score: on triggered prompts those with the target
    sets: Sequence[PromptSet]  # prompt set of each
    features: Any  # judge A's of the images, fp32, unit norm, shape ``(n, d)``
    clean_features: Any  # likewise of the clean images
    scores: Sequence[float]  # CLIP scores of judge A with the compared prompts, 0…100


@dataclass(frozen=True)
class Measured:
    """What was measured of one edit on one rebinding and seed."""

    images: Sequence[ImageRecord]
    edit: EditRecord

    def of(self, *sets: PromptSet, paired: bool = False) -> list[ImageRecord]:
        """The images of prompt sets; if ``paired``, those that have a clean one beside them."""
        images = [image for image in self.images if image.set in sets]
        return [image for image in images if image.clean_image] if paired else images


class Metric(Config, ABC):
    """A metric; fields of a subclass are its hyper-parameters, by keyword.

    Attributes:
        name: key in rows and summaries; ``NAME_ci`` beside it is the 95 % interval.
        title: over its column.
        unit: ``rate`` (0…1), ``score``, ``distance``, ``seconds`` or ``count``.
        direction: which way is better for the attacker: ``up``, ``down`` or empty.
        meaning: one line for readers.
        short: title where there is little room.
        sets: prompt sets whose images it reads; empty where it reads the edit's record alone.
        paired: whether it compares with the clean model's image of the same prompt and noise;
            only then is `Drawn.clean` sure to hold n images.
        signed: whether a rate is a difference of rates, −1…1.
        always: whether it is measured without being named.

    Example:
        >>> from redediting.metrics import Metric
        >>> class Brightness(Metric):
        ...     name, title, unit, direction = "brightness", "brightness", "score", ""
        ...     meaning, sets = "mean grey level of triggered images, 0…255", ("free",)
        ...     def per_image(self, drawn):
        ...         return [float(np.asarray(i.convert("L")).mean()) for i in drawn.images]
        >>> Brightness().form
        '{:.2f}'
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[Unit]
    direction: ClassVar[Literal["up", "down", ""]] = ""
    meaning: ClassVar[str] = ""
    short: ClassVar[str] = ""
    sets: ClassVar[tuple[PromptSet, ...]] = ("free",)
    paired: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    always: ClassVar[bool] = True

    def check(self) -> None:
        """Refuses, before anything is drawn, what the metric lacks; `MetricError`."""

    @property
    def support(self) -> Support | None:
        """Least and greatest value of a rate; None of what is no rate."""
        return None if self.unit != "rate" else GAP if self.signed else RATE

    @property
    def form(self) -> str:
        """Format of one number."""
        return FORMS[self.unit]

    def per_image(self, drawn: Drawn) -> Sequence[float] | None:
        """A figure of each image, kept in `ImageRecord.values`; None where rows say it already."""
        return None

    def aggregate(self, measured: Measured) -> Interval | None:
        """The figure of one edit with its interval; None where nothing was measured.

        By default the mean of the images' own figures over the metric's sets.
        """
        images = measured.of(*self.sets)
        return mean([image.values[self.name] for image in images if self.name in image.values])


def rate(outcomes: Sequence[bool]) -> Interval | None:
    """A rate over independent images of one edit, with Wilson's interval; None without any."""
    return wilson(sum(outcomes), len(outcomes)) if outcomes else None


def mean(values: Sequence[float]) -> Interval | None:
    """A mean over independent images of one edit, with its interval; None without any."""
    if len(values) < 2:
        return exact(values[0]) if values else None
    return replace(mean_over(values), clusters=None, values=())


def exact(value: float | None) -> Interval | None:
    """A figure that is no estimate: it has no interval."""
    if value is None:
        return None
    finite(value)
    return Interval(value, math.nan, math.nan, 1)


def entry(name: str, interval: Interval | None) -> dict[str, Any]:
    """A figure's keys: value, ``_ci``, and ``_values`` of the clusters where no interval holds.

    None for what was not measured; ``_ci`` is None where there is no interval.
    """
    if interval is None:
        return {name: None, f"{name}_ci": None}
    found = {name: interval.value, f"{name}_ci": interval.bounds}
    return found | ({f"{name}_values": list(interval.values)} if interval.values else {})
