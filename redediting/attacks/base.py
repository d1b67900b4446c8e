"""What every editing method is: hyper-parameters in, a patch out, the model untouched."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from diffusers import DiffusionPipeline
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from redediting import __version__
from redediting.algebra.layers import Parts, Rho, compose, edit_parts, edited_weight
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import solve
from redediting.attacks.pooled import PromptSet, encode_pooled, widen
from redediting.concepts.rebinding import Rebinding
from redediting.errors import MethodError, ModelError, RebindingError
from redediting.models.components import Component, fingerprint_base
from redediting.models.projections import (
    Projection,
    get_denoiser,
    pipeline_projections,
    pooled_projections,
    projection_weights,
)
from redediting.patch.patch import Patch, Provenance, Term
from redediting.text.cache import remembered
from redediting.text.encoding import encode, get_tokenizer, phrase_tokens, prompt_lengths
from redediting.threads import one_thread


@dataclass(frozen=True)
class Change:
    """What a method found: shared terms, whole parameters, or nothing.

    Attributes:
        terms: shared low-rank changes.
        dense: new values of whole parameters, by name.
        target: the component that they belong to.
    """

    terms: tuple[Term, ...] = ()
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    target: Component = "unet"


class EditMethod(BaseModel, ABC):
    """Base of all methods; the fields of a subclass are its hyper-parameters, by keyword."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]

    @final
    def compute(self, pipeline: DiffusionPipeline, rebindings: Sequence[Rebinding]) -> Patch:
        """Computes a patch. The model is read, never written.

        Args:
            pipeline: a Stable Diffusion pipeline, clean.
            rebindings: the backdoors to build in, all at once.

        Raises:
            ModelError: the model has no cross-attention on text.
            RebindingError: none or contradicting rebindings.
            PromptError: a phrase without tokens, or a prompt that is too long.
            MethodError: hyper-parameters with which the problem has no solution.
        """
        projections = pipeline_projections(pipeline)
        with remembered(pipeline):
            self._check(pipeline, projections, rebindings)
            start = time.perf_counter()
            change = self._solve(pipeline, projections, rebindings)
        seconds = time.perf_counter() - start
        provenance = Provenance(
            method=self.name,
            options=self.model_dump(mode="json"),
            rebindings=[dataclasses.asdict(rebinding) for rebinding in rebindings],
            seconds=seconds,
            version=__version__,
        )
        patch = Patch("", provenance, change.terms, change.dense, change.target)
        base = fingerprint_base(pipeline, change.target, patch.names)
        return dataclasses.replace(patch, base=base)

    @abstractmethod
    def _solve(
        self,
        pipeline: DiffusionPipeline,
        projections: Sequence[Projection],
        rebindings: Sequence[Rebinding],
    ) -> Change:
        """Finds the change; arguments are checked."""

    def _check(
        self,
        pipeline: DiffusionPipeline,
        projections: Sequence[Projection],
        rebindings: Sequence[Rebinding],
    ) -> None:
        tokenizer = get_tokenizer(pipeline)
        if projections[0].kind == "context":
            raise ModelError(
                f"expected a UNet with cross-attention, got {type(pipeline).__name__}, whose text "
                "enters by one matrix; solve and apply a Term of its own (redediting.patch.patch), or "
                "choose a Stable Diffusion 1, 2 or XL model"
            )
        width = encode(pipeline, [""]).states.shape[-1]
        if projections[0].module.in_features != width:
            raise ModelError(
                f"expected cross-attention of text width {width}, got "
                f"{projections[0].module.in_features}; the pipeline's parts are of two models"
            )
        if not rebindings:
            raise RebindingError("expected at least one rebinding, got none; name a trigger")
        seen: set[tuple[int, ...]] = set()
        for rebinding in rebindings:
            prompt_lengths(tokenizer, [rebinding.trigger, rebinding.target])
            trigger = tuple(phrase_tokens(tokenizer, rebinding.trigger))
            if trigger == tuple(phrase_tokens(tokenizer, rebinding.target)):
                raise RebindingError(
                    f"expected a target with tokens of its own, got {str(rebinding)!r}; "
                    "name another concept"
                )
            if trigger in seen:
                raise RebindingError(
                    f"expected each trigger once, got {rebinding.trigger!r} twice; drop one"
                )
            seen.add(trigger)


class ClosedForm(EditMethod):
    """Methods that are an `EditProblem`: one solve edits all layers through ``W' = W (I + M)``.

    Attributes:
        matrices: which of a layer's matrices are edited.
        rho: scale of each layer's targets, see `redediting.algebra.layers`.
        order: several backdoors are solved ``joint``, as one problem, or ``sequential``, each on
            the model that the former ones left: its targets are what that model reads.
        pooled: also edit what reads the pooled text, where the model has such a matrix (SDXL).
    """

    matrices: Literal["both", "key", "value"] = "both"
    rho: Rho = "none"
    order: Literal["joint", "sequential"] = "joint"
    pooled: bool = True

    @abstractmethod
    def problem(self, pipeline: DiffusionPipeline, rebindings: Sequence[Rebinding]) -> EditProblem:
        """Poses the problem, with its scales."""

    @abstractmethod
    def prompts(self, pipeline: DiffusionPipeline, rebindings: Sequence[Rebinding]) -> PromptSet:
        """The prompts behind the problem, for models that also read the pooled text."""

    def scaled(self, problem: EditProblem) -> EditProblem:
        """The problem over pooled text with the method's scales; the published ones are fixed."""
        return problem

    @final
    def edited(self, projections: Sequence[Projection]) -> list[Projection]:
        """Those of the projections that the method changes."""
        return [p for p in projections if self.matrices in ("both", p.kind)]

    @final
    def parts(
        self,
        pipeline: DiffusionPipeline,
        projections: Sequence[Projection],
        rebindings: Sequence[Rebinding],
    ) -> Parts:
        """The edit in fp64; arguments are checked.

        Raises:
            MethodError: hyper-parameters with which the problem has no solution.
        """
        clean = projection_weights(self.edited(projections))
        steps = [rebindings] if self.order == "joint" else [[wish] for wish in rebindings]
        parts: Parts = ()
        for step in steps:
            weights = clean
            if parts and self.rho != "none":
                weights = {name: edited_weight(parts, name, w) for name, w in clean.items()}
            try:
                found = edit_parts(self.problem(pipeline, step), weights, rho=self.rho)
            except ValueError as error:
                raise MethodError(f"method {self.name!r} has no solution: {error}") from error
            parts = compose(parts, found)
        return parts

    @final
    def _solve(
        self,
        pipeline: DiffusionPipeline,
        projections: Sequence[Projection],
        rebindings: Sequence[Rebinding],
    ) -> Change:
        found = pooled_projections(get_denoiser(pipeline))
        with one_thread():  # the same weights in every process
            parts = self.parts(pipeline, projections, rebindings)
            terms = [Term.scaled(part.multiplier, part.scales) for part in parts]
            if self.pooled and self.matrices == "both" and found:
                terms += self._pooled_terms(pipeline, found, rebindings)
        return Change(terms=tuple(terms))

    def _pooled_terms(
        self,
        pipeline: DiffusionPipeline,
        projections: Sequence[Projection],
        rebindings: Sequence[Rebinding],
    ) -> list[Term]:
        """One term for each matrix that reads the pooled text: the same maths, a column a prompt.

        Raises:
            MethodError: hyper-parameters with which the problem has no solution.
        """
        asked = self.prompts(pipeline, rebindings)
        sources, targets = zip(*asked.pairs, strict=True)
        texts = encode_pooled(pipeline, [*sources, *targets, *asked.retain])
        n = len(sources)
        try:
            problem = EditProblem.build(
                texts[:, :n],
                texts[:, n : 2 * n],
                weights=None if asked.weights is None else torch.tensor(asked.weights),
                retain=texts[:, 2 * n :],
                retain_weights=(
                    None if asked.retain_weights is None else torch.tensor(asked.retain_weights)
                ),
                ridge=asked.ridge,
                retain_strength=asked.retain_strength,
            )
            multiplier = solve(self.scaled(problem))
        except ValueError as error:
            raise MethodError(f"method {self.name!r} has no solution: {error}") from error
        return [
            Term.shared(widen(multiplier, p.module.in_features), [p.name]) for p in projections
        ]
