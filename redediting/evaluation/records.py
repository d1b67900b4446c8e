"""From images that the judges looked at to one record an image, with every metric's figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from redediting.evaluation.panel import Seen
from redediting.evaluation.protocol import Question
from redediting.metrics.base import Drawn, ImageRecord, Metric


@dataclass(frozen=True)
class Looked:
    """Images of some questions as the judges saw them; ``place`` is each question's number."""

    place: Mapping[Question, int]
    images: Sequence[Image.Image]
    files: Sequence[str]
    seen: Seen


def image_records(
    metrics: Sequence[Metric], wanted: Sequence[Question], look: Looked, clean: Looked | None
) -> list[ImageRecord]:
    """Returns a record of each wanted question's image.

    Args:
        metrics: those that look at images.
        wanted: questions that ``look`` holds.
        look: of the model that is measured.
        clean: of the clean model; a question that it lacks gets no figure of a paired metric.
    """
    own = [look.place[q] for q in wanted]
    twins = [None if clean is None else clean.place.get(q) for q in wanted]

    def drawn(rows: Sequence[int]) -> Drawn:
        mine = [own[row] for row in rows]
        theirs = [j for row in rows if (j := twins[row]) is not None]
        if clean is None or len(theirs) < len(mine):
            theirs = []  # all or none: nobody shall take one image's twin for another's
        return Drawn(
            images=[look.images[i] for i in mine],
            clean=[clean.images[j] for j in theirs] if clean else [],
            prompts=[wanted[row].prompt for row in rows],
            compared=[wanted[row].compared for row in rows],
            sets=[wanted[row].set for row in rows],
            features=look.seen.features[mine],
            clean_features=(clean or look).seen.features[theirs],
            scores=[look.seen.scores[i] for i in mine],
        )

    whole = list(range(len(wanted)))
    beside = [row for row in whole if twins[row] is not None]
    given = {False: drawn(whole), True: drawn(beside)}
    values: list[dict[str, float]] = [{} for _ in wanted]
    for metric in metrics:
        rows = beside if metric.paired else whole
        found = metric.per_image(given[metric.paired]) if rows else None
        for row, value in zip(rows, found or (), strict=False):
            values[row][metric.name] = float(value)
    return [
        ImageRecord(
            q.set, q.index, q.prompt, q.noise, q.phrase, q.role, q.expected,
            label=look.seen.labels[i],
            label_a=look.seen.labels_a[i],
            clean_label="" if clean is None or j is None else clean.seen.labels[j],
            image=look.files[i],
            clean_image="" if clean is None or j is None else clean.files[j],
            seen=dict(look.seen.attributes[i]),
            asked=dict(q.asked),
            values=value,
        )
        for q, i, j, value in zip(wanted, own, twins, values, strict=True)
    ]  # fmt: skip
