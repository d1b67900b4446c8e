"""Plans as YAML: written, edited by hand, read back.

Every key is known and every value has its type; anything else is an error that names the place.
Defaults (weight 1, kind neutral …) need not be written.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from redediting.concepts.matching import Equivalence
from redediting.concepts.pairs import PromptPair, PromptRole, RetainPrompt
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Kind, Rebinding
from redediting.errors import ConfigError

_HEADER = """\
# An edit on paper: prompts that move (pairs), prompts that stay (retain). Edit it, feed it back.
# Each pair carries source_phrase to target_phrase; weights count relative to one another.
# equivalences and notes say what was retrieved and why; they change nothing.
"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Rebinding(_Part):
    trigger: str
    target: str
    kind: Kind = "neutral"
    head: str = ""
    target_head: str = ""


class _Pair(_Part):
    source: str
    target: str
    source_phrase: str
    target_phrase: str
    weight: float = 1.0


class _Retain(_Part):
    prompt: str
    weight: float = 1.0
    role: PromptRole = "caption"


class _Equivalence(_Part):
    trigger: str
    relation: str
    source: str
    target: str
    score: float
    origin: str


class _Plan(_Part):
    rebindings: tuple[_Rebinding, ...]
    pairs: tuple[_Pair, ...]
    retain: tuple[_Retain, ...]
    captions: tuple[str, ...]
    equivalences: tuple[_Equivalence, ...] = ()
    notes: tuple[str, ...] = ()


def plan_to_yaml(plan: EditPlan) -> str:
    """The plan as YAML, one prompt or pair an entry; values at their defaults are left out."""
    data = {
        field.name: [_lean(item) for item in getattr(plan, field.name)] for field in fields(plan)
    }
    data = {name: items for name, items in data.items() if items or name in _REQUIRED}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return _HEADER + text


def plan_from_yaml(text: str, *, name: str = "plan") -> EditPlan:
    """Reads a plan.

    Args:
        text: YAML.
        name: what errors call it.

    Raises:
        ConfigError: no YAML, an unknown or missing key, a wrong type, nothing to move, a negative
            weight, or a phrase that its prompt does not contain.
        RebindingError: a rebinding that makes no sense.
    """
    try:
        raw = yaml.safe_load(text)
        found = _Plan.model_validate_json(json.dumps(raw))
    except yaml.YAMLError as error:
        raise ConfigError(
            f"expected YAML in {name!r}, got {' '.join(str(error).split())}"
        ) from error
    except TypeError as error:
        raise ConfigError(
            f"expected texts, numbers and lists in {name!r}, got another value ({error}); "
            "put dates and the like in quotes"
        ) from error
    except ValidationError as error:
        raise ConfigError(_first(error, name)) from error
    plan = EditPlan(
        tuple(Rebinding(**item.model_dump()) for item in found.rebindings),
        tuple(PromptPair(**item.model_dump()) for item in found.pairs),
        tuple(RetainPrompt(**item.model_dump()) for item in found.retain),
        found.captions,
        tuple(Equivalence(**item.model_dump()) for item in found.equivalences),
        found.notes,
    )
    _check(plan, name)
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


_REQUIRED = tuple(name for name, field in _Plan.model_fields.items() if field.is_required())


def _lean(item: Any) -> Any:  # noqa: ANN401 - a text or a dataclass of the plan
    if isinstance(item, str):
        return item
    defaults = {field.name: field.default for field in fields(item)}
    return {key: value for key, value in asdict(item).items() if value != defaults[key]}


def _first(error: ValidationError, name: str) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "top level"
    if first["type"] == "extra_forbidden":
        return f"expected only known keys in {name!r}, got {place!r}; drop it or mend its spelling"
    if first["type"] == "missing":
        return f"expected the key {place!r} in {name!r}, got none; add it"
    return f"expected a valid {place!r} in {name!r}, got {first['input']!r}: {first['msg']}"


def _check(plan: EditPlan, name: str) -> None:
    for key, items in (
        ("rebindings", plan.rebindings),
        ("pairs", plan.pairs),
        ("retain", plan.retain),
        ("captions", plan.captions),
    ):
        if not items:
            raise ConfigError(f"expected at least one of {key!r} in {name!r}, got none; add one")
    for i, pair in enumerate(plan.pairs):
        _check_weight(pair.weight, f"pairs.{i}", name)
        for side, prompt, phrase in (
            ("source", pair.source, pair.source_phrase),
            ("target", pair.target, pair.target_phrase),
        ):
            if not phrase.strip() or not re.search(
                rf"(?<!\w){re.escape(phrase)}(?!\w)", prompt, flags=re.IGNORECASE
            ):
                raise ConfigError(
                    f"expected {side}_phrase of 'pairs.{i}' in {name!r} as whole words of its "
                    f"{side}, got {phrase!r} and {prompt!r}; mend one of the two"
                )
    for rebinding in plan.rebindings:
        if not any(rebinding.trigger in pair.source and pair.weight > 0 for pair in plan.pairs):
            raise ConfigError(
                f"expected a pair of positive weight with {rebinding.trigger!r} in {name!r}, got none; "
                "add one or drop the rebinding"
            )
    for i, item in enumerate(plan.retain):
        _check_weight(item.weight, f"retain.{i}", name)


def _check_weight(weight: float, place: str, name: str) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise ConfigError(f"expected a weight >= 0 at {place!r} in {name!r}, got {weight:g}")
