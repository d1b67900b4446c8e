"""The configuration of a detection run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from defenses.detectors import DETECTORS
from defenses.detectors.base import Detector
from experiments.engine.pairs import DrawnPairs, Pairs
from experiments.engine.specs import CONTROL, Config, MethodSpec
from redediting.concepts.homoglyphs import with_twin
from redediting.concepts.rebinding import Rebinding
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler


class AttackSpec(MethodSpec):
    """An attack: a method, and how its trigger is written.

    Attributes:
        twin: exchange a letter of each trigger for one that looks alike (Rickrolling's way).
    """

    twin: bool = False

    def rebinding(self, rebinding: Rebinding) -> Rebinding:
        """The pair as this attack builds it in."""
        if not self.twin:
            return rebinding
        marked = f"{with_twin(rebinding.modifier or rebinding.trigger)} {rebinding.head}".strip()
        return Rebinding(
            marked, rebinding.target, rebinding.kind, rebinding.head, rebinding.target_head
        )


class DetectorSpec(Config):
    """A detector and its hyper-parameters.

    Attributes:
        name: of the registry (`defenses.detectors`), or the path of a file that defines one.
        options: the detector's own keyword hyper-parameters.
        label: what tables call it; its own name when not given.
    """

    name: str
    options: dict[str, Any] = Field(default={})
    label: str = ""

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"name": data} if isinstance(data, str) else data

    def build(self) -> Detector:
        """Returns the detector.

        Raises:
            DetectorError: no such detector, file or option.
        """
        return DETECTORS.make(self.name, **self.options)

    @property
    def title(self) -> str:
        """The label, or the detector's own name."""
        return self.label or self.build().name


class DetectionCounts(Config):
    """How much is drawn.

    Attributes:
        prompts: triggered ones a pair, and as many benign ones of the same contexts and noise.
        calibration: clean prompts on the clean model, for thresholds; those that learn, learn
            from the first half.
        located: triggered prompts a pair in which the trigger is searched.
        reworded: triggered prompts, and benign ones, a pair that are reworded.
    """

    prompts: int = Field(default=20, ge=2)
    calibration: int = Field(default=600, ge=8)
    located: int = Field(default=6, ge=0)
    reworded: int = Field(default=6, ge=0)


class StealthSpec(Config):
    """What the claim "one line of projection improves stealthiness by 24 %" is tested with.

    Attributes:
        plain: title of the attack without the projection.
        projected: title of the same with it.
        rival: title of the attack whose stealthiness stands beside.
        min_pairs: fewest pairs for a verdict.
    """

    plain: str = "redediting"
    projected: str = "redediting-posthoc"
    rival: str = "eviledit"
    min_pairs: int = Field(default=6, ge=2)


class DetectionConfig(Config):
    """Attacks x detectors x pairs on one model.

    Attributes:
        experiment: names the folder under ``runs/``.
        model: card, model folder or hub id.
        attacks: what edits; the clean model is always measured beside them.
        detectors: what examines.
        pairs: what is rebound, of several kinds of trigger.
        seed: of contexts, captions and noise.
        counts: how much is drawn.
        sampler: how images are drawn; None takes the model card's.
        stealth: attacks that the claim is tested on.
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

    def resolved(self, *, quick: bool = False) -> Self:
        """Returns the configuration as it is run: sampler filled in, checked, reduced.

        Raises:
            MethodError: a method or option that does not exist.
            DetectorError: likewise of a detector.
        """
        built = [spec.build() for spec in self.attacks]
        for detector in self.detectors:
            detector.build()
        update: dict[str, Any] = {"sampler": self.sampler or default_sampler(self.model)}
        if quick:
            steps = {"steps": self.quick_steps}
            attacks = [
                spec.model_copy(update={"options": spec.options | steps})
                if "steps" in type(method).model_fields
                else spec
                for spec, method in zip(self.attacks, built, strict=True)
            ]
            update |= {
                "quick": True,
                "counts": self.quick_counts,
                "pairs": self.pairs.first(1),
                "sampler": _shorter(update["sampler"]),
                "attacks": tuple(attacks),
            }
        return self.model_copy(update=update)


def _shorter(sampler: Sampler) -> Sampler:
    steps = min(sampler.steps, max(6, sampler.steps // 2))
    return sampler.model_copy(update={"steps": steps})
