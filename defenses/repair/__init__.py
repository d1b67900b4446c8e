"""Repairs by name: every one returns a patch for the suspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
