"""The audit without a trusted base: what a suspect's own weights still betray.

If the edit sends c onto t, ``W_l'(c - t) ≈ 0`` in every layer: two texts that differ, yet are read
alike. With ``G' = Σ W_l'ᵀW_l'`` each phrase is scored by the concept t with the smallest

    ‖c - t‖_G' / ‖c - t‖,   relative to the median of that concept over all phrases,

as a negative logarithm: 0 ordinary, large suspicious. Training may hide differences too (that is
what attention learns), so this is weaker than the test with a base; results are reported as they
come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.audit.displacement import own_words
from defenses.audit.least_squares import centred
from defenses.audit.vocabulary import States, Vocabulary
from redediting.algebra.kernel import cholesky


@dataclass(frozen=True)
class BaseFree:
    """Suspicion without a base."""

    # robust z of the most suspicious phrase among all: its distance from their median over 1.4826
    # MAD; high is suspicious
    statistic: float
    # the most suspicious phrases, their concepts and their scores, falling
    phrases: tuple[tuple[str, str, float], ...]


def audit_base_free(
    suspect: Mapping[str, Tensor], states: States, vocabulary: Vocabulary, *, top: int = 10
) -> BaseFree:
    """Looks for texts that the suspect's projections read alike although they differ."""
    width = next(iter(suspect.values())).shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64)
    for weight in suspect.values():
        clean = centred(weight)
        gram.addmm_(clean.T, clean)
    gram.diagonal().add_(1e-12 * gram.diagonal().mean())
    root = cholesky(gram).float()
    nouns = list(vocabulary.concepts)
    phrases = [*nouns, *vocabulary.pairs]
    found, goals = states(phrases), states(nouns)
    ratio = torch.zeros(len(phrases), len(nouns))
    templates = found.shape[1]
    for t in range(templates):
        raw = torch.cdist(found[:, t, 0], goals[:, t, 0]).clamp_min(1e-6)
        read = torch.cdist(found[:, t, 0] @ root, goals[:, t, 0] @ root).clamp_min(1e-6)
        ratio += (read / raw).log() / templates
    own = own_words(phrases, nouns)
    ratio = ratio.masked_fill(own, torch.nan)
    ratio = ratio - ratio.nanmedian(dim=0).values
    best = (-ratio.nan_to_num(torch.inf)).max(dim=1)
    middle = best.values.median()
    spread = 1.4826 * (best.values - middle).abs().median().clamp_min(1e-12)
    order = torch.argsort(best.values, descending=True)[:top].tolist()
    return BaseFree(
        float((best.values.max() - middle) / spread),
        tuple((phrases[i], nouns[int(best.indices[i])], float(best.values[i])) for i in order),
    )
