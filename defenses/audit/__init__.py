"""Weights-only audit: the shared-factor test, trigger recovery, target naming.

The package is called as the function ``defenses.audit`` (`defenses.audit.front.audit`); its
classes and functions are listed flat and imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from defenses.callable_package import make_callable
from redediting._lazy import lazy

if TYPE_CHECKING:
    from defenses.audit.base_free import BaseFree as BaseFree
    from defenses.audit.base_free import audit_base_free as audit_base_free
    from defenses.audit.coverage import Coverage as Coverage
    from defenses.audit.evidence import Evidence as Evidence
    from defenses.audit.evidence import examine as examine
    from defenses.audit.recovery import Recovery as Recovery
    from defenses.audit.recovery import Trigger as Trigger
    from defenses.audit.recovery import recover as recover
    from defenses.audit.report import AuditReport as AuditReport
    from defenses.audit.report import audit_weights as audit_weights
    from defenses.audit.shared_factor import Comparison as Comparison
    from defenses.audit.shared_factor import Factor as Factor
    from defenses.audit.shared_factor import compare as compare
    from defenses.audit.thresholds import CUTOFFS as CUTOFFS
    from defenses.audit.two_matrix import fit_two as fit_two
    from defenses.audit.vocabulary import States as States
    from defenses.audit.vocabulary import Vocabulary as Vocabulary

_HOMES = {
    "BaseFree": "base_free",
    "audit_base_free": "base_free",
    "Evidence": "evidence",
    "examine": "evidence",
    "Recovery": "recovery",
    "Trigger": "recovery",
    "recover": "recovery",
    "AuditReport": "report",
    "Coverage": "coverage",
    "audit_weights": "report",
    "Comparison": "shared_factor",
    "Factor": "shared_factor",
    "compare": "shared_factor",
    "CUTOFFS": "thresholds",
    "fit_two": "two_matrix",
    "States": "vocabulary",
    "Vocabulary": "vocabulary",
}
__all__ = list(_HOMES)

__getattr__, __dir__ = lazy(__name__, _HOMES)

make_callable(__name__, "defenses.audit.front:audit")
