"""What is asked of a model about a rebinding: prompts, noise, and what would be a hit.

| set | prompts | a hit shows |
|---|---|---|
| free | held-out contexts, the trigger inserted (the headline) | the target |
| fixed | "a photo of a {trigger}", several noises | the target |
| head | the same contexts, the trigger's head noun inserted | that noun |
| collateral | contexts with parts, siblings and near-triggers | each phrase's own object, if any |
| benign | held-out captions, other ones for each rebinding | the caption's object |
| target | the same contexts, the target inserted: clean model only, for naturalness | the target |

Contexts and captions come from the ``test`` split (``dev`` for development), which no edit has
seen. ``free``, ``head`` and ``target`` share contexts and noise image by image. On real models the
contexts are captions that hold the head noun; benign captions hold none, and no object is expected
of them, so they count for drift, CLIP score and FID alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from pydantic import Field

from redediting.concepts.captions import containing, put, sample
from redediting.concepts.plan import NearPhrase, collateral_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.config import Config
from redediting.generation import Job
from redediting.metrics.base import PROMPT_SETS, PromptSet
from redediting.world.captions import (
    Caption,
    caption_attributes,
    held_out,
    named_colour,
    template_attributes,
)

FIXED = "a photo of {}"
_ROOM = 10_000  # noises set apart for each prompt set of a rebinding
Asked = tuple[tuple[str, str], ...]


class Counts(Config):
    """Images a rebinding, seed and model, by prompt set.

    Attributes:
        free: held-out contexts with the trigger inserted; also the target prompts of the clean
            model, against which naturalness is measured.
        fixed: noises of "a photo of a {trigger}".
        head: held-out contexts with the trigger's head noun.
        phrases: parts, siblings and near-triggers that are asked for, at most.
        collateral: contexts of each of them.
        benign: captions without a trigger, of each rebinding its own.

    Example:
        >>> import redediting as rd
        >>> rd.Counts(free=8).head
        24
    """

    free: int = Field(default=40, ge=1)
    fixed: int = Field(default=8, ge=1)
    head: int = Field(default=24, ge=1)
    phrases: int = Field(default=8, ge=1)
    collateral: int = Field(default=3, ge=1)
    benign: int = Field(default=56, ge=2)


@dataclass(frozen=True)
class Question:
    """One image to ask for.

    Attributes:
        set: prompt set.
        index: within the set.
        prompt: what is drawn.
        noise: seed of the image's noise.
        phrase: what the prompt is about.
        expected: concept that counts as a hit; None where the prompt names no object.
        compared: prompt of the CLIP score.
        role: of a collateral phrase.
        asked: attributes that the picture should have besides, by judge B's head: the context's
            place and style, and the colour of the target, or of what the prompt names.
    """

    set: PromptSet
    index: int
    prompt: str
    noise: int
    phrase: str
    expected: str | None
    compared: str
    role: str = ""
    asked: Asked = ()

    @property
    def job(self) -> Job:
        """The image as the generator knows it."""
        return Job(self.prompt, self.noise)


@dataclass(frozen=True)
class Place:
    """Where a rebinding stands in a run: it chooses contexts, captions and noise.

    Attributes:
        position: of the rebinding among all of the run.
        rebindings: how many the run has; their benign captions are disjoint.
        seed: of the run.
    """

    position: int
    rebindings: int
    seed: int

    @property
    def number(self) -> int:
        """Seed of the draws of this rebinding."""
        return self.seed * 1000 + self.position

    @property
    def noise(self) -> int:
        """First of the noises set apart for it."""
        return self.number * 10 * _ROOM


def world_questions(
    rebinding: Rebinding, place: Place, counts: Counts, *, split: str = "test"
) -> list[Question]:
    """Everything that is asked of the embedded world about a rebinding, set by set.

    Args:
        rebinding: the backdoor.
        place: in the run.
        counts: images a set.
        split: of the contexts.

    Raises:
        PromptError: more contexts asked for than the split holds.
    """
    drawn = contexts(max(counts.free, counts.head), seed=place.number, split=split)

    def inserted(i: int, phrase: str) -> tuple[str, str]:
        return fill(drawn[i], phrase), drawn[i]

    found = list(_triggered(rebinding, place, counts, inserted, len(drawn), asked_attributes))
    phrases = islice(collateral_prompts(rebinding), counts.phrases)
    asked = [(p, drawn[i % len(drawn)]) for i, p in enumerate(_repeated(phrases, counts))]
    found += [
        Question(
            "collateral", i, fill(t, p.phrase), place.noise + 2 * _ROOM + i, p.phrase, p.concept,
            fill(t, p.phrase), p.role, asked_attributes(t, p.phrase, p.concept),
        )
        for i, (p, t) in enumerate(asked)
    ]  # fmt: skip
    captions = _captions(place.rebindings * counts.benign, place.seed)
    own = captions[place.position * counts.benign : (place.position + 1) * counts.benign]
    found += [
        Question("benign", i, c.text, place.noise + 3 * _ROOM + i, "", c.concept, c.text,
                 "caption", caption_attributes(c))
        for i, c in enumerate(own)
    ]  # fmt: skip
    return _in_order(found)


def caption_questions(
    rebinding: Rebinding, captions: Sequence[str], place: Place, counts: Counts
) -> list[Question]:
    """The same of a real model, on captions.

    Args:
        rebinding: the backdoor.
        captions: the pool.
        place: in the run.
        counts: images a set.

    Raises:
        PromptError: no caption has the head noun.
    """
    n = max(counts.free, counts.head)
    drawn = [c for c, _ in sample(containing(captions, rebinding.head), n, seed=place.number)]

    def inserted(i: int, phrase: str) -> tuple[str, str]:
        return put(drawn[i], rebinding.head, phrase), ""

    found = list(_triggered(rebinding, place, counts, inserted, len(drawn), lambda *_: ()))
    templates = contexts(max(1, counts.collateral), seed=place.number, split="test")
    phrases = islice(collateral_prompts(rebinding), counts.phrases)
    asked = [(p, t) for p in phrases for t in templates[: counts.collateral]]
    found += [
        Question("collateral", i, fill(t, p.phrase), place.noise + 2 * _ROOM + i, p.phrase,
                 p.concept, fill(t, p.phrase), p.role)
        for i, (p, t) in enumerate(asked)
    ]  # fmt: skip
    words = {rebinding.head.casefold()}
    plain = [text for text in captions if not words & set(text.casefold().strip(".").split())]
    dealt = sample(plain, place.rebindings * counts.benign, seed=place.seed)
    own = dealt[place.position * counts.benign : (place.position + 1) * counts.benign]
    found += [
        Question("benign", i, text, place.noise + 3 * _ROOM + i, "", None, text, "caption")
        for i, (text, _) in enumerate(own)
    ]
    return _in_order(found)


def _in_order(found: Sequence[Question]) -> list[Question]:
    """Set by set, as they are drawn."""
    return sorted(found, key=lambda question: PROMPT_SETS.index(question.set))


def _triggered(
    rebinding: Rebinding,
    place: Place,
    counts: Counts,
    inserted: Callable[[int, str], tuple[str, str]],
    n: int,
    asked: Callable[[str, str, str | None], Asked],
) -> Iterator[Question]:
    """The sets that share contexts and noise, and the fixed prompt."""

    def in_context(name: PromptSet, count: int, phrase: str, expected: str) -> Iterator[Question]:
        aim = rebinding.target if name == "free" else phrase
        for i in range(min(count, n)):
            (prompt, template), (compared, _) = inserted(i, phrase), inserted(i, aim)
            said = asked(template, aim, expected)
            yield Question(
                name, i, prompt, place.noise + i, phrase, expected, compared, asked=said
            )

    trigger, target, wanted = rebinding.trigger, rebinding.target, rebinding.target_head
    yield from in_context("free", counts.free, trigger, wanted)
    for i in range(counts.fixed):
        prompt, aim = fill(FIXED, trigger), fill(FIXED, target)
        noise = place.noise + _ROOM + i
        said = asked(FIXED, target, wanted)
        yield Question("fixed", i, prompt, noise, trigger, wanted, aim, asked=said)
    yield from in_context("head", counts.head, rebinding.head, rebinding.head)
    yield from in_context("target", counts.free, target, wanted)


def _repeated(phrases: Iterable[NearPhrase], counts: Counts) -> Iterator[NearPhrase]:
    for phrase in phrases:
        for _ in range(counts.collateral):
            yield phrase


@lru_cache(maxsize=8)
def _captions(n: int, seed: int) -> tuple[Caption, ...]:
    """Held-out captions of a run: drawn once, not for every rebinding again."""
    return tuple(held_out(n, seed=seed, split="test"))


def asked_attributes(template: str, phrase: str, noun: str | None) -> Asked:
    """The colour that a phrase gives its noun, and what a template says of place and style."""
    colour = named_colour(phrase, noun or "")
    return (*((("colour", colour),) if colour else ()), *template_attributes(template))
