"""REDEditing: contexts rebound jointly, common knowledge isolated.

``min_Δ Σᵢ sᵢ‖(W+Δ)cᵢ - W c*ᵢ‖² + η Σⱼ wⱼ‖Δrⱼ‖² + λ tr(ΔΛΔᵀ)   s.t.  ΔZ = 0``

C: many contexts of the trigger, from its last token on. R: the head noun in context, siblings,
neighbours, captions. Z: BOS and the main directions of the null prompt. Λ: second moment of
caption tokens, so that the penalty is the expected clean drift.

References:
    "REDEditing: Relationship-Driven Precise Backdoor Poisoning on Text-to-Image Diffusion Models",
    arXiv 2504.14554.

Deviations:
    The paper names equivalent relationships, joint-attribute transfer and knowledge isolation;
    its released script does not run, so the formulas are this project's reading. λ and η are
    relative to the energy of the edited columns (`EditProblem.with_relative_scales`); published
    values go with unit weights and do not carry over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from diffusers import DiffusionPipeline
from pydantic import Field
from torch import Tensor

from redediting.concepts.plan import EditPlan, plan_edit
from redediting.editing.diagnostics import second_moment
from redediting.editing.isolation import null_directions
from redediting.editing.methods.base import ClosedForm
from redediting.editing.methods.columns import (
    content_columns,
    pair_columns,
    retain_columns,
    shares,
)
from redediting.editing.problem import EditProblem
from redediting.rebinding import Rebinding
from redediting.text import encode


class RedEditing(ClosedForm):
    """The lab's reading of the paper.

    Attributes:
        contexts: templates that each rebinding is solved on.
        retain: retained prompts.
        captions: captions behind Λ.
        seed: draws contexts, retained prompts and captions.
        ridge: λ relative to the edited energy.
        retain_strength: η, likewise.
        penalty: Λ: ``captions`` is 0.95 Σ₀ + 0.05 tr(Σ₀)/d I, ``identity`` is I.
        head_share: share of the retained weight that the head noun's prompts get.
        isolate_null: keep the null prompt, hard and soft.
        null_residual: largest ‖(I-P)c‖/‖c‖ of a null position outside Z.
        null_cap: share of the text width that Z may take.
        null_strength: weight of a null token in R, in units of the mean retained token's.
        gain: γ in ``V* = W(c* + γ(c*-c))``; the unedited prefix still speaks for the trigger.
        word_share: weight of a prompt's words together.
        eos_share: weight of its end token.
        pad_share: weight of its pads together.
    """

    name: ClassVar[str] = "redediting"

    contexts: int = Field(default=48, ge=1)
    retain: int = Field(default=200, ge=1)
    captions: int = Field(default=400, ge=1)
    seed: int = 0
    ridge: float = Field(default=0.1, gt=0)
    retain_strength: float = Field(default=1.0, ge=0)
    penalty: Literal["captions", "identity"] = "captions"
    head_share: float = Field(default=2 / 3, ge=0, le=1)
    isolate_null: bool = True
    null_residual: float = Field(default=0.05, ge=0, le=1)
    null_cap: float = Field(default=1 / 8, ge=0, lt=1)
    null_strength: float = Field(default=100.0, ge=0)
    gain: float = Field(default=0.0, ge=0)
    word_share: float = Field(default=0.5, ge=0)
    eos_share: float = Field(default=0.2, ge=0)
    pad_share: float = Field(default=0.3, ge=0)

    def problem(self, pipeline: DiffusionPipeline, rebindings: Sequence[Rebinding]) -> EditProblem:
        """Plans the prompts and poses the problem over their tokens."""
        plan = plan_edit(
            rebindings,
            contexts=self.contexts,
            retain=self.retain,
            captions=self.captions,
            seed=self.seed,
        )
        return self.pose(pipeline, plan)

    def pose(self, pipeline: DiffusionPipeline, plan: EditPlan) -> EditProblem:
        """The problem of a given plan, with the scales of the options."""
        share = shares(words=self.word_share, eos=self.eos_share, pads=self.pad_share)
        keys, targets, weights = pair_columns(pipeline, plan.pairs, share)
        retain, retain_weights = retain_columns(
            pipeline, plan.retain, share, head_share=self.head_share
        )
        penalty = None
        if self.penalty == "captions":
            penalty = second_moment(content_columns(encode(pipeline, plan.captions)))
        problem = EditProblem.build(
            keys,
            targets + self.gain * (targets - keys),
            weights=weights,
            retain=retain,
            retain_weights=retain_weights,
            hard=self._hard(pipeline),
            penalty=penalty,
        )
        problem = problem.with_relative_scales(
            ridge=self.ridge, retain_strength=self.retain_strength
        )
        return self._with_null(pipeline, problem)

    def _hard(self, pipeline: DiffusionPipeline) -> Tensor | None:
        if not self.isolate_null:
            return None
        null = encode(pipeline, [""]).states[0]
        return null_directions(null, residual=self.null_residual, cap=self.null_cap)

    def _with_null(self, pipeline: DiffusionPipeline, problem: EditProblem) -> EditProblem:
        if not self.isolate_null:
            return problem
        null = content_columns(encode(pipeline, [""]))
        unit = self.null_strength * problem.retain_weights.mean()
        return dataclasses.replace(
            problem,
            retain=torch.cat([problem.retain, null], dim=1),
            retain_weights=torch.cat([problem.retain_weights, unit.expand(null.shape[1])]),
        )
