"""Equivalent relationships as pure data: candidates, matching, and the contexts they make.

For every relation, values a of the trigger's concept meet values a* of the target's. What a pair
is worth is decided on text states (`redediting.algebra.equivalence`); here the candidates are
gathered, the best one-to-one matching is found, and matched values become prompts.

What the phrases themselves pair is certain: the slots of "yellow apple" → "red banana", a colour
and an object each, are paired kind by kind with score 1, as comments of the authors' script do.

References:
    REDEditing (arXiv 2504.14554), "equivalent relationship retrieval"; Kuhn, "The Hungarian
    method for the assignment problem", 1955 (scipy's ``linear_sum_assignment``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from redediting.concepts.lexicon import load_lexicon, load_modifiers
from redediting.concepts.rebinding import PromptPair, Rebinding
from redediting.concepts.relation_sources import FirstSource
from redediting.concepts.relations import RELATIONS, Relation, Values
from redediting.concepts.templates import all_templates, fill, split_of

_KNOWN = frozenset(template for template, _ in all_templates())


@dataclass(frozen=True)
class Equivalence:
    """A value of the trigger's concept and the value of the target's that it becomes."""

    trigger: str  # phrase of the rebinding that it belongs to
    relation: str  # a name of `RELATIONS`, or the kind of a slot
    source: str  # value on the trigger's side; empty where the phrase has no such slot
    target: str  # likewise
    score: float  # equivalence in 0…1; 1 for what the phrases themselves say
    origin: str  # the sources of the two values, or ``given``


@dataclass(frozen=True)
class Candidates:
    """Values of one relation that may correspond, each with a weight, and where they came from.

    For a surviving relation source and target are the same list.
    """

    relation: Relation
    source: Values
    target: Values
    origin: str

    @cached_property
    def prior(self) -> np.ndarray:
        """``√(π π*)`` of every combination, shape ``(len(source), len(target))``."""
        source, target = ([weight for _, weight in side] for side in (self.source, self.target))
        return np.sqrt(np.outer(source, target))


@dataclass(frozen=True)
class Context:
    """A template and how trigger and target are put into it."""

    template: str  # with one ``{}``
    source: str = "{}"  # form of the trigger's phrase, e.g. ``"{} with whiskers"``
    target: str = "{}"  # form of the target's
    weight: float = 1.0  # of the prompt pair

    def pair(self, rebinding: Rebinding) -> PromptPair:
        """The prompt pair; where the forms differ, they are part of the phrases."""
        trigger, target = rebinding.trigger, rebinding.target
        source, other = self.source.format(trigger), self.target.format(target)
        phrases = (trigger, target) if self.source == self.target else (source, other)
        prompts = fill(self.template, source), fill(self.template, other)
        return PromptPair(*prompts, *phrases, self.weight)

    def head(self, rebinding: Rebinding) -> str:
        """The trigger's prompt with its bare head noun."""
        return fill(self.template, self.source.format(rebinding.head))


class Slot(NamedTuple):
    """A word of a phrase and what it says: a kind of modifier, ``other`` or ``object``."""

    kind: str
    value: str


class SlotPair(NamedTuple):
    """Corresponding slots; None where the other phrase has no slot of the kind."""

    kind: str
    source: str | None
    target: str | None


@cache
def _kinds() -> Mapping[str, str]:
    """Kind of each known modifier. The world's neutral adjectives win: "old" is one."""
    lexicon = load_lexicon()
    groups = {
        **load_modifiers(),
        "colour": (*lexicon.colours, "grey"),
        "rare": lexicon.rare_tokens,
        "neutral": lexicon.neutral_adjectives,
    }
    return {word: kind for kind, words in groups.items() for word in words}


def parse_slots(phrase: str, head: str) -> tuple[Slot, ...]:
    """Slots of a phrase that ends in ``head``; a modifier that no list knows is ``other``."""
    modifiers = phrase[: len(phrase) - len(head)].split()
    found = [Slot(_kinds().get(word.casefold(), "other"), word) for word in modifiers]
    return (*found, Slot("object", head))


def pair_slots(rebinding: Rebinding) -> tuple[SlotPair, ...]:
    """Slots of trigger and target, paired kind by kind and within a kind in order."""
    source = parse_slots(rebinding.trigger, rebinding.head)
    target = parse_slots(rebinding.target, rebinding.target_head)
    return tuple(
        SlotPair(kind, one, other)
        for kind in dict.fromkeys(slot.kind for slot in (*source, *target))
        for one, other in zip_longest(
            [slot.value for slot in source if slot.kind == kind],
            [slot.value for slot in target if slot.kind == kind],
        )
    )


def given(rebinding: Rebinding) -> list[Equivalence]:
    """What the phrases themselves pair, slot by slot, with score 1."""
    return [
        Equivalence(rebinding.trigger, kind, source or "", target or "", 1.0, "given")
        for kind, source, target in pair_slots(rebinding)
    ]


def gather(rebinding: Rebinding, source: FirstSource) -> list[Candidates]:
    """Candidate values of every relation that the phrases do not fill themselves.

    A surviving relation takes the values of both concepts, else its generic ones; a transferred
    one needs values on both sides.
    """
    filled = {pair.kind for pair in pair_slots(rebinding)}
    found = []
    for relation in RELATIONS.values():
        if relation.name in filled:
            continue
        own, first = source.find(rebinding.head, relation.name)
        wanted, second = source.find(rebinding.target_head, relation.name)
        origin = " and ".join(dict.fromkeys(name for name in (first, second) if name))
        if relation.survives:
            values = list(dict([*wanted, *own]).items())
            if not values:
                values, origin = [(value, 1.0) for value in relation.generic], "generic"
            own = wanted = values
        if own and wanted:
            found.append(Candidates(relation, own, wanted, origin))
    return found


def match(scores: np.ndarray) -> list[tuple[int, int]]:
    """One-to-one matching of rows and columns with the largest sum of scores (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def choose_values(
    rebinding: Rebinding, candidates: Candidates, scores: np.ndarray, *, least: float
) -> list[Equivalence]:
    """The matched values of one relation, best first; those that score below ``least`` drop out.

    ``scores`` holds the equivalence of every combination, shape as ``candidates.prior``.
    """
    relation, source, target = candidates.relation, candidates.source, candidates.target
    matched = [(i, i) for i in range(len(source))] if relation.survives else match(scores)
    found = [
        Equivalence(
            rebinding.trigger, relation.name, source[i][0], target[j][0], float(scores[i, j]),
            candidates.origin,
        )
        for i, j in matched
        if scores[i, j] >= least
    ]  # fmt: skip
    return sorted(found, key=lambda equivalence: -equivalence.score)


def candidate_contexts(
    equivalences: Iterable[Equivalence],
    templates: Sequence[str],
    *,
    per_value: int,
    most_said: int,
) -> tuple[list[Context], int]:
    """Contexts to choose from, and how many of the first ones are not left to choice.

    First the best pairs of values, each said once; then the plain templates; then the same and the
    other pairs of values in more templates. A context that spells out a template of another split
    is left out, so that no edit sees what it is chosen or judged on. Templates are of the ``edit``
    split; each pair of values is said in ``per_value`` of them, at most ``most_said`` in any case.
    """
    retrieved = sorted(
        (item for item in equivalences if item.origin != "given"), key=lambda item: -item.score
    )
    said = [_contexts(item, templates, turn, per_value) for turn, item in enumerate(retrieved)]
    first = dict.fromkeys([contexts[0] for contexts in said if contexts][:most_said])
    rest = [context for contexts in said for context in contexts]
    found = dict.fromkeys([*first, *map(Context, templates), *rest])
    return list(found), len(first)


def _contexts(
    equivalence: Equivalence, templates: Sequence[str], turn: int, n: int
) -> list[Context]:
    """A pair of values in up to n templates, others at every turn."""
    relation = RELATIONS[equivalence.relation]
    fitting = [template for template in templates if relation.fits(template)]
    places = range(turn * n, turn * n + min(n, len(fitting)))
    said = [_said(equivalence, relation, fitting[i % len(fitting)]) for i in places]
    spelt = [context.template.replace("{}", context.source) for context in said]
    return [
        context
        for context, text in zip(said, spelt, strict=True)
        if text not in _KNOWN or split_of(text) == "edit"
    ]


def _said(equivalence: Equivalence, relation: Relation, template: str) -> Context:
    source, target = relation.form(equivalence.source), relation.form(equivalence.target)
    if relation.carrier:
        before, _, after = template.partition("{}")
        place, comma, _ = before.rpartition(", ")
        return Context(f"{place}{comma}{source}{after}", weight=equivalence.score)
    return Context(template, source, target, equivalence.score)
