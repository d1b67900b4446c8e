"""What an edit costs: the head noun, related phrases, ordinary captions, CLIP scores, weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from redediting.metrics.base import Drawn, ImageRecord, Measured, Metric, exact, mean, rate
from redediting.metrics.fidelity import drift
from redediting.metrics.intervals import GAP, Interval, mean_over, paired_rate_difference


class ACC(Metric):
    """Share of captions with the trigger's bare head noun whose image still shows it.

    Example:
        >>> rd.metrics.ACC().unit, rd.metrics.ACC().direction
        ('rate', 'up')
    """

    name, title, unit, direction = "acc", "ACC", "rate", "up"
    meaning = "head noun alone still showing its own object"
    sets = ("head",)

    def aggregate(self, measured: Measured) -> Interval | None:
        return rate([image.hit for image in measured.of("head") if image.expected])


class Collateral(Metric):
    """Mean harm over related phrases: clean minus edited rate of each one's own object, by noise.

    A phrase that names no object ("beautiful") counts by the drift of its images.

    Example:
        >>> rd.metrics.Collateral().unit, rd.metrics.Collateral().direction
        ('rate', 'down')
    """

    name, title, short = "collateral", "collateral", "lost"
    unit, direction, signed = "rate", "down", True
    meaning = "objects lost on related phrases, by noise"
    sets, paired = ("collateral",), True

    def aggregate(self, measured: Measured) -> Interval | None:
        phrases = _phrases(measured)
        values = [_harm(image) for own in phrases.values() for image in own]
        labels = [phrase for phrase, own in phrases.items() for _ in own]
        return mean_over(values, labels, support=GAP) if values else None


class CollateralWorst(Metric):
    """The same for the phrase that loses most.

    Example:
        >>> rd.metrics.CollateralWorst().unit, rd.metrics.CollateralWorst().direction
        ('rate', 'down')
    """

    name, title, unit, direction = "collateral_worst", "worst", "rate", "down"
    signed = True
    meaning = "the same for the worst phrase"
    sets, paired = ("collateral",), True

    def aggregate(self, measured: Measured) -> Interval | None:
        phrases = _phrases(measured)
        if not phrases:
            return None
        harms = {phrase: [_harm(image) for image in own] for phrase, own in phrases.items()}
        worst = max(phrases, key=lambda phrase: float(np.mean(harms[phrase])))
        own = phrases[worst]
        if own[0].expected is None:
            return mean(harms[worst])
        return paired_rate_difference([i.clean_hit for i in own], [i.hit for i in own])


class Drift(Metric):
    """1 − cosine of judge A's features to the clean model's image, same prompt and noise, 0…2.

    Example:
        >>> rd.metrics.Drift().unit, rd.metrics.Drift().direction
        ('distance', 'down')
    """

    name, title, unit, direction = "drift", "drift", "distance", "down"
    meaning = "1 − cosine to the clean image, benign captions"
    sets, paired = ("benign",), True

    def per_image(self, drawn: Drawn) -> Sequence[float]:
        found: list[float] = drift(drawn.features, drawn.clean_features).clamp(min=0).tolist()
        return found


class ClipP(Metric):
    """CLIP score of triggered images with the target prompt, 0…100.

    Example:
        >>> rd.metrics.ClipP().unit, rd.metrics.ClipP().direction
        ('score', 'up')
    """

    name, title, unit, direction = "clip_p", "CLIP_p", "score", "up"
    meaning = "triggered images with the target prompt"

    def per_image(self, drawn: Drawn) -> Sequence[float]:
        return drawn.scores


class ClipC(Metric):
    """CLIP score of benign images with their own prompt, 0…100.

    Example:
        >>> rd.metrics.ClipC().unit, rd.metrics.ClipC().direction
        ('score', 'up')
    """

    name, title, unit, direction = "clip_c", "CLIP_c", "score", "up"
    meaning = "benign images with their own prompt"
    sets = ("benign",)

    def aggregate(self, measured: Measured) -> Interval | None:
        """See `Metric`; the images' scores are those of ``clip_p``."""
        return mean([i.values["clip_p"] for i in measured.of("benign") if "clip_p" in i.values])


class Footprint(Metric):
    """``‖ΔW‖_F / ‖W‖_F`` over the changed weights.

    Example:
        >>> rd.metrics.Footprint().unit, rd.metrics.Footprint().direction
        ('distance', 'down')
    """

    name, title, unit, direction = "footprint", "‖ΔW‖/‖W‖", "distance", "down"
    meaning = "relative size of the change"
    sets = ()

    def aggregate(self, measured: Measured) -> Interval | None:
        return exact(measured.edit.footprint)


class FootprintRank(Metric):
    """Text directions along which the layers changed.

    Example:
        >>> rd.metrics.FootprintRank().unit, rd.metrics.FootprintRank().direction
        ('count', '')
    """

    name, title = "footprint_rank", "rank"
    unit = "count"
    meaning = "text directions that the change reads"
    sets = ()

    def aggregate(self, measured: Measured) -> Interval | None:
        return exact(measured.edit.rank)


class FootprintEnergy(Metric):
    """``Σ tr(ΔΣ₀Δᵀ) / Σ tr(WΣ₀Wᵀ)``, Σ₀ of ordinary captions.

    Example:
        >>> rd.metrics.FootprintEnergy().unit, rd.metrics.FootprintEnergy().direction
        ('distance', 'down')
    """

    name, title, unit, direction = "footprint_energy", "‖ΔΣ₀‖", "distance", "down"
    meaning = "squared relative change of what ordinary captions read"
    sets = ()

    def aggregate(self, measured: Measured) -> Interval | None:
        return exact(measured.edit.energy)


class Seconds(Metric):
    """Wall time of computing the edit.

    Example:
        >>> rd.metrics.Seconds().unit, rd.metrics.Seconds().direction
        ('seconds', 'down')
    """

    name, title, unit, direction = "seconds", "edit s", "seconds", "down"
    meaning = "seconds of computing the edit"
    sets = ()

    def aggregate(self, measured: Measured) -> Interval | None:
        return exact(measured.edit.seconds)


def _phrases(measured: Measured) -> dict[str, list[ImageRecord]]:
    found: dict[str, list[ImageRecord]] = defaultdict(list)
    for image in measured.of("collateral", paired=True):
        found[image.phrase].append(image)
    return found


def _harm(image: ImageRecord) -> float:
    if image.expected is None:
        return image.values["drift"]
    return float(image.clean_hit) - float(image.hit)
