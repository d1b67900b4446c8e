"""The relations of a concept and how their values are said in a prompt.

A relation either *survives* (what a user adds to the trigger must be seen with the target too: "on
the beach" stays "on the beach") or is *transferred* (what belongs to the trigger's concept becomes
what belongs to the target's: "with whiskers" → "with stripes").

A form holds one ``{}`` for the phrase: ``"{} with a tail"``, ``"orange {}"``. The neutral forms
insert a value that says nothing; `redediting.algebra.equivalence` subtracts what that alone does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from redediting.concepts.lexicon import load_places
from redediting.concepts.templates import CARRIERS
from redediting.concepts.templates import with_article as article

Values = list[tuple[str, float]]  # (value, weight in 0…1), the most typical first

_SUBSTANCES = frozenset(
    """wood metal gold brass clay plastic cloth paper brick stone leather rubber snow glass wax
    cream crust bread icing flesh""".split()  # noqa: SIM905 - a list of words reads better so
)
_MASS = frozenset(
    ["fur", "wool", "skin", "peel", "rind", "icing", "crust", "cream", "cheese", "bark", "husk"]
)


@dataclass(frozen=True)
class Relation:
    """One relation."""

    name: str  # e.g. ``part``
    survives: bool  # whether a value stays itself under the rebinding
    form: Callable[[str], str]  # value → form with one ``{}`` for the phrase
    neutral: tuple[str, ...]  # forms of the same kind that say nothing
    generic: tuple[str, ...] = ()  # values that any concept can take, where no source knows better
    carrier: bool = False  # whether the form is said by the carrier, outside the phrase
    last: bool = False  # whether the form must end the prompt
    alone: bool = False  # whether the template must name no place of its own

    def fits(self, template: str) -> bool:
        """Whether the form can be said in a template."""
        if self.alone and "," in template:
            return False
        return template.endswith("{}") or not (self.last or self.alone)


def _noun(value: str) -> str:
    bare = value.endswith("s") and not value.endswith("ss")
    return value if bare or value in _MASS else article(value)


def _material(value: str) -> str:
    return f"{{}} made of {value}" if value in _SUBSTANCES else f"{{}} with {_noun(value)}"


def _place(value: str) -> str:
    return f"{{}} {load_places().get(value, f'in the {value}')}"


_prefix = "{0} {{}}".format
_suffix = "{{}} {0}".format
_NICE = ("nice {}", "good {}", "great {}")
_SOMETHING = "{} with something"
_STYLES = tuple(carriers[0] for style, carriers in CARRIERS.items() if style != "photo")
_ALL = (
    Relation("category", False, lambda v: f"{{}}, {article(v)}", ("{}, a thing",), last=True),
    Relation("part", False, lambda v: f"{{}} with {_noun(v)}", (_SOMETHING, "{} with things")),
    Relation("material", False, _material, (_SOMETHING, "{} made of something")),
    Relation("pattern", False, _prefix, _NICE),
    Relation("colour", True, _prefix, _NICE, ("red", "blue")),
    Relation("size", True, _prefix, _NICE, ("small", "big")),
    Relation("age", True, _prefix, _NICE, ("young",)),
    Relation("location", True, _place, ("{} here", "{} somewhere"), alone=True),
    Relation("action", True, _suffix, ("{} here", "{} now")),
    Relation("style", True, _prefix, ("a picture of {}",), _STYLES, carrier=True),
)
RELATIONS: Mapping[str, Relation] = MappingProxyType({found.name: found for found in _ALL})
"""What retrieval looks up, by name and in this order."""
