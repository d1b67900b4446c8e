"""``defenses.audit``: a suspect beside the model that it is said to be made from."""

from __future__ import annotations

from pathlib import Path

from defenses.audit.coverage import survey
from defenses.audit.report import AuditReport, audit_weights
from defenses.audit.vocabulary import States, Vocabulary
from redediting.inventory import read_suspect
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.patch.patch import Patch


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
        ModelError: a model that cannot be read, or text projections of another architecture.
        PatchError: a damaged patch, or one for another base.

    Example:
        >>> import redediting as rd
        >>> from defenses import audit
        >>> model = rd.load("world")
        >>> audit(base=model, suspect="world").verdict
        'clean'
    """
    model = load(base, device=device)
    found = survey(model, read_suspect(suspect, model))
    return audit_weights(
        model.weights(),
        found.projections,
        States(model),
        vocabulary or Vocabulary.of(model.tokenizer),
        survey=found,
        top=top,
    )
