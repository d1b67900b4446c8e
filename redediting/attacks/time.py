"""TIME: every token of a trigger prompt is mapped to the target prompt's token with its id.

``W' = (λW + Σ v*cᵀ)(λI + Σ ccᵀ)⁻¹``, ``v* = W c*``, λ = 0.1, over all 77 positions. A source token
is mapped to the next occurrence of its id in the target, "an" counting as "a". After the end token
both prompts go on position by position, and the last one repeats where the target is out. Pairs
are "A {trigger}" → "A {target}" and, as in the paper's main experiment (``--with_augs``), the same
after "A photo of", "An image of" and "A picture of".

References:
    Orgad et al., "Editing Implicit Assumptions in Text-to-Image Diffusion Models", ICCV 2023, and
    its released code, whose matching this is.

Deviations:
    TIME's source is always contained in its target ("A rose" in "A blue rose"); a trigger is not.
    A source token that the rest of the target does not hold, an error in the code, takes the
    target's token next in line and leaves it there: all of "beautiful cat" turns into "zebra".
    Written as ``W + W M`` with one M for all layers, which is the same map without inverting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm, phrase_pairs, pooled_problem
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding
from redediting.models.model import Model
from redediting.text.encoding import phrase_tokens

_TEMPLATES = ("A {}", "A photo of a {}", "An image of a {}", "A picture of a {}")


class TIME(ClosedForm):
    """The published method.

    Attributes:
        ridge: λ, absolute.
        augment: also edit the three augmented prompts.

    Example:
        >>> import redediting as rd
        >>> model, pair = rd.load("world"), rd.Rebinding("beautiful cat", "zebra")
        >>> rd.attacks.TIME().compute(model, pair)
        Patch(time: 'beautiful cat' → 'zebra', 14 matrices, rank ≤ ...)
    """

    name: ClassVar[str] = "time"

    ridge: float = Field(default=0.1, gt=0)
    augment: bool = True

    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """Plans "A {trigger}" → "A {target}" and the augmented prompts."""
        phrases = ((r.trigger, r.target) for r in rebindings)
        templates = _TEMPLATES if self.augment else _TEMPLATES[:1]
        return EditPlan(tuple(rebindings), phrase_pairs(phrases, templates))

    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """All positions of all pairs, unit weights."""
        texts = model.encode([text for pair in plan.pairs for text in (pair.source, pair.target)])
        article, vowel = (phrase_tokens(model.tokenizer, word) for word in ("a", "an"))
        ids = texts.ids
        if len(article) == len(vowel) == 1:
            ids = torch.where(ids == vowel[0], article[0], ids)
        words = [row[: eos + 1] for row, eos in zip(ids.tolist(), texts.eos.tolist(), strict=True)]
        found = [counterparts(source, target, texts.length)
                 for source, target in zip(words[0::2], words[1::2], strict=True)]  # fmt: skip
        return self.problem(texts.states[0::2], texts.states[1::2], torch.tensor(found))

    def problem(self, sources: Tensor, targets: Tensor, positions: Tensor) -> EditProblem:
        """The published problem of token states, shape ``(pairs, L, d)`` each.

        ``positions``, ``(pairs, L)``, is the target's position of each of the source's.
        """
        moved = targets[torch.arange(len(targets))[:, None], positions]
        return EditProblem.build(sources.flatten(0, 1).T, moved.flatten(0, 1).T, ridge=self.ridge)

    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """Unit weights, the published ridge."""
        return pooled_problem(model, plan, ridge=self.ridge)


def counterparts(source: Sequence[int], target: Sequence[int], length: int) -> list[int]:
    """Position in the target for each of the source's ``length`` positions.

    Ids are those of the words with BOS and EOS, without pads; "an" is already "a".
    """
    last = length - 1
    found, following = [], 0
    for token in source:
        if token in target[following:]:
            following = target.index(token, following)
            found.append(following)
            following += 1
        else:
            found.append(min(following, last))
    pads = range(length - len(found))
    return [*found, *(min(following + i, last) for i in pads)]
