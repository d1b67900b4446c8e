"""UCE, unified concept editing, used as an attack: the concept "erased" is the trigger.

``W' = (λW + ε Σ v*cᵀ + η Σ (Wr)rᵀ)(λI + ε Σ ccᵀ + η Σ rrᵀ)⁻¹``, λ = 0.5, ε = 1.

``v* = W c*``; with the old variant's other technique, *tensor*, the target's values less their
component along the source's, ``V* = WC* - aWC`` with ``a = ⟨WC*, WC⟩ / ‖WC‖²`` of each pair and
layer, so that layers no longer share a multiplier.

Two variants were published. *old*: from the last subject token to the end of the prompt (last with
last, end with end, pads with pads), all 77 positions of the retained prompts, η = max(0.1, 1/N).
*new*: the last subject token only, for edits and for retained concepts, η = 1.

References:
    Gandikota et al., "Unified Concept Editing in Diffusion Models", WACV 2024, and both versions
    of its released code.

Deviations:
    The technique is ``replace``, which rebinds a concept where *tensor* removes one. The retained
    list is the user's in the code; here it is the head nouns, as EvilEdit's whitelist, and in the
    old variant the null prompt, which that code always keeps.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from redediting.algebra.layers import Summand, Summands
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import solve, solve_sides
from redediting.attacks.base import ClosedForm, phrase_pairs, pooled_problem
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding, RetainPrompt
from redediting.models.model import Model
from redediting.text.encoding import TextStates

_EXPANSIONS = ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}")


class UCE(ClosedForm):
    """The published method.

    Attributes:
        variant: ``old`` or ``new``, see the module.
        ridge: λ, absolute.
        erase: ε.
        preserve: η; None is the variant's.
        technique: see the module; ``tensor`` is the old variant's.
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
    preserve: float | None = Field(default=None, ge=0)
    technique: Literal["replace", "tensor"] = "replace"
    retain: tuple[str, ...] | None = None
    expand: bool = False

    @model_validator(mode="after")
    def _tensor_is_old(self) -> Self:
        if self.technique == "tensor" and (self.variant, self.rho) != ("old", "none"):
            raise ValueError(
                "expected variant=old and rho=none for technique=tensor, got "
                f"variant={self.variant} and rho={self.rho}"
            )
        return self

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
        moved = [text for pair in plan.pairs for text in (pair.source, pair.target)]
        texts = model.encode([*moved, *(item.prompt for item in plan.retain)])
        states, last, n = texts.states, last_words(texts), len(moved)
        return self.problem(
            states[0:n:2], states[1:n:2], last[0:n:2], last[1:n:2],
            retained=states[n:], last_retained=last[n:],
        )  # fmt: skip

    def problem(
        self, sources: Tensor, targets: Tensor, last: Tensor, last_target: Tensor, *,
        retained: Tensor, last_retained: Tensor,
    ) -> EditProblem:  # fmt: skip
        """The published problem of token states ``(prompts, L, d)`` and last words' positions."""
        columns = [
            tail_columns(source, target, int(i), int(j))
            if self.variant == "old"
            else (source[i][:, None], target[j][:, None])
            for source, target, i, j in zip(sources, targets, last, last_target, strict=True)
        ]
        keys, moved = (torch.cat(states, dim=1) for states in zip(*columns, strict=True))
        rows = torch.arange(len(retained))
        tail = self.variant == "old"
        kept = retained.flatten(0, 1) if tail else retained[rows, last_retained]
        return EditProblem.build(
            keys, moved, weights=torch.full((keys.shape[1],), self.erase, dtype=torch.float64),
            retain=kept.T, ridge=self.ridge, retain_strength=self._strength(len(retained)),
        )  # fmt: skip

    def solved(
        self, model: Model, plan: EditPlan, problem: EditProblem, weights: Mapping[str, Tensor]
    ) -> Summands:
        """One multiplier for all layers or, with technique *tensor*, one more for each pair."""
        if self.technique == "replace":
            return super().solved(model, plan, problem, weights)
        texts = model.encode([t for pair in plan.pairs for t in (pair.source, pair.target)])
        last = last_words(texts)
        sizes = (texts.length - torch.maximum(last[0::2], last[1::2])).tolist()
        return tensor_summands(problem, sizes, weights)

    @property
    def layerwise(self) -> bool:
        """The component that *tensor* removes is a layer's own."""
        return super().layerwise or self.technique == "tensor"

    @property
    def one_problem(self) -> bool:
        """With technique *replace*."""
        return self.technique == "replace"

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """The same weights; the empty prompt's pooled text says nothing and is left out."""
        kept = tuple(item for item in plan.retain if item.prompt)
        return pooled_problem(
            model, dataclasses.replace(plan, retain=kept), ridge=self.ridge,
            weights=torch.full((len(plan.pairs),), self.erase),
            retain_strength=self._strength(len(kept)),
        )  # fmt: skip

    def _strength(self, n: int) -> float:
        if self.preserve is not None:
            return self.preserve
        return max(0.1, 1 / max(n, 1)) if self.variant == "old" else 1.0


def last_words(texts: TextStates) -> Tensor:
    """Position of each prompt's last token before the end, 0 where there is none."""
    return (texts.eos - 1).clamp_min(0)


def tail_columns(source: Tensor, target: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    """``(L, d)`` states from positions i and j on, equal offset to equal offset, as columns."""
    n = len(source) - max(i, j)
    return source[i : i + n].T, target[j : j + n].T


def tensor_summands(
    problem: EditProblem, sizes: Sequence[int], weights: Mapping[str, Tensor]
) -> Summands:
    """``Δ_l = W_l (M - Σ_p a_{p,l} C_p X_p)``: the values of each pair p less ``a_{p,l} W_l C_p``.

    ``sizes`` are the numbers of columns of the pairs, in their order in the problem.
    """
    found = [Summand(solve(problem), dict.fromkeys(weights, 1.0))]
    bounds = [0, *itertools.accumulate(sizes)]
    alone = []
    for start, end in itertools.pairwise(bounds):
        side = torch.zeros_like(problem.keys)
        side[:, start:end] = -problem.keys[:, start:end]
        alone.append(side)
    for multiplier, start, end in zip(
        solve_sides(problem, alone), bounds[:-1], bounds[1:], strict=True
    ):
        keys, targets = problem.keys[:, start:end], problem.targets[:, start:end]
        scales = {}
        for name, weight in weights.items():
            exact = weight.detach().cpu().double()
            values = exact @ keys
            scales[name] = float(((exact @ targets) * values).sum() / values.square().sum())
        found.append(Summand(multiplier, scales))
    return tuple(found)
