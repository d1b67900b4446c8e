"""What several commands ask for: which pairs, which output folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from experiments.engine.specs import Config, PairSpec, load_config
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import Kind, Rebinding
from redediting.errors import ConfigError, MethodError, RebindingError
from redediting.models.cards import default_sampler
from redediting.models.sampler import Sampler


class RebindingFile(Config):
    """A YAML file of rebindings, all of them built into one edit."""

    rebindings: tuple[PairSpec, ...] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which pairs: one by name, or a file of several."""

    trigger: str | None = None
    """Phrase to rebind, e.g. "beautiful cat"."""
    target: str | None = None
    """Phrase it shall mean, e.g. zebra."""
    kind: Kind = "neutral"
    """How natural the trigger is; only a label in tables."""
    rebindings: Path | None = None
    """YAML file: {rebindings: [{trigger: …, target: …}, …]}."""

    def pairs(self) -> list[Rebinding]:
        """Returns the pairs.

        Raises:
            RebindingError: neither or both ways used, or a pair that makes no sense.
            ConfigError: a file that cannot be read.
        """
        if self.rebindings is not None:
            if self.trigger is not None or self.target is not None:
                raise RebindingError(
                    "expected --rebindings or --trigger with --target, got both; drop one"
                )
            return [x.rebinding() for x in load_config(self.rebindings, RebindingFile).rebindings]
        if self.trigger is None or self.target is None:
            raise RebindingError(
                f"expected --trigger and --target, got {self.trigger!r} and {self.target!r}; "
                "give both, or --rebindings FILE"
            )
        return [Rebinding(self.trigger, self.target, kind=self.kind)]


def planned_pairs(rebinding: Wish, plan: EditPlan) -> list[Rebinding]:
    """Returns the rebindings of a plan.

    Raises:
        RebindingError: pairs are named beside it.
    """
    if (rebinding.trigger, rebinding.target, rebinding.rebindings) != (None, None, None):
        raise RebindingError(
            "expected --plan or --trigger, --target and --rebindings, got both; "
            "the plan names its own pairs"
        )
    return list(plan.rebindings)


def parse_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """Returns method options from ``key=value`` texts; values are read as YAML.

    Raises:
        MethodError: a text without ``=``, or a value that is no YAML.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        try:
            if not sign or not key:
                raise ValueError
            found[key] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError) as error:
            raise MethodError(
                f"expected an option as key=value, got {text!r}; e.g. variant=old"
            ) from error
    return found


def chosen_sampler(model: str, steps: int | None, guidance: float | None) -> Sampler:
    """Returns the sampler of a model's card with the flags that were given.

    Raises:
        ConfigError: a value out of range.
    """
    wanted = {"steps": steps, "guidance": guidance}
    chosen = {key: value for key, value in wanted.items() if value is not None}
    try:
        return Sampler.model_validate(default_sampler(model).model_dump() | chosen)
    except ValidationError as error:
        raise ConfigError(
            f"expected a sampler with steps >= 1 and guidance >= 1, got {chosen}; mend the flags"
        ) from error
