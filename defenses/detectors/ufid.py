"""UFID: a triggered prompt draws the same picture whatever is put before it.

The prompt, and copies of it behind random phrases; the score is the mean pairwise cosine of their
images' CLIP features. High says "backdoored". Threshold: 95th percentile of clean prompts (0.827
on Stable Diffusion).

References:
    Guan et al., "UFID: A Unified Framework for Black-box Input-level Backdoor Detection on
    Diffusion Models", AAAI 2025; released code GuanZihan/official_UFID at 7881796.

Deviations:
    Four images, as the paper; the released sampler draws five by default (``copies=4``). Phrases
    are drawn with replacement and put before the prompt without a joining word, as released, but
    they are this project's: an object of the lexicon in a colour ("a green horse"). Half the steps
    of an ordinary image, as published (25 of 50), and noise of its own for each image.
"""

from __future__ import annotations

import zlib
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field

from defenses.detectors.base import Array, Detector, Direction
from defenses.detectors.inputs import Subject
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.templates import with_article
from redediting.generation import Job, draw
from redediting.models.sampler import Sampler


def perturbed(prompt: str, copies: int) -> list[str]:
    """The prompt and its copies behind random phrases, the same ones every time."""
    lexicon = load_lexicon()
    names, colours = list(lexicon.concepts), lexicon.colours
    random = np.random.default_rng(zlib.crc32(prompt.encode()))
    found = [prompt]
    for _ in range(copies):
        name = names[random.integers(len(names))]
        phrase = with_article(f"{colours[random.integers(len(colours))]} {name}")
        found.append(f"{phrase} {prompt}")
    return found


def mean_similarity(features: torch.Tensor | ArrayLike) -> tuple[Array, float]:
    """Cosines of k images' features, shape ``(k, k)``, and their mean over the pairs i < j.

    Args:
        features: of any length, shape ``(k, d)``, k >= 2.
    """
    rows = torch.as_tensor(features).double()
    cosines: Array = torch.nn.functional.cosine_similarity(rows[:, None], rows, dim=2).numpy()
    return cosines, float(cosines[np.triu_indices(len(cosines), 1)].mean())


class UFID(Detector):
    """The published graph density of four images, -1…1.

    Attributes:
        copies: perturbed prompts beside the prompt itself.
    """

    name: ClassVar[str] = "ufid"
    direction: ClassVar[Direction] = "high"

    copies: int = Field(default=3, ge=1)

    def _features(self, subject: Subject) -> Array:
        each = self.copies + 1
        jobs = [
            Job(prompt, job.seed * each + i)
            for job in subject.jobs
            for i, prompt in enumerate(perturbed(job.prompt, self.copies))
        ]
        drawn = draw(subject.model, jobs, sampler=self._sampler(subject))
        features = subject.clip.image_features([image for _, image in drawn])
        return np.array([mean_similarity(own)[1] for own in features.split(each)])

    def _evaluations(self, subject: Subject) -> float:
        return (self.copies + 1) * self._sampler(subject).steps * subject.passes

    def _sampler(self, subject: Subject) -> Sampler:
        return subject.sampler.model_copy(update={"steps": max(1, subject.sampler.steps // 2)})
