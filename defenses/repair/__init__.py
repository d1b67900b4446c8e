"""Repairs by name: one line here for each; every one returns a patch for the suspect."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError

from defenses.repair.base import Case, Repair
from defenses.repair.finetuning import FineTune, LoRA
from defenses.repair.projection import Projection
from defenses.repair.rebinding import Rebind
from defenses.repair.reversal import Reversal
from defenses.repair.truncation import Truncation
from redediting.errors import MethodError

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
    try:
        return REPAIRS[name].model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(map(str, first["loc"]))
        known = ", ".join(REPAIRS[name].model_fields) or "none"
        raise MethodError(
            f"expected valid options of repair {name!r}, got {option}={first['input']!r}: "
            f"{first['msg']}; its options are: {known}"
        ) from error
