"""Weights-only audit: the shared-factor test, trigger recovery, target naming.

The package is called as the function ``defenses.audit`` (`defenses.audit.front.audit`); its
parts are listed flat and imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from defenses.callable_package import make_callable
from redediting._lazy import lazy

if TYPE_CHECKING:
    from defenses.audit.base_free import audit_base_free as audit_base_free
    from defenses.audit.evidence import examine as examine
    from defenses.audit.report import AuditReport as AuditReport
    from defenses.audit.report import audit_weights as audit_weights
    from defenses.audit.vocabulary import States as States
    from defenses.audit.vocabulary import Vocabulary as Vocabulary

_HOMES = {
    "AuditReport": "report",
    "States": "vocabulary",
    "Vocabulary": "vocabulary",
    "audit_base_free": "base_free",
    "audit_weights": "report",
    "examine": "evidence",
}
__all__ = list(_HOMES)

__getattr__, __dir__ = lazy(__name__, _HOMES)

make_callable(__name__, "defenses.audit.front:audit")
