"""TNC-like: noise predictions of adjacent steps agree on clean prompts, step by step.

``d_t = ‖ε_{t+1} - ε_t‖² / ‖ε_{t+1}‖²`` of the conditional noise predictions along the recorded
generation, as logarithms; ``score = max_t |d_t - μ_t| / σ_t`` with mean and deviation of clean
prompts on the clean model at each step; high says "backdoored", and the step of the maximum is
where the generation departs. Grey-box: it reads predictions, no weights and no attention.

References:
    After Wang et al., "Backdoor Sentinel: Detecting and Detoxifying Backdoors in Diffusion Models
    via Temporal Noise Consistency", arXiv 2602.01765 (TNC-Defense), read in its abstract only:
    triggered inputs break the consistency of adjacent steps "in specific temporal segments". The
    statistic is this project's, hence the name.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from defenses.detectors.base import Array, Detector, Direction, Learns, Scorer
from defenses.detectors.inputs import Subject
from redediting.errors import DetectorError


class TNCLike(Detector):
    """Largest departure of a step from what clean prompts do there, in deviations."""

    name: ClassVar[str] = "tnc_like"
    direction: ClassVar[Direction] = "high"
    learns: ClassVar[Learns] = "clean"
    recorded: ClassVar[bool] = True

    def _features(self, subject: Subject) -> Array:
        changes = subject.recorded.noise_changes
        if changes.shape[1] < 2:
            raise DetectorError(
                f"expected at least 3 denoising steps for {self.name!r}, got "
                f"{changes.shape[1] + 1}; draw with more steps"
            )
        logarithms: Array = changes.log().numpy()
        return logarithms

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation

    def _learn(self, clean: Array, backdoored: Array | None) -> Scorer:
        mean, deviation = clean.mean(axis=0), clean.std(axis=0)

        def scorer(features: Array) -> Array:
            found: Array = (np.abs(features - mean) / deviation).max(axis=1)
            return found

        return scorer
