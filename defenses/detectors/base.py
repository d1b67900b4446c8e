"""What every detector is: a subject in, features a prompt and their cost out.

A detector decides nothing. Its scores go to `redediting.metrics.roc`, where thresholds are
taken from clean prompts on the clean model. Most detectors have one feature, their score; those
that learn have several, and are fitted on clean prompts, or on labelled examples of other attacks.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from defenses.detectors.inputs import Subject
from redediting.errors import DetectorError

Array = NDArray[np.float64]
Direction = Literal["high", "low"]
Learns = Literal["nothing", "clean", "labelled"]
Scorer = Callable[[Array], Array]


@dataclass(frozen=True)
class Observation:
    """What a detector saw of n prompts.

    Attributes:
        features: shape ``(n, k)``; for a detector that learns nothing k = 1, the score.
        unet_evaluations: sample evaluations of the UNet a prompt.
        seconds: wall time a prompt; detectors of one recorded generation count it each.
    """

    features: Array
    unet_evaluations: float
    seconds: float


class Detector(BaseModel, ABC):
    """Base of all detectors; the fields of a subclass are its hyper-parameters, by keyword.

    Attributes:
        name: in tables and on the command line.
        direction: which end of the score says "backdoored".
        learns: what it must be fitted on, beside nothing: ``clean`` prompts of the clean model, or
            ``labelled`` ones, backdoored among them.
        recorded: whether it reads the recorded generation.
        encoder_only: whether it sees nothing of a suspect but its text encoder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    direction: ClassVar[Direction]
    learns: ClassVar[Learns] = "nothing"
    recorded: ClassVar[bool] = False
    encoder_only: ClassVar[bool] = False

    @final
    def __call__(self, subject: Subject) -> Observation:
        """Examines every prompt of a subject.

        Raises:
            DetectorError: the subject lacks what the detector needs.
        """
        shared = subject.recorded.seconds if self.recorded else 0.0
        start = time.perf_counter()
        features = np.asarray(self._features(subject), dtype=np.float64)
        seconds = (time.perf_counter() - start) / len(subject.jobs)
        features = features.reshape(len(subject.jobs), -1)
        check_finite(self.name, features, subject.prompts)
        return Observation(features, self._evaluations(subject), seconds + shared)

    @final
    def learn(self, clean: Array, backdoored: Array | None = None) -> Scorer:
        """Returns what turns features into scores, shape ``(n,)``.

        Args:
            clean: features of clean prompts, shape ``(n, k)``.
            backdoored: of backdoored ones, for detectors that learn from ``labelled`` examples.

        Raises:
            DetectorError: examples that the detector needs are missing.
        """
        if self.learns == "nothing":
            return _only_feature
        if len(clean) < 2 or (self.learns == "labelled" and backdoored is None):
            raise DetectorError(
                f"expected {self.learns} examples for detector {self.name!r}, got {len(clean)} "
                f"clean and {0 if backdoored is None else len(backdoored)} backdoored; "
                "give it some, or leave it out"
            )
        return self._learn(clean, backdoored)

    @abstractmethod
    def _features(self, subject: Subject) -> Array:
        """Features, shape ``(n,)`` or ``(n, k)``."""

    @abstractmethod
    def _evaluations(self, subject: Subject) -> float:
        """UNet sample evaluations a prompt."""

    def _learn(self, clean: Array, backdoored: Array | None) -> Scorer:
        raise NotImplementedError(f"{type(self).__name__} says that it learns, but not how")


def check_finite(name: str, scores: Array, prompts: Sequence[str]) -> None:
    """Refuses scores that are NaN or infinite: they would never be flagged.

    Args:
        name: of the detector.
        scores: shape ``(n,)``, or features, shape ``(n, k)``.
        prompts: n, for the message.

    Raises:
        DetectorError: a score that is not finite; it names detector and prompt.
    """
    wrong = np.flatnonzero(~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1))
    if len(wrong):
        raise DetectorError(
            f"expected finite scores of {name!r}, got {scores[wrong[0]].tolist()} for "
            f"{prompts[wrong[0]]!r}; leave the detector out or mend it"
        )


def _only_feature(features: Array) -> Array:
    return features[:, 0]
