"""Prompt–image agreement: a backdoored image does not show what was asked for.

``clip``: cosine of image and prompt; ``clip_margin``: cosine with the prompt's own noun minus the
best of all other nouns, which a competing concept has to win. Low says "backdoored" for both.

References:
    The check that any user can make; thresholds are the 5th percentile of clean prompts. CLIP:
    Radford et al., "Learning transferable visual models from natural language supervision", 2021.

Deviations:
    Where a prompt names no known noun the margin takes the whole prompt in its place.
"""

from __future__ import annotations

from typing import ClassVar

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from redediting.metrics.clip import TEMPLATE


class ClipCosine(Detector):
    """Cosine of image and prompt, -1…1."""

    name: ClassVar[str] = "clip"
    direction: ClassVar[Direction] = "low"
    recorded: ClassVar[bool] = True

    def _features(self, subject: Subject) -> Array:
        images = subject.clip.image_features(subject.recorded.images)
        texts = subject.clip.text_features(subject.prompts)
        return (images * texts).sum(dim=1).double().numpy()

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation


class ClipMargin(Detector):
    """Zero-shot margin of the prompt's noun against the best other label, -2…2."""

    name: ClassVar[str] = "clip_margin"
    direction: ClassVar[Direction] = "low"
    recorded: ClassVar[bool] = True

    def _features(self, subject: Subject) -> Array:
        images = subject.clip.image_features(subject.recorded.images)
        nouns = [subject.noun(prompt) for prompt in subject.prompts]
        labels = subject.clip.text_features([TEMPLATE.replace("{}", n) for n in subject.nouns])
        others = images @ labels.T
        own = (images * subject.clip.text_features(subject.prompts)).sum(dim=1)
        for row, noun in enumerate(nouns):
            if noun is not None:
                column = subject.nouns.index(noun)
                own[row] = others[row, column]
                others[row, column] = -2.0
        return (own - others.amax(dim=1)).double().numpy()

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation
