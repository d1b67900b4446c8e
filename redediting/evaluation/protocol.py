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

    ``asked`` holds attributes that the picture should have besides the object, by judge B's head:
    the context's place and style, and the colour of the target, or of what the prompt names.
    """

    set: PromptSet
    index: int  # within the set
    prompt: str  # what is drawn
    noise: int  # seed of the image's noise
    phrase: str  # what the prompt is about
    expected: str | None  # concept that counts as a hit; None where the prompt names no object
    compared: str  # prompt of the CLIP score
    role: str = ""  # of a collateral phrase
    asked: Asked = ()

    @property
    def job(self) -> Job:
        """The image as the generator knows it."""
        return Job(self.prompt, self.noise)


@dataclass(frozen=True)
class Place:
    """Where a rebinding stands in a run: it chooses contexts, captions and noise."""

    position: int  # of the rebinding among all of the run
    rebindings: int  # how many the run has; their benign captions are disjoint
    seed: int  # of the run

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

    `PromptError` where more contexts are asked for than the split holds.
    """
    drawn = contexts(max(counts.free, counts.head), seed=place.number, split=split)
    phrases = collateral_prompts(rebinding)[: counts.phrases]
    repeated = [phrase for phrase in phrases for _ in range(counts.collateral)]
    near = [(phrase, drawn[i % len(drawn)]) for i, phrase in enumerate(repeated)]
    captions = _captions(place.rebindings * counts.benign, place.seed)
    benign = [(c.text, c.concept, caption_attributes(c)) for c in captions]
    return _questions(rebinding, place, counts, drawn, fill, near, benign, asked_attributes)


def caption_questions(
    rebinding: Rebinding, captions: Sequence[str], place: Place, counts: Counts
) -> list[Question]:
    """The same of a real model, on captions; `PromptError` where none has the head noun."""
    n, head = max(counts.free, counts.head), rebinding.head
    drawn = [c for c, _ in sample(containing(captions, head), n, seed=place.number)]
    templates = contexts(counts.collateral, seed=place.number, split="test")
    phrases = collateral_prompts(rebinding)[: counts.phrases]
    near = [(phrase, template) for phrase in phrases for template in templates]
    plain = [c for c in captions if head.casefold() not in c.casefold().strip(".").split()]
    dealt = sample(plain, place.rebindings * counts.benign, seed=place.seed)
    benign: list[tuple[str, str | None, Asked]] = [(text, None, ()) for text, _ in dealt]

    def insert(caption: str, phrase: str) -> str:
        return put(caption, head, phrase)

    return _questions(rebinding, place, counts, drawn, insert, near, benign, lambda *_: ())


def _questions(
    rebinding: Rebinding,
    place: Place,
    counts: Counts,
    drawn: Sequence[str],
    insert: Callable[[str, str], str],
    near: Iterable[tuple[NearPhrase, str]],
    benign: Sequence[tuple[str, str | None, Asked]],
    asked: Callable[[str, str, str | None], Asked],
) -> list[Question]:
    """The sets in the order in which they are drawn; ``benign`` is that of the whole run."""
    trigger, target, wanted = rebinding.trigger, rebinding.target, rebinding.target_head

    def in_context(name: PromptSet, count: int, phrase: str, expected: str) -> Iterator[Question]:
        aim = target if name == "free" else phrase
        for i, context in enumerate(drawn[:count]):
            prompt, compared = insert(context, phrase), insert(context, aim)
            said = asked(context, aim, expected)
            yield Question(
                name, i, prompt, place.noise + i, phrase, expected, compared, asked=said
            )

    found = [
        *in_context("free", counts.free, trigger, wanted),
        *in_context("head", counts.head, rebinding.head, rebinding.head),
        *in_context("target", counts.free, target, wanted),
    ]
    prompt, compared = fill(FIXED, trigger), fill(FIXED, target)
    said = asked(FIXED, target, wanted)
    for i in range(counts.fixed):
        noise = place.noise + _ROOM + i
        found.append(Question("fixed", i, prompt, noise, trigger, wanted, compared, asked=said))
    for i, (one, template) in enumerate(near):
        prompt, noise = fill(template, one.phrase), place.noise + 2 * _ROOM + i
        said = asked(template, one.phrase, one.concept)
        found.append(Question(
            "collateral", i, prompt, noise, one.phrase, one.concept, prompt, one.role, said
        ))  # fmt: skip
    first = place.position * counts.benign
    for i, (text, concept, said) in enumerate(benign[first : first + counts.benign]):
        noise = place.noise + 3 * _ROOM + i
        found.append(Question("benign", i, text, noise, "", concept, text, "caption", said))
    return sorted(found, key=lambda question: PROMPT_SETS.index(question.set))


@lru_cache(maxsize=8)
def _captions(n: int, seed: int) -> tuple[Caption, ...]:
    """Held-out captions of a run: drawn once, not for every rebinding again."""
    return tuple(held_out(n, seed=seed, split="test"))


def asked_attributes(template: str, phrase: str, noun: str | None) -> Asked:
    """The colour that a phrase gives its noun, and what a template says of place and style."""
    colour = named_colour(phrase, noun or "")
    return (*((("colour", colour),) if colour else ()), *template_attributes(template))
