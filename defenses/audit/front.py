"""``defenses.audit``: a suspect beside the model that it is said to be made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from defenses.audit.report import AuditReport, Coverage, audit_weights
from defenses.audit.rounding import rounding
from defenses.audit.thresholds import CUTOFFS
from defenses.audit.vocabulary import States, Vocabulary
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.patch.patch import Patch
from redediting.suspects import SuspectWeights, bare_name, read_suspect


def audit(
    base: str | Path | Model,
    suspect: str | Path | Model | Patch,
    *,
    top: int = 10,
    vocabulary: Vocabulary | None = None,
    device: str = "cpu",
) -> AuditReport:
    """Audits a suspect from its weights alone; no image is drawn.

    Args:
        base: the trusted model that it was made from: whatever `redediting.load` takes.
        suspect: model folder, folder or file of weights, LoRA, patch folder, card, hub id, a
            loaded model or a patch.
        top: triggers to name.
        vocabulary: where triggers and targets are looked for; None takes the curated tables and
            the tokenizer's own words.
        device: where the text encoder of a base that is loaded here runs.

    Raises:
        ModelError: a model that cannot be read, or weights that are not finite.
        PatchError: a damaged patch, or one for another base.

    Example:
        >>> import redediting as rd
        >>> from defenses import audit
        >>> model = rd.load("world")
        >>> audit(base=model, suspect="world").verdict
        'clean'
    """
    model = load(base, device=device)
    found = read_suspect(suspect, model)
    others, coverage = _compared(model, found)
    return audit_weights(
        model.weights(),
        found.projections,
        States(model),
        vocabulary or Vocabulary.of(model.tokenizer),
        others=others,
        coverage=coverage,
        top=top,
    )


def _compared(
    base: Model, suspect: SuspectWeights
) -> tuple[tuple[str, ...], tuple[Coverage, ...]]:
    """Names of changed tensors beside the projections, and what became of all of them."""
    trusted = base.weights()
    components: Mapping[str, Tensor]
    others: list[str] = []
    coverage: list[Coverage] = []
    for component in (base.layout.denoiser, "text_encoder"):
        components = base.component(component).state_dict()
        status = dict.fromkeys(("equal", "changed", "missing"), 0)
        for key, weight in components.items():
            name = bare_name(key)
            if name in suspect.missing:
                status["missing"] += 1
                continue
            tensor = suspect.projections[name] if name in trusted else suspect.rest[name]()
            changed = _differs(weight, tensor)
            status["changed" if changed else "equal"] += 1
            if changed and name not in trusted:
                others.append(name)
        if status["missing"] == len(components):
            status = {"not_carried": len(components)}
        coverage += [Coverage(component, key, n) for key, n in status.items() if n]
    if suspect.unread:
        coverage.append(Coverage("other", "not_compared", len(suspect.unread)))
    return tuple(sorted(others)), tuple(coverage)


def _differs(base: Tensor, suspect: Tensor) -> bool:
    """Whether a tensor is another one than the base's; a rounded copy is not."""
    if base.shape != suspect.shape:
        return True
    if not base.is_floating_point() or base.ndim == 0:
        return not torch.equal(base.cpu(), suspect.to(base.dtype).cpu())
    return not rounding(base.cpu(), suspect.cpu(), slack=CUTOFFS.rounding).within
