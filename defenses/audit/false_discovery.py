"""How often would such a score come up by chance? A false-discovery bound for recovered triggers.

The null: every phrase moves as far as it does, but towards a random place among texts. The
evidence of such decoys (a logarithm) has a light upper tail; above their 90th percentile u it is
taken to be exponential, ``P(s > x) = 0.1 exp(-(x - u)/β)`` with β the mean excess. The bound at a
score is then Benjamini and Hochberg's: candidates times that probability, over the candidates that
reach it.

References:
    Benjamini & Hochberg, "Controlling the false discovery rate", 1995; exceedances as in Pickands,
    "Statistical inference using extreme order statistics", 1975, with shape 0.

Deviations:
    Benjamini and Hochberg assume independent or positively dependent scores; phrases that share
    words are the latter, to a good approximation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.stats import false_discovery_control
from torch import Tensor

_TAIL = 0.1


def decoy_shift(
    start: Float[Tensor, "n t r d"], shift: Float[Tensor, "n t r d"], *, seed: int = 0
) -> Float[Tensor, "n t r d"]:
    """Displacements as long as the phrases' own, each in the direction from one text to another.

    Phrases and displacements are as seen through the layers (`EditMap`).
    """
    random = torch.Generator().manual_seed(seed)
    one, two = (torch.randint(len(start), (len(start),), generator=random) for _ in range(2))
    towards = start[one] - start[two]
    length = towards.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    return towards / length * shift.norm(dim=-1, keepdim=True)


def discovery_bound(
    scores: Float[Tensor, " n"], decoys: Float[Tensor, " m"]
) -> Float[Tensor, " n"]:
    """Bound on the share of false discoveries among scores at least as high, 0…1.

    Raises:
        ValueError: fewer than ten decoys, or a score that is no number.
    """
    if len(decoys) < 10:
        raise ValueError(f"expected at least 10 decoys, got {len(decoys)}")
    decoys = decoys.double()
    threshold = torch.quantile(decoys, 1 - _TAIL)
    excess = (decoys[decoys > threshold] - threshold).mean().nan_to_num(0).clamp_min(1e-6)
    above = _TAIL * torch.exp(-(scores.double() - threshold) / excess)
    below = (decoys[None, :] >= scores.double()[:, None]).double().mean(dim=1)
    chance = torch.where(scores.double() > threshold, above, below.clamp_min(_TAIL))
    return torch.from_numpy(false_discovery_control(chance.numpy())).float()
