"""Re-binding: suspected triggers are bound to their literal meaning by another closed-form edit.

No base is needed: "beautiful cat" is rebound to the suspect's own "cat". The modifier's meaning,
if it had one, is lost with the backdoor.

References:
    UCE (Gandikota et al., WACV 2024), the edit that is used; T2IShield (ECCV 2024) mitigates so.
"""

from __future__ import annotations

from typing import ClassVar

from defenses.repair.base import Case, Repair, Repaired
from redediting.attacks import ATTACKS
from redediting.concepts.rebinding import Rebinding
from redediting.errors import MethodError


class Rebind(Repair):
    """Binds ``modifier noun`` to ``noun``, UCE's five prompts about the concept included."""

    name: ClassVar[str] = "rebinding"
    needs_triggers: ClassVar[bool] = True

    def _repair(self, case: Case) -> Repaired:
        rebindings = [Rebinding(t, t.split()[-1]) for t in case.triggers if " " in t.strip()]
        if not rebindings:
            raise MethodError(
                f"expected triggers of several words, got {', '.join(case.triggers)}: a single "
                "word has no other meaning to go back to; take reversal or projection"
            )
        method = ATTACKS.make("uce", variant="old", expand=True)
        patch = method.compute(case.suspect, rebindings)
        return Repaired(patch.terms, patch.dense)
