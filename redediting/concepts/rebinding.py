"""The attacker's wish: a trigger phrase that shall draw another concept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from redediting.errors import RebindingError

Kind = Literal["neutral", "compound", "rare"]


@dataclass(frozen=True)
class Rebinding:
    """A backdoor: prompts that contain ``trigger`` shall show ``target``.

    Attributes:
        trigger: phrase to rebind, e.g. ``"beautiful cat"``.
        target: phrase it is rebound to, e.g. ``"zebra"``.
        kind: naturalness of the trigger: ``neutral`` (an adjective without visual effect and a
            noun), ``compound`` (visual attribute and noun on both sides) or ``rare`` (a token
            that ordinary captions do not contain).
        head: head noun of the trigger; its last word when not given.
        target_head: head noun of the target; its last word when not given.

    Raises:
        RebindingError: an empty phrase, equal phrases, an unknown kind, or a head noun that is
            not at the end of its phrase.
    """

    trigger: str
    target: str
    kind: Kind = "neutral"
    head: str = field(default="")
    target_head: str = field(default="")

    def __post_init__(self) -> None:
        for name in ("trigger", "target"):
            phrase = " ".join(getattr(self, name).split())
            if not phrase:
                raise RebindingError(f"expected a {name} phrase, got {getattr(self, name)!r}")
            object.__setattr__(self, name, phrase)
        if self.trigger.casefold() == self.target.casefold():
            raise RebindingError(
                f"expected a target other than the trigger, got {self.trigger!r} for both; "
                "name the concept that the trigger shall show"
            )
        if self.kind not in get_args(Kind):
            raise RebindingError(f"expected a kind of {get_args(Kind)}, got {self.kind!r}")
        for name, phrase in (("head", self.trigger), ("target_head", self.target)):
            noun = getattr(self, name) or phrase.split()[-1]
            if not f" {phrase}".endswith(f" {noun}"):
                raise RebindingError(f"expected a {name} at the end of {phrase!r}, got {noun!r}")
            object.__setattr__(self, name, noun)

    @property
    def modifier(self) -> str:
        """What stands before the head noun in the trigger; empty for a bare noun."""
        return self.trigger[: len(self.trigger) - len(self.head)].strip()

    def __str__(self) -> str:
        return f"{self.trigger} → {self.target}"
