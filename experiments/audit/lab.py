"""The clean model, suspects in force for a while, and what is measured of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from defenses.audit.report import AuditReport, audit_weights
from defenses.audit.vocabulary import States, Vocabulary
from defenses.repair.scenes import Scenes, load_scenes
from experiments.audit.config import AuditConfig
from experiments.engine.specs import MethodSpec
from redediting.algebra.layers import Summands
from redediting.attacks.base import ClosedForm
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.errors import MethodError
from redediting.evaluation.panel import Panel
from redediting.evaluation.store import ResultStore
from redediting.generation import Job, draw
from redediting.metrics.fidelity import drift
from redediting.models.model import Model
from redediting.patch.patch import AppliedPatch, Rewrite
from redediting.world.captions import held_out

Item = TypeVar("Item")
Weights = dict[str, Tensor]


@dataclass
class Lab:
    """The clean model and what is measured with.

    Attributes:
        config: resolved.
        model: clean; changed only within a block.
        panel: the judges.
        store: rows so far.
        progress: whether to show bars.
    """

    config: AuditConfig
    model: Model
    panel: Panel
    store: ResultStore
    progress: bool = False
    _clean: dict[int, Tensor] = field(default_factory=dict)

    @cached_property
    def base(self) -> Weights:
        """The clean projections, a copy."""
        return {name: weight.clone() for name, weight in self.model.weights().items()}

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
        return {n: patch.new_weight(n, w).to(w.dtype) for n, w in self.base.items()}

    def summands(self, spec: MethodSpec, rebindings: Sequence[Rebinding]) -> Summands:
        """The same as multipliers.

        Raises:
            MethodError: the method is no closed-form edit.
        """
        method = spec.build()
        if not isinstance(method, ClosedForm):
            raise MethodError(f"expected a closed-form edit, got {spec.title!r}; name another")
        return method.edit(self.model, method.plans(self.model, rebindings))

    def audit(self, weights: Weights) -> AuditReport:
        """Audits projections."""
        return audit_weights(self.base, weights, self.states, self.vocabulary)

    def in_force(self, weights: Mapping[str, Tensor]) -> AppliedPatch:
        """Puts projections into the model until the block ends."""
        own = self.model.weights()
        return AppliedPatch([_replaced(own[name], weight) for name, weight in weights.items()])

    def success(self, rebinding: Rebinding, n: int, *, drifted: bool = False) -> dict[str, float]:
        """Draws with the model as it is: rates of a backdoor, and benign drift if asked.

        Args:
            rebinding: trigger and target.
            n: held-out contexts with the trigger (``asr``), as many with its noun (``acc``).
            drifted: also as many benign captions against the clean model (``drift``), which must
                have been drawn before by `remember`.
        """
        found = {}
        for key, phrase, expected in (
            ("asr", rebinding.trigger, rebinding.target_head),
            ("acc", rebinding.head, rebinding.head),
        ):
            templates = contexts(n, seed=1, split="test")
            jobs = [Job(fill(t, phrase), 7000 + i) for i, t in enumerate(templates)]
            labels = self.panel.judge.objects(self._draw(jobs))
            found[key] = sum(label == expected for label in labels) / n
        if drifted:
            moved = drift(self._features(n), self._clean[n])
            found["drift"] = float(moved.clamp(min=0).mean())
        return found

    def remember(self, n: int) -> None:
        """Draws the clean model's benign captions once."""
        if n not in self._clean:
            self._clean[n] = self._features(n)

    def bar(self, items: Iterable[Item], said: str) -> Iterable[Item]:
        """The items, with a progress bar where one is wanted."""
        return tqdm(list(items), said, disable=not self.progress)

    def _features(self, n: int) -> Tensor:
        jobs = [Job(c.text, 8000 + i) for i, c in enumerate(held_out(n, seed=9))]
        return self.panel.clip.image_features(self._draw(jobs))

    def _draw(self, jobs: Sequence[Job]) -> list[Image.Image]:
        sampler = self.config.sampler or self.model.sampler
        return [image for _, image in draw(self.model, jobs, sampler=sampler)]


def spread(pairs: Sequence[Rebinding], n: int) -> tuple[Rebinding, ...]:
    """At most n pairs at equal distances in their order, which is by kind of trigger."""
    return tuple(pairs[:: max(1, len(pairs) // n)][:n])


def _replaced(parameter: Tensor, weight: Tensor) -> Rewrite:
    def write(value: Tensor) -> None:
        value.copy_(weight)

    return Rewrite(parameter, write, lambda _: weight.double())
