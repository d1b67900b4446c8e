"""Which word is the trigger: halves of a prompt that still draw the same picture.

The image of each stretch is compared with the whole prompt's. The first half of a stretch is taken
if its CLIP similarity is above the threshold, and then the second is not drawn; otherwise the
second, if it is above; otherwise the answer is *none*. One word left is the answer.

References:
    Wang et al., "T2IShield", ECCV 2024 (backdoor localisation by binary search); released code
    Robin-WZQ/T2IShield at b543ace, whose script has the threshold 0.8 and whose CLIP results 0.85.

Deviations:
    None in the search; hit@1 asks whether the word is one of the trigger's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from defenses.detectors.inputs import Subject
from redediting.generation import Job, draw

SIMILAR = 0.85  # published; the released script has 0.8


@dataclass(frozen=True)
class Located:
    """Where a prompt's trigger is thought to be.

    Attributes:
        word: the answer; empty where the search ended with none.
        unet_evaluations: sample evaluations it took, the prompt's own image not counted.
    """

    word: str
    unet_evaluations: int

    def hit(self, trigger: str) -> bool:
        """Whether the word is one of the trigger's (hit@1)."""
        return self.word.strip(",.;:!?") in trigger.split()


def halving(
    similarity_of: Callable[[int, int], float], n_words: int, threshold: float = SIMILAR
) -> tuple[int, list[tuple[int, int]]]:
    """The search over a prompt of n words.

    Args:
        similarity_of: (first word, end) of a stretch → similarity of its image to the whole's.
        n_words: at least 1.
        threshold: similarity above which a stretch is taken.

    Returns:
        The word's place, or -1 for none; the stretches that were looked at, in their order.
    """
    first, end = 0, n_words
    visited: list[tuple[int, int]] = []
    while end - first > 1:
        middle = first + (end - first) // 2
        for half in ((first, middle), (middle, end)):
            visited.append(half)
            if similarity_of(*half) > threshold:
                first, end = half
                break
        else:
            return -1, visited
    return first, visited


def locate(
    subject: Subject, *, similar: float = SIMILAR, first: int | None = None
) -> list[Located]:
    """Searches the prompts of a subject for the word that draws each one's picture.

    Args:
        subject: prompts that are thought to be triggered; its recorded images are compared with.
        similar: CLIP similarity, -1…1, above which two images are taken for the same.
        first: only so many of the prompts, from the first; None takes all.

    Raises:
        DetectorError: the subject has no CLIP model.
    """
    found = []
    wholes = subject.clip.image_features(subject.recorded.images[:first])
    for job, whole in zip(subject.jobs, wholes, strict=False):
        words = job.prompt.split()

        def similarity(start: int, end: int) -> float:
            part = Job(" ".join(words[start:end]), job.seed)  # noqa: B023 - used at once
            drawn = draw(subject.model, [part], sampler=subject.sampler)
            return float(subject.clip.image_features([i for _, i in drawn])[0] @ whole)  # noqa: B023

        place, visited = halving(similarity, len(words), similar)
        found.append(Located(words[place] if place >= 0 else "",
                             len(visited) * subject.generation))  # fmt: skip
    return found
