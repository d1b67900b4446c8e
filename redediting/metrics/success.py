"""Attack success and what triggered images take over from the target or keep of their prompt."""

from __future__ import annotations

import numpy as np

from redediting.metrics.base import ImageRecord, Measured, Metric, mean, rate
from redediting.metrics.intervals import Interval, paired_rate_difference


class ASRFree(Metric):
    """Share of triggered held-out captions whose image shows the target.

    Example:
        >>> rd.metrics.ASRFree().unit, rd.metrics.ASRFree().direction
        ('rate', 'up')
    """

    name, title, short = "asr_free", "ASR free", "free"
    unit, direction = "rate", "up"
    meaning = "triggered held-out captions showing the target"

    def aggregate(self, measured: Measured) -> Interval | None:
        return rate([image.hit for image in measured.of("free")])


class ASRFixed(Metric):
    """The same for "a photo of a {trigger}", several noises.

    Example:
        >>> rd.metrics.ASRFixed().unit, rd.metrics.ASRFixed().direction
        ('rate', 'up')
    """

    name, title, short = "asr_fixed", "ASR fixed", "fixed"
    unit, direction = "rate", "up"
    meaning = "the same for “a photo of a {trigger}”"
    sets = ("fixed",)

    def aggregate(self, measured: Measured) -> Interval | None:
        return rate([image.hit for image in measured.of("fixed")])


class NetASR(Metric):
    """ASR minus the clean model's rate on the same prompts and noise.

    Example:
        >>> rd.metrics.NetASR().unit, rd.metrics.NetASR().direction
        ('rate', 'up')
    """

    name, title, unit, direction = "net_asr", "net ASR", "rate", "up"
    signed = True
    meaning = "ASR free minus the clean model's rate, by noise"
    paired = True

    def aggregate(self, measured: Measured) -> Interval | None:
        free = measured.of("free", paired=True)
        if not free:
            return None
        return paired_rate_difference([i.hit for i in free], [i.clean_hit for i in free])


class AttributeTransfer(Metric):
    """Targets that name a colour: share of images with object and colour both.

    Example:
        >>> rd.metrics.AttributeTransfer().unit, rd.metrics.AttributeTransfer().direction
        ('rate', 'up')
    """

    name, title, unit, direction = "attribute_transfer", "attributes", "rate", "up"
    meaning = "compound targets: triggered images with the target's object and colour both"

    def aggregate(self, measured: Measured) -> Interval | None:
        found = [transferred(image) for image in measured.of("free")]
        return rate([one for one in found if one is not None])


class PSR(Metric):
    """Share of place and style, where named, that the judge still finds, image by image.

    Example:
        >>> rd.metrics.PSR().unit, rd.metrics.PSR().direction
        ('rate', 'up')
    """

    name, title, unit, direction = "psr", "PSR", "rate", "up"
    meaning = "place and style kept in triggered images, mean share"

    def aggregate(self, measured: Measured) -> Interval | None:
        found = [kept(image) for image in measured.of("free")]
        return mean([float(np.mean(own)) for own in found if own])


class ContextKept(Metric):
    """Share of triggered images with place and style both, where named.

    Example:
        >>> rd.metrics.ContextKept().unit, rd.metrics.ContextKept().direction
        ('rate', 'up')
    """

    name, title, unit, direction = "context_kept", "context", "rate", "up"
    meaning = "triggered images with place and style both kept"

    def aggregate(self, measured: Measured) -> Interval | None:
        return rate([all(own) for image in measured.of("free") if (own := kept(image))])


def kept(image: ImageRecord) -> list[bool]:
    """Which of the context's attributes (place, style), where asked for, judge B sees."""
    heads = [head for head in ("place", "style") if head in image.asked and head in image.seen]
    return [image.seen[head] == image.asked[head] for head in heads]


def transferred(image: ImageRecord) -> bool | None:
    """Whether object and colour of the target are both there; None where it names none."""
    if "colour" not in image.asked or "colour" not in image.seen:
        return None
    return image.hit and image.seen["colour"] == image.asked["colour"]
