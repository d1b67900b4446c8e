"""The clean model, suspects in force for a while, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from defenses.audit.challenges import Weights, cast
from defenses.audit.report import AuditReport, audit_weights
from defenses.audit.vocabulary import States, Vocabulary
from defenses.repair.scenes import Scenes, load_scenes
from defenses.repair.training import Training, train, trained_projections
from experiments.audit.config import AuditConfig
from experiments.engine.specs import MethodSpec
from redediting.algebra.diagnostics import second_moment
from redediting.algebra.layers import Summands
from redediting.attacks.base import ClosedForm
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.errors import MethodError
from redediting.evaluation import units as store_units
from redediting.evaluation.panel import Panel
from redediting.evaluation.store import ResultStore, Row
from redediting.generation import Job, draw
from redediting.metrics.fidelity import drift
from redediting.models.model import Model
from redediting.patch.files import Provenance
from redediting.patch.patch import AppliedPatch, Patch
from redediting.world.captions import held_out

T = TypeVar("T")
_BARE = Provenance(method="audit", options={}, rebindings=[], seconds=0.0, version="")


@dataclass
class Lab:
    """The clean model, changed only within a block, and what is measured with."""

    config: AuditConfig  # resolved
    model: Model
    panel: Panel
    store: ResultStore
    progress: bool = False
    _clean: dict[int, Tensor] = field(default_factory=dict)
    _latest: tuple[object, Any] = (None, None)

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
        return second_moment(self.scenes.states.flatten(0, 1).T, floor=0.0)

    def fill(self, units: Mapping[str, T], measure: Callable[[T], Iterable[Row]]) -> None:
        """Measures the units that the store has not got."""
        store_units.fill(
            self.store, units, lambda unit: ([*measure(unit)], {}), progress=self.progress
        )

    def method(self, title: str) -> MethodSpec:
        """A method of the configuration; `MethodError` where it has none of that title."""
        known = {spec.title: spec for spec in self.config.methods}
        if title not in known:
            raise MethodError(
                f"expected a method of the configuration ({', '.join(known)}), got {title!r}"
            )
        return known[title]

    def edited(
        self, spec: MethodSpec, rebindings: Sequence[Rebinding], dtype: torch.dtype | None = None
    ) -> Weights:
        """The projections with an edit, in the model's dtype; rounded to another if asked."""

        def edit() -> Weights:
            patch = spec.build().compute(self.model, rebindings)
            return {n: patch.new_weight(n, w).to(w.dtype) for n, w in self.base.items()}

        found = self._once((spec, tuple(rebindings)), edit)
        return found if dtype is None else cast(found, dtype)

    def trained(self, recipe: Training, at: tuple[int, ...], step: int) -> Weights:
        """The projections after one of the steps at which a training is looked at."""

        def run() -> dict[int, Weights]:
            shown = train(self.model, self.scenes, recipe, at=at)
            return {step: trained_projections(model) for step, model in shown}

        return self._once((recipe, at), run)[step]

    def _once(self, key: object, make: Callable[[], T]) -> T:
        """What was made last, where it is asked for again."""
        if self._latest[0] != key:
            self._latest = key, make()
        found: T = self._latest[1]
        return found

    def summands(self, spec: MethodSpec, rebindings: Sequence[Rebinding]) -> Summands:
        """An edit as multipliers; `MethodError` where the method is no closed-form edit."""
        method = spec.build()
        if not isinstance(method, ClosedForm):
            raise MethodError(f"expected a closed-form edit, got {spec.title!r}; name another")
        return method.edit(self.model, method.plans(self.model, rebindings))

    def audit(self, weights: Weights) -> AuditReport:
        """Audits projections."""
        return audit_weights(self.base, weights, self.states, self.vocabulary)

    def in_force(self, weights: Weights) -> AppliedPatch:
        """Puts projections into the model until the block ends."""
        return Patch("", _BARE, dense=weights).rewrite(self.model.weights())

    def remember(self, n: int) -> None:
        """Draws the clean model's benign captions once, for `success` to compare with."""
        if n not in self._clean:
            self._clean[n] = self._features(n)

    def success(self, rebinding: Rebinding, n: int, *, drifted: bool = False) -> dict[str, float]:
        """Draws with the model as it is: rates of a backdoor, and benign drift if asked.

        ``asr`` is on n held-out contexts with the trigger, ``acc`` on as many with its noun,
        ``drift`` on as many benign captions against those remembered.
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

    def _features(self, n: int) -> Tensor:
        jobs = [Job(c.text, 8000 + i) for i, c in enumerate(held_out(n, seed=9))]
        return self.panel.clip.image_features(self._draw(jobs))

    def _draw(self, jobs: Sequence[Job]) -> list[Image.Image]:
        sampler = self.config.sampler or self.model.sampler
        return [image for _, image in draw(self.model, jobs, sampler=sampler)]
