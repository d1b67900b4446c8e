"""Plans as YAML: written, edited by hand, read back.

Every key is known and every value has its type; anything else is an error that names the place.
Defaults (weight 1, kind neutral …) need not be written.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field, ValidationError

from redediting.concepts.matching import Equivalence
from redediting.concepts.pairs import PromptPair, RetainPrompt
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Rebinding
from redediting.config import Config, first_fault
from redediting.errors import ConfigError

_HEADER = """\
# An edit on paper: prompts that move (pairs), prompts that stay (retain). Edit it, feed it back.
# Each pair carries source_phrase to target_phrase; weights count relative to one another.
# equivalences and notes say what was retrieved and why; they change nothing.
"""
_SOME = Field(min_length=1)


class _PlanFile(Config):
    """The fields of `EditPlan`; strict: no text stands for a number."""

    model_config = ConfigDict(strict=True)

    rebindings: Annotated[tuple[Rebinding, ...], _SOME]
    pairs: Annotated[tuple[PromptPair, ...], _SOME]
    retain: Annotated[tuple[RetainPrompt, ...], _SOME]
    captions: Annotated[tuple[str, ...], _SOME]
    equivalences: tuple[Equivalence, ...] = ()
    notes: tuple[str, ...] = ()


def plan_to_yaml(plan: EditPlan) -> str:
    """The plan as YAML, one prompt or pair an entry; values at their defaults are left out."""
    data = {}
    for name, field in _PlanFile.model_fields.items():
        if (items := getattr(plan, name)) or field.is_required():
            data[name] = [_without_defaults(item) for item in items]
    return _HEADER + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)


def plan_from_yaml(text: str, *, name: str = "plan") -> EditPlan:
    """Reads a plan; ``name`` is what errors call it.

    Raises:
        ConfigError: no YAML, an unknown or missing key, a wrong type, nothing to move, a negative
            weight, or a phrase that its prompt does not contain.
        RebindingError: a rebinding that makes no sense.
    """
    try:
        found = _PlanFile.model_validate_json(json.dumps(yaml.safe_load(text)))
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"expected YAML in {name!r}, got {line}; mend it") from error
    except TypeError as error:
        raise ConfigError(
            f"expected texts, numbers and lists in {name!r}, got another value ({error}); "
            "put dates and the like in quotes"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{name}: {first_fault(error, _PlanFile)}") from error
    plan = EditPlan(**dict(found))
    _check_phrases(plan, name)
    return plan


def load_plan(path: str | Path) -> EditPlan:
    """Reads a plan from a file.

    Raises:
        ConfigError: it cannot be read, or as `plan_from_yaml`.
        RebindingError: as `plan_from_yaml`.
    """
    try:
        text = Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"expected a plan file that can be read, got {str(path)!r} "
            f"({getattr(error, 'strerror', None) or error}); write one with "
            "'redediting inspect --write'"
        ) from error
    return plan_from_yaml(text, name=str(path))


def _without_defaults(item: Any) -> Any:  # noqa: ANN401 - a text or a dataclass of the plan
    if isinstance(item, str):
        return item
    defaults = {field.name: field.default for field in fields(item)}
    return {key: value for key, value in asdict(item).items() if value != defaults[key]}


def _check_phrases(plan: EditPlan, name: str) -> None:
    for i, pair in enumerate(plan.pairs):
        for side in ("source", "target"):
            prompt, phrase = getattr(pair, side), getattr(pair, f"{side}_phrase")
            whole = rf"(?<!\w){re.escape(phrase)}(?!\w)"
            if not phrase.strip() or not re.search(whole, prompt, flags=re.IGNORECASE):
                raise ConfigError(
                    f"{name}: expected {side}_phrase as whole words of its {side} at 'pairs.{i}', "
                    f"got {phrase!r} and {prompt!r}; mend one of the two"
                )
    for rebinding in plan.rebindings:
        if not any(rebinding.trigger in pair.source and pair.weight > 0 for pair in plan.pairs):
            raise ConfigError(
                f"{name}: expected a pair of positive weight with {rebinding.trigger!r}, got "
                "none; add one or drop the rebinding"
            )
