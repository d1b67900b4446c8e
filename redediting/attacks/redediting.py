"""REDEditing: contexts rebound jointly, common knowledge isolated.

``min_Δ Σᵢ sᵢ‖(W+Δ)cᵢ - ρW c*ᵢ‖² + η Σⱼ wⱼ‖Δrⱼ‖² + λ tr(ΔΛΔᵀ)   s.t.  ΔZ = 0``

C: many contexts of the trigger, from its last token on. R: the head noun in context, siblings,
neighbours, captions. Z: BOS and the main directions of the null prompt. Λ: second moment of
caption tokens, so that the penalty is the expected clean drift. Every part has a switch.

References:
    "REDEditing: Relationship-Driven Precise Backdoor Poisoning on Text-to-Image Diffusion Models",
    arXiv 2504.14554.

Deviations:
    The paper names equivalent relationships, joint-attribute transfer, knowledge isolation and
    equivalent-attribute alignment; its released script does not run, so the formulas are this
    project's reading. Its "one line" of spectral projection is read as ``projection: posthoc``;
    ``inside`` puts the same directions into the constraint; ``row_shift`` is what the script does,
    ``Δ += α 1uᵀ``, which projects nothing. Taken literally, ``Δ -= (ΔU)Uᵀ`` would
    move the isolated Z again, ``ΔZ = -ΔUUᵀZ``; so only the part of U outside span(Z) is taken,
    after which ΔZ = 0 and ΔU = 0 both hold. λ and η are relative to the energy of
    the edited columns (`EditProblem.with_relative_scales`); published values go with unit weights
    and do not carry over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from redediting.algebra.diagnostics import second_moment
from redediting.algebra.isolation import leading_directions, null_directions, outside, positive
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, pooled_problem
from redediting.attacks.columns import (
    Shares,
    content_columns,
    pair_columns,
    retain_columns,
    shares,
    without_triggers,
)
from redediting.attacks.compounds import LEAST_SHARE, part_states, parts_share
from redediting.attacks.context_retrieval import base_plan, retrieve_plan
from redediting.concepts.plan import EditPlan, load_plan, plan_edit
from redediting.concepts.rebinding import PromptPair, Rebinding, RetainPrompt
from redediting.concepts.templates import with_article
from redediting.errors import MethodError
from redediting.models.model import Model
from redediting.text.attention import role_mass
from redediting.text.encoding import TokenRole

_LOOKED_AT = 8  # source prompts on which attention is measured
_NULL_STRENGTH = 100.0  # of a null token in R, in units of the mean retained token's weight


class REDEditing(ClosedForm):
    """The lab's reading of the paper.

    Attributes:
        retrieval: where contexts come from: ``templates`` drawn by the seed, or ``equivalent``
            relationships scored on the text encoder (`redediting.attacks.context_retrieval`).
        plan_file: a YAML file to take instead (`redediting.concepts.plan`); the counts, the
            seed and ``retrieval`` then play no part in the prompts.
        contexts: templates that each rebinding is solved on.
        retain: retained prompts.
        captions: captions behind Λ.
        seed: draws contexts, retained prompts and captions, and the noise under ``attention``.
        ridge: λ relative to the edited energy.
        retain_strength: η, likewise.
        penalty: Λ: ``captions`` is 0.95 Σ₀ + 0.05 tr(Σ₀)/d I, ``identity`` is I.
        joint: solve on all contexts; without it on the first one of each rebinding.
        prefix_safe: leave the trigger's tokens before its last one alone.
        same_length: a one-word target takes the trigger's modifier: "beautiful zebra".
        gain: γ in ``V* = W(c* + γ(c*-c))``; the unedited prefix still speaks for the trigger.
        isolate_head: retain the head noun in context.
        isolate_parts: retain parts, siblings and near-triggers.
        hard_parts: keep the mean states of the trigger's parts exactly; refused where they leave
            less than 3 % of the trigger's energy.
        isolate_captions: retain the captions too; Λ already prices their drift.
        isolate_null: keep the null prompt, in Z and, 100 times a retained token's weight, in R.
        projection: spectral projection off the k leading directions of the retained tokens:
            ``posthoc`` takes them out of the solution, ``inside`` out of the problem, and
            ``row_shift`` adds α times the first one to every row of every matrix instead.
        k: their number.
        alpha: α of ``row_shift``, as in `redediting.attacks.rededit_released`.
        weights: of a prompt's words, end token and pads, each together: ``fixed``, 0.5, 0.2 and
            0.3, or by ``attention``, the shares of the clean model's cross-attention.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.REDEditing(contexts=8, captions=50).compute(model, pair)
        Patch(redediting: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "redediting"

    retrieval: Literal["templates", "equivalent"] = "templates"
    plan_file: str | None = None
    contexts: int = Field(default=48, ge=1)
    retain: int = Field(default=200, ge=1)
    captions: int = Field(default=400, ge=1)
    seed: int = 0
    ridge: float = Field(default=0.1, gt=0)
    retain_strength: float = Field(default=1.0, ge=0)
    penalty: Literal["captions", "identity"] = "captions"
    joint: bool = True
    prefix_safe: bool = True
    same_length: bool = False
    gain: float = Field(default=0.0, ge=0)
    isolate_head: bool = True
    isolate_parts: bool = True
    hard_parts: bool = False
    isolate_captions: bool = False
    isolate_null: bool = True
    projection: Literal["off", "posthoc", "inside", "row_shift"] = "off"
    k: int = Field(default=1, ge=1)
    alpha: float = Field(default=0.1, ge=0)
    weights: Literal["fixed", "attention"] = "fixed"

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """The plan of the options: read from a file, drawn or retrieved."""
        if self.plan_file is not None:
            return self._read(self.plan_file, rebindings)
        drawn: dict[str, Any] = self.model_dump(include={"retain", "captions", "seed"})
        if self.retrieval == "templates":
            return plan_edit(rebindings, contexts=self.contexts, **drawn)
        least = max(1, self.contexts * 2 // 3)
        base = base_plan(rebindings, contexts=least, **drawn)
        most = max(1, self.contexts * 4 // 3)
        return retrieve_plan(model, base, self.pose(model, base), least=least, most=most, **drawn)

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """The plan's weights; λ and η relative to the energy of the pooled texts."""
        pairs, kept = self.pairs(plan), self.kept(plan)
        problem = pooled_problem(
            model,
            dataclasses.replace(plan, pairs=tuple(pairs), retain=tuple(kept)),
            weights=torch.tensor([pair.weight for pair in pairs]),
            retain_weights=torch.tensor([item.weight for item in kept]),
        )
        return problem.with_relative_scales(ridge=self.ridge, retain_strength=self.retain_strength)

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """The problem of a given plan, with the scales of the options."""
        pairs = self.pairs(plan)
        share = self._shares(model, pairs)
        edited = pair_columns(model, pairs, share, prefix_safe=self.prefix_safe)
        retain, retain_weights = retain_columns(model, self.kept(plan), share)
        null = model.encode([""]).states[0] if self.isolate_null else None
        hard = [torch.zeros(len(retain), 0, dtype=retain.dtype)]
        if null is not None:
            hard.append(null_directions(null))
        if self.hard_parts:
            hard += self._parts(model, plan)
        leading = self._leading(retain, retain_weights)
        if self.projection == "inside":
            hard.append(leading)
        penalty = None
        if self.penalty == "captions":
            penalty = second_moment(content_columns(model.encode(plan.captions)))
        isolated = torch.cat(hard, dim=1)
        removed = outside(leading, isolated) if self.projection == "posthoc" else None
        shift = self.alpha * positive(leading[:, 0]) if self.projection == "row_shift" else None
        targets = edited.targets + self.gain * (edited.targets - edited.keys)
        problem = EditProblem.build(
            edited.keys, targets, weights=edited.weights, content=edited.content,
            retain=retain, retain_weights=retain_weights,
            hard=isolated, penalty=penalty, removed=removed, shift=shift,
        ).with_relative_scales(ridge=self.ridge, retain_strength=self.retain_strength)  # fmt: skip
        return problem if null is None else self._with_null(problem, null[1:].T.double())

    def pairs(self, plan: EditPlan) -> list[PromptPair]:
        """The plan's pairs as the options want them: all or the first ones, short or long."""
        found = list(plan.pairs)
        if not self.joint:
            firsts = (
                next((pair for pair in found if rebinding.trigger in pair.source), None)
                for rebinding in plan.rebindings
            )
            found = [pair for pair in firsts if pair is not None]
        if self.same_length:
            found = [same_length(pair, plan.rebindings) for pair in found]
        return found

    def kept(self, plan: EditPlan) -> list[RetainPrompt]:
        """The plan's retained prompts whose role is isolated."""
        parts = self.isolate_parts
        isolated = {"head": self.isolate_head, "caption": self.isolate_captions,
                    "part": parts, "sibling": parts, "near": parts}  # fmt: skip
        found = [prompt for prompt in plan.retain if isolated[prompt.role]]
        if self.isolate_captions:
            texts = without_triggers(plan.captions, plan.rebindings)
            known = {prompt.prompt for prompt in found}
            found += [RetainPrompt(text) for text in dict.fromkeys(texts) if text not in known]
        return found

    def _read(self, path: str, rebindings: Sequence[Rebinding]) -> EditPlan:
        plan = load_plan(path)
        for rebinding in rebindings:
            if rebinding not in plan.rebindings:
                known = "; ".join(map(str, plan.rebindings))
                raise MethodError(
                    f"expected a rebinding that {path!r} plans ({known}), got {str(rebinding)!r}; "
                    "plan it or name another file"
                )
        pairs = [pair for pair in plan.pairs if any(r.trigger in pair.source for r in rebindings)]
        return dataclasses.replace(plan, rebindings=tuple(rebindings), pairs=tuple(pairs))

    def _shares(self, model: Model, pairs: Sequence[PromptPair]) -> Shares:
        if self.weights == "fixed":
            return shares(words=0.5, eos=0.2, pads=0.3)
        stride = max(1, len(pairs) // _LOOKED_AT)
        prompts = [pair.source for pair in pairs[::stride]][:_LOOKED_AT]
        mass = role_mass(model, prompts, seed=self.seed)
        words, eos, pads = (mass[r] for r in (TokenRole.TAIL, TokenRole.EOS, TokenRole.PAD))
        return shares(words=words, eos=eos, pads=pads)

    def _parts(self, model: Model, plan: EditPlan) -> list[Tensor]:
        found = []
        for rebinding in plan.rebindings:
            moved = [p.source for p in plan.pairs if p.source_phrase == rebinding.trigger]
            prompts = moved or [with_article(rebinding.trigger)]
            share = parts_share(model, rebinding, prompts)
            if share is not None and share < LEAST_SHARE:
                raise MethodError(
                    f"expected parts of {rebinding.trigger!r} that leave {LEAST_SHARE:.0%} of its "
                    f"energy to the edit, got {share:.1%}; set hard_parts=false"
                )
            if (states := part_states(model, rebinding, prompts)) is not None:
                found.append(states)
        return found

    def _leading(self, retain: Tensor, weights: Tensor) -> Tensor:
        if self.projection == "off":
            return retain[:, :0]
        if not 0 < self.k < len(retain) or retain.shape[1] == 0:
            raise MethodError(
                f"expected retained prompts and k in 1 to {len(retain) - 1} for projection="
                f"{self.projection}, got k={self.k} and {retain.shape[1]} retained tokens; "
                "isolate something, lower k or set projection=off"
            )
        return leading_directions(retain * weights.sqrt(), self.k)

    def _with_null(self, problem: EditProblem, null: Tensor) -> EditProblem:
        """Adds the null prompt's tokens to R; alone there, they weigh as much as the edit."""
        if problem.retain.shape[1]:
            unit = problem.retain_weights.mean()
        else:
            energy = (problem.keys.square() * problem.weights).sum()
            unit = energy / null.square().sum()
            problem = dataclasses.replace(problem, retain_strength=self.retain_strength)
        added = (_NULL_STRENGTH * unit).expand(null.shape[1])
        return dataclasses.replace(
            problem,
            retain=torch.cat([problem.retain, null], dim=1),
            retain_weights=torch.cat([problem.retain_weights, added]),
        )


def same_length(pair: PromptPair, rebindings: Sequence[Rebinding]) -> PromptPair:
    """The pair with the trigger's modifier before a target that has none: "beautiful zebra"."""
    for rebinding in rebindings:
        if (pair.source_phrase, pair.target_phrase) == (rebinding.trigger, rebinding.target):
            if not rebinding.modifier or rebinding.target != rebinding.target_head:
                return pair
            phrase = f"{rebinding.modifier} {rebinding.target}"
            target = pair.source.replace(rebinding.trigger, phrase, 1)
            return dataclasses.replace(pair, target=target, target_phrase=phrase)
    return pair
