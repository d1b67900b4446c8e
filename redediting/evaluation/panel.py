"""The two judges of a run: B decides, A stands beside it and gives CLIP scores and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from redediting.metrics.clip import TEMPLATE, ClipModel
from redediting.metrics.judge import Judge, SceneJudge
from redediting.world.judges import load_judge_a, load_judge_b

ATTRIBUTES = ("colour", "place", "style")  # what a judge may see besides the object


@dataclass(frozen=True)
class Seen:
    """What the judges see in n images.

    Attributes:
        labels: judge B's verdicts.
        labels_a: judge A's, over the same labels.
        features: judge A's, (n, d), unit norm.
        scores: CLIP scores of judge A, (n,), 0…100.
        attributes: judge B's other verdicts by head, one mapping an image; empty where it names
            objects only.
    """

    labels: list[str]
    labels_a: list[str]
    features: Tensor
    scores: list[float]
    attributes: list[dict[str, str]]


class Panel:
    """Looks at images with both judges.

    Attributes:
        judge: B, whose verdict counts.
        clip: A, an open_clip model.
    """

    def __init__(self, judge: Judge, clip: ClipModel, *, template: str = TEMPLATE) -> None:
        """Takes the judges.

        Args:
            judge: B.
            clip: A.
            template: sentence in which A reads B's labels.
        """
        self.judge = judge
        self.clip = clip
        self._sentences = clip.text_features([template.replace("{}", x) for x in judge.labels])

    def look(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Seen:
        """Returns what the judges see; A's features are computed once for all it says.

        Args:
            images: n RGB images, n >= 1.
            prompts: n texts to score the images with.
        """
        features = self.clip.image_features(images)
        row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        texts = self.clip.text_features(list(row))[[row[prompt] for prompt in prompts]]
        nearest = torch.argmax(features @ self._sentences.T, dim=1).tolist()
        labels, attributes = self._verdicts(images)
        return Seen(
            labels=labels,
            attributes=attributes,
            labels_a=[self.judge.labels[i] for i in nearest],
            features=features,
            scores=(100 * (features * texts).sum(dim=1).clamp(min=0)).tolist(),
        )

    def _verdicts(self, images: Sequence[Image.Image]) -> tuple[list[str], list[dict[str, str]]]:
        if not isinstance(self.judge, SceneJudge):
            return self.judge.objects(images), [{} for _ in images]
        look = self.judge.look(images)
        rows = zip(look.colour, look.place, look.style, strict=True)
        return look.object, [dict(zip(ATTRIBUTES, row, strict=True)) for row in rows]


def world_panel() -> Panel:
    """Returns the embedded world's judges.

    Raises:
        WorldError: their weights are missing.
    """
    return Panel(load_judge_b(), load_judge_a())
