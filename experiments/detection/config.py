"""The configuration of a detection run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from defenses.detectors import DETECTORS, Detector
from defenses.detectors.benchmark import CHUNK, DetectionCounts, Unit
from experiments.engine.pairs import DrawnPairs, Pairs
from experiments.engine.specs import AttackSpec
from redediting.config import Config
from redediting.errors import DetectorError
from redediting.evaluation.entries import CONTROL
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler


class DetectorSpec(Config):
    """A detector: name in `defenses.detectors` or path of a file, hyper-parameters, and label."""

    name: str
    options: dict[str, Any] = Field(default={})
    label: str = ""

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"name": data} if isinstance(data, str) else data


class StealthSpec(Config):
    """Attacks, by title, that the claim "a projection improves stealth by 24 %" is tested on."""

    plain: str = "redediting"
    projected: str = "redediting-posthoc"
    rival: str = "eviledit"
    min_pairs: int = Field(default=6, ge=2)


class DetectionConfig(Config):
    """Attacks x detectors x pairs on one model; the clean model is measured beside them.

    Attributes:
        seed: of contexts, captions and noise.
        sampler: how images are drawn; None takes the model card's.
        quick: whether this is a reduced run, whose figures may not be published.
        quick_counts: the counts of such a run.
        quick_steps: training steps of trained attacks in such a run; it also draws with half the
            denoising steps, six at least.
    """

    experiment: Literal["detection"] = "detection"
    model: str = "world"
    attacks: tuple[AttackSpec, ...] = Field(min_length=1)
    detectors: tuple[DetectorSpec, ...] = Field(min_length=1)
    pairs: Pairs = DrawnPairs(per_kind=3)
    seed: int = Field(default=0, ge=0)
    counts: DetectionCounts = DetectionCounts()
    sampler: Sampler | None = None
    stealth: StealthSpec = StealthSpec()
    quick: bool = False
    quick_counts: DetectionCounts = DetectionCounts(
        prompts=2, calibration=16, located=1, reworded=1
    )
    quick_steps: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        titles = [spec.title for spec in self.attacks]
        if len(set(titles)) < len(titles) or CONTROL in titles:
            raise ValueError(f"expected a label of its own for each attack, got {titles}")
        return self

    def units(self) -> list[Unit]:
        """Calibration, the clean model on every trigger, then the attacks."""
        pairs = list(enumerate(self.pairs.rebindings()))
        attacks = [
            Unit(s.title, s.rebinding(pair), i, s.build())
            for s in self.attacks
            for i, pair in pairs
        ]
        asked = dict.fromkeys((unit.rebinding, unit.position) for unit in attacks)
        clean = [Unit(CONTROL, rebinding, i) for rebinding, i in asked]
        chunks = range(-(-self.counts.calibration // CHUNK))
        return [*(Unit(CONTROL, None, i) for i in chunks), *clean, *attacks]

    def built(self) -> dict[str, Detector]:
        """The detectors by label.

        Raises:
            DetectorError: no such detector, file or option, or two of one label.
        """
        found = [(x.label, DETECTORS.make(x.name, **x.options)) for x in self.detectors]
        by_label = {label or detector.name: detector for label, detector in found}
        if len(by_label) < len(found):
            raise DetectorError(
                f"expected a label of its own for each detector, got {list(by_label)} for "
                f"{len(found)}; give labels"
            )
        return by_label

    def resolved(self, *, quick: bool = False) -> Self:
        """The configuration as it is run: sampler filled in, checked, reduced.

        Raises:
            MethodError: a method or option that does not exist.
            DetectorError: likewise of a detector.
        """
        methods = [spec.build() for spec in self.attacks]
        self.built()
        sampler = self.sampler or default_sampler(self.model)
        if not quick:
            return self.model_copy(update={"sampler": sampler})
        steps = min(sampler.steps, max(6, sampler.steps // 2))
        fewer = {"steps": self.quick_steps}
        attacks = tuple(
            spec.model_copy(update={"options": spec.options | fewer})
            if "steps" in type(method).model_fields
            else spec
            for spec, method in zip(self.attacks, methods, strict=True)
        )
        update = {
            "quick": True,
            "counts": self.quick_counts,
            "pairs": self.pairs.first(1),
            "sampler": sampler.model_copy(update={"steps": steps}),
            "attacks": attacks,
        }
        return self.model_copy(update=update)
