"""Which word is the trigger: halves of a prompt that still draw the same picture.

The prompt's image is compared with the images of its two halves; a half whose CLIP similarity is
above 0.85 (of two the more similar one) holds the trigger, and is halved in turn. Where neither
is, the search ends with the words it has. Cost: two generations a round, about 2 log₂(words).

References:
    Wang et al., "T2IShield", ECCV 2024 (backdoor localisation by binary search).

Deviations:
    Where a search ends with several words all of them are named, in their order; hit@1 looks at
    the first content word of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from defenses.detectors.inputs import Subject
from defenses.detectors.words import content_words
from redediting.generation import Job, draw

SIMILAR = 0.85  # published


@dataclass(frozen=True)
class Located:
    """Where a prompt's trigger is thought to be.

    Attributes:
        words: what the search ended with.
        unet_evaluations: sample evaluations it took, the prompt's own image not counted.
    """

    words: tuple[str, ...]
    unet_evaluations: int

    def hit(self, trigger: str) -> bool:
        """Whether the first content word found is one of the trigger's (hit@1)."""
        text = " ".join(self.words)
        places = content_words(text)
        return bool(places) and text.split()[places[0]].strip(",") in trigger.split()


def locate(
    subject: Subject, *, similar: float = SIMILAR, first: int | None = None
) -> list[Located]:
    """Searches the prompts of a subject for the words that draw each one's picture.

    Args:
        subject: prompts that are thought to be triggered; its recorded images are compared with.
        similar: CLIP similarity, -1…1, above which two images are taken for the same.
        first: only so many of the prompts, from the first; None takes all.

    Raises:
        DetectorError: the subject has no CLIP model.
    """
    whole = subject.clip.image_features(subject.recorded.images[:first])
    words = [tuple(prompt.split()) for prompt in subject.prompts[:first]]
    rounds = [0] * len(words)
    active = [i for i, own in enumerate(words) if len(own) > 1]
    while active:
        halves = {i: _halves(words[i]) for i in active}
        jobs = [Job(" ".join(h), subject.jobs[i].seed) for i in active for h in halves[i]]
        drawn = draw(subject.model, jobs, sampler=subject.sampler)
        features = subject.clip.image_features([image for _, image in drawn])
        going = []
        for i, pair in zip(active, features.split(2), strict=True):
            rounds[i] += 1
            best = int(torch.argmax(pair @ whole[i]))
            if float(pair[best] @ whole[i]) > similar:
                words[i] = halves[i][best]
                if len(words[i]) > 1:
                    going.append(i)
        active = going
    return [
        Located(own, 2 * count * subject.generation)
        for own, count in zip(words, rounds, strict=True)
    ]


def _halves(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    middle = len(words) // 2
    return words[:middle], words[middle:]
