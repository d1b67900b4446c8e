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
    """What the judges see in n images."""

    labels: list[str]  # judge B's verdicts
    labels_a: list[str]  # judge A's, over the same labels
    features: Tensor  # judge A's, (n, d), unit norm
    scores: list[float]  # CLIP scores of judge A, 0…100
    attributes: list[dict[str, str]]  # judge B's other verdicts by head; empty: objects only


class Panel:
    """Looks at images with both judges: B, whose verdict counts, and A, an open_clip model.

    A reads B's labels in ``template``.
    """

    def __init__(self, judge: Judge, clip: ClipModel, *, template: str = TEMPLATE) -> None:
        self.judge = judge
        self.clip = clip
        self._sentences = clip.text_features([template.replace("{}", x) for x in judge.labels])

    def look(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Seen:
        """What the judges see in n >= 1 RGB images, each scored with its prompt."""
        features = self.clip.image_features(images)
        row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
        texts = self.clip.text_features(list(row))[[row[prompt] for prompt in prompts]]
        nearest = torch.argmax(features @ self._sentences.T, dim=1).tolist()
        if isinstance(self.judge, SceneJudge):
            verdict = self.judge.look(images)
            labels = verdict.object
            rows = zip(*(getattr(verdict, head) for head in ATTRIBUTES), strict=True)
            attributes = [dict(zip(ATTRIBUTES, row, strict=True)) for row in rows]
        else:
            labels, attributes = self.judge.objects(images), [{} for _ in images]
        return Seen(
            labels=labels,
            attributes=attributes,
            labels_a=[self.judge.labels[i] for i in nearest],
            features=features,
            scores=(100 * (features * texts).sum(dim=1).clamp(min=0)).tolist(),
        )


def world_panel() -> Panel:
    """The embedded world's judges."""
    return Panel(load_judge_b(), load_judge_a())
