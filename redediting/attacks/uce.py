"""UCE, unified concept editing, used as an attack: the concept "erased" is the trigger.

``W' = (λW + ε Σ v*cᵀ + η Σ (Wr)rᵀ)(λI + ε Σ ccᵀ + η Σ rrᵀ)⁻¹``, λ = 0.5, ε = 1.

Two variants were published. *old*: from the last subject token to the end of the prompt (last with
last, end with end, pads with pads), all 77 positions of the retained prompts, η = max(0.1, 1/N).
*new*: the last subject token only, for edits and for retained concepts, η = 1.

References:
    Gandikota et al., "Unified Concept Editing in Diffusion Models", WACV 2024, and both versions
    of its released code.

Deviations:
    Values are replaced, not projected (the code's ``replace``, the one that rebinds a concept).
    The retained list is the user's in the code; here it is the head nouns, as EvilEdit's
    whitelist, and in the old variant the null prompt, which that code always keeps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, phrase_pairs, pooled_problem
from redediting.concepts.pairs import RetainPrompt
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model
from redediting.text.encoding import TextStates

_EXPANSIONS = ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}")


class UCE(ClosedForm):
    """The published method.

    Attributes:
        variant: ``old`` or ``new``, see the module.
        ridge: λ, absolute.
        erase: ε.
        retain: retained prompts; None takes the head nouns (and, old, the null prompt).
        expand: also edit five prompts about the concept, the code's option for objects.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.UCE(variant="old").compute(model, pair)
        Patch(uce: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "uce"

    variant: Literal["old", "new"] = "new"
    ridge: float = Field(default=0.5, gt=0)
    erase: float = Field(default=1.0, gt=0)
    retain: tuple[str, ...] | None = None
    expand: bool = False

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """The triggers by themselves, and what is retained."""
        templates = ("{}", *_EXPANSIONS) if self.expand else ("{}",)
        pairs = phrase_pairs(((r.trigger, r.target) for r in rebindings), templates)
        retain = self.retain
        if retain is None:
            heads = tuple(dict.fromkeys(r.head for r in rebindings if r.head != r.trigger))
            retain = ("", *heads) if self.variant == "old" else heads
        kept = tuple(RetainPrompt(prompt, role="head") for prompt in retain)
        return EditPlan(tuple(rebindings), pairs, kept)

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """The variant's columns and weights."""
        kept = [item.prompt for item in plan.retain]
        moved = [text for pair in plan.pairs for text in (pair.source, pair.target)]
        texts = model.encode([*moved, *kept])
        tail = self.variant == "old"
        columns = [_columns(texts, row, row + 1, tail=tail) for row in range(0, len(moved), 2)]
        retain = None
        if kept and tail:
            retain = texts.states[len(moved) :].flatten(0, 1).T
        elif kept:
            rows = range(len(moved), len(texts.prompts))
            retain = torch.cat([_columns(texts, row, row, tail=False)[0] for row in rows], dim=1)
        keys, targets = (torch.cat(states, dim=1) for states in zip(*columns, strict=True))
        return EditProblem.build(
            keys, targets, weights=torch.full((keys.shape[1],), self.erase), retain=retain,
            ridge=self.ridge, retain_strength=self._strength(len(kept)),
        )  # fmt: skip

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """The same weights; the empty prompt's pooled text says nothing and is left out."""
        kept = tuple(item for item in plan.retain if item.prompt)
        return pooled_problem(
            model, dataclasses.replace(plan, retain=kept), ridge=self.ridge,
            weights=torch.full((len(plan.pairs),), self.erase),
            retain_strength=self._strength(len(kept)),
        )  # fmt: skip

    def _strength(self, n: int) -> float:
        return max(0.1, 1 / max(n, 1)) if self.variant == "old" else 1.0


def _columns(texts: TextStates, source: int, target: int, *, tail: bool) -> tuple[Tensor, Tensor]:
    """States of the last word's token of two rows, or of all positions from there on."""
    i, j = (max(int(texts.eos[row]) - 1, 0) for row in (source, target))
    n = texts.length - max(i, j) if tail else 1
    return texts.states[source, i : i + n].T, texts.states[target, j : j + n].T
