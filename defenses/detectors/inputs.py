"""What a detector examines: prompts put to a model, drawn and recorded once for all detectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from defenses.detectors.recording import Recorded, record
from redediting.concepts.lexicon import load_everyday, load_lexicon
from redediting.errors import DetectorError
from redediting.generation import Job
from redediting.metrics.clip import ClipModel
from redediting.models.model import Model
from redediting.models.sampler import Sampler


class Subject:
    """A model under suspicion and the prompts put to it.

    The recorded generation is made when a detector first asks for it, and serves all of them.

    Attributes:
        model: the model, with whatever patch is in force.
        jobs: prompts with the seed of each one's noise.
        sampler: how images are drawn.
        nouns: objects that a prompt may name, longest first.
    """

    def __init__(
        self,
        model: Model,
        jobs: Sequence[Job],
        *,
        sampler: Sampler,
        clip: ClipModel | None = None,
        nouns: Sequence[str] | None = None,
        trusted: Model | None = None,
    ) -> None:
        """Takes everything; draws nothing yet.

        Args:
            model: a Stable Diffusion model.
            jobs: at least one.
            sampler: how images are drawn.
            clip: looks at images, for the detectors that need it.
            nouns: objects that a prompt may name; None takes the lexicon's.
            trusted: the clean model, of which no patch of the suspect changes anything, for the
                detectors that compare with it; its text encoder at least must be the clean one.

        Raises:
            DetectorError: no jobs.
        """
        if not jobs:
            raise DetectorError("expected at least one prompt to examine, got none")
        self.model = model
        self.jobs = tuple(jobs)
        self.sampler = sampler
        self.nouns = tuple(sorted(known_nouns() if nouns is None else nouns, key=_longest))
        self._clip = clip
        self._trusted = trusted

    @property
    def prompts(self) -> list[str]:
        """The prompts, in their order."""
        return [job.prompt for job in self.jobs]

    @cached_property
    def recorded(self) -> Recorded:
        """The one recorded generation."""
        return record(self.model, self.jobs, self.sampler)

    @property
    def clip(self) -> ClipModel:
        """The model that looks at images.

        Raises:
            DetectorError: none was given.
        """
        if self._clip is None:
            raise DetectorError(
                "expected a CLIP model for detectors that look at images, got none; give one, "
                "or leave out clip, clip_margin and ufid"
            )
        return self._clip

    @property
    def trusted(self) -> Model:
        """The clean model.

        Raises:
            DetectorError: none was given.
        """
        if self._trusted is None:
            raise DetectorError(
                "expected a trusted clean model for detectors that compare with it, got none; "
                "give the subject one, or leave out navit2i"
            )
        return self._trusted

    @property
    def passes(self) -> int:
        """UNet sample evaluations of a step: two with guidance."""
        return 2 if self.sampler.guidance > 1 else 1

    @property
    def generation(self) -> int:
        """UNet sample evaluations of one image."""
        return self.sampler.steps * self.passes

    def noun(self, prompt: str) -> str | None:
        """The first object that a prompt names; of two that begin together the longer."""
        text = f" {' '.join(prompt.casefold().replace(',', ' ').split())} "
        places = [(text.find(f" {noun} "), i) for i, noun in enumerate(self.nouns)]
        found = min((place for place in places if place[0] >= 0), default=None)
        return None if found is None else self.nouns[found[1]]


def known_nouns() -> tuple[str, ...]:
    """The lexicon's concepts, of the world and of everyday life."""
    return tuple({**load_lexicon(trained_only=False).concepts, **load_everyday().concepts})


def _longest(noun: str) -> tuple[int, str]:
    return -len(noun.split()), noun
