"""Repairs by name: every one returns a patch for the suspect.

The package is called as the function ``defenses.repair`` (`defenses.repair.front.repair`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from defenses.callable_package import make_callable
from redediting.errors import MethodError
from redediting.registry import Registry

if TYPE_CHECKING:
    from defenses.repair.base import Repair

__all__ = ["REPAIRS"]

REPAIRS: Registry[Repair] = Registry(
    "repair",
    "defenses.repair.base:Repair",
    {
        "reversal": "defenses.repair.reversal:Reversal",
        "rebinding": "defenses.repair.rebinding:Rebind",
        "projection": "defenses.repair.projection:Projection",
        "truncation": "defenses.repair.truncation:Truncation",
        "finetune": "defenses.repair.finetuning:FineTune",
        "lora": "defenses.repair.finetuning:LoRA",
    },
    group="redediting.repairs",
    error=MethodError,
)

make_callable(__name__, "defenses.repair.front:repair")
