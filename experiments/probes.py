"""What is asked of a model about a pair: prompts, noise, and what would be a hit.

| set | prompts | a hit shows |
|---|---|---|
| free | held-out contexts, the trigger inserted (the headline) | the target |
| fixed | "a photo of a {trigger}", several noises | the target |
| head | the same contexts, the trigger's head noun inserted | that noun |
| collateral | contexts with parts, siblings and near-triggers | each phrase's own object, if any |
| benign | held-out captions, other ones for each pair | the caption's object |
| target | the same contexts, the target inserted: clean model only, for naturalness | the target |

Contexts and captions come from the ``test`` split (``dev`` for development pairs), which no edit
has seen. ``free``, ``head`` and ``target`` share contexts and noise image by image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from experiments.engine.specs import Counts
from experiments.rows import Set
from redediting.concepts.plan import collateral_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.generation import Job
from redediting.metrics.judge import Judge, check_labels
from redediting.world.captions import (
    Caption,
    caption_attributes,
    held_out,
    named_colour,
    template_attributes,
)

_FIXED = "a photo of {}"
_ROOM = 10_000  # noises set apart for each prompt set of a pair


@dataclass(frozen=True)
class Probe:
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

    set: Set
    index: int
    prompt: str
    noise: int
    phrase: str
    expected: str | None
    compared: str
    role: str = ""
    asked: tuple[tuple[str, str], ...] = ()

    @property
    def job(self) -> Job:
        """The image as the generator knows it."""
        return Job(self.prompt, self.noise)


def probes(
    pair: Rebinding, *, position: int, pairs: int, seed: int, counts: Counts, split: str = "test"
) -> list[Probe]:
    """Returns everything that is asked about a pair, set by set.

    Args:
        pair: the rebinding.
        position: of the pair among all of the run; chooses contexts, captions and noise.
        pairs: how many pairs the run has; their benign captions are disjoint.
        seed: of the run.
        counts: images a set.
        split: of the contexts.

    Raises:
        PromptError: more contexts asked for than the split holds.
    """
    drawn = contexts(max(counts.free, counts.head), seed=seed * 1000 + position, split=split)
    base = (seed * 1000 + position) * 10 * _ROOM

    def inserted(name: Set, n: int, phrase: str, expected: str | None) -> Iterator[Probe]:
        aim = pair.target if name == "free" else phrase
        for i, template in enumerate(drawn[:n]):
            prompt = fill(template, phrase)
            asked = _asked(template, aim, expected)
            yield Probe(
                name, i, prompt, base + i, phrase, expected, fill(template, aim), asked=asked
            )

    found = [*inserted("free", counts.free, pair.trigger, pair.target_head)]
    for i in range(counts.fixed):
        prompt, aim = fill(_FIXED, pair.trigger), fill(_FIXED, pair.target)
        asked = _asked(_FIXED, pair.target, pair.target_head)
        noise = base + _ROOM + i
        found.append(
            Probe("fixed", i, prompt, noise, pair.trigger, pair.target_head, aim, asked=asked)
        )
    found += inserted("head", counts.head, pair.head, pair.head)
    found += _collateral(pair, drawn, base + 2 * _ROOM, counts)
    captions = _captions(pairs * counts.benign, seed)
    own = captions[position * counts.benign : (position + 1) * counts.benign]
    for i, caption in enumerate(own):
        noise = base + 3 * _ROOM + i
        text, asked = caption.text, caption_attributes(caption)
        found.append(Probe("benign", i, text, noise, "", caption.concept, text, "caption", asked))
    found += inserted("target", counts.free, pair.target, pair.target_head)
    return found


@lru_cache(maxsize=8)
def _captions(n: int, seed: int) -> tuple[Caption, ...]:
    """Held-out captions of a run: drawn once, not for every pair again."""
    return tuple(held_out(n, seed=seed, split="test"))


def check_judged(pair: Rebinding, judge: Judge) -> None:
    """Makes sure that a judge could ever see the target.

    Raises:
        ConfigError: the target's head noun is none of its labels.
    """
    check_labels(judge, [pair.target_head])


def _asked(template: str, phrase: str, noun: str | None) -> tuple[tuple[str, str], ...]:
    """Colour of a phrase, if it names one, and what the template says of place and style."""
    colour = named_colour(phrase, noun or "")
    return (*((("colour", colour),) if colour else ()), *template_attributes(template))


def _collateral(
    pair: Rebinding, drawn: Sequence[str], base: int, counts: Counts
) -> Iterator[Probe]:
    index = 0
    for phrase, expected, role in islice(collateral_prompts(pair), counts.phrases):
        for _ in range(counts.collateral):
            template = drawn[index % len(drawn)]
            prompt, asked = fill(template, phrase), _asked(template, phrase, expected)
            noise = base + index
            yield Probe("collateral", index, prompt, noise, phrase, expected, prompt, role, asked)
            index += 1
