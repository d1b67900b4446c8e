"""The two judges of a run: B decides, A stands beside it and gives CLIP scores and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from redediting.metrics.clip import TEMPLATE, ClipModel, ClipSpec, ClipZeroShot
from redediting.metrics.judge import ClassJudge, Judge, JudgeSpec, SceneJudge, as_asked
from redediting.world.judges import JudgeB, load_judge_a, load_judge_b

ATTRIBUTES = ("colour", "place", "style")  # what a judge may see besides the object


@dataclass(frozen=True)
class Seen:
    """What the judges see in n images."""

    labels: list[str]  # judge B's, called what was asked for where they count as that
    labels_a: list[str]  # judge A's, over the same labels or classes
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
        names = judge.classes if isinstance(judge, ClassJudge) else judge.labels
        self._sentences = clip.text_features([template.replace("{}", name) for name in names])

    def look(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        wanted: Sequence[str | None] | None = None,
    ) -> Seen:
        """What the judges see in n >= 1 RGB images, each scored with its prompt.

        ``wanted`` has the label that each image is asked for, None where it is asked for none.
        """
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
        judge = self.judge
        names = judge.called if isinstance(judge, ClassJudge) else judge.labels.__getitem__
        return Seen(
            labels=as_asked(judge, labels, wanted),
            attributes=attributes,
            labels_a=as_asked(judge, [names(i) for i in nearest], wanted),
            features=features,
            scores=(100 * (features * texts).sum(dim=1).clamp(min=0)).tolist(),
        )


def world_panel() -> Panel:
    """The embedded world's judges."""
    return Panel(load_judge_b(), load_judge_a())


class WorldJudge(JudgeSpec):
    """Judge B of the embedded world, for its images alone; it runs on the CPU."""

    name: ClassVar[str] = "world"

    def open(self, device: str) -> JudgeB:
        """See `JudgeSpec`."""
        return load_judge_b()


def open_panel(judge: JudgeSpec, scores: ClipSpec, device: str) -> Panel:
    """A judge of `redediting.evaluation.JUDGES` and the judge A beside it.

    The world's has its own; others get ``scores``, which gives CLIP scores and features.

    Raises:
        ModelError: a judge without weights, or with other ones than it needs.
        ConfigError: options that make no sense.
    """
    if isinstance(judge, WorldJudge):
        return world_panel()
    found = judge.open(device)
    template = judge.template if isinstance(judge, ClipZeroShot) else TEMPLATE
    return Panel(found, scores.load(device), template=template)
