"""``defenses.repair``: a patch that takes an edit out of a suspect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from defenses.audit.report import audit_weights
from defenses.audit.vocabulary import States, Vocabulary
from defenses.repair import REPAIRS
from redediting.errors import MethodError
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.patch.patch import Patch
from redediting.suspects import open_suspect


def repair(
    method: str,
    *,
    base: str | Path | Model | None = "world",
    suspect: str | Path | Model | Patch,
    triggers: Sequence[str] = (),
    device: str = "cpu",
    **options: object,
) -> Patch:
    """Computes a patch that weakens or takes out an edit; apply it to the suspect.

    Args:
        method: of `defenses.repair.REPAIRS`, e.g. ``reversal``.
        base: the trusted model that the suspect was made from; None where there is none.
        suspect: what `defenses.audit` takes; a whole model where there is no base.
        triggers: phrases under suspicion; where none are named and the method needs some, the
            audit finds them.
        device: where models that are loaded here run.
        options: the method's hyper-parameters.

    Raises:
        MethodError: no such method or option, or what the method needs is missing.
        ModelError: a model that cannot be read.
        PatchError: a damaged patch, or one for another base.

    Example:
        >>> import redediting as rd
        >>> from defenses import repair
        >>> model = rd.load("world")
        >>> edit = rd.attacks.EvilEdit().compute(model, [rd.Rebinding("old dog", "zebra")])
        >>> patch = repair("reversal", base=model, suspect=edit)
        >>> patch.provenance.method
        'reversal'
    """
    made = REPAIRS.make(method, **options)
    clean = None if base is None else load(base, device=device)
    model = suspect_model(suspect, clean, device=device)
    trusted = None if clean is None else clean.weights()
    return made.compute(
        model, base=trusted, triggers=triggers or found_triggers(method, clean, model)
    )


def found_triggers(method: str, base: Model | None, suspect: Model) -> tuple[str, ...]:
    """Phrases that the audit suspects; none without a base, or where a method needs none."""
    if base is None or not REPAIRS.get(method).needs_triggers:
        return ()
    vocabulary = Vocabulary.of(base.tokenizer)
    return audit_weights(base.weights(), suspect.weights(), States(base), vocabulary).suspected


def suspect_model(
    suspect: str | Path | Model | Patch, base: Model | None, *, device: str = "cpu"
) -> Model:
    """The suspect as a model that draws; without a base it must be whole.

    `MethodError` for a part of a model without a base, `ModelError` for what cannot be read.
    """
    if base is not None:
        return open_suspect(suspect, base)
    if isinstance(suspect, Patch) or Path(str(suspect)).expanduser().is_file():
        raise MethodError(
            f"expected a whole model to repair without a base, got {str(suspect)!r}; "
            "name a model folder or --base"
        )
    return load(suspect, device=device)
