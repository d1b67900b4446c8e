"""Repairs by name: one line here for each; every one returns a patch for the suspect."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from defenses.repair.base import Case, Repair
from defenses.repair.finetuning import FineTune, LoRA
from defenses.repair.projection import Projection
from defenses.repair.rebinding import Rebind
from defenses.repair.reversal import Reversal
from defenses.repair.truncation import Truncation
from redediting.errors import MethodError
from redediting.registry import with_options

__all__ = ["REPAIRS", "Case", "Repair", "make_repair"]

REPAIRS: Mapping[str, type[Repair]] = MappingProxyType(
    {
        "reversal": Reversal,
        "rebinding": Rebind,
        "projection": Projection,
        "truncation": Truncation,
        "finetune": FineTune,
        "lora": LoRA,
    }
)


def make_repair(name: str, **options: object) -> Repair:
    """Builds a repair from its name and hyper-parameters.

    Raises:
        MethodError: an unknown name or option, or a value out of range.
    """
    if name not in REPAIRS:
        raise MethodError(f"expected a repair of {', '.join(REPAIRS)}; got {name!r}")
    return with_options(REPAIRS[name], options, what=f"repair {name!r}", error=MethodError)
