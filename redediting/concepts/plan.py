"""From a rebinding to prompts: what an edit moves (pairs), what it keeps, what is probed later.

Contexts come from the ``edit`` templates only. The near-triggers kept here and those probed by
the evaluation carry different adjectives, so collateral is measured on phrases that no edit saw.

Plans are written as YAML, edited by hand and read back. Every key is known and every value has its
type; anything else is an error that names the place. Defaults need not be written.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import ConfigDict, Field, ValidationError

from redediting.concepts.lexicon import Lexicon, load_lexicon
from redediting.concepts.matching import Context, Equivalence
from redediting.concepts.rebinding import PromptPair, PromptRole, Rebinding, RetainPrompt
from redediting.concepts.templates import contexts as draw_contexts
from redediting.concepts.templates import fill
from redediting.config import Config, first_fault
from redediting.errors import ConfigError

logger = logging.getLogger(__name__)
_HEADER = """\
# An edit on paper: prompts that move (pairs), prompts that stay (retain). Edit it, feed it back.
# Each pair carries source_phrase to target_phrase; weights count relative to one another.
# equivalences and notes say what was retrieved and why; they change nothing.
"""
_SOME = Field(min_length=1)


@dataclass(frozen=True)
class EditPlan:
    """The prompts of a joint edit."""

    rebindings: tuple[Rebinding, ...]  # the backdoors
    pairs: tuple[PromptPair, ...]  # prompts that move
    retain: tuple[RetainPrompt, ...] = ()  # prompts that stay
    captions: tuple[str, ...] = ()  # ordinary ones, for Σ₀
    equivalences: tuple[Equivalence, ...] = ()  # what was retrieved; the pairs say it already
    notes: tuple[str, ...] = ()  # e.g. a trigger that no table knows


class NearPhrase(NamedTuple):
    """A phrase near a trigger, the object that it should still draw (None: no object)."""

    phrase: str
    concept: str | None
    role: PromptRole


def _words(lexicon: Lexicon, *, probed: bool) -> list[str]:
    """Every second modifier: one half is kept by edits, the other is probed by evaluations."""
    visible = [*lexicon.colours, "small", "big"]
    return [*lexicon.neutral_adjectives[probed::2], *visible[probed::2]]


def _neighbours(rebinding: Rebinding, lexicon: Lexicon, n: int) -> list[str]:
    """Siblings of the head noun first, then concepts spread over the lexicon."""
    if rebinding.head not in lexicon:
        return list(lexicon.concepts)[:n]
    ranked = [name for name in lexicon.siblings(rebinding.head) if name != rebinding.target_head]
    near, rest = ranked[: n // 2], ranked[n // 2 :]
    stride = max(1, len(rest) // (n - len(near)))
    return [*near, *rest[::stride]][:n]


def _kept_phrases(rebinding: Rebinding, lexicon: Lexicon) -> Iterator[tuple[str, PromptRole]]:
    """Phrases whose meaning an edit should keep: parts, near-triggers and siblings."""
    modifier, head = rebinding.modifier, rebinding.head
    own = set(modifier.split())
    for word in _words(lexicon, probed=False):
        if word not in own:
            yield f"{word} {head}", "near"
    for name in _neighbours(rebinding, lexicon, 12):
        yield name, "sibling"
        if modifier:
            yield f"{modifier} {name}", "part"
    if rebinding.target_head != rebinding.target:  # compound: the crossed-over phrases
        colour = rebinding.target.removesuffix(rebinding.target_head).strip()
        yield f"{colour} {head}", "part"
        if modifier:
            yield f"{modifier} {rebinding.target_head}", "part"


def plan_edit(
    rebindings: Sequence[Rebinding],
    *,
    contexts: int = 48,
    retain: int = 200,
    captions: int = 400,
    seed: int = 0,
) -> EditPlan:
    """Plans a joint edit of one or several rebindings on plain templates.

    Each trigger is moved in ``contexts`` templates; ``retain`` prompts are kept per rebinding
    beside the head noun in every context; ``captions`` ordinary ones make the state covariance Σ₀.
    `PromptError` for more contexts than the ``edit`` split holds.
    """
    templates = draw_contexts(contexts, seed=seed)
    plain = [(rebinding, [*map(Context, templates)]) for rebinding in rebindings]
    plan = assemble_plan(plain, templates, retain=retain, captions=captions, seed=seed)
    known = load_lexicon()
    notes = [
        f"{one.head!r} is in no table; concepts spread over the table stand for its siblings"
        for one in rebindings
        if one.head not in known
    ]
    for note in notes:
        logger.warning(note)
    return replace(plan, notes=tuple(dict.fromkeys(notes)))


def assemble_plan(
    rebindings: Sequence[tuple[Rebinding, Sequence[Context]]],
    templates: Sequence[str],
    *,
    retain: int,
    captions: int,
    seed: int,
    lexicons: Sequence[Lexicon] | None = None,
) -> EditPlan:
    """The plan that moves each trigger in its contexts and keeps the head noun there.

    Parts, near-triggers and siblings are kept in the given templates; siblings are named by one
    lexicon for each rebinding, the world's when not given. The counts are those of `plan_edit`.
    """
    world = load_lexicon()
    known = [world] * len(rebindings) if lexicons is None else lexicons
    keep: dict[str, RetainPrompt] = {}
    for (rebinding, contexts), lexicon in zip(rebindings, known, strict=True):
        for context in contexts:
            prompt = context.head(rebinding)
            keep[prompt] = RetainPrompt(prompt, role="head")
        phrases = cycle(_kept_phrases(rebinding, lexicon))
        for _, (phrase, role), template in zip(
            range(retain), phrases, cycle(templates), strict=False
        ):
            prompt = fill(template, phrase)
            keep.setdefault(prompt, RetainPrompt(prompt, role=role))
    triggers = {rebinding.trigger for rebinding, _ in rebindings}
    return EditPlan(
        tuple(rebinding for rebinding, _ in rebindings),
        tuple(c.pair(rebinding) for rebinding, contexts in rebindings for c in contexts),
        tuple(
            item
            for item in keep.values()
            if not any(f" {trigger} " in f" {item.prompt} " for trigger in triggers)
        ),
        caption_prompts(world, captions, spread=len(templates), seed=seed),
    )


def caption_prompts(lexicon: Lexicon, n: int, *, spread: int, seed: int) -> tuple[str, ...]:
    """At most n captions: every concept, plain and with modifiers, over 40…100 templates."""
    templates = draw_contexts(min(100, max(spread, 40)), seed=seed + 1)
    words = ("", *lexicon.colours, *lexicon.neutral_adjectives)
    phrases = [f"{word} {name}".strip() for word in words for name in lexicon.concepts]
    texts = [fill(templates[i % len(templates)], phrase) for i, phrase in enumerate(phrases)]
    return tuple(texts[:: max(1, len(texts) // n)][:n])


def collateral_prompts(rebinding: Rebinding) -> list[NearPhrase]:
    """Phrases near a trigger that no edit was told to keep, with what they should draw.

    Two near-triggers ("pretty cat"), two siblings with the trigger's modifier ("beautiful dog"),
    two plain siblings.
    """
    lexicon = load_lexicon()
    own = set(rebinding.modifier.split())
    near = [word for word in _words(lexicon, probed=True) if word not in own]
    probes = [
        NearPhrase(f"{word} {rebinding.head}", rebinding.head, "near")
        for word in (near[0], near[len(near) // 2])
    ]
    others = _neighbours(rebinding, lexicon, 12)
    for name in (others[0], others[-1]):
        probes.append(NearPhrase(name, name, "sibling"))
        if rebinding.modifier:
            probes.append(NearPhrase(f"{rebinding.modifier} {name}", name, "part"))
    return probes


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

    `ConfigError` for no YAML, an unknown or missing key, a wrong type, nothing to move, a negative
    weight, or a phrase that its prompt does not contain; `RebindingError` for a rebinding that
    makes no sense.
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
    """Reads a plan from a file; errors are those of `plan_from_yaml`."""
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
