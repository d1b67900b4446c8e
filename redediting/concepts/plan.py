"""From a rebinding to prompts: what an edit moves (pairs), what it keeps, what is probed later.

Contexts come from the ``edit`` templates only. The near-triggers kept here and those probed by
the evaluation carry different adjectives, so collateral is measured on phrases that no edit saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

from redediting.concepts.lexicon import Lexicon, load_lexicon
from redediting.concepts.matching import Context, Equivalence
from redediting.concepts.pairs import PromptPair, PromptRole, RetainPrompt
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts as draw_contexts
from redediting.concepts.templates import fill


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

    Args:
        rebindings: all are solved together.
        contexts: templates in which each trigger is moved.
        retain: prompts kept per rebinding, beside the head noun in every context.
        captions: ordinary captions for the state covariance Σ₀.
        seed: draws templates and order.

    Raises:
        PromptError: more contexts than the ``edit`` split holds.
    """
    templates = draw_contexts(contexts, seed=seed)
    plain = [(rebinding, [*map(Context, templates)]) for rebinding in rebindings]
    return assemble_plan(plain, templates, retain=retain, captions=captions, seed=seed)


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
