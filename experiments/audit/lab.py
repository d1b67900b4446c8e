"""What all stages share: the clean model, suspects put in force for a while, and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from defenses.audit import States, Vocabulary, base_weights
from defenses.repair.scenes import Scenes, load_scenes
from experiments.audit.config import AuditConfig
from experiments.audit.ledger import Ledger
from experiments.engine.specs import MethodSpec
from experiments.judges import Panel
from redediting.algebra.layers import Summands
from redediting.attacks.base import ClosedForm
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.errors import MethodError
from redediting.generation import Job, draw
from redediting.metrics.fidelity import drift
from redediting.models.model import Model
from redediting.models.sampler import Sampler
from redediting.patch.applied import AppliedPatch, Rewrite
from redediting.world.captions import held_out

Weights = dict[str, Tensor]


@dataclass
class Lab:
    """The clean model and what is measured with.

    Attributes:
        config: resolved.
        model: clean; changed only within a block.
        panel: the judges.
        ledger: rows so far.
    """

    config: AuditConfig
    model: Model
    panel: Panel
    ledger: Ledger

    @cached_property
    def base(self) -> Weights:
        """The clean projections, a copy."""
        return {name: weight.clone() for name, weight in base_weights(self.model).items()}

    @cached_property
    def states(self) -> States:
        """Token states of candidate phrases; they depend on the clean text encoder only."""
        return States(self.model)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Candidates of the audit."""
        return Vocabulary.of(self.model.tokenizer)

    @cached_property
    def scenes(self) -> Scenes:
        """Clean training data."""
        return load_scenes(self.model, self.config.scenes)

    @cached_property
    def captions(self) -> Tensor:
        """Σ₀: mean of ``ccᵀ`` over all positions of those scenes' captions, fp64, ``(d, d)``."""
        columns = self.scenes.states.double().flatten(0, 1)
        return columns.T @ columns / len(columns)

    def method(self, title: str) -> MethodSpec:
        """A method of the configuration.

        Raises:
            MethodError: none of that title.
        """
        for spec in self.config.methods:
            if spec.title == title:
                return spec
        known = ", ".join(spec.title for spec in self.config.methods)
        raise MethodError(f"expected a method of the configuration ({known}), got {title!r}")

    def edited(self, spec: MethodSpec, rebindings: Sequence[Rebinding]) -> Weights:
        """The projections with an edit, in the model's dtype."""
        patch = spec.build().compute(self.model, rebindings)
        return {
            name: patch.new_weight(name, weight).to(weight.dtype)
            for name, weight in self.base.items()
        }

    def parts(self, spec: MethodSpec, rebindings: Sequence[Rebinding]) -> Summands:
        """The same as multipliers.

        Raises:
            MethodError: the method is no closed-form edit.
        """
        method = spec.build()
        if not isinstance(method, ClosedForm):
            raise MethodError(f"expected a closed-form edit, got {spec.title!r}; name another")
        return method.edit(self.model, method.plans(self.model, rebindings))

    def in_force(self, weights: Mapping[str, Tensor]) -> AppliedPatch:
        """Puts projections into the model until the block ends."""
        own = base_weights(self.model)
        return AppliedPatch([_replaced(own[name], weight) for name, weight in weights.items()])

    def success(self, rebinding: Rebinding, n: int, *, drifted: bool = False) -> dict[str, float]:
        """Draws with the model as it is: rates of a backdoor, and benign drift if asked.

        Args:
            rebinding: trigger and target.
            n: held-out contexts with the trigger (``asr``), as many with its noun (``acc``).
            drifted: also as many benign captions against the clean model (``drift``), which must
                have been drawn before by `remember`.
        """
        templates = contexts(n, seed=1, split="test")
        found = {}
        for key, phrase, expected in (
            ("asr", rebinding.trigger, rebinding.target_head),
            ("acc", rebinding.head, rebinding.head),
        ):
            jobs = [Job(fill(t, phrase), 7000 + i) for i, t in enumerate(templates)]
            labels = self._labels(jobs)
            found[key] = sum(label == expected for label in labels) / n
        if drifted:
            features = self._features(n)
            found["drift"] = float(drift(features, self._clean_features[n]).clamp(min=0).mean())
        return found

    def remember(self, n: int) -> None:
        """Draws the clean model's benign captions once."""
        if n not in self._clean_features:
            self._clean_features[n] = self._features(n)

    @cached_property
    def _clean_features(self) -> dict[int, Tensor]:
        return {}

    def _labels(self, jobs: Sequence[Job]) -> list[str]:
        images = [image for _, image in draw(self.model, jobs, sampler=self._sampler)]
        return list(self.panel.judge.objects(images))

    def _features(self, n: int) -> Tensor:
        jobs = [Job(c.text, 8000 + i) for i, c in enumerate(held_out(n, seed=9))]
        images = [image for _, image in draw(self.model, jobs, sampler=self._sampler)]
        return self.panel.clip.image_features(images)

    @property
    def _sampler(self) -> Sampler:
        sampler = self.config.sampler
        if sampler is None:
            raise MethodError("expected a resolved configuration; call resolved() first")
        return sampler


def _replaced(parameter: Tensor, weight: Tensor) -> Rewrite:
    def write(value: Tensor) -> None:
        value.copy_(weight)

    return Rewrite(parameter, write, lambda _: weight.double())
