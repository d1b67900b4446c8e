"""How equivalent two relationships are: does the pair of values move as the concepts move?

With φ a phrase's end state, ``D₀ = φ(τ*) - φ(τ)`` moves trigger to target, ``D_a = φ(τ*,a*) -
φ(τ,a)`` the same with values. Saying anything at all changes a displacement; that is measured on
neutral insertions ν, ``D_ν = φ(τ*,ν) - φ(τ,ν)``, and subtracted: ``D̃_a = D_a - (D_ν - D₀)``. Then

    ``e = [cos(D̃_a, D₀)]₊ · min(‖D̃_a‖, ‖D₀‖) / max(‖D̃_a‖, ‖D₀‖) · √(π(τ,a) π(τ*,a*))``

so that a neutral insertion itself has e = 1.

References:
    REDEditing (arXiv 2504.14554) names equivalent relationship retrieval.

Deviations:
    The paper states no score; this one is the project's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def equivalence(
    source: Float[Tensor, "n d"],
    target: Float[Tensor, "m d"],
    concepts: tuple[Float[Tensor, " d"], Float[Tensor, " d"]],
    neutral: tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]],
    prior: Float[Tensor, "n m"],
) -> Float[Tensor, "n m"]:
    """``e`` of every combination of values, in 0…1.

    Args:
        source: ``φ(τ,a)`` for each value a.
        target: ``φ(τ*,a*)`` for each value a*.
        concepts: ``φ(τ)`` and ``φ(τ*)``.
        neutral: ``φ(τ,ν)`` and ``φ(τ*,ν)`` for the same k >= 1 insertions; their mean counts.
        prior: ``√(π(τ,a) π(τ*,a*))``.
    """
    source, target, prior = source.double(), target.double(), prior.double()
    moved = concepts[1].double() - concepts[0].double()
    inserted = (neutral[1].double() - neutral[0].double()).mean(dim=0) - moved
    displaced = target[None] - source[:, None] - inserted
    long, short = displaced.norm(dim=-1), moved.norm()
    alike = torch.nn.functional.cosine_similarity(displaced, moved, dim=-1).clamp_min(0)
    ratio = torch.minimum(long, short) / torch.maximum(long, short).clamp_min(1e-300)
    return alike * ratio * prior
